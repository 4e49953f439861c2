# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""Scale space: stamps smoothed at several scales.

A stamp smoothed with a Gaussian as wide as the source is its matched filter:
no other linear filter finds or centres the source better in white noise.  The
size of a galaxy is not known yet, so there is a pyramid: each level is binned
twice as coarsely as the one before and smoothed with the same few pixels.

Whole batches are smoothed at once, by the kernel or as products with a band matrix, which takes
half the time of `scipy.ndimage.gaussian_filter` and allows for masked pixels by
normalised convolution (Knutsson & Westin 1993, CVPR).
"""

from functools import lru_cache, partial

import numpy as np

from galshape_cnn.forward.kernel import detection_calls
from galshape_cnn.forward.kernel.library import with_kernel
from galshape_cnn.forward.medians import row_medians
from galshape_cnn.observe.detect.levels import Level

__all__ = ["build_levels", "has_uniform_noise", "number_of_levels", "robust_background"]

#: A smoothed pixel needs this share of its kernel on good pixels.
_SMALLEST_COVERAGE = 0.25
#: Standard deviation of normal deviates over the median of their moduli.
_SIGMA_OF_MEDIAN = 1.4826
#: More than this is light of a galaxy that fills the stamp, not correlated noise.
_LARGEST_EXCESS = 3.0
#: Side of the stamps above which smoothing is done in strips, their width, and how many of its widths the
#: Gaussian is followed: beyond is less than a single-precision number resolves.
_LARGE_SIDE, _STRIP, _REACH = 128, 64, 6.0


def robust_background(data, good):
    """Median (N,) of the good pixels of stamps away from their middle; zero where no pixel counts."""
    n, ny, nx = data.shape
    rows, good = data.reshape(n, -1), good.reshape(n, -1)
    outer = _outside(ny, nx, 0.35, max(1, min(ny, nx) // 64))
    if good.all():
        return row_medians(np.take(rows, outer, axis=1)).astype(np.float32)
    background = row_medians(np.take(rows, outer, axis=1), np.take(good, outer, axis=1))
    unknown = np.flatnonzero(~np.isfinite(background))
    if unknown.size:
        background[unknown] = row_medians(rows[unknown], good[unknown])
    return np.where(np.isfinite(background), background, 0).astype(np.float32)


@lru_cache(maxsize=64)
def _outside(ny, nx, share, stride):
    """Indices of the pixels of a flat stamp that are farther from its middle than a share of its side."""
    y, x = np.mgrid[0:ny:stride, 0:nx:stride]
    outer = np.hypot(y - (ny - 1) / 2, x - (nx - 1) / 2) > share * min(ny, nx)
    return (y * nx + x)[outer]


def has_uniform_noise(ivar):
    """Which stamps have the same noise in all pixels and none masked, (N,) bool."""
    return (ivar[:, 0, 0] > 0) & (ivar == ivar[:, :1, :1]).all(axis=(1, 2))


def number_of_levels(sigma, shape):
    """How many scales (N,) there are from the PSF's Gaussian width (N,), in pixels, to a sixth of the stamp.

    As long as the sides of the coarser ones are whole numbers.
    """
    number, step = np.ones(len(sigma), int), 1
    while not any(side // step % 2 for side in shape):
        step *= 2
        number += step * sigma <= min(shape) / 6
    return number


def build_levels(data, ivar, sigma, coarser=True):
    """Smooth stamps (N, ny, nx) of even sizes at every scale from the PSF's to a sixth of the stamp.

    Zero ``ivar`` is masked; either all have `has_uniform_noise` or none. ``sigma`` is the Gaussian width of
    the PSFs in pixels, of the same `number_of_levels`. Without ``coarser`` there is the first scale only.
    """
    sigma = np.broadcast_to(np.asarray(sigma, float), len(data))
    number = number_of_levels(sigma, data.shape[1:])[0] if coarser else 1
    uniform = bool(has_uniform_noise(ivar).all())
    good = ivar > 0
    signal = data - robust_background(data, good)[:, None, None]
    signal = (signal if uniform else np.where(good, signal, 0)).astype(np.float32, copy=False)
    with np.errstate(divide="ignore"):
        variance = ivar[:, :1, :1] if uniform else ivar
        variance = np.where(variance > 0, 1 / variance, 0).astype(np.float32)
    weight = None if uniform else good.astype(np.float32)
    levels = [_smooth(signal, weight, variance, sigma, 1)]
    while len(levels) < number:
        signal = _bin(signal)
        weight, variance = (None, 4 * variance) if uniform else (_bin(weight), _bin(variance))
        levels.append(_smooth(signal, weight, variance, sigma, 2 * levels[-1].step))
    return levels


def _bin(array):
    """Sum of 2x2 pixels."""
    total = array[:, ::2, ::2] + array[:, 1::2, ::2]
    total += array[:, ::2, 1::2]
    total += array[:, 1::2, 1::2]
    return total


def _smooth(signal, weight, variance, sigma, step):
    """Normalised convolution of one level, and its noise; without weights that of each stamp is even."""
    amplitude = _apply(signal, sigma, False, _REACH)
    if weight is None:
        over, expected = _of_rows(partial(_even, amplitude.shape[1:], step), sigma).swapaxes(0, 1)
        root = np.sqrt(variance).ravel()
    else:
        covered, root = _apply(weight, sigma, False, _REACH), np.float32(1)
        over = _over(covered, step)
        expected = np.sqrt(_apply(variance, sigma, True, _REACH)) * over
        expected = np.where(expected > 0, expected, np.inf)
    amplitude *= over
    excess = root * _noise_excess(amplitude, expected, root)
    return Level(amplitude, expected, excess, sigma * step, step)


def _over(covered, step=1):
    """One over the part of the kernel that is on good pixels; zero where that is too small."""
    enough = covered > _SMALLEST_COVERAGE * step**2
    return np.where(enough, 1 / np.where(enough, covered, 1), 0)


def _of_rows(function, sigma):
    """Results of a function for the width of each row, or for the one that all have: (N or 1, ...)."""
    widths, of_row = np.unique(sigma, return_inverse=True)
    results = np.stack([function(one) for one in widths.tolist()])
    return results if len(widths) == 1 else results[of_row]


@lru_cache(maxsize=256)
def _even(shape, step, sigma):
    """One over the coverage, and the noise of smoothed pixels, where there is noise one and no mask."""
    kernels = [_band(side, sigma) for side in shape]
    over = _over(np.outer(*(kernel.sum(axis=1) for kernel in kernels)))
    spread = np.sqrt(np.outer(*((kernel**2).sum(axis=1) for kernel in kernels))) * over
    return np.stack([over, np.where(spread > 0, spread, np.inf)]).astype(np.float32) / step**2


def _noise_excess(amplitude, expected, root):
    """How much noisier the smoothed stamps are than their inverse variance says.

    Correlated noise (resampled images) and wrong noise levels show here; the
    outer part of the stamp is mostly sky.
    """
    n, ny, nx = amplitude.shape
    outer = _outside(ny, nx, 0.4, 1)
    if len(outer) > 1024:
        outer = _outside(ny, nx, 0.4, 2)
    ours = np.take(amplitude.reshape(n, -1), outer, axis=1)
    ours /= np.take(expected.reshape(len(expected), -1), outer, axis=1)
    spread = row_medians(np.abs(ours), ours != 0) * _SIGMA_OF_MEDIAN / root
    return np.clip(np.where(np.isfinite(spread), spread, 1), 1, _LARGEST_EXCESS).astype(np.float32)


@lru_cache(maxsize=256)
def _band(side, sigma):
    """(side, side) matrix that smooths a vector with a Gaussian of unit sum."""
    distance = np.arange(side)[:, None] - np.arange(side)
    return (np.exp(-0.5 * (distance / sigma) ** 2) / (np.sqrt(2 * np.pi) * sigma)).astype(np.float32)


@with_kernel(detection_calls.smoothed, instead_of="numpy")
def _apply(array, sigma, squared, reach):
    """Smooth along y and x, with the Gaussian or its square.

    The matrices of large stamps are almost empty: they are applied in strips, which read no farther than the
    Gaussian reaches, in units of its width.
    """
    power = 2 if squared else 1
    if max(array.shape[1:]) <= _LARGE_SIDE:
        along_y, along_x = (_of_rows(partial(_band, side), sigma) ** power for side in array.shape[1:])
        # Stamp by stamp: one product of all rounds as their number has it.
        return np.matmul(along_y, np.matmul(array, along_x))
    out = np.empty_like(array)
    for width in np.unique(sigma):
        some, far = np.flatnonzero(sigma == width), int(np.ceil(reach * width))
        along_y, along_x = (_band(side, float(width)) ** power for side in array.shape[1:])
        image, rows, whole = array[some], np.empty_like(array[some]), np.empty_like(array[some])
        for here, read in _strips(array.shape[2], far):
            rows[:, :, here] = np.matmul(image[:, :, read], along_x[read, here])
        for here, read in _strips(array.shape[1], far):
            whole[:, here] = np.matmul(along_y[here, read], rows[:, read])
        out[some] = whole
    return out


def _strips(side, reach):
    """Slices of the strips of an axis, and of what each reads."""
    for start in range(0, side, _STRIP):
        yield slice(start, start + _STRIP), slice(max(start - reach, 0), start + _STRIP + reach)
