# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""Smoothed stamps at several scales, on which sources are found and centred.

A stamp smoothed with a Gaussian as wide as the source is its matched filter:
no other linear filter finds or centres the source better in white noise.  The
size of a galaxy is not known yet, so there is a pyramid: each level is binned
twice as coarsely as the one before and smoothed with the same few pixels.

Whole batches are smoothed at once as products with a band matrix, which takes
half the time of `scipy.ndimage.gaussian_filter` and allows for masked pixels by
normalised convolution (Knutsson & Westin 1993, CVPR).
"""

from dataclasses import dataclass
from functools import cached_property, lru_cache

import numpy as np

__all__ = ["Level", "build_levels", "has_uniform_noise", "local_maxima", "robust_background"]

#: A smoothed pixel needs this share of its kernel on good pixels.
_SMALLEST_COVERAGE = 0.25
#: Standard deviation of normal deviates over the median of their moduli.
_SIGMA_OF_MEDIAN = 1.4826
#: More than this is light of a galaxy that fills the stamp, not correlated noise.
_LARGEST_EXCESS = 3.0
#: Side of the stamps above which smoothing is done in strips, their width, and how many of its widths the
#: Gaussian is followed: beyond is less than a single-precision number resolves.
_LARGE_SIDE, _STRIP, _REACH = 128, 64, 6.0


@dataclass(frozen=True)
class Level:
    """One scale of the pyramid.

    Attributes
    ----------
    amplitude : (N, ky, kx) float32 ndarray
        Smoothed pixel values above the background; zero where too much is
        masked.
    noise : (N, ky, kx) float32 ndarray
        Standard deviation of ``amplitude``; infinite where too much is masked.
    step : int
        Stamp pixels per level pixel along each axis.
    sigma : float
        Width of the kernel in stamp pixels.
    """

    amplitude: np.ndarray
    noise: np.ndarray
    step: int
    sigma: float

    @cached_property
    def maxima(self):
        """Pixels above all their neighbours, (N, ky, kx) bool; they are looked for twice."""
        return local_maxima(self.amplitude)

    def rows(self, selected):
        """The same level of some of the stamps."""
        return Level(self.amplitude[selected], self.noise[selected], self.step, self.sigma)

    def to_stamp(self, position):
        """Stamp pixel coordinates of level pixel coordinates."""
        return position * self.step + (self.step - 1) / 2

    def from_stamp(self, position):
        """Level pixel coordinates of stamp pixel coordinates."""
        return (position - (self.step - 1) / 2) / self.step


def robust_background(data, good):
    """Median (N,) of the good pixels of stamps away from their middle; zero where no pixel counts."""
    n, ny, nx = data.shape
    rows, good = data.reshape(n, -1), good.reshape(n, -1)
    outer = _outside(ny, nx, 0.35, max(1, min(ny, nx) // 64))
    if good.all():
        return _middle(np.take(rows, outer, axis=1)).astype(np.float32)
    background = _median(np.take(rows, outer, axis=1), np.take(good, outer, axis=1))
    unknown = np.flatnonzero(~np.isfinite(background))
    if unknown.size:
        background[unknown] = _median(rows[unknown], good[unknown])
    return np.where(np.isfinite(background), background, 0).astype(np.float32)


@lru_cache(maxsize=64)
def _outside(ny, nx, share, stride):
    """Indices of the pixels of a flat stamp that are farther from its middle than a share of its side."""
    y, x = np.mgrid[0:ny:stride, 0:nx:stride]
    outer = np.hypot(y - (ny - 1) / 2, x - (nx - 1) / 2) > share * min(ny, nx)
    return (y * nx + x)[outer]


def _middle(values):
    """Median of each row, as `numpy.median` but without its search for NaN."""
    half = values.shape[1] // 2
    if values.shape[1] % 2:
        return np.partition(values, half, axis=1)[:, half]
    # to ask for both middle values of partition takes twice as long as for one
    parted = np.partition(values, half, axis=1)
    return np.stack([parted[:, :half].max(axis=1), parted[:, half]]).mean(axis=0)


def _median(values, good):
    """Median over the good values of each row, NaN with fewer than sixteen."""
    complete = good.all(axis=1)
    if complete.all():
        return _middle(values)
    out = np.full(len(values), np.nan, values.dtype)
    if complete.any():
        out[complete] = _middle(values[complete])
    rest = np.flatnonzero(~complete)
    ordered = np.sort(np.where(good[rest], values[rest], np.inf), axis=1)
    count = good[rest].sum(axis=1)
    middle = ordered[np.arange(len(rest)), np.maximum(count - 1, 0) // 2]
    out[rest] = np.where(count >= 16, middle, np.nan)
    return out


def has_uniform_noise(ivar):
    """Which stamps have the same noise in all pixels and none masked, (N,) bool."""
    return (ivar[:, 0, 0] > 0) & (ivar == ivar[:, :1, :1]).all(axis=(1, 2))


def build_levels(data, ivar, sigma, coarser=True):
    """Smooth stamps at every scale from the PSF's to a sixth of the stamp.

    Parameters
    ----------
    data, ivar : (N, ny, nx) float32 ndarray
        Stamps of even sizes; zero ``ivar`` is masked.
    sigma : float
        Gaussian width of the PSF in pixels.
    coarser : bool, optional
        If False, the first scale only.

    Returns
    -------
    levels : list of Level
    """
    good = ivar > 0
    background = robust_background(data, good)
    signal = np.where(good, data - background[:, None, None], 0).astype(np.float32)
    uniform = bool(has_uniform_noise(ivar).all())
    with np.errstate(divide="ignore"):
        variance = ivar[:, :1, :1] if uniform else ivar
        variance = np.where(variance > 0, 1 / variance, 0).astype(np.float32)
    weight = np.ones((1, *data.shape[1:]), np.float32) if uniform else good.astype(np.float32)
    levels, step = [], 1
    while True:
        levels.append(_smooth(signal, weight, variance, sigma, step))
        finished = not coarser or 2 * step * sigma > min(data.shape[1:]) / 6 or min(signal.shape[1:]) % 2
        if finished:
            return levels
        step *= 2
        signal, weight = _bin(signal), _bin(weight)
        variance = 4 * variance if uniform else _bin(variance)


def _bin(array):
    """Sum of 2x2 pixels."""
    return array[:, ::2, ::2] + array[:, 1::2, ::2] + array[:, ::2, 1::2] + array[:, 1::2, 1::2]


def _smooth(signal, weight, variance, sigma, step):
    """Normalised convolution of one level, and its noise."""
    kernels = [_band(side, sigma) for side in signal.shape[1:]]
    squares = [kernel**2 for kernel in kernels]
    covered = _apply(kernels, weight, sigma) / step**2
    enough = covered > _SMALLEST_COVERAGE
    norm = np.where(enough, covered, 1) * step**2
    amplitude = np.where(enough, _apply(kernels, signal, sigma) / norm, 0)
    if variance.shape[1:] == (1, 1):
        spread = np.outer(*(square.sum(axis=1) for square in squares))
        noise = np.sqrt(variance) * (np.sqrt(spread) / norm)
    else:
        noise = np.sqrt(_apply(squares, variance, sigma)) / norm
        noise = np.where(enough & (noise > 0), noise, np.inf)
    noise = noise * _noise_excess(amplitude / noise)[:, None, None]
    return Level(amplitude.astype(np.float32), noise.astype(np.float32), step, sigma * step)


def _noise_excess(significance):
    """How much noisier the smoothed stamps are than their inverse variance says.

    Correlated noise (resampled images) and wrong noise levels show here; the
    outer part of the stamp is mostly sky.
    """
    n, ny, nx = significance.shape
    outer = _outside(ny, nx, 0.4, 1)
    if len(outer) > 1024:
        outer = _outside(ny, nx, 0.4, 2)
    outer = np.take(significance.reshape(n, -1), outer, axis=1)
    spread = _median(np.abs(outer), outer != 0) * _SIGMA_OF_MEDIAN
    return np.clip(np.where(np.isfinite(spread), spread, 1), 1, _LARGEST_EXCESS).astype(np.float32)


@lru_cache(maxsize=256)
def _band(side, sigma):
    """(side, side) matrix that smooths a vector with a Gaussian of unit sum."""
    distance = np.arange(side)[:, None] - np.arange(side)
    return (np.exp(-0.5 * (distance / sigma) ** 2) / (np.sqrt(2 * np.pi) * sigma)).astype(np.float32)


def _apply(kernels, array, sigma):
    """Smooth along y and x.

    The matrices of large stamps are almost empty: they are applied in strips, which read no farther than the
    Gaussian reaches.
    """
    along_y, along_x = kernels
    # Stamp by stamp: one product of all rounds as their number has it.
    if max(array.shape[1:]) <= _LARGE_SIDE:
        return np.matmul(along_y, np.matmul(array, along_x))
    reach, rows, out = int(np.ceil(_REACH * sigma)), np.empty_like(array), np.empty_like(array)
    for here, read in _strips(array.shape[2], reach):
        rows[:, :, here] = np.matmul(array[:, :, read], along_x[read, here])
    for here, read in _strips(array.shape[1], reach):
        out[:, here] = np.matmul(along_y[here, read], rows[:, read])
    return out


def _strips(side, reach):
    """Slices of the strips of an axis, and of what each reads."""
    for start in range(0, side, _STRIP):
        yield slice(start, start + _STRIP), slice(max(start - reach, 0), start + _STRIP + reach)


def local_maxima(array):
    """Pixels of images (N, ny, nx) above all their eight neighbours; beyond the edge counts as lower."""
    rows = array[:, 1:] > array[:, :-1]
    above = np.ones(array.shape, bool)
    above[:, 1:] &= rows
    above[:, :-1] &= ~rows
    for dy in (-1, 0, 1):
        shifted = array[:, max(dy, 0) : array.shape[1] + min(dy, 0)]
        here = slice(max(-dy, 0), array.shape[1] + min(-dy, 0))
        above[:, here, :-1] &= array[:, here, :-1] > shifted[:, :, 1:]
        above[:, here, 1:] &= array[:, here, 1:] > shifted[:, :, :-1]
    return above
