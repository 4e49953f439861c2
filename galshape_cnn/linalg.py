# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""Factors and inverses of many matrices, of which some may be impossible."""

import numpy as np

__all__ = ["cholesky_or", "cholesky_or_nan", "inverse_or_nan", "quadratic_form", "scaled_inverse"]


def quadratic_form(matrices, vectors):
    """v^T M v of each matrix and vector, to the last bit whatever others there are.

    `numpy.einsum` of three operands adds up in an order that depends on how many there are.

    Parameters
    ----------
    matrices : (N, D, D) ndarray
    vectors : (N, D) ndarray

    Returns
    -------
    forms : (N,) ndarray
    """
    return ((matrices @ vectors[..., None])[..., 0] * vectors).sum(-1)


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


def scaled_inverse(matrices, least=1e-7):
    """Pseudo-inverses of Fisher matrices after scaling to unit diagonal, and the scales.

    Parameters
    ----------
    matrices : (N, D, D) ndarray
        Symmetric and finite.
    least : float, optional
        Eigenvalues of the scaled matrix below this share of the largest count as zero.

    Returns
    -------
    inverses : (N, D, D) ndarray
        Of the scaled matrices; divided by ``scales`` those of the matrices.
    scales : (N, D, D) ndarray
        By which the matrices were divided.
    """
    scale = np.sqrt(np.maximum(np.diagonal(matrices, axis1=1, axis2=2), 1e-30))
    scales = scale[:, :, None] * scale[:, None, :]
    return np.linalg.pinv(matrices / scales, rcond=least, hermitian=True), scales


def _one_by_one(function, matrices):
    """NumPy's function, which fails for all where it fails for one; the numbers are the same."""
    try:
        return function(matrices)
    except np.linalg.LinAlgError:
        if matrices.ndim == 2:
            return np.full_like(matrices, np.nan)
        return np.stack([_one_by_one(function, matrix) for matrix in matrices])
