# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""Noise of a run, measured once for all of its parts."""

__all__ = ["settled_noise"]

_ROWS = 256  # at the beginning of the source, from which the noise is estimated


def settled_noise(source, how):
    """A source and options in which scale and autocorrelation of the noise are settled for all parts.

    Parameters
    ----------
    source : Source
        Of the galaxies.
    how : dict
        Options of the measurement.

    Returns
    -------
    source : Source
        The same; of several exposures, of which each has noise of its own, one that knows it.
    how : dict
        With ``noise_scale`` and ``noise_correlation`` as numbers, arrays or None: measured on the image
        where they were ``'auto'`` or missing, on the first 256 rows where they were ``'estimate'``.

    Raises
    ------
    NoiseError
        If there are too few blank pixels for what was to be estimated.
    """
    from galshape_cnn.observe.noise.model import NoiseModel
    from galshape_cnn.observe.observation import prepare

    noise, names = NoiseModel.from_keywords(how), ("noise_scale", "noise_correlation")
    if hasattr(source, "settled"):
        return source.settled(**{name: getattr(noise, name) for name in names}), how | dict.fromkeys(names)
    if noise.is_automatic and not source.is_image:
        kept = {name: getattr(noise, name) for name in names}
        return source, how | {name: None if isinstance(value, str) else value for name, value in kept.items()}
    if noise.is_estimated:
        data, keywords = source.read(0, min(len(source), 1 if noise.is_automatic else _ROWS))
        noise = noise.settled(prepare(data, **keywords | {"strict": not noise.is_automatic}))
    return source, how | {name: getattr(noise, name) for name in names}
