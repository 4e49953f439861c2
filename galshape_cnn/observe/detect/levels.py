# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""One level of a scale space, and its peaks: local maxima, their places between the pixels, and saddles."""

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from galshape_cnn.forward.kernel import detection_calls
from galshape_cnn.forward.kernel.library import with_kernel

__all__ = [
    "Level",
    "Peaks",
    "highest_peak",
    "highest_pixels",
    "local_maxima",
    "lowest_between",
    "neighbor_peaks",
    "quadratic_peak",
    "values",
    "windows",
]

#: Height of the peak of a neighbour, in units of the noise, above the saddle towards the galaxy.
_NEIGHBOR_HEIGHT = 5.5
#: A peak is noise on the flank of another if that one is brighter by this (in units of
#: the noise, and as a share) and the dent between the two is not as deep.
_FLANK_HEIGHT, _FLANK_SHARE = 3.0, 0.3
#: A neighbour below this share of the galaxy's peak does not change its parameters much.
_FAINTEST_NEIGHBOR = 0.02


@dataclass(frozen=True)
class Level:
    """One scale of the pyramid.

    Attributes
    ----------
    amplitude : (N, ky, kx) float32 ndarray
        Smoothed pixel values above the background; zero where too much is
        masked.
    expected : (N or 1, ky, kx) float32 ndarray
        Standard deviation of ``amplitude`` by the inverse variances; infinite where too much is masked.
    excess : (N,) float32 ndarray
        How much noisier the stamps are.
    sigma : (N,) ndarray
        Width of the kernel in stamp pixels.
    step : int
        Stamp pixels per level pixel along each axis.
    """

    amplitude: np.ndarray
    expected: np.ndarray
    excess: np.ndarray
    sigma: np.ndarray
    step: int

    @cached_property
    def maxima(self):
        """Pixels above all their neighbours, (N, ky, kx) bool; they are looked for twice."""
        return local_maxima(self.amplitude)

    @property
    def noise(self):
        """Standard deviation of ``amplitude``, (N, ky, kx)."""
        return self.expected * self.excess[:, None, None]

    def noise_at(self, rows, pixel):
        """Standard deviation of ``amplitude`` in some rows, (M,), at a pixel of each, (M, 2) int of x, y."""
        expected = np.broadcast_to(self.expected, self.amplitude.shape)
        return values(expected, pixel, rows) * self.excess[rows]

    def rows(self, selected):
        """The same level of some of the stamps."""
        expected = self.expected if len(self.expected) == 1 else self.expected[selected]
        rest = self.excess[selected], self.sigma[selected], self.step
        return Level(self.amplitude[selected], expected, *rest)

    def to_stamp(self, position):
        """Stamp pixel coordinates of level pixel coordinates."""
        return position * self.step + (self.step - 1) / 2

    def from_stamp(self, position):
        """Level pixel coordinates of stamp pixel coordinates."""
        return (position - (self.step - 1) / 2) / self.step


@dataclass(frozen=True)
class Peaks:
    """One candidate peak per row; its height is zero where there is none.

    ``xy`` and ``error`` are in stamp pixels, ``height`` in units of the noise;
    ``bump`` says that a brighter peak is near with hardly a dent between.
    """

    xy: np.ndarray
    height: np.ndarray
    error: np.ndarray
    bump: np.ndarray


def highest_peak(level, guess, radius, reach):
    """Highest local maximum of a level within a radius of each guess."""
    rows, at = np.arange(len(guess)), level.from_stamp(guess)
    # On coarse levels the pixel that holds the peak may be a little farther than the peak.
    within = radius / level.step + 0.75, reach / level.step
    peak, brightest = highest_pixels(level.amplitude, level.maxima, at, *within).swapaxes(0, 1)
    offset, width2, valid = quadratic_peak(level.amplitude, peak)
    xy = level.to_stamp(peak + offset)
    found = (peak[:, 0] >= 0) & valid & (np.hypot(*(xy - guess).T) <= radius)
    noise, here = level.noise_at(rows, peak), values(level.amplitude, peak)
    height = np.where(found, here / noise, 0)
    with np.errstate(divide="ignore", invalid="ignore"):
        error = width2 * level.step**2 / (np.sqrt(2) * level.sigma * height)
    # A brighter peak with hardly a dent towards it
    dent = here - lowest_between(level.amplitude, rows, peak, brightest)
    higher = values(level.amplitude, brightest) - here
    bump = (higher > np.maximum(_FLANK_HEIGHT * noise, _FLANK_SHARE * here)) & (dent < _FLANK_HEIGHT * noise)
    return Peaks(xy, height, np.where(found, error, np.inf), bump)


def neighbor_peaks(level, center):
    """Peaks of a level smoothed with the PSF that stand above the saddle towards the galaxy at x, y (N, 2).

    The light of one galaxy falls monotonically along every ray, so that a peak on its flank is as high as the
    lowest point towards its centre, but for noise.

    Returns the stamp of each peak (M,), its pixel x, y (M, 2), and what it stands above the saddle (M,).
    """
    amplitude, middle = level.amplitude, np.round(center).astype(int)
    # numpy.nonzero takes ten times as long in three dimensions as in one
    rows, y, x = np.unravel_index(np.flatnonzero(level.maxima), amplitude.shape)
    xy = np.column_stack([x, y])
    own = values(amplitude, middle)[rows]
    threshold = np.maximum(_NEIGHBOR_HEIGHT * level.noise_at(rows, xy), _FAINTEST_NEIGHBOR * own)
    apart = np.hypot(x - center[rows, 0], y - center[rows, 1]) > 2 * level.sigma[rows]
    high = np.flatnonzero(apart & (values(amplitude, xy, rows) > threshold))
    rows, xy, threshold = rows[high], xy[high], threshold[high]
    second = values(amplitude, xy, rows) - lowest_between(amplitude, rows, xy, middle[rows]) > threshold
    return rows[second], xy[second], threshold[second]


@with_kernel(detection_calls.local_maxima, "array", instead_of="numpy")
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


@with_kernel(detection_calls.highest_pixels, "array", instead_of="numpy")
def highest_pixels(array, maxima, at, radius, reach):
    """Highest of the local maxima, and of all pixels, within distances (N,) of places x, y: (N, 2, 2) of int.

    Pixels x, y; -1 where there is none.
    """
    n, ny, nx = array.shape
    distance2 = (np.arange(ny)[:, None] - at[:, 1:, None]) ** 2 + (np.arange(nx) - at[:, :1])[:, None] ** 2
    out, square = np.full((n, 2, 2), -1), [np.square(one)[:, None, None] for one in (radius, reach)]
    for k, allowed in enumerate((maxima & (distance2 <= square[0]), distance2 <= square[1])):
        best = np.argmax(np.where(allowed, array, -np.inf).reshape(n, -1), axis=1)
        found = allowed.reshape(n, -1)[np.arange(n), best]
        out[found, k] = np.column_stack([best % nx, best // nx])[found]
    return out


def windows(array, start, half):
    """Square windows around a pixel x, y of each image, lower than anything outside it.

    (N, 2 half + 1, 2 half + 1), and the distances x and y of their pixels from the middle.
    """
    n, ny, nx = array.shape
    offsets = np.arange(-half, half + 1)
    x, y = start[:, :1] + offsets, start[:, 1:] + offsets
    inside = ((y >= 0) & (y < ny))[:, :, None] & ((x >= 0) & (x < nx))[:, None, :]
    window = array[np.arange(n)[:, None, None], _clipped(y, ny)[:, :, None], _clipped(x, nx)[:, None]]
    return np.where(inside, window, -np.inf), offsets[None, None, :], offsets[None, :, None]


def values(array, at, rows=None):
    """Values (M,) at pixels x, y of images (N, ny, nx), or of some of them; the nearest ones outside."""
    n, ny, nx = array.shape
    rows = np.arange(n) if rows is None else rows
    return array[rows, _clipped(at[:, 1], ny), _clipped(at[:, 0], nx)]


def _clipped(index, length):
    """Nearest index inside; `numpy.clip` takes ten times as long on a few integers."""
    return np.minimum(np.maximum(index, 0), length - 1)


def _quadratic_design():
    """Least-squares solution for 1, x, y, x^2, x y, y^2 on 5x5 pixels."""
    y, x = (one.ravel().astype(float) for one in np.mgrid[-2:3, -2:3])
    return np.linalg.pinv(np.stack([np.ones_like(x), x, y, x * x, x * y, y * y], axis=1))


_QUADRATIC = _quadratic_design()
_SHARES = np.linspace(0, 1, 24)  # of the way from one pixel to another


def quadratic_peak(array, peak):
    """Offset (N, 2) of the maximum of a quadratic from the highest pixel x, y of each image, in pixels.

    Also the square of its width, height over curvature, (N,), and whether it is believed: not more than a
    pixel away.  Elsewhere the offset is zero and the width infinite.
    """
    patch, _, _ = windows(array, peak, 2)
    patch = np.where(np.isfinite(patch), patch, 0).reshape(len(peak), 25)
    # Not a matrix product, whose rounding depends on the number of rows.
    top, cx, cy, cxx, cxy, cyy = np.einsum("ij,nj->in", _QUADRATIC, patch)
    determinant = 4 * cxx * cyy - cxy**2
    with np.errstate(divide="ignore", invalid="ignore"):
        offset = np.column_stack([cy * cxy - 2 * cx * cyy, cx * cxy - 2 * cy * cxx]) / determinant[:, None]
        width2 = -top / (cxx + cyy)
    valid = (determinant > 0) & (cxx + cyy < 0) & (np.abs(offset) <= 1).all(axis=1)
    return np.where(valid[:, None], offset, 0), np.where(valid, width2, np.inf), valid


def lowest_between(array, rows, first, second):
    """Lowest value along the straight line between two pixels, at 24 steps.

    Of M lines with ends ``first`` and ``second``, x, y, (M, 2) int; ``rows`` says in which of the images (N,
    ny, nx).
    """
    points = first[:, None, :] + _SHARES[:, None] * (second - first)[:, None, :]
    points = np.round(points).astype(int)
    x, y = _clipped(points[..., 0], array.shape[2]), _clipped(points[..., 1], array.shape[1])
    return array[rows[:, None], y, x].min(axis=1)
