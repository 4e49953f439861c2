# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""Local maxima, sub-pixel peaks and saddles of many images at once."""

from functools import lru_cache

import numpy as np

from galshape_cnn.forward.kernel import calls
from galshape_cnn.forward.kernel.library import chosen

__all__ = ["highest_pixels", "local_maxima", "lowest_between", "quadratic_peak", "values", "windows"]


def local_maxima(array):
    """Pixels of images (N, ny, nx) above all their eight neighbours; beyond the edge counts as lower."""
    if chosen() and array.dtype == np.float32:
        return calls.local_maxima(array)
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


def highest_pixels(array, maxima, at, radius, reach):
    """Highest of the local maxima, and of all pixels, within distances (N,) of places x, y: (N, 2, 2) of int.

    Pixels x, y; -1 where there is none.
    """
    if chosen() and array.dtype == np.float32:
        return calls.highest_pixels(array, maxima, at, radius, reach)
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


def quadratic_peak(array, peak):
    """Offset of the maximum of a quadratic from a pixel, and the squared width.

    A maximum more than one pixel from the highest pixel is not believed.

    Parameters
    ----------
    array : (N, ny, nx) ndarray
        Images.
    peak : (N, 2) int ndarray
        x, y of the highest pixel.

    Returns
    -------
    offset : (N, 2) ndarray
        Of the maximum, x, y in pixels; zero where it is not believed.
    width2 : (N,) ndarray
        Square of the width, height over curvature; infinite there.
    valid : (N,) bool ndarray
        Whether it is believed.
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


def lowest_between(array, rows, first, second, steps=24):
    """Lowest value along the straight line between two pixels, at a number of steps.

    Of M lines with ends ``first`` and ``second``, x, y, (M, 2) int; ``rows`` says in which of the images (N,
    ny, nx).
    """
    points = first[:, None, :] + _shares(steps)[:, None] * (second - first)[:, None, :]
    points = np.round(points).astype(int)
    x, y = _clipped(points[..., 0], array.shape[2]), _clipped(points[..., 1], array.shape[1])
    return array[rows[:, None], y, x].min(axis=1)


@lru_cache(maxsize=8)
def _shares(steps):
    return np.linspace(0, 1, steps)
