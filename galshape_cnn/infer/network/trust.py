# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""Trust region of a network: a table of cells for each method.

``galshape validate`` makes it, a bundle keeps it, and rows outside carry a flag.
"""

import numpy as np

from galshape_cnn.errors import InputError

__all__ = ["AXES", "check_region", "is_trusted"]

#: Axes of the cells, all of measured values: S/N, half-light radius over PSF width, Sersic index.
AXES = ("snr", "hlr_over_fwhm", "n")


def check_region(region):
    """Refuse a region that cannot be used, with an ``InputError``.

    For each method it maps each axis of `AXES` to the increasing edges of its cells, and ``trusted`` to
    nested lists of 0 and 1 with one entry for each cell.
    """
    for method, cells in region.items():
        try:
            edges = [np.asarray(cells[axis], float) for axis in AXES]
            trusted = np.asarray(cells["trusted"], float)
        except (KeyError, TypeError, ValueError) as error:
            raise InputError(f"trust region of {method!r} is malformed: {error}") from error
        shape = tuple(len(one) - 1 for one in edges)
        if trusted.shape != shape or any((np.diff(one) <= 0).any() for one in edges):
            raise InputError(f"trust region of {method!r} has {trusted.shape} cells and edges for {shape}")


def is_trusted(region, method, snr, hlr_over_fwhm, n):
    """Which rows lie in trusted cells.

    Parameters
    ----------
    region : mapping
        See `check_region`.
    method : str
        Estimator; one that the region does not know is trusted everywhere.
    snr, hlr_over_fwhm, n : (N,) array_like
        Measured values; those beyond the outermost edges count to the outermost cells, since the
        flags of the ranges of training tell of them.

    Returns
    -------
    trusted : (N,) bool ndarray
        False where a value is NaN.

    Examples
    --------
    >>> from galshape_cnn.infer.network.trust import is_trusted
    >>> cells = {"snr": [5, 20, 1000], "hlr_over_fwhm": [0, 10], "n": [0.3, 6.2], "trusted": [[[0]], [[1]]]}
    >>> is_trusted({"ml": cells}, "ml", [10, 50], [1, 1], [2, 2])
    array([False,  True])
    """
    values = [np.asarray(one, float) for one in (snr, hlr_over_fwhm, n)]
    known = np.isfinite(values).all(0)
    if method not in region:
        return known
    cells = region[method]
    index = []
    for axis, value in zip(AXES, values, strict=True):
        edges = np.asarray(cells[axis], float)
        index.append(np.clip(np.searchsorted(edges, value, side="right") - 1, 0, len(edges) - 2))
    return known & (np.asarray(cells["trusted"])[tuple(index)] > 0)
