# Licensed under a 3-clause BSD style license - see LICENSE.rst
r"""Search for sources in the light of a galaxy, too close for a peak of their own.

A source within a width or two of the PSF's of the centre is no separate peak, and the galaxy's profile
takes in most of it: the fit is good, and wrong.  What the eight parameters cannot take in is left in the
residuals :math:`r_\perp = (1 - \Pi) r`, :math:`\Pi = D^T H^{-1} D`.  With the whitened image P of a point
source at some place, its flux and the significance of that are

.. math:: f = \frac{P^T r_\perp}{P^T (1 - \Pi) P}, \qquad s = f \sqrt{P^T (1 - \Pi) P},

and the fit that knows nothing of it is off by :math:`f H^{-1} D P`, to first order.  The denominator counts
how much of the source is hidden.  That shift is an error of the estimates, and counted as one.

A galaxy with clumps or arms of its own has many such places: a companion is one that accounts for much of
what is left of the galaxy.  Where more than noise is left beside it, it must account for most, and no dip
may be half as deep: a companion only adds light, structure takes it away elsewhere.
"""

from typing import NamedTuple

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from scipy import fft

from galshape_cnn.forward.galaxy_model import SINGLE
from galshape_cnn.forward.kernel import search_calls
from galshape_cnn.forward.kernel.library import with_kernel
from galshape_cnn.forward.render import render_with_derivatives
from galshape_cnn.forward.transfer import of_rows
from galshape_cnn.infer.likelihood.fisher import inverse_gain
from galshape_cnn.infer.residuals.examination import RIDGE, inverse_fisher
from galshape_cnn.infer.residuals.point_source import point_images, reach_of

__all__ = ["Companions", "find_companions", "moved", "variance_of_product"]

_REACH = 1.4  # widths of the PSF from the centre in which sources are looked for
_SEEN, _SIGNIFICANT = 3.0, 4.2  # standard deviations of its flux: to count as an error, for a flag
_MOVES = 1.5  # stated errors by which it moves a parameter, to first order, for a flag
_ALONE = 0.4  # of the squares left where the galaxy is bright, beyond those of noise, that it makes up
# Standard deviations of those squares that may be left beside it; else its share of them, and how deep dips
# may be.  Fixed on discs with knots and arms, S/N 30 to 1000, and on Sersic galaxies beside a star.
_NOISE, _MOST, _DIP = 4.0, 0.6, 0.5
_HALF = 3.0  # widths of the PSF: half the side of the part of the stamp that is looked at
_VISIBLE = 0.05  # of the square of a point source, that the galaxy's parameters do not take in at least
_LIMITS = RIDGE, _REACH, _HALF, _VISIBLE  # as the kernel takes them


class Companions(NamedTuple):
    """Result of `find_companions`.

    Attributes
    ----------
    shift : (N, 5) ndarray
        What a hidden source moves flux, n, hlr, g1, g2 by, to first order; zero where none is seen.
    hidden : (N,) ndarray of bool
        Whether one of 4.2 standard deviations moves a parameter by one and a half stated errors.
    """

    shift: np.ndarray
    hidden: np.ndarray


def find_companions(
    params, errors, width, data, ivar, transfer, grid, fit_sky=True, gain=None, correlation=None
):
    """Look for sources that hide near the centres of galaxies.

    Parameters
    ----------
    params, data, ivar, transfer, grid, fit_sky, gain
        As for `galshape_cnn.infer.residuals.examination.examine`.
    errors : (N, 5) ndarray
        Stated errors of flux, n, hlr, g1, g2.
    width : (N,) ndarray
        Of the PSF, pixels.
    correlation : (ky, kx) ndarray, optional
        Odd-sized autocorrelation of the noise.

    Returns
    -------
    companions : Companions
        Point sources within 1.4 widths that are missing from the model by three standard deviations, and
        make up most of what is left.
    """
    params, data, ivar = (np.asarray(a, np.float32) for a in (params, data, ivar))
    best = _best_sources(params, data, ivar, transfer, grid, inverse_gain(gain, len(data)), fit_sky, width)
    shift, (gained, dip, left, spread) = best[:, :5].copy(), best[:, 5:].T
    seen, significance = _is_alone(gained, dip, left, spread), np.sqrt(gained)
    if correlation is not None:
        rows = np.flatnonzero(seen & (significance > _SEEN))
        points = point_images(params[rows], of_rows(transfer, rows), grid)
        alike = [variance_of_product(image, correlation) for image in np.asarray(points)]
        significance[rows] /= np.sqrt(np.array(alike))
    shift[~(seen & (significance > _SEEN))] = 0
    moves = (np.abs(shift) > _MOVES * errors).any(1)
    return Companions(shift, moves & (significance > _SIGNIFICANT))


def _is_alone(gained, dip, left, spread):
    """Which sources make up what is left of a galaxy, and are none of many."""
    plain = left - gained < _NOISE * spread
    return (gained > _ALONE * left) & (plain | (gained > _MOST * left) & (dip < _DIP * gained))


def _best_by_kernel(*known):
    return search_calls.companions(*known, _LIMITS)


@with_kernel(_best_by_kernel, "transfer")
def _best_sources(params, data, ivar, transfer, grid, inverse_gain, fit_sky, width):
    """Numbers (N, 9) of the best source, see `galshape_cnn.forward.kernel.search_calls.companions`."""
    images, derivatives = map(np.asarray, render_with_derivatives(params, transfer, grid))
    points = np.asarray(point_images(params, transfer, grid))
    light = np.maximum(images - params[:, SINGLE.sky, None, None], 0)
    weight = ivar / (1 + ivar * light * inverse_gain[:, None, None])
    rows = zip(params, width, derivatives, data - images, weight, points, light, strict=True)
    return np.array([_one(*row, fit_sky) for row in rows])


def _one(params, width, derivatives, residual, weight, point, light, fit_sky):
    """Shift (5), decrease of chi-square, depth of the deepest dip, squares left and their spread."""
    columns = derivatives.reshape(SINGLE.size, -1)
    weighted = columns * weight.ravel()
    inverse = inverse_fisher(weighted @ columns.T, float(fit_sky), xp=np)
    rest = residual - ((weighted @ residual.ravel()) @ inverse @ columns).reshape(residual.shape)
    place = params[SINGLE.centre]
    window = tuple(_window(c, _HALF * width, len(point)) for c in place[::-1])
    point, part = point[window], weight[window]
    y, x = (np.arange(side.start, side.stop) for side in window)
    near = (x - place[0]) ** 2 + (y[:, None] - place[1]) ** 2 < (_REACH * width) ** 2
    sources = moved(point, np.argwhere(near))
    images = np.concatenate([(rest[window] * part)[None], derivatives[(slice(None), *window)] * part])
    score, *seen = images.reshape(len(images), -1) @ sources.T
    explained = inverse @ seen
    whole = sources**2 @ part.ravel()
    square = whole - (seen * explained).sum(0)
    told = square > _VISIBLE * whole
    flux = np.where(told, score, 0) / np.where(told, square, 1)
    gained, lost = (np.where(sign * flux > 0, flux * score, 0) for sign in (1, -1))
    bright = light**2 * weight
    share = bright / (1 + bright)
    left, spread = (share * (rest**2 * weight - 1)).sum(), np.sqrt(2 * (share**2).sum())
    if not gained.any():
        return np.array([0, 0, 0, 0, 0, 0, lost.max(initial=0), left, spread])
    best = gained.argmax()
    shift = flux[best] * explained[SINGLE.reported, best]
    return np.array([*shift, gained[best], lost.max(), left, spread])


def _window(centre, half, size):
    """Pixels about a centre, along an axis."""
    middle = int(np.clip(np.round(centre), 0, size - 1))
    half = int(np.ceil(half))
    return slice(max(middle - half, 0), min(middle + half + 1, size))


def moved(point, places):
    """A point source moved so that its highest pixel lies at each of K places: (K, pixels)."""
    ny, nx = point.shape
    around = sliding_window_view(np.pad(point, ((ny, ny), (nx, nx))), point.shape)
    y, x = (np.array(np.unravel_index(point.argmax(), point.shape)) - places).T
    return around[ny + y, nx + x].reshape(len(places), -1)


def variance_of_product(point, correlation):
    """Variance of the product of a point source and correlated noise, over that of independent noise."""
    ny, nx = (side // 2 for side in correlation.shape)
    reach, (y, x) = reach_of(point), np.unravel_index(point.argmax(), point.shape)
    point = point[max(y - reach, 0) : y + reach + 1, max(x - reach, 0) : x + reach + 1]
    side = tuple(fft.next_fast_len(a + b, True) for a, b in zip(point.shape, correlation.shape, strict=True))
    own = fft.irfft2(np.abs(fft.rfft2(point, s=side)) ** 2, s=side)
    own = np.roll(own, (ny, nx), (0, 1))[: correlation.shape[0], : correlation.shape[1]]
    return max(float((own * correlation).sum() / own[ny, nx]), 1.0)
