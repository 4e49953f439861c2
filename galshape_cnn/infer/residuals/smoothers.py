# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""Gaussians that residuals are smoothed with: matrices that act along one axis."""

from functools import lru_cache

import numpy as np

__all__ = [
    "REACHES",
    "SCALES",
    "SKY_SCALE",
    "all_smoothers",
    "gaussian_band",
    "residual_smoothers",
    "sky_roots",
    "sky_smoothers",
]

#: Widths, in pixels, of the Gaussians that residuals are smoothed with; 0 is no smoothing.
SCALES = (0.0, 1.0, 2.0, 4.0)
SKY_SCALE = 4.0  # pixels: width of the Gaussian that residuals of the sky are smoothed with
_NOTHING = 1e-8  # of the height: less is nothing in single precision, and slow where it is no normal number
_STEP = 3  # pixels between places of the sky's structure

#: Pixels that the Gaussians of `SCALES`, but for no smoothing, and of the sky reach.
REACHES = [int(np.ceil(np.sqrt(-2 * np.log(_NOTHING)) * sigma)) for sigma in (*SCALES[1:], SKY_SCALE)]


def gaussian_band(size, sigma):
    """(size, size) float64 matrix of Gaussians of unit height, zero where they are less than 1e-8."""
    distance = np.arange(size)[:, None] - np.arange(size)
    band = np.exp(-0.5 * (distance / sigma) ** 2)
    return np.where(band > _NOTHING, band, 0.0)


@lru_cache(maxsize=16)
def residual_smoothers(size):
    """(len(SCALES) - 1, size, size) matrices, rows of unit sum of squares."""
    matrices = [gaussian_band(size, sigma) for sigma in SCALES[1:]]
    return np.stack([m / np.sqrt((m**2).sum(1, keepdims=True)) for m in matrices]).astype(np.float32)


@lru_cache(maxsize=16)
def sky_smoothers(size):
    """(2, size, size) matrices, of unit sum of squares but at the rim, and of their squares."""
    along = gaussian_band(size, SKY_SCALE) / np.sqrt(np.sqrt(np.pi) * SKY_SCALE)
    return np.stack([along, along**2]).astype(np.float32)


@lru_cache(maxsize=16)
def sky_roots(size):
    """(K, size) matrix A, of which A^T A is the correlation of the sky's structure along one axis.

    That is a Gaussian of the root of two times `SKY_SCALE`: the sum over places of the products of two of
    that width itself.  Every third pixel is place enough, which changes it by 1e-7 (Poisson's summation).
    """
    places = np.arange(-REACHES[-1], size + REACHES[-1], _STEP)
    distance = places[:, None] - np.arange(size)
    band = np.exp(-0.5 * (distance / SKY_SCALE) ** 2) * np.sqrt(_STEP / (np.sqrt(np.pi) * SKY_SCALE))
    return np.where(np.abs(distance) < REACHES[-1], band, 0.0).astype(np.float32)


@lru_cache(maxsize=16)
def all_smoothers(size):
    """(5, size, size): all of them, as the kernel takes them."""
    return np.concatenate([residual_smoothers(size), sky_smoothers(size)])
