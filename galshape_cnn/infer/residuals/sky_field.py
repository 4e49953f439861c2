# Licensed under a 3-clause BSD style license - see LICENSE.rst
r"""The smooth part of the sky's structure, fitted jointly with the galaxy.

Wings of bright sources and sources too faint to be found make the sky under a galaxy differ from the constant
that is fitted.  Where the residuals away from the galaxy show such bumps, they are a Gaussian field of the
variance found there and a correlation of known form, so that its low waves (a cosine series) have
known prior variances, and galaxy and waves are estimated together (generalised least squares; kriging in
geostatistics): with the whitened derivatives of the galaxy D and waves A,

.. math:: \begin{pmatrix} D D^T & D A^T \\ A D^T & A A^T + \Lambda^{-1} \end{pmatrix} .

The estimate scatters less than with a constant sky, and what the waves leave unknown is its error.
"""

from functools import lru_cache

import numpy as np

from galshape_cnn.forward.galaxy_model import SINGLE
from galshape_cnn.forward.kernel.library import batches
from galshape_cnn.forward.render import BLOCK, render_with_derivatives
from galshape_cnn.forward.transfer import of_rows
from galshape_cnn.infer.likelihood.fisher import inverse_gain
from galshape_cnn.infer.residuals.smoothers import SKY_SCALE
from galshape_cnn.infer.residuals.structure import whitened
from galshape_cnn.linalg import cholesky_or_nan, symmetric_root

__all__ = ["fit_sky_field"]

# Widths of bumps, pixels, and their shares of the variance that is found: those that are looked for, and
# smoother ones, for wings have stronger long waves, which bias flux and size most.  Fixed on injections.
_BUMPS = (SKY_SCALE, 1.0), (2 * SKY_SCALE, 0.5)
_SHORTEST = 8  # pixels: half of the shortest wave
_MOST_WAVES = 12  # along a side
_FLOOR = 1e-12  # of a prior variance: no wave
_RIDGE = 1e-9  # of the equilibrated products


def fit_sky_field(params, level, data, ivar, transfer, grid, fit_sky=True, gain=None, nuisance=None):
    """Fit the field to the residuals of galaxies.

    Parameters
    ----------
    params, data, ivar, transfer, grid, fit_sky, gain
        As for `galshape_cnn.infer.residuals.structure.estimate_structure`.
    level : (N,) ndarray
        Variance of the field, as found, in units of the noise's.
    nuisance : (N, m, size, size) array_like, optional
        Images of unknown amplitude.

    Returns
    -------
    light : (N, size, size) ndarray
        The field, in the unit of the data.
    stretch : (N, 5, 5) ndarray
        By what an error of flux, n, hlr, g1 and g2 grows as the field is unknown: M, for the covariance
        M C M^T.
    """
    params, data, ivar = (np.asarray(a, np.float32) for a in (params, data, ivar))
    inverse, light, stretch = inverse_gain(gain, len(data)), np.zeros(data.shape), np.zeros((len(data), 5, 5))
    others = np.zeros((len(data), 0, *data.shape[1:])) if nuisance is None else np.asarray(nuisance)
    for part, padded in batches(np.arange(len(params)), BLOCK, of_kernel=1):
        rendered = render_with_derivatives(params[padded], of_rows(transfer, padded), grid)
        for k, *images in zip(part, *map(np.asarray, rendered), strict=False):
            _, *pixels = whitened(params[k], *images, data[k], ivar[k], inverse[k])
            light[k], stretch[k] = _field_of(*pixels, others[k], level[k], fit_sky)
    return light, stretch


def _field_of(root, columns, residual, others, level, fit_sky):
    """Field of one galaxy, (size, size), and how its errors grow, (5, 5)."""
    size = len(root)
    along, (y, x), variance = _waves(size)
    typical = np.sqrt((root[root > 0].astype(float) ** 2).mean())
    weight = root / typical
    columns = columns if fit_sky else np.delete(columns, SINGLE.sky, 0)
    known = np.concatenate([columns, (others * root).reshape(len(others), root.size)]).astype(float)
    number, half = len(known), along[: y.max() + 1]
    # each image is multiplied by the waves along one axis after the other, not by each wave
    lit = np.concatenate([known, residual[None]]).reshape(-1, size, size) * weight
    low = (half @ lit @ half.T)[:, y, x]
    squares = _of_pairs(along @ weight**2 @ along.T, y, x)
    products = np.block([[known @ known.T, low[:-1]], [low[:-1].T, squares]])
    score = np.concatenate([known @ residual, low[-1]])
    unit = np.sqrt(np.maximum(np.diagonal(products), 1e-30))
    products = products / unit[:, None] / unit + _RIDGE * np.eye(len(unit))
    prior = np.zeros(len(unit))
    prior[number:] = 1 / (np.maximum(level * variance, _FLOOR) * unit[number:] ** 2)
    before = np.linalg.inv(products[:number, :number])
    joint = np.linalg.inv(products + np.diag(prior))
    amplitude = np.zeros((len(half), len(half)))
    amplitude[y, x] = (joint @ (score / unit) / unit)[number:]
    light = half.T @ amplitude @ half / typical
    covariances = [(one[:5, :5] / unit[:5, None] / unit[:5]) for one in (before, joint)]
    return light, _stretch(*covariances)


def _of_pairs(sums, y, x):
    """Sums of the products of two waves each, from those of single ones: cos a cos b is half the sum of
    cos(a + b) and cos(a - b), along each axis."""
    ways = [[np.abs(k[:, None] + sign * k) for sign in (1, -1)] for k in (y, x)]
    return sum(sums[along_y, along_x] for along_y in ways[0] for along_x in ways[1]) / 4


def _stretch(before, after):
    """M with M B M^T = A for covariances B and A, symmetric where B is the identity; the identity where one
    of them is none."""
    root = cholesky_or_nan(before)
    if not (np.isfinite(root).all() and np.isfinite(after).all()):
        return np.eye(len(before))
    inverse = np.linalg.inv(root)
    return root @ symmetric_root(inverse @ after @ inverse.T) @ inverse


@lru_cache(maxsize=8)
def _waves(size):
    """Cosines on a stamp: (2 n, size) along an axis, of which the first n are used; numbers y and x of the
    waves, (2, K); and variances of their amplitudes, for a variance of one that is found, (K,)."""
    number = min(size // _SHORTEST, _MOST_WAVES)
    along = np.cos(np.arange(2 * number)[:, None] * (np.arange(size) + 0.5) * np.pi / size)
    y, x = np.nonzero(np.add.outer(np.arange(number) ** 2, np.arange(number) ** 2) <= (number - 1) ** 2 + 1)
    y, x = y[1:], x[1:]  # the constant is the sky level
    square = (np.pi / size) ** 2 * (y**2 + x**2)
    norm = np.where(y > 0, 2, 1) * np.where(x > 0, 2, 1)
    power = sum(share * 4 * np.pi * width**2 * np.exp(-square * width**2) for width, share in _BUMPS)
    return along, np.stack([y, x]), power * norm / size**2
