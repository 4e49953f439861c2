# Licensed under a 3-clause BSD style license - see LICENSE.rst
r"""Sources that hide in the light of a galaxy: too close for a peak of their own.

A source within a width or two of the PSF's of the centre is no separate peak, and the galaxy's profile
takes in most of it: the fit is good, and wrong.  What the eight parameters cannot take in is left in the
residuals :math:`r_\perp = (1 - \Pi) r`, :math:`\Pi = D^T H^{-1} D`.  With the whitened image P of a point
source at some place, its flux and the significance of that are

.. math:: f = \frac{P^T r_\perp}{P^T (1 - \Pi) P}, \qquad s = f \sqrt{P^T (1 - \Pi) P},

and the fit that knows nothing of it is off by :math:`f H^{-1} D P`, to first order.  The denominator counts
how much of the source is hidden.  A galaxy with clumps of its own has many such places: a companion is one
that accounts for much of what is left of the galaxy.
"""

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from scipy import fft

from galshape_cnn.forward.galaxy_model import SINGLE
from galshape_cnn.forward.kernel import calls
from galshape_cnn.forward.kernel.library import serves
from galshape_cnn.forward.render import render_with_derivatives
from galshape_cnn.infer.likelihood.point_source import point_images
from galshape_cnn.infer.likelihood.residuals import RIDGE, inverse_fisher, inverse_gain

__all__ = ["has_companion"]

_REACH = 1.4  # widths of the PSF from the centre in which sources are looked for
_SIGNIFICANT = 4.2  # standard deviations of its flux
_MOVES = 1.0  # stated errors by which it moves a parameter, to first order
_ALONE = 0.4  # of the squares left where the galaxy is bright, beyond those of noise, that it makes up
_HALF = 3.0  # widths of the PSF: half the side of the part of the stamp that is looked at
_VISIBLE = 0.05  # of the square of a point source, that the galaxy's parameters do not take in at least
_LIMITS = RIDGE, _REACH, _HALF, _VISIBLE, _MOVES, _ALONE  # as the kernel takes them


def has_companion(
    params, errors, width, data, ivar, transfer, grid, fit_sky=True, gain=None, correlation=None
):
    """Whether a source that moves the parameters hides near the centre of a galaxy.

    Parameters
    ----------
    params, data, ivar, transfer, grid, fit_sky, gain
        As for `galshape_cnn.infer.likelihood.residuals.examine`.
    errors : (N, 5) ndarray
        Stated errors of flux, n, hlr, g1, g2.
    width : (N,) ndarray
        Of the PSF, pixels.
    correlation : (ky, kx) ndarray, optional
        Odd-sized autocorrelation of the noise.

    Returns
    -------
    hidden : (N,) ndarray of bool
        Whether somewhere within 1.4 widths a point source of 4.2 standard deviations is missing from the
        model, that moves a parameter by its stated error and makes up most of what is left.
    """
    params, data, ivar = (np.asarray(a, np.float32) for a in (params, data, ivar))
    inverse = inverse_gain(gain, len(data))
    if serves(params, data, ivar, transfer):
        known = params, data, ivar, transfer, grid, inverse, fit_sky
        gained = calls.companions(*known, errors, width, _LIMITS)
    else:
        gained = _gained(params, errors, width, data, ivar, transfer, grid, inverse, fit_sky)
    hidden = gained > _SIGNIFICANT**2
    rows = np.flatnonzero(hidden)
    if len(rows) and correlation is not None:
        points = point_images(params[rows], transfer if len(transfer) == 1 else transfer[rows], grid)
        alike = [_alike(image, correlation) for image in points]
        hidden[rows] = gained[rows] > _SIGNIFICANT**2 * np.array(alike)
    return hidden


def _gained(params, errors, width, data, ivar, transfer, grid, inverse_gain, fit_sky):
    """`galshape_cnn.forward.kernel.calls.companions` without the kernel."""
    images, derivatives = map(np.asarray, render_with_derivatives(params, transfer, grid))
    points = np.asarray(point_images(params, transfer, grid))
    light = np.maximum(images - params[:, SINGLE.sky, None, None], 0)
    weight = ivar / (1 + ivar * light * inverse_gain[:, None, None])
    pixels = derivatives, data - images, weight, points, light
    rows = zip(params, errors, width, *pixels, strict=True)
    return np.array([_one(*row, fit_sky) for row in rows])


def _one(params, errors, width, derivatives, residual, weight, point, light, fit_sky):
    columns = derivatives.reshape(SINGLE.size, -1)
    weighted = columns * weight.ravel()
    inverse = inverse_fisher(weighted @ columns.T, float(fit_sky), xp=np)
    rest = residual - ((weighted @ residual.ravel()) @ inverse @ columns).reshape(residual.shape)
    place = params[SINGLE.centre]
    window = tuple(_window(c, _HALF * width, len(point)) for c in place[::-1])
    point, part = point[window], weight[window]
    y, x = (np.arange(side.start, side.stop) for side in window)
    near = (x - place[0]) ** 2 + (y[:, None] - place[1]) ** 2 < (_REACH * width) ** 2
    sources = _moved(point, np.argwhere(near))
    images = np.concatenate([(rest[window] * part)[None], derivatives[(slice(None), *window)] * part])
    score, *seen = images.reshape(len(images), -1) @ sources.T
    explained = inverse @ seen
    whole = sources**2 @ part.ravel()
    square = whole - (seen * explained).sum(0)
    told = square > _VISIBLE * whole
    flux = np.where(told, score, 0) / np.where(told, square, 1)
    moves = np.abs(flux * explained[SINGLE.reported] / errors[:, None]).max(0)
    gained = np.where((flux > 0) & (moves > _MOVES), flux * score, 0).max(initial=0)
    bright = light**2 * weight
    left = (bright / (1 + bright) * (rest**2 * weight - 1)).sum()
    return gained if gained > _ALONE * left else 0.0


def _window(centre, half, size):
    """Pixels about a centre, along an axis."""
    middle = int(np.clip(np.round(centre), 0, size - 1))
    half = int(np.ceil(half))
    return slice(max(middle - half, 0), min(middle + half + 1, size))


def _moved(point, places):
    """A point source moved so that its highest pixel lies at each of K places: (K, pixels)."""
    ny, nx = point.shape
    around = sliding_window_view(np.pad(point, ((ny, ny), (nx, nx))), point.shape)
    y, x = (np.array(np.unravel_index(point.argmax(), point.shape)) - places).T
    return around[ny + y, nx + x].reshape(len(places), -1)


def _alike(point, correlation):
    """Variance of the product of a point source and correlated noise, over that of independent noise."""
    ny, nx = (side // 2 for side in correlation.shape)
    side = tuple(fft.next_fast_len(a + b, True) for a, b in zip(point.shape, correlation.shape, strict=True))
    own = fft.irfft2(np.abs(fft.rfft2(point, s=side)) ** 2, s=side)
    own = np.roll(own, (ny, nx), (0, 1))[: correlation.shape[0], : correlation.shape[1]]
    return max(float((own * correlation).sum() / own[ny, nx]), 1.0)
