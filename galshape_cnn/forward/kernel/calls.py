# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""The kernel's functions for NumPy arrays, in single precision.

What they return is what the functions of JAX return that call them; sums over pixels are in double precision.
"""

import ctypes

import numpy as np

from galshape_cnn.forward.kernel.library import call, integer, single
from galshape_cnn.forward.kernel.plan import plan_of

__all__ = [
    "correlated_products",
    "examination",
    "features",
    "images",
    "lags_of",
    "light_on",
    "linear_equations",
    "measured",
    "moved_features",
    "normal_equations",
    "odd_sized",
    "point_chi2",
    "transfer",
]

_KINDS = {"image": (0, 1), "point": (1, 3), "slopes": (2, 7)}
_RESULTS = 97  # numbers of an examination
# Correlation that is none, and the part of all lags that a core may have which is worth being told apart.
_NO_LAG, _SMALL_CORE = 1e-7, 0.5


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
    return transfer, integer(len(transfer) == 1)


def _grid(grid):
    return ctypes.byref(plan_of(grid))


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
    params = single(params)
    out = np.empty((len(params), number, grid.size, grid.size), np.float32)
    call("render", _grid(grid), what, integer(len(params)), params, *_psf(transfer), out)
    return out


def _inputs(params, rows, data, ivar, transfer, grid):
    """Arguments that the functions of many parameter sets share."""
    rows = np.ascontiguousarray(rows, np.int64)
    return _grid(grid), integer(len(params)), params, rows, single(data), single(ivar), *_psf(transfer)


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
    params, m = single(params), len(params)
    gain = single(np.broadcast_to(inverse_gain, m))
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
    params, m = single(params), len(params)
    out = np.empty(m), np.empty((m, 2)), np.empty((m, 2, 2))
    call("linear", *_inputs(params, rows, data, ivar, transfer, grid), *out)
    return out


def measured(params, data, ivar, transfer, grid, inverse_gain, fit_sky):
    """Arguments that the functions of one parameter set for each stamp share."""
    pixels = single(params), single(data), single(ivar)
    return _grid(grid), integer(len(params)), *pixels, *_psf(transfer), single(inverse_gain), int(fit_sky)


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
    how = single(smoothers), np.asarray(reach, np.int32), np.asarray(limits, float), *lags_of(correlation)
    call("examine", *measured(params, data, ivar, transfer, grid, inverse_gain, fit_sky), *how, *out)
    return out


def lags_of(correlation):
    """Arguments for a correlation: sides and lags, length and lags of the line; none has no sides."""
    if correlation is None:
        correlation, line = np.zeros((0, 0), np.float32), np.zeros(0, np.float32)
    else:
        core, line = _core_and_line(odd_sized(np.asarray(correlation, float), "correlation", "lags"))
        correlation, line = single(core), single(line)
    return *map(integer, correlation.shape), correlation, integer(len(line)), line


def _core_and_line(correlation):
    """Lags about the middle, and a line whose product with itself is all that is beyond.

    So it is with noise on waves that are Gaussian.  A product is applied along x and along y, which takes an
    eighth of the time for 33 lags.  Without such a line all lags, and none.
    """
    side, none = len(correlation), (correlation, np.zeros(0))
    if correlation.shape != (side, side) or not correlation[0, 0] > 0:
        return none
    line = correlation[0] / np.sqrt(correlation[0, 0])
    rest = correlation - np.outer(line, line)
    near = np.abs(np.arange(side) - side // 2)
    reach = np.max(np.maximum(near[:, None], near)[np.abs(rest) > _NO_LAG], initial=0)
    if (2 * reach + 1) ** 2 > _SMALL_CORE * side**2:
        return none
    kept = slice(side // 2 - reach, side // 2 + reach + 1)
    return rest[kept, kept], line


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
    arrays = integer(len(params)), single(params), single(ivar), *_psf(transfer), single(inverse_gain)
    call("correlated", _grid(grid), *arrays, *lags_of(correlation), *out)
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


def light_on(params, transfer, grid, pixels):
    """Sums over the images of unit flux of galaxies (N, 8), and over some pixels of them: (N, 2)."""
    params, pixels = single(params), np.ascontiguousarray(pixels, bool)
    out = np.empty((len(params), 2))
    call("light", _grid(grid), integer(len(params)), params, *_psf(transfer), pixels, out)
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
    call("features", integer(n), *map(single, (data, ivar, windows, fit_sky, poisson)), *out)
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
    moved = single(moved)
    n, k = moved.shape[:2]
    of_pixels, of_rest, amplitude = features(data, ivar, windows, fit_sky, poisson)
    pixels = np.empty((n, 1 + k, 16, 16, 48), np.float32)
    rest, growth = np.empty((n, k, 32), np.float32), np.empty((n, k), np.float32)
    pixels[:, 0] = of_pixels
    arrays = *map(single, (data, ivar, windows)), moved, pixels, rest, growth
    call("moved_features", integer(n), integer(k), *arrays)
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
    psf, modes = odd_sized(single(psf), "PSF arrays", "samples"), len(grid.kx)
    out = np.empty((len(psf), 2 * modes, modes), np.complex64)
    call("transfer", _grid(grid), integer(len(psf)), *psf.shape[1:], int(oversampling), psf, out)
    return out
