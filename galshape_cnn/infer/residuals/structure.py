# Licensed under a 3-clause BSD style license - see LICENSE.rst
r"""Errors from structure that no Sérsic profile has: clumps, arms, a second component.

A bright galaxy departs from any smooth profile by more than its noise, and errors from the noise alone
are then many times too small.  What is left of it is treated as a random field: light that comes in clumps,
strewn like the light I of the model, has the covariance

.. math:: C_{ij} = \kappa \sum_u K(i - u)\, I(u)\, K(j - u)

with the kernel K, the PSF smoothed a little.  One number, the flux :math:`\kappa` of a clump, is
estimated from the squares of the residuals where the galaxy is bright, less those of the noise, with what
the fit has absorbed taken into account: residuals are those of a projection,
:math:`r_\perp = (1 - \Pi) r`, :math:`\Pi = D^T H^{-1} D`.

The sky has structure too: wings of bright neighbours, sources below the limit of detection.  One constant is
fitted to it, and what it leaves moves flux, size and n of a galaxy with faint wings.  The variance of the
residuals smoothed over a few pixels away from the galaxy, beyond that of noise, is taken as that of a field
with a Gaussian correlation of the same width.

Both are counted beyond *white* noise, whose scatter away from the galaxy may be larger than the noise map
says: differences of adjacent pixels, which know nothing of light that is smooth over the PSF, tell by how
much.  That noise is no structure; it multiplies the bound.

The covariance of the estimates then has, beside that of the noise, the term
:math:`H^{-1} D W^{1/2} C W^{1/2} D^T H^{-1}` of a sandwich (Huber 1967; White 1982, Econometrica 50, 1).
"""

from functools import cache, partial
from typing import NamedTuple

import numpy as np
from scipy import fft

from galshape_cnn.forward.galaxy_model import SINGLE
from galshape_cnn.forward.kernel import structure_calls
from galshape_cnn.forward.kernel.library import batches, with_kernel
from galshape_cnn.forward.render import BLOCK, render_with_derivatives
from galshape_cnn.forward.transfer import of_rows
from galshape_cnn.infer.likelihood.fisher import inverse_gain
from galshape_cnn.infer.residuals.examination import RIDGE, SKY_WEIGHT, inverse_fisher, sky_variance
from galshape_cnn.infer.residuals.point_source import point_images, reach_of
from galshape_cnn.infer.residuals.smoothers import REACHES, SKY_SCALE, sky_roots, sky_smoothers
from galshape_cnn.linalg import symmetric_root

__all__ = [
    "SIGNIFICANT",
    "Structure",
    "estimate_structure",
    "score_roots",
    "significances",
    "sky_significance",
    "whitened",
]

_SMOOTHING = 0.15  # of the half-light radius: width of a clump
#: Standard deviations of the residuals' squares above which structure counts.
SIGNIFICANT = 2.5
_MEDIAN = 0.45493642  # of the squares of normal deviates
#: Standard errors; and the error of one such variance times the root of the number of pixels: 2.17 +- 0.03
#: in 2000 images of 60x60 pixels.
_WHITE_SIGMAS, _WHITE_ERROR = 4.5, 2.2
_MORE_NOISE = 3.0  # standard deviations of chi-square: less is no white noise of 4.5 of the above
_HALO = 0.5  # correlation of opposite sides: that of bumps is 0.0 +- 0.3
_CONSERVED = 0.5  # of the clumps' light that the smooth profile lacks: those of a galaxy share its flux
# The kernel leaves out this share of a clump's flux, at its rim, of the galaxy's light, on each side, and of
# the square of a clump that is split into columns by rows: covariances change by less than one in a thousand.
_LEFT_OUT = 2e-4, 1.5e-4, 4e-6


class Structure(NamedTuple):
    """Result of `estimate_structure`; the first axis of each array is that of the galaxies.

    Attributes
    ----------
    galaxy, sky : (N, 8, 8) ndarray
        What structure of the galaxy, and of the sky, adds to the covariance of the parameters.
    galaxy_significance, sky_significance : (N,) ndarray
        Excess of the squares of the residuals, in standard deviations of those of noise.
    clump : (N,) ndarray
        Flux of a clump, in the unit of the data; negative where residuals are smaller than noise.
    galaxy_score, sky_score : (N, 8, 8) ndarray
        Covariances of the score that structure of the galaxy, and of the sky, stands for.
    white : (N,) ndarray
        Variance of the white noise in units of the noise map's; one unless larger by 4.5 standard errors.
    sky_level : (N,) ndarray
        Variance of the sky's structure in units of the noise's; zero where it is not significant, or may be
        the galaxy's own: that has structure itself, or what is left is the same on opposite sides of it, as
        a halo is.
    """

    galaxy: np.ndarray
    sky: np.ndarray
    galaxy_significance: np.ndarray
    sky_significance: np.ndarray
    clump: np.ndarray
    galaxy_score: np.ndarray
    sky_score: np.ndarray
    white: np.ndarray
    sky_level: np.ndarray

    def covariance(self, least=SIGNIFICANT):
        """What both add to the covariance of the parameters, (N, 8, 8), where they are significant."""
        out = np.zeros(self.galaxy.shape)
        for part, significance in (
            (self.galaxy, self.galaxy_significance), (self.sky, self.sky_significance),
        ):  # fmt: skip
            seen = np.isfinite(part).all((1, 2)) & (significance > least)
            out += np.where(seen[:, None, None], part, 0)
        return out


def estimate_structure(
    params, data, ivar, transfer, grid, fit_sky=True, gain=None, correlation=None, least=SIGNIFICANT
):
    """Estimate the structure of galaxies, and what it does to their parameters.

    Parameters
    ----------
    params, data, ivar, transfer, grid, fit_sky, gain
        As for `galshape_cnn.infer.residuals.examination.examine`.
    correlation : (ky, kx) ndarray, optional
        Odd-sized autocorrelation of the noise.
    least : float, optional
        Significance up to which a structure is taken as zero; finding out what it does takes ten times as
        long as finding out that there is none.

    Returns
    -------
    structure : Structure
        Of float64 arrays.
    """
    params, data, ivar = (np.asarray(a, np.float32) for a in (params, data, ivar))
    how = inverse_gain(gain, len(data)), fit_sky, _noise_of(correlation), least
    return _rows(params, data, ivar, transfer, grid, *how)


def _rows_by_kernel(params, data, ivar, transfer, grid, inverse, fit_sky, noise, least):
    of_sky = sky_smoothers(grid.size), REACHES[-1], sky_roots(grid.size)
    limits = RIDGE, SKY_WEIGHT, *noise, _MEDIAN, _WHITE_SIGMAS, _WHITE_ERROR, SKY_SCALE, _HALO, least
    limits = *limits, SIGNIFICANT, _SMOOTHING, _CONSERVED, *_LEFT_OUT
    pixels = params, data, ivar, transfer, grid
    found, numbers = structure_calls.structure(*pixels, inverse, fit_sky, *of_sky, limits)
    galaxy, sky, galaxy_score, sky_score = np.moveaxis(found, 1, 0)
    *significances, clump, white, level = numbers.T
    return Structure(galaxy, sky, *significances, clump, galaxy_score, sky_score, white, level)


@with_kernel(_rows_by_kernel, "transfer")
def _rows(params, data, ivar, transfer, grid, inverse, fit_sky, noise, least):
    found = []
    for part, padded in batches(np.arange(len(params)), BLOCK):
        own = of_rows(transfer, padded)
        rendered = map(np.asarray, render_with_derivatives(params[padded], own, grid))
        clumps = cache(partial(_clump_images, params[padded], own, grid))  # few rows ask for them
        rows = zip(params[part], *rendered, data[part], ivar[part], inverse[part], strict=False)
        found += [_one(*row, fit_sky, noise, least, partial(_nth, clumps, k)) for k, row in enumerate(rows)]
    return Structure(*(np.stack(field).astype(float) for field in zip(*found, strict=True)))


def _clump_images(params, transfer, grid):
    """Point sources smoothed to the width of a clump, in the middle of the stamp."""
    along_y, along_x = (
        np.exp(-0.5 * (_SMOOTHING * params[:, SINGLE.hlr, None] * k) ** 2) for k in (grid.ky, grid.kx)
    )
    smooth = (transfer * (along_y[:, :, None] * along_x[:, None])).astype(transfer.dtype)
    params = params.copy()
    params[:, SINGLE.centre] = grid.size // 2
    return point_images(params, smooth, grid)


def significances(examination, chi2, freedom):
    """Significance of structure of galaxy and sky, and whether there may be more white noise than mapped.

    More white noise lowers the significance of structure, so that as if there were none bounds it.

    Parameters
    ----------
    examination : galshape_cnn.infer.residuals.examination.Examination
        Of N galaxies; as if their noise were independent.
    chi2 : (N,) ndarray
        Reduced chi-square.
    freedom : (N,) ndarray
        Degrees of freedom, of independent noise.

    Returns
    -------
    galaxy, sky : (N,) ndarray
        Standard deviations of noise.
    white : (N,) ndarray of bool
    """
    sky = sky_significance(examination.sky_square, examination.sky_number)
    white = (chi2 - 1) * np.sqrt(freedom / 2) > _MORE_NOISE
    return examination.galaxy_excess, sky, white


def score_roots(scores, fisher, seen):
    """Roots of the covariances of the scores that one random field has in several images.

    The same clumps lie in all images of a galaxy, so their scores do not average out: they are taken to
    depend on the field alike, the sum of the images having the sum of the roots, which are the symmetric ones
    in units of the errors.

    Parameters
    ----------
    scores : sequence of (rows, (M, P, P) ndarray)
        For each image, the galaxies and the covariances of its score by common parameters.
    fisher : (N, P, P) ndarray
        Of all images: its diagonal sets the units.
    seen : (N,) ndarray of bool
        Galaxies in which there is such a field.

    Returns
    -------
    roots : list of (M, P, P) ndarray
        L of each image, with the covariance L L^T; zero for galaxies without.
    """
    scale = np.sqrt(np.maximum(np.diagonal(fisher, axis1=1, axis2=2), 1e-300))
    out = []
    for rows, covariance in scores:
        own = np.flatnonzero(seen[rows])
        unit = scale[rows[own]]
        scaled = covariance[own] / (unit[:, :, None] * unit[:, None, :])
        known = np.isfinite(scaled).all((1, 2))[:, None, None]  # a galaxy without a model has no score
        root = np.zeros(covariance.shape)
        root[own] = unit[:, :, None] * symmetric_root(np.where(known, scaled, 0))
        out.append(root)
    return out


def _noise_of(correlation):
    """Of noise of unit variance: sum of squares of the correlation, and variances of what is smoothed as the
    sky's residuals are, and of half the differences of adjacent pixels."""
    if correlation is None:
        return 1.0, 1.0, 1.0
    half = [side // 2 for side in correlation.shape]
    near = [correlation[half[0] + dy, half[1] + dx] if half[0] >= dy and half[1] >= dx else 0.0
            for dy, dx in ((0, 1), (1, 0))]  # fmt: skip
    return (correlation**2).sum(), sky_variance(correlation), max(1 - np.mean(near), 1e-3)


def _nth(function, k):
    return np.asarray(function()[k])


class _Left(NamedTuple):
    """What a galaxy leaves: its light, the whitened derivatives and what they explain; and of what is left
    the excess where the galaxy is bright, its significance, and variance and significance of the
    sky's structure."""

    light: np.ndarray
    root: np.ndarray
    columns: np.ndarray
    explained: np.ndarray
    inverse: np.ndarray
    weight: np.ndarray
    excess: float
    significance: float
    level: float
    doubt: float
    white: float
    smoothed: np.ndarray


def whitened(params, image, derivatives, data, ivar, inverse_gain):
    """Pixels of one galaxy in units of their noise, its own photons' in it.

    Arguments as of `estimate_structure`, of one galaxy, with its image and the derivatives of that.

    Returns
    -------
    light, root : (size, size) ndarray
        The image without sky, and the roots of the weights.
    columns, residual : (8, size**2), (size**2,) ndarray
        Derivatives and residual times these.
    """
    light = np.maximum(image - params[SINGLE.sky], 0)
    root = np.sqrt(ivar / (1 + ivar * light * inverse_gain))
    return light, root, (derivatives * root).reshape(SINGLE.size, -1), ((data - image) * root).ravel()


def _left(params, image, derivatives, data, ivar, inverse_gain, fit_sky, noise):
    light, root, columns, residual = whitened(params, image, derivatives, data, ivar, inverse_gain)
    inverse = inverse_fisher(columns @ columns.T, float(fit_sky), xp=np)
    explained = inverse @ columns
    rest = residual - (columns @ residual) @ explained
    weight = ((light * root) ** 2 / (1 + (light * root) ** 2)).ravel()
    size = light.shape[-1]
    outside = ((weight < SKY_WEIGHT) & (root.ravel() > 0)).reshape(size, size)
    white = _white_variance(rest.reshape(size, size), outside, noise)
    excess = (weight * (rest**2 - white * (1 - (explained * columns).sum(0)))).sum()
    total = white * np.sqrt(2 * noise[0] * (weight**2).sum())
    significance = np.where(total > 0, excess / total, 0.0)
    level, doubt, smoothed = _sky_variance(rest.reshape(size, size), root, outside, white * noise[1])
    return _Left(light, root, columns, explained, inverse, weight, excess, significance, level, doubt, white,
                 smoothed)  # fmt: skip


def _one(params, image, derivatives, data, ivar, inverse_gain, fit_sky, noise, least, point):
    left = _left(params, image, derivatives, data, ivar, inverse_gain, fit_sky, noise)
    columns, inverse, level, size = left.columns, left.inverse, np.maximum(left.level, 0), len(left.light)
    galaxy = sky = galaxy_score = sky_score = np.zeros((SINGLE.size, SINGLE.size))
    clump = of_sky = 0.0
    if left.significance > least:  # most rows end here, and the transforms take most of the time
        clump, galaxy, galaxy_score = _of_galaxy(point(), left)
    if left.doubt > least:
        along = sky_roots(size)
        seen = (along @ columns.reshape(SINGLE.size, size, size) @ along.T).reshape(SINGLE.size, -1)
        spread = seen @ seen.T
        sky, sky_score = inverse @ spread @ inverse * level, spread * level
    if left.doubt > SIGNIFICANT and left.significance <= SIGNIFICANT:
        of_sky = level if _symmetry(left.smoothed, params[SINGLE.centre]) < _HALO else 0.0
    return Structure(galaxy, sky, left.significance, left.doubt, clump, galaxy_score, sky_score, left.white,
                     of_sky)  # fmt: skip


def _of_galaxy(point, left):
    """Flux of a clump, and the covariances of parameters and of the score."""
    light, root, columns, inverse, size = left.light, left.root, left.columns, left.inverse, len(left.light)
    kernel = _kernel(point)
    seen = _convolved((columns.reshape(SINGLE.size, size, size) * root), np.conj(kernel))
    spread, back = _clumps(seen, light, kernel)
    squared = fft.rfft2(fft.irfft2(kernel, s=(len(kernel),) * 2) ** 2)
    own = (_convolved(light, squared) * root**2).ravel()
    back = back.reshape(SINGLE.size, -1) * root.ravel()
    covariance = inverse @ spread @ inverse
    seen = own - 2 * (left.explained * back).sum(0) + (columns * (covariance @ columns)).sum(0)
    clump = left.excess / np.maximum((left.weight * seen).sum(), 1e-20)
    return clump, covariance * np.maximum(clump, 0), spread * np.maximum(clump, 0)


def _white_variance(rest, outside, noise):
    """Variance of the white noise, from the median of squared differences of adjacent pixels."""
    parts = [
        np.where(a & b, (x - y) ** 2, np.inf).ravel()
        for a, b, x, y in (
            (outside[:, 1:], outside[:, :-1], rest[:, 1:], rest[:, :-1]),
            (outside[1:], outside[:-1], rest[1:], rest[:-1]),
        )
    ]
    squares = np.concatenate(parts)
    number = np.isfinite(squares).sum()
    middle = np.maximum(number // 2, 1)
    variance = np.partition(squares, middle)[middle] / (2 * _MEDIAN * noise[2])
    error = _WHITE_ERROR * np.sqrt(noise[0] / np.maximum(outside.sum(), 1))
    # of one pair the middle above is none: a galaxy may fill its stamp but for two pixels
    return np.where((number > 1) & (variance - 1 > _WHITE_SIGMAS * error), variance, 1.0)


def _sky_variance(rest, root, outside, noise):
    """Variance of the sky's structure in units of the noise, and its significance."""
    along, squared = sky_smoothers(len(rest))
    number = np.maximum(((squared @ (root > 0) @ squared) * outside).sum(), 1.0)
    smoothed = (along @ rest @ along) * outside
    square = (smoothed**2).sum() / number
    # smoothing makes of unit variance, so correlated, the area under the product of both correlations
    level = (square - noise) / (2 * np.pi * SKY_SCALE**2)
    return level, sky_significance(square / noise, number), smoothed


def _symmetry(smoothed, centre):
    """Correlation of smoothed residuals with the same turned about the galaxy by 180 degrees."""
    x, y = np.round(centre).astype(int)
    half = min(x, y, len(smoothed) - 1 - x, len(smoothed) - 1 - y)
    if half < SKY_SCALE:
        return 0.0
    part = smoothed[y - half : y + half + 1, x - half : x + half + 1]
    both = (part != 0) & (part[::-1, ::-1] != 0)
    return (part * part[::-1, ::-1])[both].sum() / max((part[both] ** 2).sum(), 1e-20)


def sky_significance(square, number):
    """Excess of a mean square of smoothed residuals of unit variance, in standard deviations of noise."""
    return (square - 1) * np.sqrt(number / (4 * np.pi * SKY_SCALE**2))


def _kernel(point):
    """Transform of a clump moved to the origin, on a grid in which none reaches around it into the stamp."""
    side = min(fft.next_fast_len(len(point) + reach_of(point), True), 2 * len(point))
    middle = len(point) // 2
    waves = [
        np.exp(1j * k * middle).astype(np.complex64)
        for k in (np.fft.fftfreq(side)[:, None] * 2 * np.pi, np.fft.rfftfreq(side) * 2 * np.pi)
    ]
    return fft.rfft2(point, s=(side, side)) * waves[0] * waves[1]


def _convolved(images, kernel):
    """Images of a stamp's size convolved, empty rows left out."""
    side, size = len(kernel), images.shape[-1]
    waves = fft.fft(fft.rfft(images, side), side, axis=-2) * kernel
    return fft.irfft(fft.ifft(waves, axis=-2)[..., :size, :], side)[..., :size]


def _clumps(seen, light, kernel):
    """Covariance of the score per flux of a clump, and the covariance of score and pixels."""
    mean = (seen * light).sum((1, 2)) / np.maximum(light.sum(), 1e-20)
    flat = (seen * np.sqrt(light)).reshape(len(seen), -1)
    spread = flat @ flat.T - _CONSERVED * light.sum() * mean[:, None] * mean
    lit = light * (seen - _CONSERVED * mean[:, None, None])
    return spread, _convolved(lit, kernel)
