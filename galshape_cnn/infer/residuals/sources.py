# Licensed under a 3-clause BSD style license - see LICENSE.rst
r"""Search for sources in the residuals of a galaxy, which are no peak of their own in its stamp.

A faint source on the flank of a galaxy shows no peak beside it.  The fit leaves most of it in the
residuals :math:`r_\perp = (1 - \Pi) r`, :math:`\Pi = D^T H^{-1} D`, and takes up the rest.  With the whitened
image P of a point source at some place, its flux and the significance of that are

.. math:: f = \frac{P^T r_\perp}{P^T (1 - \Pi) P}, \qquad s = f \sqrt{P^T (1 - \Pi) P}.

The best place is looked for on the grid of the pixels; its two derivatives go along, for a source lies
between pixels, or is no point.  Found sources join D, one after the other.  Sources within a width of the PSF
or so of the centre cannot be taken away like this: see `galshape_cnn.infer.residuals.companions`.

A source within the galaxy may be a clump of its own.  It counts only if it is the only one, and little is
left beside it; which of the two it is nobody knows.
"""

from typing import NamedTuple

import numpy as np
from scipy import fft
from scipy.ndimage import maximum_filter

from galshape_cnn.forward.galaxy_model import SINGLE
from galshape_cnn.forward.kernel import search_calls
from galshape_cnn.forward.kernel.library import with_kernel
from galshape_cnn.forward.render import render_with_derivatives
from galshape_cnn.forward.transfer import of_rows
from galshape_cnn.geometry import semi_major_radius
from galshape_cnn.infer.likelihood.fisher import inverse_gain
from galshape_cnn.infer.residuals.companions import moved, variance_of_product
from galshape_cnn.infer.residuals.examination import RIDGE, inverse_fisher
from galshape_cnn.infer.residuals.point_source import point_images, reach_of
from galshape_cnn.infer.residuals.structure import whitened

__all__ = ["MOST_SOURCES", "ResidualSources", "find_residual_sources"]

#: Sources of one galaxy that are looked for.
MOST_SOURCES = 3

_INNER = 1.0  # widths of the PSF about the centre in which nothing is looked for
_SIGNIFICANT = 4.2  # standard deviations of the flux
_MOVES = 0.2  # errors by which one moves a parameter at least
# Half-light radii beyond which clumps of the galaxy are not to be expected, how many sources there may be
# within them, and standard deviations of squares that may be left beside these: else they are its own.
_OUTSIDE, _MOST_CLOSE, _NOISE = 2.5, 1, 1.0
_WORTH = 0.6  # of that significance if the galaxy took up nothing: places worth a closer look
_PLACES = 8  # of these, the highest
_SEEN = 0.1  # of a source's square that lies on pixels that count
# As the kernel takes them.
_LIMITS = RIDGE, _SIGNIFICANT, _WORTH, _PLACES, _SEEN, MOST_SOURCES, _MOST_CLOSE, _NOISE


class ResidualSources(NamedTuple):
    """Result of `find_residual_sources`.

    Attributes
    ----------
    found : (N,) ndarray of bool
        Whether there is one.
    close : (N,) ndarray of bool
        Whether one lies within the galaxy, and may be a clump of it.
    light : (N, size, size) ndarray
        Of the sources.
    images : (N, 9, size, size) float32 ndarray
        Each source's image and its derivatives along x and y; zeros where there are fewer sources.
    """

    found: np.ndarray
    close: np.ndarray
    light: np.ndarray
    images: np.ndarray


def find_residual_sources(
    params, errors, width, data, ivar, transfer, grid, fit_sky=True, gain=None, correlation=None, white=None
):
    """Look for point sources in the residuals of galaxies.

    Parameters
    ----------
    params, errors, width, data, ivar, transfer, grid, fit_sky, gain, correlation
        As for `galshape_cnn.infer.residuals.companions.find_companions`.
    white : (N,) ndarray, optional
        Variance of the white noise in units of the noise map's; one without it.

    Returns
    -------
    sources : ResidualSources
        At most three for each galaxy, of 4.2 standard deviations, that move a parameter by a fifth of its
        error.
    """
    params, data, ivar = (np.asarray(a, np.float32) for a in (params, data, ivar))
    inside = _OUTSIDE * semi_major_radius(params[:, SINGLE.hlr], *params[:, SINGLE.shear].T)
    spread = np.sqrt(np.ones(len(params)) if white is None else white)
    pixels = params, data, ivar, transfer, grid, inverse_gain(gain, len(data))
    known = {"errors": np.asarray(errors), "width": np.asarray(width), "inside": inside, "spread": spread}
    numbers, images = _found(*pixels, fit_sky, **known, correlation=correlation)
    total, found = np.zeros((len(params), grid.size, grid.size)), numbers[:, 0] > 0
    for k in np.flatnonzero(found):
        several = 3 * int(numbers[k, 0])
        total[k] = np.tensordot(numbers[k, 2 : 2 + several], images[k, :several], 1)
    return ResidualSources(found, numbers[:, 1] > 0, total, images)


def _found_by_kernel(*pixels_and_fit, errors, width, inside, spread, correlation):
    scales = np.stack([_INNER * width, inside, np.ceil(width / 2), spread], 1)
    return search_calls.sources(*pixels_and_fit, scales, _MOVES * errors, _LIMITS, correlation)


@with_kernel(_found_by_kernel, "transfer")
def _found(
    params, data, ivar, transfer, grid, inverse, fit_sky, *, errors, width, inside, spread, correlation
):
    """What `galshape_cnn.forward.kernel.search_calls.sources` returns."""
    numbers = np.zeros((len(params), 2 + 3 * MOST_SOURCES))
    images = np.zeros((len(params), 3 * MOST_SOURCES, grid.size, grid.size), np.float32)
    for k in range(len(params)):
        one = slice(k, k + 1)
        own = of_rows(transfer, one)
        image, derivatives = (np.asarray(a)[0] for a in render_with_derivatives(params[one], own, grid))
        point = np.asarray(point_images(params[one], own, grid))[0]
        pixels = whitened(params[k], image, derivatives, data[k], ivar[k], inverse[k])
        wide = spread[k]
        if correlation is not None:
            wide *= np.sqrt(variance_of_product(point, correlation))
        known = errors[k], width[k], inside[k]
        some, amplitude, close = _sources_of(params[k], *known, *pixels, point, fit_sky, wide)
        images[k, : len(some)], numbers[k, 2 : 2 + len(some)] = some, amplitude
        numbers[k, :2] = len(some) // 3, close
    return numbers, images


class _Point:
    """A point source, and its products with images wherever its highest pixel lies.

    In single precision, of which the sum over a thousand pixels still knows six digits.
    """

    def __init__(self, image):
        self.image, size = image, len(image)
        self._at = y, x = np.unravel_index(image.argmax(), image.shape)
        # as far as it reaches beyond the stamp: what wraps around is no place of the stamp
        self._side = fft.next_fast_len(size + reach_of(image), True)
        self._wave, self._squared = self._transform(image), self._transform(image**2)

    def _transform(self, image):
        centred = np.zeros((self._side,) * 2, np.float32)
        centred[: len(image), : len(image)] = image
        return np.conj(fft.rfft2(np.roll(centred, (-self._at[0], -self._at[1]), (0, 1))))

    def products(self, image):
        """Sum over the pixels of an image and the source, for each place of that."""
        return self._back(image, self._wave)

    def squares(self, images):
        """The same of the square of the source, for several images."""
        return self._back(images, self._squared)

    def _back(self, images, wave):
        size, shape = len(self.image), (self._side, self._side)
        images = np.asarray(images, np.float32)
        return fft.irfft2(fft.rfft2(images, s=shape) * wave, s=shape)[..., :size, :size].astype(float)


def _sources_of(params, errors, width, clumpy, light, root, columns, residual, point, fit_sky, wide):
    """Images (3 K, size, size) of the sources of one galaxy, their amplitudes, and whether one is close."""
    columns, point = columns.astype(float), _Point(point)
    square, seen = point.squares(np.stack([root**2, root > 0]))
    y, x = np.mgrid[: len(root), : len(root)]
    distance = np.hypot(x - params[SINGLE.centre][0], y - params[SINGLE.centre][1])
    # places at which a source would lie on pixels that count
    known = (seen > _SEEN * (point.image**2).sum()) & (distance > _INNER * width)
    inside = distance < clumpy
    usable = np.where(known, square, np.inf), known, inside
    bright, found = (light * root).ravel() ** 2, []
    for _ in range(MOST_SOURCES):
        used = _with_sources(columns, found, root)
        explained = _inverse(used, fit_sky) @ used
        rest = residual - (used @ residual) @ explained
        place = _best_place(rest, used, explained, errors, usable, root, point, width, wide, bright)
        if place is None:
            break
        source = moved(point.image, [place])[0].reshape(root.shape)
        found.append((inside[tuple(place)], _with_slopes(source)))
    if sum(close for close, _ in found) > _MOST_CLOSE:  # a galaxy of clumps
        found = [one for one in found if not one[0]]
    used = _with_sources(columns, found, root)
    amplitude = (_inverse(used, fit_sky) @ (used @ residual))[SINGLE.size :]
    images = np.concatenate([np.zeros((0, *root.shape)), *(images for _, images in found)])
    return images, amplitude, any(close for close, _ in found)


def _with_sources(columns, found, root):
    """Whitened derivatives of the galaxy, and images of the sources."""
    return np.concatenate([columns, *((images * root).reshape(3, -1) for _, images in found)])


def _with_slopes(image):
    along_y, along_x = np.gradient(image)
    return np.stack([image, along_x, along_y])


def _inverse(columns, fit_sky):
    return inverse_fisher(columns @ columns.T, float(fit_sky), xp=np)


def _best_place(rest, columns, explained, errors, usable, root, point, width, wide, bright):
    """Pixel, y and x, of the most significant source that matters; None without."""
    whole, known, inside = usable
    score = point.products(rest.reshape(root.shape) * root)
    rough = np.where(known, score / np.sqrt(whole), 0) / wide
    top = rough == maximum_filter(rough, 2 * int(np.ceil(width / 2)) + 1)
    places = np.argwhere(top & (rough > _WORTH * _SIGNIFICANT))
    places = places[np.argsort(-rough[tuple(places.T)], kind="stable")][:_PLACES]
    if not len(places):
        return None
    sources = moved(point.image, places)
    weighted = sources * root.ravel()
    seen, taken = columns @ weighted.T, explained @ weighted.T
    square = (weighted**2).sum(1) - (seen * taken).sum(0)
    product = weighted @ rest
    significance = product / np.sqrt(np.maximum(square, 1e-20)) / wide
    share = bright / (1 + bright)
    left, spread = (share * (rest**2 - 1)).sum(), np.sqrt(2 * (share**2).sum())
    shift = np.abs(product / np.maximum(square, 1e-20) * taken[SINGLE.reported])
    good = (significance > _SIGNIFICANT) & (shift > _MOVES * errors[:, None]).any(0)
    good &= ~inside[tuple(places.T)] | (left / wide**2 - significance**2 < _NOISE * spread)
    return places[np.where(good, significance, 0).argmax()] if good.any() else None
