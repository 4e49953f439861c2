# Licensed under a 3-clause BSD style license - see LICENSE.rst
r"""Residual statistics of measured galaxies, in one pass over model and derivatives.

With whitened residuals r = (data - model) / sigma and whitened derivatives D the pass gives
chi-square, score and Fisher matrix,

.. math:: \chi^2 = \mathbf r^T \mathbf r, \qquad \mathbf s = D \mathbf r, \qquad F = D D^T,

and a few numbers that tell in which way a galaxy is unlike its model.  For those the residuals are freed
of what any small change of the eight parameters would explain,

.. math:: \mathbf r_\perp = \mathbf r - D^T F^{-1} \mathbf s,

so that an estimate a little off its maximum and a galaxy that is no Sérsic profile are told
apart: the first shows in the step :math:`F^{-1} \mathbf s` (Rao 1948, Proc. Camb. Phil. Soc. 44, 50), the
second in the rest.  The second derivatives of the image with respect to position are removed together with
D: a centroid that is off leaves them at second order, and so does a PSF of wrong width or shape.
"""

from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from galshape_cnn.compilation import compiled
from galshape_cnn.forward.galaxy_model import SINGLE
from galshape_cnn.forward.kernel import calls
from galshape_cnn.forward.kernel.library import with_kernel
from galshape_cnn.forward.render import derivatives_block, in_blocks
from galshape_cnn.infer.likelihood.correlated_products import rendered_products
from galshape_cnn.infer.likelihood.fisher import inverse_gain
from galshape_cnn.infer.residuals.smoothers import (
    REACHES,
    SCALES,
    SKY_SCALE,
    all_smoothers,
    residual_smoothers,
    sky_smoothers,
)
from galshape_cnn.linalg import inverse_or_nan

__all__ = [
    "RIDGE",
    "SKY_WEIGHT",
    "Examination",
    "as_if_independent",
    "examine",
    "inverse_fisher",
    "newton_steps",
    "sky_variance",
]

RIDGE = 1e-6  # of the equilibrated Fisher matrix, for single precision
_CORE = 0.6  # of the model's peak: brighter pixels are its core
_TIE = 0.02  # of the noise: closer pixels are called equal
_RFF_RADII, _RFF_PIXELS = 2.0, 2.0  # half-light radii, and pixels, within which residual light counts
_MEAN_ABSOLUTE = 0.7979  # of a normal deviate
_BRIGHT = 0.3  # of the model's peak: where equal pixels are looked for
SKY_WEIGHT = 0.1  # of a pixel for the galaxy's structure, below which it counts for the sky's
#: As the kernel takes them.
_LIMITS = RIDGE, _CORE, _BRIGHT, _TIE, _RFF_RADII, _RFF_PIXELS, _MEAN_ABSOLUTE, SKY_WEIGHT


class Examination(NamedTuple):
    """Result of `examine`; the first axis of each array is that of the galaxies.

    Attributes
    ----------
    chi2 : (N,) ndarray
        Sum of squared whitened residuals.
    score : (N, 8) ndarray
        Derivative of the log-likelihood, the weights held fixed.
    fisher : (N, 8, 8) ndarray
        D D^T.
    left : (N,) ndarray
        Sum of squares after the best small change of the parameters.
    inner, inner_number : (N,) ndarray
        The same, weighted by the light of the model, and the effective number of pixels in it.
    lags : (N, 2) ndarray
        Correlation of pixels adjacent along x and y, in standard deviations.
    highest, lowest : (N, len(SCALES)) ndarray
        Extremes of the smoothed residuals, in standard deviations.
    distance : (N, len(SCALES)) ndarray
        Of the highest from the galaxy's centre, pixels.
    smear : (N,) ndarray
        Decrease of chi-square by the three second derivatives of the model's image, beyond the
        parameters: an error of the PSF's width or shape.
    core : (N,) ndarray
        Amplitude of the model's brightest part in the residuals, in standard deviations.
    tied : (N,) ndarray
        Pixels of the core that are as bright as the brightest, itself included.
    rff : (N,) ndarray
        Residual flux fraction (Hoyos et al. 2011, MNRAS 411, 2439; Blakeslee et al. 2006, ApJ 644, 30):
        the sum of abs(data - model) less what noise gives, 0.8 sigma for each pixel, over the model's
        light, within two half-light radii of the ellipse, and two pixels more for small galaxies.
    galaxy_excess : (N,) ndarray
        Squares of what eight parameters leave where the galaxy is bright, in standard deviations of noise.
    sky_square, sky_number : (N,) ndarray
        Mean square of the same, smoothed by 4 pixels, away from the galaxy, and of how many pixels.
    actual : (N, 8, 8) ndarray or None
        Covariance of the score in correlated noise, which has ``fisher`` in independent noise.
    """

    chi2: np.ndarray
    score: np.ndarray
    fisher: np.ndarray
    left: np.ndarray
    inner: np.ndarray
    inner_number: np.ndarray
    lags: np.ndarray
    highest: np.ndarray
    lowest: np.ndarray
    distance: np.ndarray
    smear: np.ndarray
    core: np.ndarray
    tied: np.ndarray
    rff: np.ndarray
    galaxy_excess: np.ndarray
    sky_square: np.ndarray
    sky_number: np.ndarray
    actual: np.ndarray | None = None


def examine(params, data, ivar, transfer, grid, fit_sky=True, gain=None, correlation=None):
    """Chi-square, score, Fisher matrix and statistics of the residuals of a batch.

    Parameters
    ----------
    params : (N, 8) array_like
        flux, n, hlr, g1, g2, x, y, sky in the pixel frame of the stamps.
    data, ivar : (N, size, size) array_like
        Pixels and their inverse variance, in a unit in which the noise is near one; zero inverse
        variance where masked.
    transfer : (N or 1, Ky, Kx) complex array
        From `galshape_cnn.forward.transfer.transfer_functions`.
    grid : FourierGrid
        Stamp size and bandwidth.
    fit_sky : bool, optional
        Whether the sky level is among the parameters that may change.
    gain : float or (N,) array_like, optional
        Electrons per unit of the data: adds the source's photon noise.
    correlation : (ky, kx) array_like, optional
        Odd-sized autocorrelation of the noise: only ``actual`` counts it.

    Returns
    -------
    examination : Examination
        Of float64 arrays.
    """
    numbers = [np.asarray(a, np.float32) for a in (params, data, ivar)]
    how = inverse_gain(gain, len(data)), np.float32(fit_sky), correlation
    result = _examine_rows(*numbers, transfer, grid, *how)
    return jax.tree.map(lambda a: np.asarray(a, float), result)


def _rows_by_kernel(params, data, ivar, transfer, grid, inverse_gain, fit_sky, correlation):
    how = inverse_gain, fit_sky, all_smoothers(grid.size), REACHES, _LIMITS, correlation
    numbers, actual = calls.examination(params, data, ivar, transfer, grid, *how)
    shapes = [(), (8,), (8, 8), (), (), (), (2,), *[(len(SCALES),)] * 3, *[()] * 7]
    ends = np.cumsum([int(np.prod(shape)) for shape in shapes])
    parts = np.split(numbers, ends[:-1], axis=1)
    found = (one.reshape(-1, *shape) for one, shape in zip(parts, shapes, strict=True))
    return Examination(*found, None if correlation is None else actual)


def as_if_independent(examination, correlation):
    """Statistics of residuals in units of what correlated noise of the given kind would give.

    Parameters
    ----------
    examination : Examination
    correlation : (ky, kx) ndarray
        Odd-sized autocorrelation of the noise.

    Returns
    -------
    examination : Examination
        Patterns larger than the correlation scaled by its sum, smoothed residuals by what the
        kernel of each scale makes of it, sums of squares by their variance; no ``lags``.
    """
    area, alike = max(correlation.sum(), 1.0), (correlation**2).sum()
    half = [side // 2 for side in correlation.shape]
    y, x = np.mgrid[-half[0] : half[0] + 1, -half[1] : half[1] + 1]
    smooth = [np.exp(-(x**2 + y**2) / (4 * s**2)) if s else (x == 0) & (y == 0) for s in SCALES]
    spread = np.sqrt(np.maximum([(correlation * one).sum() for one in smooth], 1e-3))
    return examination._replace(
        score=examination.score / np.sqrt(area),
        inner=examination.inner / alike,
        inner_number=examination.inner_number / alike,
        lags=np.zeros_like(examination.lags),
        highest=examination.highest / spread,
        lowest=examination.lowest / spread,
        smear=examination.smear / area,
        core=examination.core / np.sqrt(area),
        galaxy_excess=examination.galaxy_excess / np.sqrt(alike),
        sky_square=examination.sky_square / sky_variance(correlation),
    )


def sky_variance(correlation):
    """Of noise of unit variance with a correlation, smoothed as the sky's residuals are."""
    half = [side // 2 for side in correlation.shape]
    y, x = np.mgrid[-half[0] : half[0] + 1, -half[1] : half[1] + 1]
    return max((correlation * np.exp(-(x**2 + y**2) / (4 * SKY_SCALE**2))).sum(), 1e-3)


def newton_steps(examination, free):
    """Newton steps and errors of some of the parameters, the others held fixed.

    Parameters
    ----------
    examination : Examination
    free : list of int
        Parameters that may change.

    Returns
    -------
    step, sigma : (N, len(free)) ndarray
    """
    fisher = examination.fisher[:, free][:, :, free]
    scale = np.sqrt(np.maximum(np.diagonal(fisher, axis1=1, axis2=2), 1e-30))
    matrix = fisher / scale[:, :, None] / scale[:, None, :] + RIDGE * np.eye(len(free))
    matrix = np.where(np.isfinite(matrix).all((1, 2), keepdims=True), matrix, np.eye(len(free)))
    inverse = np.linalg.inv(matrix)
    step = (inverse @ (examination.score[:, free] / scale)[..., None])[..., 0] / scale
    sigma = np.sqrt(np.maximum(np.diagonal(inverse, axis1=1, axis2=2), 0)) / scale
    return step, sigma


# Without it XLA computes what several statistics use again for each.
_stored = jax.lax.optimization_barrier


@with_kernel(_rows_by_kernel, "transfer")
def _examine_rows(params, data, ivar, transfer, grid, inverse_gain, fit_sky, correlation):
    found = _examine_by_jax(params, data, ivar, transfer, grid, inverse_gain, fit_sky)
    if correlation is None:
        return found
    return found._replace(
        actual=rendered_products(params, ivar, transfer, grid, inverse_gain, correlation)[1]
    )


@compiled(static_argnames="grid")
def _examine_by_jax(params, data, ivar, transfer, grid, inverse_gain, fit_sky):
    def block(params, transfer, *rows):
        *rows, grid = rows
        images = derivatives_block(params, transfer, grid)
        return jax.vmap(partial(_examine_one, fit_sky=fit_sky))(params, *images, *rows)

    return in_blocks(block, params, transfer, grid, data, ivar, inverse_gain)


def _examine_one(params, image, derivatives, data, ivar, inverse_gain, fit_sky):
    light = image - params[SINGLE.sky]
    root = jnp.sqrt(ivar / (1 + ivar * jnp.maximum(light, 0.0) * inverse_gain))
    residual = ((data - image) * root).ravel()
    columns = jnp.concatenate([derivatives, _second_derivatives(light)]) * root
    columns, residual = _stored((columns.reshape(len(columns), -1), residual))
    score, fisher = columns @ residual, columns @ columns.T
    inverses = [inverse_fisher(fisher[:k, :k], fit_sky) for k in (SINGLE.size, len(columns))]
    explained = [score[: len(a)] @ a @ score[: len(a)] for a in inverses]
    rest = _stored((residual - (inverses[1] @ score) @ columns).reshape(data.shape))
    core = _core_amplitude(rest, light, root, columns, inverses[1])
    size = SINGLE.size
    return Examination(
        residual @ residual, score[:size], fisher[:size, :size], (rest**2).sum(), *_inner(rest, light * root),
        _lags(rest, root > 0), *_extremes(rest, params[SINGLE.centre]), explained[1] - explained[0], core,
        _tied(data, light, root), _residual_flux_fraction(params, residual.reshape(data.shape), light, root),
        *_structure(residual, columns[:size], inverses[0], light, root),
    )  # fmt: skip


def _structure(residual, columns, inverse, light, root):
    """How much structure the residuals have that noise has not: ``galaxy_excess`` and what follows."""
    explained = inverse @ columns
    rest = residual - (columns @ residual) @ explained
    bright = (jnp.maximum(light, 0) * root).ravel() ** 2
    weight = bright / (1 + bright)
    excess = (weight * (rest**2 - 1 + (explained * columns).sum(0))).sum()
    spread = jnp.sqrt(2 * (weight**2).sum())
    outside = (weight < SKY_WEIGHT).reshape(light.shape) & (root > 0)
    along, squared = sky_smoothers(len(light))
    number = jnp.maximum(((squared @ (root > 0) @ squared) * outside).sum(), 1.0)
    square = ((along @ rest.reshape(light.shape) @ along) ** 2 * outside).sum() / number
    return jnp.where(spread > 0, excess / jnp.maximum(spread, 1e-20), 0.0), square, number


def inverse_fisher(fisher, fit_sky, sky=SINGLE.sky, xp=jnp):
    """Inverse of a Fisher matrix of which one parameter, the sky, may be known.

    Parameters
    ----------
    fisher : (P, P) array
    fit_sky : float
        1 if the sky is free; 0 gives it no variance.
    sky : int, optional
        Place of the sky among the parameters.
    xp : module, optional
        `jax.numpy`, or `numpy` for an array of NumPy.

    Returns
    -------
    inverse : (P, P) array of that module
    """
    used = xp.where(xp.arange(len(fisher)) == sky, fit_sky, 1.0).astype(fisher.dtype)
    scale = used / xp.sqrt(xp.maximum(xp.diagonal(fisher), 1e-30))
    matrix = fisher * scale[:, None] * scale + xp.diag(1 - used) + RIDGE * xp.eye(len(fisher))
    invert = inverse_or_nan if xp is np else jnp.linalg.inv
    return invert(matrix) * scale[:, None] * scale


def _second_derivatives(light):
    """Second differences of an image along x, along y and across."""
    padded = jnp.pad(light, 1, mode="edge")
    xx = padded[1:-1, 2:] + padded[1:-1, :-2] - 2 * light
    yy = padded[2:, 1:-1] + padded[:-2, 1:-1] - 2 * light
    xy = (padded[2:, 2:] + padded[:-2, :-2] - padded[2:, :-2] - padded[:-2, 2:]) / 4
    return jnp.stack([xx, yy, xy])


def _inner(rest, light):
    """Sum of squares where the galaxy is bright, as that of a number of pixels."""
    weight = light**2 / (1 + light**2)  # zero where masked
    total, square = weight.sum(), (weight**2).sum()
    number = total**2 / jnp.maximum(square, 1e-6)
    return (weight * rest**2).sum() * total / jnp.maximum(square, 1e-6), number


def _lags(rest, good):
    """Correlation with the next pixel along x and y."""
    pairs = ((np.s_[:, 1:], np.s_[:, :-1]), (np.s_[1:], np.s_[:-1]))
    return jnp.stack(
        [(rest[a] * rest[b]).sum() / jnp.sqrt((good[a] & good[b]).sum() + 1.0) for a, b in pairs]
    )


def _extremes(rest, center):
    """Highest and lowest smoothed residual at each scale, and where the highest is."""
    size = rest.shape[-1]
    # one product for each scale and axis, not one for each galaxy
    smoothed = [along @ (rest @ along.T) for along in residual_smoothers(size)]
    flat = _stored(jnp.stack([rest, *smoothed]).reshape(len(SCALES), -1))
    highest = flat.max(1)
    # the first of the highest; argmax does not vectorise
    at = jnp.where(flat == highest[:, None], jnp.arange(size**2), size**2 - 1).min(1)
    return highest, flat.min(1), jnp.hypot(at % size - center[0], at // size - center[1])


def _core_amplitude(rest, light, root, columns, inverse):
    """Matched filter for the brightest part of the model, freed of what the columns explain."""
    pattern = (jnp.maximum(light - _CORE * light.max(), 0) * root).ravel()
    pattern = pattern / jnp.maximum(jnp.sqrt(pattern @ pattern), 1e-20)
    pattern = pattern - (inverse @ (columns @ pattern)) @ columns
    norm2 = pattern @ pattern
    return jnp.where(norm2 > 1e-4, (pattern @ rest.ravel()) / jnp.sqrt(jnp.maximum(norm2, 1e-4)), 0.0)


def _residual_flux_fraction(params, residual, light, root):
    """Light that the model has not, over the model's, near the galaxy; see `Examination`."""
    hlr, (g1, g2) = params[SINGLE.hlr], params[SINGLE.shear]
    x0, y0 = params[SINGLE.centre]
    y, x = (jnp.arange(light.shape[0]) - y0)[:, None], jnp.arange(light.shape[1]) - x0
    radius2 = ((1 - g1) * x - g2 * y) ** 2 + ((1 + g1) * y - g2 * x) ** 2
    limit2 = (_RFF_RADII * hlr + _RFF_PIXELS) ** 2 * jnp.maximum(1 - g1**2 - g2**2, 1e-6)
    inside = (radius2 < limit2) & (root > 0)
    left = (jnp.abs(residual) - _MEAN_ABSOLUTE) / jnp.where(root > 0, root, 1.0)
    return jnp.where(inside, left, 0).sum() / jnp.maximum(jnp.where(inside, light, 0).sum(), 1e-20)


def _tied(data, light, root):
    """How many of the brightest pixels of the core are equal."""
    core = (light > _BRIGHT * light.max()) & (root > 0)
    values = jnp.where(core, data * root, -jnp.inf)
    return (values > values.max() - _TIE).sum()
