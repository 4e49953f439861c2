# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""The kernel's functions for NumPy arrays, in single precision.

What they return is what the functions of JAX return that call them; sums over pixels are in double precision.
"""

import ctypes

import numpy as np

from galshape_cnn.forward.kernel.library import call
from galshape_cnn.forward.kernel.plan import plan_of

__all__ = [
    "FEWEST",
    "companions",
    "correlated_products",
    "examination",
    "features",
    "highest_pixels",
    "images",
    "linear_equations",
    "local_maxima",
    "measured",
    "medians",
    "moved_features",
    "normal_equations",
    "odd_sized",
    "point_chi2",
    "smoothed",
    "transfer",
]

_KINDS = {"image": (0, 1), "point": (1, 3), "slopes": (2, 7)}
_RESULTS = 97  # numbers of an examination
#: Good values of a row, not all of which are good, that have a median.
FEWEST = 16


def _single(array):
    return np.ascontiguousarray(array, np.float32)


def odd_sized(array, what, of):
    """The same array, the sides of which the kernel counts from the middle; ``ValueError`` if one is even."""
    sides = array.shape[-2:]
    if not (sides[0] % 2 and sides[1] % 2):
        raise ValueError(f"{what} of {sides[0]} x {sides[1]} {of}; allowed: odd sizes")
    return array


def _psf(transfer):
    """Transfer functions and whether one is for all."""
    transfer = np.asarray(transfer)
    if transfer.strides[0] == 0:  # one for all, repeated
        transfer = transfer[:1]
    transfer = np.ascontiguousarray(transfer, np.complex64)
    return transfer, ctypes.c_int64(len(transfer) == 1)


def _grid(grid):
    return ctypes.byref(plan_of(grid))


def _number(value):
    return ctypes.c_int64(value)


def images(kind, params, transfer, grid):
    """Images of unit flux without sky.

    Parameters
    ----------
    kind : {'image', 'slopes', 'point'}
        The galaxy; with its derivatives by n, ln hlr, g1, g2, x, y; a point source with those by x, y.
    params : (N, 8) array_like
        `galshape_cnn.forward.render.PARAMETERS`.
    transfer : (N or 1, 2 K, K) complex array_like
        Transfer functions.
    grid : FourierGrid
        Stamp size and bandwidth.

    Returns
    -------
    images : (N, 1, 7 or 3, size, size) float32 ndarray
    """
    what, number = _KINDS[kind]
    params = _single(params)
    out = np.empty((len(params), number, grid.size, grid.size), np.float32)
    call("render", _grid(grid), what, _number(len(params)), params, *_psf(transfer), out)
    return out


def _inputs(params, rows, data, ivar, transfer, grid):
    """Arguments that the functions of many parameter sets share."""
    rows = np.ascontiguousarray(rows, np.int64)
    return _grid(grid), _number(len(params)), params, rows, _single(data), _single(ivar), *_psf(transfer)


def normal_equations(params, rows, data, ivar, transfer, grid, inverse_gain=0.0):
    """Chi-square, score and Fisher matrix with respect to the eight parameters.

    Parameters
    ----------
    params : (M, 8) array_like
        Parameters.
    rows : (M,) array_like of int
        The stamp that each belongs to.
    data, ivar : (N, size, size) array_like
        Pixels and inverse variances.
    transfer : (N or 1, 2 K, K) complex array_like
        Transfer functions.
    grid : FourierGrid
        Stamp size and bandwidth.
    inverse_gain : float or (M,) array_like, optional
        Units of the image per electron.

    Returns
    -------
    chi2, score, fisher : (M,), (M, 8), (M, 8, 8) float64 ndarray
    """
    params, m = _single(params), len(params)
    gain = _single(np.broadcast_to(inverse_gain, m))
    out = np.empty(m), np.empty((m, 8)), np.empty((m, 8, 8))
    call("normal", *_inputs(params, rows, data, ivar, transfer, grid), gain, *out)
    return out


def linear_equations(params, rows, data, ivar, transfer, grid):
    """The same with respect to flux and sky alone.

    Parameters
    ----------
    params, rows, data, ivar, transfer, grid
        As for `normal_equations`.

    Returns
    -------
    chi2, gradient, fisher : (M,), (M, 2), (M, 2, 2) float64 ndarray
    """
    params, m = _single(params), len(params)
    out = np.empty(m), np.empty((m, 2)), np.empty((m, 2, 2))
    call("linear", *_inputs(params, rows, data, ivar, transfer, grid), *out)
    return out


def measured(params, data, ivar, transfer, grid, inverse_gain, fit_sky):
    """Arguments that the functions of one parameter set for each stamp share."""
    pixels = _single(params), _single(data), _single(ivar)
    return _grid(grid), _number(len(params)), *pixels, *_psf(transfer), _single(inverse_gain), int(fit_sky)


def examination(
    params, data, ivar, transfer, grid, inverse_gain, fit_sky, smoothers, reach, limits, correlation=None
):
    """Numbers of `galshape_cnn.infer.residuals.examination.Examination`, one after the other.

    Parameters
    ----------
    params, data, ivar, transfer, grid
        As for `normal_equations`, a parameter set for each stamp.
    inverse_gain : (N,) array_like
        Units of the image per electron.
    fit_sky : bool
        Whether the sky is among the parameters.
    smoothers : (5, size, size) array_like
        Matrices that smooth along an axis; the last two for the sky, to be taken as they are and squared.
    reach : sequence of int
        How many pixels from the diagonal each is different from zero.
    limits : sequence of float
        As `galshape_cnn.infer.residuals.examination` lists them.
    correlation : (ky, kx) array_like, optional
        Odd-sized autocorrelation of the noise.

    Returns
    -------
    numbers : (N, 97) float64 ndarray
    actual : (N, 8, 8) float64 ndarray
        As of `correlated_products`; (N, 0, 0) without a correlation.
    """
    side = 0 if correlation is None else 8
    out = np.empty((len(params), _RESULTS)), np.empty((len(params), side, side))
    how = _single(smoothers), np.asarray(reach, np.int32), np.asarray(limits, float), *_lags(correlation)
    call("examine", *measured(params, data, ivar, transfer, grid, inverse_gain, fit_sky), *how, *out)
    return out


def _lags(correlation):
    """Arguments for a correlation: its sides, and itself; none has no sides."""
    if correlation is None:
        return _number(0), _number(0), np.zeros((0, 0), np.float32)
    correlation = odd_sized(_single(correlation), "correlation", "lags")
    return *map(_number, correlation.shape), correlation


def correlated_products(params, ivar, transfer, grid, inverse_gain, correlation):
    """Fisher matrix for independent noise, and covariance of its score with correlated noise.

    Parameters
    ----------
    params, ivar, transfer, grid, inverse_gain
        As for `examination`.
    correlation : (ky, kx) array_like
        Odd-sized autocorrelation of the noise.

    Returns
    -------
    naive, actual : (N, 8, 8) float64 ndarray
    """
    out = np.empty((2, len(params), 8, 8))
    arrays = _number(len(params)), _single(params), _single(ivar), *_psf(transfer), _single(inverse_gain)
    call("correlated", _grid(grid), *arrays, *_lags(correlation), *out)
    return out[0], out[1]


def point_chi2(params, data, ivar, transfer, grid, inverse_gain, fit_sky, ridge):
    """Chi-square of the best point source near each galaxy.

    Parameters
    ----------
    params, data, ivar, transfer, grid, inverse_gain, fit_sky
        As for `examination`.
    ridge : float
        Added to the equilibrated matrix.

    Returns
    -------
    chi2 : (N,) float64 ndarray
    """
    out = np.empty(len(params))
    arguments = measured(params, data, ivar, transfer, grid, inverse_gain, fit_sky)
    call("point", *arguments, ctypes.c_double(ridge), out)
    return out


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
    array, out = _single(array), np.empty(np.shape(array), np.float32)
    widths = np.ascontiguousarray(sigma, float)
    how = int(squared), ctypes.c_double(reach)
    call("smooth", _number(len(array)), *array.shape[1:], array, widths, *how, out)
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
    array = _single(array)
    out = np.empty(array.shape, bool)
    call("maxima", _number(len(array)), *array.shape[1:], array, out)
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
    places = (np.ascontiguousarray(one, float) for one in (at, radius, reach))
    images = _single(array), np.ascontiguousarray(maxima)
    call("highest", _number(len(array)), *array.shape[1:], *images, *places, out)
    return out


def companions(params, data, ivar, transfer, grid, inverse_gain, fit_sky, width, limits):
    """The point source near the centre of each galaxy that lowers chi-square most: (N, 9) float64.

    What it moves flux, n, hlr, g1, g2 by, the decrease, that of the deepest dip, the squares left of the
    galaxy beyond those of noise, and their spread.  ``limits`` are listed in
    `galshape_cnn.infer.residuals.companions`.
    """
    out = np.empty((len(params), 9))
    arguments = measured(params, data, ivar, transfer, grid, inverse_gain, fit_sky)
    call("companions", *arguments, *(np.ascontiguousarray(one, float) for one in (width, limits)), out)
    return out


def features(data, ivar, windows, fit_sky, poisson):
    """Inputs of the network, but for the PSF's part of the context.

    Parameters
    ----------
    data, ivar : (N, 64, 64) array_like
        Pixels and inverse variances.
    windows : (4, 4, 64) array_like
        Along an axis, for each window: g, t g, t^2 g and g^2, where t counts widths from the middle.
    fit_sky, poisson : (N,) array_like
        As for `galshape_cnn.infer.network.features.network_inputs`.

    Returns
    -------
    pixels : (N, 16, 16, 48) float32 ndarray
    context : (N, 32) float32 ndarray
    amplitude : (N,) float32 ndarray
    """
    n = len(data)
    out = np.empty((n, 16, 16, 48), np.float32), np.empty((n, 32), np.float32), np.empty(n, np.float32)
    call("features", _number(n), *map(_single, (data, ivar, windows, fit_sky, poisson)), *out)
    return out


def moved_features(data, ivar, windows, fit_sky, poisson, moved):
    """The same with their derivatives along images.

    Parameters
    ----------
    data, ivar, windows, fit_sky, poisson
        As for `features`.
    moved : (N, K, 64, 64) array_like
        Images along which ``data`` moves.

    Returns
    -------
    pixels : (N, 1 + K, 16, 16, 48) float32 ndarray
        Values, then derivatives.
    context : (N, 1 + K, 32) float32 ndarray
    amplitude : (N, 1 + K) float32 ndarray
    """
    moved = _single(moved)
    n, k = moved.shape[:2]
    of_pixels, of_rest, amplitude = features(data, ivar, windows, fit_sky, poisson)
    pixels = np.empty((n, 1 + k, 16, 16, 48), np.float32)
    rest, growth = np.empty((n, k, 32), np.float32), np.empty((n, k), np.float32)
    pixels[:, 0] = of_pixels
    arrays = *map(_single, (data, ivar, windows)), moved, pixels, rest, growth
    call("moved_features", _number(n), _number(k), *arrays)
    context = np.concatenate([of_rest[:, None], rest], 1)
    return pixels, context, amplitude[:, None] * np.concatenate([np.ones_like(growth[:, :1]), growth], 1)


def transfer(psf, grid, oversampling=1):
    """Transfer functions of PSF arrays on the modes of a grid.

    Parameters
    ----------
    psf : (N, py, px) array_like
        Odd-sized samples.
    grid : FourierGrid
        The modes.
    oversampling : int, optional
        Samples per pixel.

    Returns
    -------
    transfer : (N, 2 K, K) complex64 ndarray
    """
    psf, modes = odd_sized(_single(psf), "PSF arrays", "samples"), len(grid.kx)
    out = np.empty((len(psf), 2 * modes, modes), np.complex64)
    call("transfer", _grid(grid), _number(len(psf)), *psf.shape[1:], int(oversampling), psf, out)
    return out


def medians(values, good=None):
    """Medians of rows (N, M), (N,) float32, as `galshape_cnn.forward.medians.row_medians` defines them."""
    values, out = _single(values), np.empty(len(values), np.float32)
    good = None if good is None else np.ascontiguousarray(good, bool)
    call("medians", _number(len(values)), _number(values.shape[1]), _number(FEWEST), values, good, out)
    return out
