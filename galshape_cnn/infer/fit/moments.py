# Licensed under a 3-clause BSD style license - see LICENSE.rst
r"""Starting values without a network: moments, then the best of six models.

Adaptive moments (Bernstein & Jarvis 2002, AJ 123, 583, Section 3) find the
Gaussian that fits the stamp best; the same of the PSF is subtracted, as if both
were Gaussians.  Which of six models of that shape fits best, flux and sky being
solved for, then gives n and hlr.
"""

from itertools import product

import jax
import jax.numpy as jnp
import numpy as np

from galshape_cnn.forward.coordinates import HLR_MIN
from galshape_cnn.forward.galaxy_model import SINGLE
from galshape_cnn.infer.likelihood.gaussian import StampLikelihood, in_batches

__all__ = ["moment_start"]

_ITERATIONS = 8
_TEMPLATES = tuple(product((1.0, 3.5), (0.5, 1.0, 2.0)))  # n, factor on hlr
_HLR_OVER_SIGMA = 1.177  # of a Gaussian
_LARGEST_SHEAR = 0.6


def _measured(weight, x, y):
    """Centroid and second moments under a weight image."""
    # without light under the weight, whatever comes out is not used
    total = jnp.where(weight.sum() > 0, weight.sum(), 1.0)
    mx, my = (weight * x).sum() / total, (weight * y).sum() / total
    dx, dy = x - mx, y - my
    moments = jnp.stack([(weight * a).sum() / total for a in (dx * dx, dx * dy, dy * dy)])
    return mx, my, moments, weight.sum() > 0


def _adaptive(start, data, ivar):
    """Centroid and covariance of the Gaussian that matches one stamp."""
    size = data.shape[-1]
    y, x = jnp.mgrid[:size, :size].astype(data.dtype)
    light = jnp.where(ivar > 0, data - start[3], 0)
    lowest, highest = 0.5, (size / 5) ** 2

    def iterate(_, state):
        cx, cy, (xx, xy, yy) = state
        det = xx * yy - xy**2
        dx, dy = x - cx, y - cy
        radius = (yy * dx**2 - 2 * xy * dx * dy + xx * dy**2) / det
        mx, my, moments, lit = _measured(light * jnp.exp(-0.5 * radius), x, y)
        near = lit & ((mx - start[0]) ** 2 + (my - start[1]) ** 2 < start[2] ** 2)
        # at the solution the weighted moments are half the weight's own
        half = 0.5 * (moments[0] + moments[2])
        half = jnp.clip(half, lowest / 2, highest / 2)
        e1, e2 = (moments[0] - moments[2]) / (2 * half), moments[1] / half
        shrink = jnp.minimum(1, 0.9 / jnp.maximum(jnp.hypot(e1, e2), 1e-6))
        new = 2 * half * jnp.stack([1 + e1 * shrink, e2 * shrink, 1 - e1 * shrink])
        state = jnp.where(near, mx, cx), jnp.where(near, my, cy)
        return *state, jnp.where(lit, new, jnp.stack([xx, xy, yy]))

    first = (start[0], start[1], start[4] * jnp.array([1.0, 0.0, 1.0]))
    cx, cy, moments = jax.lax.fori_loop(0, _ITERATIONS, iterate, first)
    return jnp.concatenate([jnp.stack([cx, cy]), moments])


def _adaptive_block(start, data, ivar, transfer, grid):
    return jax.vmap(_adaptive)(start, data, ivar)


def _border_level(data, ivar):
    """Median of the outer pixels of each stamp."""
    edge = np.ones(data.shape[1:], bool)
    width = max(1, data.shape[-1] // 16)
    edge[width:-width, width:-width] = False
    values = np.where(ivar[:, edge] > 0, data[:, edge], np.nan)
    values[np.isnan(values).all(1)] = 0
    return np.nanmedian(values, axis=1)


def _shape(galaxy, psf):
    """hlr, g1, g2 of the difference of two covariances (xx, xy, yy)."""
    xx, xy, yy = (galaxy - psf).T
    size = np.maximum(0.5 * (xx + yy), 0.05 * 0.5 * (psf[:, 0] + psf[:, 2]))
    e1, e2 = 0.5 * (xx - yy) / size, xy / size
    e = np.hypot(e1, e2)
    bounded = np.clip(e, 1e-9, 2 * _LARGEST_SHEAR / (1 + _LARGEST_SHEAR**2))
    g = bounded / (1 + np.sqrt(1 - bounded**2))
    sigma = np.sqrt(size * np.sqrt(1 - bounded**2))
    return _HLR_OVER_SIGMA * sigma, g * e1 / np.maximum(e, 1e-9), g * e2 / np.maximum(e, 1e-9)


def _moments(likelihood, data, center, level, first):
    """Adaptive centroid and covariance of each stamp, (N, 5)."""
    start = np.column_stack([center, np.full(len(data), 3.0), level, first])
    rows = np.arange(len(data))
    replaced = StampLikelihood(data, likelihood.ivar, likelihood.transfer, likelihood.grid, likelihood.scale)
    return in_batches(_adaptive_block, start, rows, replaced)[0]


def _best_template(likelihood, base):
    """Of six models with the measured shape, the one that fits best; flux and sky solved for."""
    n, count = len(base), len(_TEMPLATES)
    trial = np.repeat(base, count, axis=0)
    trial[:, SINGLE.flux], trial[:, SINGLE.sky] = 1.0, 0.0
    index, factor = (np.tile(column, n) for column in zip(*_TEMPLATES, strict=True))
    trial[:, SINGLE.n] = index
    size = likelihood.grid.size
    trial[:, SINGLE.hlr] = np.clip(trial[:, SINGLE.hlr] * factor, 4 * HLR_MIN, size / 3)
    chi2, gradient, fisher = likelihood.linear_equations(trial, np.repeat(np.arange(n), count))
    ridge = 1e-9 * np.trace(fisher, axis1=1, axis2=2) + 1e-30  # stamps without data too
    fisher = fisher + ridge[:, None, None] * np.eye(2)
    change = np.linalg.solve(fisher, gradient[..., None])[..., 0]
    chi2 = np.where(1 + change[:, 0] > 0, chi2 - (gradient * change).sum(1), np.inf)
    best = np.arange(n) * count + chi2.reshape(n, count).argmin(1)
    trial[:, SINGLE.flux] = np.maximum(1 + change[:, 0], 1.0)
    trial[:, SINGLE.sky] = change[:, 1]
    return trial[best]


def moment_start(data, ivar, transfer, grid, center=None):
    """Parameters to start a search from, by moments.

    Parameters
    ----------
    data, ivar : (N, size, size) array_like
        Pixel values and inverse variances.
    transfer : (N or 1, Ky, Kx) complex array
        PSF transfer functions on ``grid``.
    grid : FourierGrid
        Fourier grid of the stamps' size.
    center : (N, 2) array_like, optional
        x, y where the galaxy is believed to be; the middle of the stamp
        without it.

    Returns
    -------
    start : (N, 8) float64 ndarray
        flux, n (1 or 3.5), hlr, g1, g2, x, y, sky; good to some tens of per cent.
    """
    likelihood = StampLikelihood.from_stamps(data, ivar, transfer, grid)
    n = len(likelihood)
    if center is None:
        center = np.full((n, 2), (grid.size - 1) / 2)
    center = np.asarray(center, float)
    point = np.zeros((n, SINGLE.size))
    point[:, [SINGLE.flux, SINGLE.n, SINGLE.hlr]], point[:, SINGLE.centre] = (1000.0, 0.5, HLR_MIN), center
    psf = _moments(likelihood, likelihood.images(point), center, np.zeros(n), np.full(n, 4.0))[:, 2:]
    first = 1.5 * 0.5 * (psf[:, 0] + psf[:, 2])
    level = _border_level(likelihood.data, likelihood.ivar)
    measured = _moments(likelihood, likelihood.data, center, level, first)
    base = np.zeros((n, SINGLE.size))
    hlr, *shear = _shape(measured[:, 2:], psf)
    base[:, SINGLE.hlr], base[:, SINGLE.shear] = hlr, np.stack(shear, -1)
    base[:, SINGLE.centre] = measured[:, :2]
    start = _best_template(likelihood, base)
    start[:, SINGLE.amplitudes] *= likelihood.scale[:, None]
    return start
