# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""Factors and inverses of many matrices, of which some may be impossible."""

import numpy as np

__all__ = ["cholesky_or", "cholesky_or_nan", "inverse_or_nan"]


def cholesky_or_nan(matrices):
    """Cholesky factors; NaN for matrices that have none.

    Parameters
    ----------
    matrices : (..., D, D) ndarray
        Symmetric; any numbers.

    Returns
    -------
    factors : (..., D, D) ndarray
        Lower triangular.
    """
    return _one_by_one(np.linalg.cholesky, matrices)


def cholesky_or(matrices, otherwise):
    """Cholesky factors; others for matrices that have none.

    Parameters
    ----------
    matrices : (..., D, D) ndarray
        Symmetric; any numbers.
    otherwise : (..., D, D) ndarray
        Lower triangular.

    Returns
    -------
    factors : (..., D, D) ndarray
    """
    factors = cholesky_or_nan(matrices)
    return np.where(np.isfinite(factors).all((-1, -2), keepdims=True), factors, otherwise)


def inverse_or_nan(matrices):
    """Inverses; NaN for matrices that have none.

    Parameters
    ----------
    matrices : (..., D, D) ndarray
        Any numbers.

    Returns
    -------
    inverses : (..., D, D) ndarray
    """
    return _one_by_one(np.linalg.inv, matrices)


def _one_by_one(function, matrices):
    """NumPy's function, which fails for all where it fails for one; the numbers are the same."""
    try:
        return function(matrices)
    except np.linalg.LinAlgError:
        if matrices.ndim == 2:
            return np.full_like(matrices, np.nan)
        return np.stack([_one_by_one(function, matrix) for matrix in matrices])
