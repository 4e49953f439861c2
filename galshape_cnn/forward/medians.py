# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""Medians of the rows of an array, all at once."""

import numpy as np

from galshape_cnn.forward.kernel import detection_calls
from galshape_cnn.forward.kernel.detection_calls import FEWEST
from galshape_cnn.forward.kernel.library import with_kernel

__all__ = ["row_medians"]


@with_kernel(detection_calls.medians, "values", instead_of="numpy")
def row_medians(values, good=None):
    """Median of each row, as `numpy.median` without its search for NaN.

    Parameters
    ----------
    values : (N, M) ndarray
        Numbers.
    good : (N, M) ndarray of bool, optional
        Which of them count, all by default.

    Returns
    -------
    medians : (N,) ndarray
        Of the type of ``values``. Of rows in which not all count the lower of the two in the middle, and NaN
        where fewer than sixteen do.

    Examples
    --------
    >>> import numpy as np
    >>> from galshape_cnn.forward.medians import row_medians
    >>> row_medians(np.array([[4.0, 1.0, 2.0, 9.0]]))
    array([3.])
    """
    complete = np.ones(len(values), bool) if good is None else good.all(axis=1)
    if complete.all():
        return _middle(values)
    out = np.full(len(values), np.nan, values.dtype)
    if complete.any():
        out[complete] = _middle(values[complete])
    rest = np.flatnonzero(~complete)
    ordered = np.sort(np.where(good[rest], values[rest], np.inf), axis=1)
    count = good[rest].sum(axis=1)
    middle = ordered[np.arange(len(rest)), np.maximum(count - 1, 0) // 2]
    out[rest] = np.where(count >= FEWEST, middle, np.nan)
    return out


def _middle(values):
    half = values.shape[1] // 2
    # to ask for both middle values of partition takes twice as long as for one
    parted = np.partition(values, half, axis=1)
    if values.shape[1] % 2:
        return parted[:, half]
    return np.stack([parted[:, :half].max(axis=1), parted[:, half]]).mean(axis=0)
