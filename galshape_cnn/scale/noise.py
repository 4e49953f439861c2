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
        With ``noise_scale`` and ``noise_correlation`` as numbers, arrays or None: measured on the image
        where they were ``'auto'`` or missing, on the first 256 rows where they were ``'estimate'``.

    Raises
    ------
    NoiseError
        If there are too few blank pixels for what was to be estimated.
    """
    from galshape_cnn.observe.noise.blank_sky import AUTO, settled_noise_model
    from galshape_cnn.observe.noise.correlation import EstimatedCorrelation
    from galshape_cnn.observe.observation import prepare

    asked = {name: how.get(name, AUTO) for name in ("noise_scale", "noise_correlation")}
    words = {value for value in asked.values() if isinstance(value, str)}
    if words == {AUTO} and not source.is_image:
        asked = {name: None if isinstance(value, str) else value for name, value in asked.items()}
        words = set()
    if not words:
        return how | asked
    data, keywords = source.read(0, min(len(source), 1 if words == {AUTO} else _ROWS))
    observation = prepare(data, **keywords | {"strict": False})
    scale, correlation = asked["noise_scale"], asked["noise_correlation"]
    array, record = settled_noise_model(scale, correlation, observation)[1:]
    settled = {"noise_scale": record.get("noise_scale"), "noise_correlation": correlation}
    if isinstance(correlation, str):
        excess = record.get("noise_correlation", {}).get("excess")
        settled["noise_correlation"] = None if array is None else EstimatedCorrelation(array, excess)
    return how | settled
