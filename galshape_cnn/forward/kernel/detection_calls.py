# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""The kernel's functions for images in which sources are looked for."""

import ctypes

import numpy as np

from galshape_cnn.forward.kernel.library import call, double, integer, single

__all__ = ["FEWEST", "highest_pixels", "local_maxima", "masks", "medians", "scenes", "smoothed"]

#: Good values of a row, not all of which are good, that have a median.
FEWEST = 16


def smoothed(array, sigma, squared, reach):
    """Images smoothed with a Gaussian of unit sum.

    Parameters
    ----------
    array : (N, ny, nx) array_like
        Images; beyond their edges is zero.
    sigma : (N,) array_like
        Widths in pixels.
    squared : bool
        Whether to take the squares of the Gaussians.
    reach : float
        How many widths they are followed.

    Returns
    -------
    smooth : (N, ny, nx) float32 ndarray
    """
    array, out = single(array), np.empty(np.shape(array), np.float32)
    widths = double(sigma)
    how = int(squared), ctypes.c_double(reach)
    call("smooth", integer(len(array)), *array.shape[1:], array, widths, *how, out)
    return out


def local_maxima(array):
    """Pixels above all their neighbours.

    Parameters
    ----------
    array : (N, ny, nx) array_like
        Images.

    Returns
    -------
    is_maximum : (N, ny, nx) ndarray of bool
    """
    array = single(array)
    out = np.empty(array.shape, bool)
    call("maxima", integer(len(array)), *array.shape[1:], array, out)
    return out


def scenes(amplitude, noise, center, found, listed, apart, limits):
    """Sources of stamps and their pixels, as `galshape_cnn.observe.detect.segmentation` has them.

    Parameters
    ----------
    amplitude, noise : (N, ny, nx) array_like
        Smoothed stamps, and the standard deviation of their pixels.
    center : (N, 2) array_like
        x, y of the galaxies.
    found : tuple of (M,), (M, 2) and (M,) array_like
        Peaks beside them: numbers of their stamps, ascending, pixels x, y, the highest of a stamp first, and
        what they are above a saddle at least.
    listed : sequence of N (K, 2) array_like
        x, y of other galaxies in each stamp.
    apart : (N,) array_like
        Pixels within which two positions are one source.
    limits : sequence of float
        In the order of ``SceneLimits`` in ``scenes.h``.

    Returns
    -------
    labels : (N, ny, nx) uint8 ndarray
    peaks : list of N (K, 2) ndarray
        x, y of the neighbours, the nearest first.
    """
    amplitude, noise = single(amplitude), single(noise)
    n, (rows, pixels, threshold) = len(amplitude), found
    first_found = np.searchsorted(rows, np.arange(n + 1)).astype(np.int64)
    first_listed = np.cumsum([0, *map(len, listed)], dtype=np.int64)
    listed = np.concatenate([np.zeros((0, 2)), *listed])
    most = (np.diff(first_found) + np.diff(first_listed)).max(initial=1)
    labels = np.empty(amplitude.shape, np.uint8)
    peaks, numbers = np.empty((n, most, 2)), np.empty(n, np.int64)
    peaks_found = np.ascontiguousarray(pixels, np.int64), single(threshold), first_found
    known = map(double, (center, listed, apart, limits))
    center, listed, apart, limits = known
    lists = *peaks_found, listed, first_listed, apart, limits
    result = integer(most), labels, peaks, numbers
    call("scenes", integer(n), *amplitude.shape[1:], amplitude, noise, center, *lists, *result)
    return labels, [some[:number].copy() for some, number in zip(peaks, numbers, strict=True)]


def masks(labels, wanted, center, margin, core):
    """Pixels around sources that are not wanted, see `galshape_cnn.observe.detect.segmentation.masks`.

    Of ``labels`` (N, ny, nx) uint8 and of which of them are ``wanted`` (N, 256) bool; with ``margin`` (N,)
    pixels, but nothing within ``core`` pixels of the ``center`` (N, 2).
    """
    labels, wanted = np.ascontiguousarray(labels, np.uint8), np.ascontiguousarray(wanted, bool)
    out = np.empty(labels.shape, bool)
    center, margin = map(double, (center, margin))
    arguments = labels, wanted, center, margin, ctypes.c_double(core), out
    call("masks", integer(len(labels)), *labels.shape[1:], *arguments)
    return out


def highest_pixels(array, maxima, at, radius, reach):
    """Highest local maximum, and highest pixel, near a place of each image.

    Parameters
    ----------
    array, maxima : (N, ny, nx) ndarray
        Images, and their `local_maxima`.
    at : (N, 2) array_like
        x, y.
    radius, reach : (N,) array_like
        Distance in pixels within which maxima, and other pixels, are looked for.

    Returns
    -------
    pixels : (N, 2, 2) int64 ndarray
        x, y of both; -1 where there is none.
    """
    out = np.empty((len(array), 2, 2), np.int64)
    places = map(double, (at, radius, reach))
    images = single(array), np.ascontiguousarray(maxima)
    call("highest", integer(len(array)), *array.shape[1:], *images, *places, out)
    return out


def medians(values, good=None):
    """Medians of rows (N, M), (N,) float32, as `galshape_cnn.forward.medians.row_medians` defines them."""
    values, out = single(values), np.empty(len(values), np.float32)
    good = None if good is None else np.ascontiguousarray(good, bool)
    call(
        "medians",
        integer(len(values)),
        integer(values.shape[1]),
        integer(FEWEST),
        values,
        good,
        out,
    )
    return out
