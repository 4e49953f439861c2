# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""The noise of a run, settled once for all of its parts."""

__all__ = ["settled_noise"]

_ROWS = 256  # at the beginning of the source, from which the noise is estimated


def settled_noise(source, how):
    """Options in which scale and autocorrelation of the noise are settled, not to be estimated by each part.

    Parameters
    ----------
    source : Source
        Of the galaxies.
    how : dict
        Options of the measurement.

    Returns
    -------
    how : dict
        Changed only if ``noise_scale`` or ``noise_correlation`` was ``'estimate'``: the first 256
        rows decide.

    Raises
    ------
    NoiseError
        If they have too few blank pixels.
    """
    scale, correlation = how.get("noise_scale"), how.get("noise_correlation")
    if not isinstance(scale, str) and not isinstance(correlation, str):
        return how
    from galshape_cnn.observe.noise.correlation import EstimatedCorrelation, noise_correlation
    from galshape_cnn.observe.noise.rescale import scaled_noise
    from galshape_cnn.observe.observation import prepare

    data, keywords = source.read(0, min(len(source), _ROWS))
    observation = prepare(data, **keywords)
    if scale is not None:
        observation, factor = scaled_noise(scale, observation)
        how = how | {"noise_scale": factor}
    if isinstance(correlation, str):
        array, record = noise_correlation(correlation, observation)
        how = how | {"noise_correlation": EstimatedCorrelation(array, record["excess"])}
    return how
