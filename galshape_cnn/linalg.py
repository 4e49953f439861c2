# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""Cholesky factors and inverses of batches of matrices, some of them singular."""

import numpy as np

__all__ = [
    "cholesky_or",
    "cholesky_or_nan",
    "inverse_or_nan",
    "quadratic_form",
    "scaled_inverse",
    "symmetric_root",
]


def quadratic_form(matrices, vectors):
    """v^T M v of N matrices and vectors, to the last bit whatever others there are.

    `numpy.einsum` of three operands adds up in an order that depends on how many there are, and a product of
    parts of larger arrays in one that depends on their layout, which a single row may have another of.
    """
    matrices, vectors = np.ascontiguousarray(matrices), np.ascontiguousarray(vectors)
    return ((matrices @ vectors[..., None])[..., 0] * vectors).sum(-1)


def cholesky_or_nan(matrices):
    """Lower Cholesky factors of symmetric matrices (..., D, D); NaN for those that have none."""
    return _one_by_one(np.linalg.cholesky, matrices)


def cholesky_or(matrices, otherwise):
    """Lower Cholesky factors of symmetric matrices (..., D, D); others for those that have none."""
    factors = cholesky_or_nan(matrices)
    return np.where(np.isfinite(factors).all((-1, -2), keepdims=True), factors, otherwise)


def inverse_or_nan(matrices):
    """Inverses of matrices (..., D, D); NaN for those that have none."""
    return _one_by_one(np.linalg.inv, matrices)


def symmetric_root(matrices):
    """Symmetric roots of covariances (..., D, D); what is negative in them counts as zero."""
    values, vectors = np.linalg.eigh(matrices)
    values = np.sqrt(np.maximum(values, 0))[..., None, :]
    return (vectors * values) @ np.swapaxes(vectors, -1, -2)


def scaled_inverse(matrices):
    """Pseudo-inverses of Fisher matrices (N, D, D), finite, after scaling to unit diagonal, and the scales.

    Eigenvalues of a scaled matrix below 1e-7 of the largest count as zero. Divided by the
    scales these are the inverses of the matrices.
    """
    scale = np.sqrt(np.maximum(np.diagonal(matrices, axis1=1, axis2=2), 1e-30))
    scales = scale[:, :, None] * scale[:, None, :]
    return np.linalg.pinv(matrices / scales, rcond=1e-7, hermitian=True), scales


def _one_by_one(function, matrices):
    """NumPy's function, which fails for all where it fails for one; the numbers are the same."""
    try:
        return function(matrices)
    except np.linalg.LinAlgError:
        if matrices.ndim == 2:
            return np.full_like(matrices, np.nan)
        return np.stack([_one_by_one(function, matrix) for matrix in matrices])
