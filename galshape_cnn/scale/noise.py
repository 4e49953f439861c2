# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""The noise of a run, settled once for all of its parts."""

__all__ = ["settled_correlation"]

_ROWS = 256  # at the beginning of the source, from which the noise is estimated


def settled_correlation(source, how):
    """Options in which the autocorrelation of the noise is settled, not to be estimated by each part.

    Parameters
    ----------
    source : Source
        Of the galaxies.
    how : dict
        Options of the measurement.

    Returns
    -------
    how : dict
        Changed only if its ``noise_correlation`` was ``'estimate'``: the first 256 rows decide.

    Raises
    ------
    NoiseError
        If they have too few blank pixels.
    """
    if not isinstance(how.get("noise_correlation"), str):
        return how
    from galshape_cnn.observe.correlation import EstimatedCorrelation, noise_correlation
    from galshape_cnn.observe.cutout import prepare

    data, keywords = source.read(0, min(len(source), _ROWS))
    correlation, record = noise_correlation(how["noise_correlation"], prepare(data, **keywords))
    return how | {"noise_correlation": EstimatedCorrelation(correlation, record["excess"])}
