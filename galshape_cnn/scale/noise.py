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
    from galshape_cnn.observe.noise.model import NoiseModel
    from galshape_cnn.observe.observation import prepare

    noise = NoiseModel.from_keywords(how)
    if not noise.is_estimated:
        return how
    data, keywords = source.read(0, min(len(source), _ROWS))
    settled = noise.settled(prepare(data, **keywords)).keywords()
    return how | {name: value for name, value in settled.items() if name in how}
