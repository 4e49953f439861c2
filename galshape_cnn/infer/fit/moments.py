# Licensed under a 3-clause BSD style license - see LICENSE.rst
r"""Starting values without a network: moments, then the best of six models.

Adaptive moments (Bernstein & Jarvis 2002, AJ 123, 583, Section 3) find the
Gaussian that fits the stamp best; the same of the PSF is subtracted, as if both
were Gaussians.  Which of six models of that shape fits best, flux and sky being
solved for, then gives n and hlr.
"""

from itertools import product, repeat

import numpy as np

from galshape_cnn.forward.coordinates import HLR_MIN
from galshape_cnn.forward.galaxy_model import SINGLE
from galshape_cnn.infer.likelihood.gaussian import StampLikelihood

__all__ = ["moment_start"]

_ITERATIONS = 8
_NEAR = 3.0  # pixels that the centroid may move
_TEMPLATES = tuple(product((1.0, 3.5), (0.5, 1.0, 2.0)))  # n, factor on hlr
_HLR_OVER_SIGMA = 1.177  # of a Gaussian
_LARGEST_SHEAR = 0.6


def _adaptive(light, center, radius, variance):
    """Centroid and covariance (xx, xy, yy) of the Gaussian that matches one image of light, five numbers.

    The search begins at a round Gaussian of a ``variance`` about a ``center``, and moves within a ``radius``.
    """
    size = len(light)
    at = np.arange(size, dtype=float)
    lowest, highest = 0.5, (size / 5) ** 2
    (cx, cy), xx, xy, yy = center, variance, 0.0, variance
    for _ in range(_ITERATIONS):
        dx, dy = at - cx, (at - cy)[:, None]
        weight = light * np.exp(-0.5 * (yy * dx**2 - 2 * xy * dx * dy + xx * dy**2) / (xx * yy - xy**2))
        along_x, along_y = weight.sum(0), weight.sum(1)
        total = along_x.sum()
        if not total > 0:  # no light under the weight
            break
        mx, my = along_x @ at / total, along_y @ at / total
        dx, dy = at - mx, at - my
        moments = along_x @ dx**2 / total, dx @ (dy @ weight) / total, along_y @ dy**2 / total
        # at the solution the weighted moments are half the weight's own
        half = np.clip(0.5 * (moments[0] + moments[2]), lowest / 2, highest / 2)
        e1, e2 = (moments[0] - moments[2]) / (2 * half), moments[1] / half
        shrink = min(1, 0.9 / max(np.hypot(e1, e2), 1e-6))
        xx, xy, yy = 2 * half * (1 + e1 * shrink), 2 * half * e2 * shrink, 2 * half * (1 - e1 * shrink)
        if np.hypot(mx - center[0], my - center[1]) < radius:
            cx, cy = mx, my
    return np.array([cx, cy, xx, xy, yy])


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


def _moments(data, ivar, center, level, first):
    """Adaptive centroid and covariance of each stamp, (N, 5)."""
    light = np.where(ivar > 0, data - level[:, None, None], 0).astype(float)
    return np.array([_adaptive(*one) for one in zip(light, center, repeat(_NEAR), first)]).reshape(-1, 5)


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
    psf = _moments(likelihood.images(point), likelihood.ivar, center, np.zeros(n), np.full(n, 4.0))[:, 2:]
    first = 1.5 * 0.5 * (psf[:, 0] + psf[:, 2])
    level = _border_level(likelihood.data, likelihood.ivar)
    measured = _moments(likelihood.data, likelihood.ivar, center, level, first)
    base = np.zeros((n, SINGLE.size))
    hlr, *shear = _shape(measured[:, 2:], psf)
    base[:, SINGLE.hlr], base[:, SINGLE.shear] = hlr, np.stack(shear, -1)
    base[:, SINGLE.centre] = measured[:, :2]
    start = _best_template(likelihood, base)
    start[:, SINGLE.amplitudes] *= likelihood.scale[:, None]
    return start
