# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""Posterior means as differentiable functions of network outputs.

`galshape_cnn.infer.network.amortized.posterior_moments` averages fixed draws, of which a draw may change
its component of the mixture with the pixels: no function to differentiate.  Here each component is
integrated on its own, in closed form or by Gauss-Hermite quadrature.
"""

import jax
import jax.numpy as jnp
import numpy as np

from galshape_cnn.forward.coordinates import POSTERIOR
from galshape_cnn.forward.sersic import N_RANGE
from galshape_cnn.infer.network.architecture import TARGET_CENTER, TARGET_SCALE, split_outputs

__all__ = ["mean_parameters"]

_DIM = len(TARGET_CENTER)
_MODEL = POSTERIOR.model  # indices of the coordinates are those of the parameters
_LOWER = np.tril_indices(_DIM)
_NODES, _WEIGHTS = np.polynomial.hermite_e.hermegauss(4)
_WEIGHTS = _WEIGHTS / _WEIGHTS.sum()
_TINY = 1e-12


def mean_parameters(raw, amplitude, components):
    """Posterior means of the parameters, in JAX.

    Parameters
    ----------
    raw : (N, components * 36) array
        Outputs of the first network.
    amplitude : (N,) array
        Unit of flux.
    components : int
        Number of mixture components.

    Returns
    -------
    means : (N, 7) jax array
        flux, n, hlr, g1, g2, and x, y from the stamp's centre.
    """
    logits, means, factors = split_outputs(raw, components, jnp.reshape)
    scale = TARGET_SCALE.astype(np.float32)
    means = TARGET_CENTER.astype(np.float32) + scale * means
    covariance = _covariances(factors) * (scale[:, None] * scale)
    flux, hlr = (jnp.exp(means[..., k] + covariance[..., k, k] / 2) for k in (_MODEL.flux, _MODEL.hlr))
    shear = _mean_shear(means, covariance)
    centre = jnp.moveaxis(means[..., _MODEL.centre], -1, 0)
    parts = [amplitude[:, None] * flux, _mean_index(means, covariance), hlr, *shear, *centre]
    weights = jax.nn.softmax(logits)
    return (weights[..., None] * jnp.stack(parts, -1)).sum(1)


def _covariances(factors):
    """Covariances of components whose whitening matrices have these entries.

    Substitution by hand: LAPACK's for many small matrices waits for threads of XLA's pool while it holds one,
    and where as many programs run at once as the pool has threads, all wait for ever.
    """
    lower = dict(zip(zip(*_LOWER, strict=True), jnp.moveaxis(factors, -1, 0), strict=True))
    rows = []  # of the inverse of the unit triangle
    for i in range(_DIM):
        row = jnp.broadcast_to(jnp.eye(_DIM, dtype=factors.dtype)[i], factors.shape[:2] + (_DIM,))
        for j in range(i):
            row = row - lower[i, j][..., None] * rows[j]
        rows.append(row)
    scale = jnp.stack([jnp.exp(jnp.clip(lower[i, i], -6, 9)) for i in range(_DIM)], -1)
    chol = jnp.stack(rows, -2) / scale[..., None, :]
    return chol @ jnp.swapaxes(chol, -1, -2)


def _mean_index(means, covariance):
    width = jnp.sqrt(covariance[..., _MODEL.n, _MODEL.n])
    logits = zip(_NODES, _WEIGHTS, strict=True)
    mean = sum(w * jax.nn.sigmoid(means[..., _MODEL.n] + z * width) for z, w in logits)
    return N_RANGE[0] + (N_RANGE[1] - N_RANGE[0]) * mean


def _mean_shear(means, covariance):
    """Means of g = eta tanh(|eta|) / |eta|."""
    mean, covariance = means[..., _MODEL.shear], covariance[..., _MODEL.shear, _MODEL.shear]
    along = jnp.sqrt(covariance[..., 0, 0])
    across = covariance[..., 0, 1] / along
    rest = jnp.sqrt(jnp.maximum(covariance[..., 1, 1] - across**2, _TINY))
    g1, g2 = 0.0, 0.0
    for z, w in zip(_NODES, _WEIGHTS, strict=True):
        eta1 = mean[..., 0] + z * along
        for other, v in zip(_NODES, _WEIGHTS, strict=True):
            eta2 = mean[..., 1] + z * across + other * rest
            eta = jnp.sqrt(eta1**2 + eta2**2 + _TINY)
            ratio = w * v * jnp.tanh(eta) / eta
            g1, g2 = g1 + ratio * eta1, g2 + ratio * eta2
    return g1, g2
