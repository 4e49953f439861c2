# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""Recentring of galaxies in their stamps, with its flags.

The centroid is the peak of the stamp smoothed at the scale at which the galaxy
stands out most, located by fitting a quadratic to 5x5 pixels around it: the
method of `photutils.centroids.centroid_quadratic`, for a whole batch at once (one
at a time photutils needs more time than the network; a test holds the two
together).  A peak at a Gaussian's own scale is the maximum-likelihood position
of a Gaussian source.

For a peak of height S (in units of the noise) and curvature S/T^2 smoothed with
a Gaussian of width s, the noise moves the peak by T^2 / (sqrt(2) s S) along each
axis; a peak that may have moved by more than a pixel is not used.
"""

from dataclasses import dataclass

import numpy as np
from astropy.stats import gaussian_sigma_to_fwhm

from galshape_cnn.flags import Flag
from galshape_cnn.forward.psf.arrays import PSFArrays
from galshape_cnn.observe.detect.levels import Peaks, highest_peak, neighbor_peaks, windows
from galshape_cnn.observe.detect.scale_space import build_levels, has_uniform_noise, number_of_levels

__all__ = [
    "Centers",
    "alike_chunks",
    "find_centers",
    "mask_flags",
    "neighbor_flags",
    "psf_sigma",
]

#: Pixels of the stamps smoothed at once, few enough to stay in the processor's cache; and fewest stamps.
_CHUNK, _FEWEST = 128 * 64**2, 8
#: Steps in the logarithm of the kernel's width.
_SIGMA_STEP = np.log(2) / 16
#: Height of a peak, in units of the noise, to be a galaxy near the position given, and to be one far from it.
_NEAR_HEIGHT, _FAR_HEIGHT = 4.0, 10.0
#: Largest error of a centroid, along one axis in pixels.
_LARGEST_ERROR = 1.0
#: Smallest radius, in pixels, within which a centroid is plausible.
_SMALLEST_RADIUS = 3.0
#: A scale at which the galaxy stands out by this share of the best is good enough.
_GOOD_SCALE = 0.7


@dataclass(frozen=True)
class Centers:
    """Where galaxies were found.

    Attributes
    ----------
    center : (N, 2) ndarray
        x, y in the stamp.
    flags : (N,) int64 ndarray
        RECENTER_FAILED, FAR_CENTROID, NEIGHBOR.
    """

    center: np.ndarray
    flags: np.ndarray


def psf_sigma(psf):
    """Gaussian width (N or 1,) of each effective PSF, in pixels.

    Of the Gaussian that covers as many pixels, 1 / sum(p^2); at least one pixel, below which a sampled
    Gaussian is no Gaussian any more.
    """
    _, total, square = psf.sums
    pixels = total**2 / square / psf.oversampling**2
    return np.maximum(np.sqrt(pixels / (4 * np.pi)), 1.0)


def find_centers(data, ivar, guess, sigma, move=True):
    """Find the galaxy near each given position x, y (N, 2), and neighbours in the stamp.

    Stamps (N, ny, nx) are masked where ``ivar`` is zero; ``sigma`` is from `psf_sigma`, and rounded to steps
    of 4 %, which no matched filter feels. Without ``move`` positions are kept and only neighbours are looked
    for.

    FAR_CENTROID is set when the galaxy is farther away than 3 pixels and one PSF FWHM, which is more than
    positions measured on any image of this quality are off; it is followed there only if it is the brightest
    source in the inner half of the stamp, at 10 sigma or more.  With RECENTER_FAILED the given position is
    kept.
    """
    guess = np.array(guess, float)
    center, flags = guess.copy(), np.zeros(len(data), np.int64)
    for rows, width in alike_chunks(ivar, sigma):
        levels = build_levels(data[rows], ivar[rows], width, coarser=move)
        if move:
            center[rows], flags[rows] = _recenter(levels, guess[rows])
        flags[rows] |= np.where(_has_neighbor(levels[0], center[rows]), Flag.NEIGHBOR, 0)
    return Centers(center, flags)


def alike_chunks(ivar, sigma):
    """Yield rows of the same scales and kind of noise, some at a time, and the widths of their kernels.

    A row is smoothed as it would be alone, so that its centre does not depend, in the last bit, on the rows
    around it.
    """
    step = np.round(np.log(np.broadcast_to(sigma, len(ivar))) / _SIGMA_STEP)
    width = np.exp(_SIGMA_STEP * step)
    kind = 2 * number_of_levels(width, ivar.shape[1:]) + has_uniform_noise(ivar)
    together = max(_FEWEST, _CHUNK // ivar[0].size) if len(ivar) else 1
    for value in np.unique(kind):
        rows = np.flatnonzero(kind == value)
        for start in range(0, len(rows), together):
            some = rows[start : start + together]
            yield some, width[some]


def _recenter(levels, guess):
    """Choose among the peaks of all levels; keep the guess where none will do."""
    radius = np.maximum(_SMALLEST_RADIUS, gaussian_sigma_to_fwhm * levels[0].sigma)
    reach = np.full(len(guess), min(levels[0].amplitude.shape[1:]) / 4)
    near = [highest_peak(level, guess, radius, reach) for level in levels]
    finest = np.where((near[0].height > 0)[:, None], near[0].xy, guess)
    near = _best_scale(near, crowded=_has_neighbor(levels[0], finest))
    usable = (near.height >= _NEAR_HEIGHT) & (near.error <= _LARGEST_ERROR) & ~near.bump
    center = np.where(usable[:, None], near.xy, guess)
    flags = np.zeros(len(guess), np.int64)
    rest = np.flatnonzero(~usable)
    if rest.size:
        some = [level.rows(rest) for level in levels]
        far = _best_scale([highest_peak(level, guess[rest], reach[rest], reach[rest]) for level in some])
        found = (far.height >= _FAR_HEIGHT) & (far.error <= _LARGEST_ERROR)
        center[rest[found]] = far.xy[found]
        flags[rest[~found]] = Flag.RECENTER_FAILED
    moved = np.hypot(*(center - guess).T) > radius
    return center, flags | np.where(moved, Flag.FAR_CENTROID, 0)


def _best_scale(peaks, crowded=False):
    """Of each row the peak on the finest level on which the galaxy stands out well.

    In a crowded stamp that is any level on which it is significant, because
    coarser ones merge it with its neighbours.
    """
    heights = np.array([one.height for one in peaks])
    enough = _GOOD_SCALE * heights.max(axis=0)
    enough = np.where(crowded, np.minimum(enough, _NEAR_HEIGHT), enough)
    level = np.argmax(heights >= enough, axis=0)
    rows = np.arange(heights.shape[1])
    chosen = [np.array([getattr(one, name) for one in peaks])[level, rows]
              for name in ("xy", "height", "error", "bump")]  # fmt: skip
    return Peaks(*chosen)


def _has_neighbor(level, center):
    """Whether a second source stands above the saddle towards the galaxy."""
    return np.bincount(neighbor_peaks(level, center)[0], minlength=len(level.amplitude)) > 0


def neighbor_flags(stamps):
    """``NEIGHBOR`` for stamps that `find_centers` has not seen."""
    sigma = psf_sigma(PSFArrays(stamps.psf, stamps.psf_oversampling))
    return find_centers(stamps.data, stamps.ivar, stamps.center, sigma, move=False).flags


def mask_flags(ivar, center):
    """NO_DATA, MASKED, CENTER_MASKED: how much of a stamp, and of its centre x, y (N, 2), is masked.

    Where the inverse variance is zero it is masked or outside.
    """
    n, ny, nx = ivar.shape
    bad = ivar == 0
    flags = np.where(bad.all(axis=(1, 2)), Flag.NO_DATA, 0)
    half = bad[:, ny // 4 : ny - ny // 4, nx // 4 : nx - nx // 4]
    flags |= np.where(half.mean(axis=(1, 2)) > 0.3, Flag.MASKED, 0)
    start = np.round(center).astype(int)
    window, dx, dy = windows(bad, start, 2)
    distance = np.hypot(dx + (start - center)[:, :1, None], dy + (start - center)[:, 1:, None])
    masked = ((window != 0) & (distance <= 1.5)).any(axis=(1, 2))
    return (flags | np.where(masked, Flag.CENTER_MASKED, 0)).astype(np.int64)
