# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""Recentring of stamps."""

from dataclasses import dataclass

import numpy as np

from galshape_cnn.flags import Flag

__all__ = ["Centers", "find_centers", "mask_flags", "psf_sigma"]


@dataclass(frozen=True)
class Centers:
    """Where the galaxies are.

    Attributes
    ----------
    center : (N, 2) ndarray
        x, y in the stamp.
    flags : (N,) int64 ndarray
    """

    center: np.ndarray
    flags: np.ndarray


def psf_sigma(psf):
    """Gaussian width with the core of the mean PSF, in pixels."""
    mean = psf.array.mean(axis=0)
    area = (mean.sum() ** 2 / (mean**2).sum()) / psf.oversampling**2
    return max(np.sqrt(area / (4 * np.pi)), 0.7)


def find_centers(data, ivar, guess, sigma, move=True):
    """Keep the given positions."""
    return Centers(np.array(guess, float), np.zeros(len(data), np.int64))


def mask_flags(ivar, center):
    """NO_DATA, MASKED and CENTER_MASKED."""
    n, ny, nx = ivar.shape
    y, x = np.arange(ny), np.arange(nx)
    dx, dy = x - center[:, :1], y - center[:, 1:]
    bad = ivar == 0
    near = dy[:, :, None] ** 2 + dx[:, None, :] ** 2 <= 1.5**2
    flags = np.where(bad.all(axis=(1, 2)), Flag.NO_DATA, 0)
    flags |= np.where((bad & near).any(axis=(1, 2)), Flag.CENTER_MASKED, 0)
    half = bad[:, ny // 4 : ny - ny // 4, nx // 4 : nx - nx // 4]
    flags |= np.where(half.mean(axis=(1, 2)) > 0.3, Flag.MASKED, 0)
    return flags.astype(np.int64)
