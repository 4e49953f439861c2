# Licensed under a 3-clause BSD style license - see LICENSE.rst
r"""Fisher matrix, Cramér-Rao bound and signal-to-noise ratio.

For pixels with independent Gaussian noise of variance :math:`V_i`,

.. math:: F_{ab} = \sum_i \frac{1}{V_i}\,
          \frac{\partial p_i}{\partial\theta_a}\,\frac{\partial p_i}{\partial\theta_b},

and no unbiased estimator has a covariance below :math:`F^{-1}` (Rao 1945, Bull.
Calcutta Math. Soc. 37, 81; Cramér 1946).  Inverting the matrix of all
parameters before reading off the block of interest marginalises over the rest.
"""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np

from galshape_cnn.errors import InputError, NoiseError
from galshape_cnn.forward.render import in_blocks, one_with_derivatives

__all__ = [
    "CONDITION_LIMITS",
    "bound",
    "check_error",
    "fisher_matrices",
    "same_unit",
    "score_and_fisher",
    "snr",
]

#: Condition number of the equilibrated matrix above which a bound is called
#: singular, by precision of the derivatives, whose rounding it amplifies.  Over the domain of
#: training, float32 bounds are within 1.5 % below this limit and 20 % off ten times above it.
CONDITION_LIMITS = {"float32": 1e5, "float64": 1e10}


def _fisher_one(params, transfer, ivar, inverse_gain, grid):
    """Fisher matrix of one stamp."""
    image, derivatives = one_with_derivatives(params, transfer, grid)
    source = jnp.maximum(image - params[7], 0.0)
    weight = ivar / (1 + ivar * source * inverse_gain)
    whitened = (derivatives * jnp.sqrt(weight)).reshape(len(derivatives), -1)
    return whitened @ whitened.T


@partial(jax.jit, static_argnames="grid")
def _fisher_rows(params, ivar, transfer, inverse_gain, grid):
    """Fisher matrices of a batch; compiled once per grid and batch size."""
    return in_blocks(_fisher_one, params, transfer, grid, ivar, inverse_gain)


def fisher_matrices(params, ivar, transfer, grid, gain=None):
    r"""Fisher matrices of a batch of stamps.

    Parameters
    ----------
    params : (N, 8) array
        flux, n, hlr, g1, g2, x, y, sky in the pixel frame of the stamps.
    ivar : (N, size, size) array
        Inverse variance of the pixels; zero where masked.
    transfer : (N, Ky, Kx) or (1, Ky, Kx) complex array
        From `galshape_cnn.forward.transfer.transfer_functions`.
    grid : FourierGrid
        Stamp size and bandwidth.
    gain : float or (N,) array_like, optional
        Electrons per unit of the image.  The photon noise of the source is then
        added to the variance: V = 1/ivar + (model without sky) / gain.

    Returns
    -------
    fisher : (N, 8, 8) jax array
        In float32, or float64 inside ``jax.enable_x64(True)``.

    Notes
    -----
    With a gain the variance depends on the parameters too, and for exactly
    Gaussian noise a term :math:`\frac12 \sum_i \partial_a V_i\,\partial_b V_i /
    V_i^2` would be added.  It is left out: relative to the term kept it is
    1/(2 V) per pixel, with V the variance in electrons squared (one part in a
    thousand for 500 electrons of sky), and it is an artefact of the Gaussian, since for
    photons, which follow Poisson's law, the term kept is the whole information.
    """
    inverse_gain = 0.0 if gain is None else 1 / jnp.asarray(gain)
    inverse_gain = jnp.broadcast_to(inverse_gain, params.shape[:1]).astype(params.dtype)
    return _fisher_rows(params, ivar, transfer, inverse_gain, grid)


def _score_one(params, transfer, data, ivar, inverse_gain, grid):
    """Chi-square, score and Fisher matrix of one stamp."""
    image, derivatives = one_with_derivatives(params, transfer, grid)
    source = jnp.maximum(image - params[7], 0.0)
    root = jnp.sqrt(ivar / (1 + ivar * source * inverse_gain))
    residual = ((data - image) * root).ravel()
    whitened = (derivatives * root).reshape(len(derivatives), -1)
    return residual @ residual, whitened @ residual, whitened @ whitened.T


@partial(jax.jit, static_argnames="grid")
def _score_rows(params, data, ivar, transfer, inverse_gain, grid):
    return in_blocks(_score_one, params, transfer, grid, data, ivar, inverse_gain)


def score_and_fisher(params, data, ivar, transfer, grid, gain=None):
    r"""Chi-square, score and Fisher matrix of a batch of stamps in one pass.

    With residuals r, weights W = ivar and the derivatives D of the model,

    .. math:: \chi^2 = r^T W r, \qquad \mathbf s = D^T W r, \qquad F = D^T W D.

    Parameters
    ----------
    params : (N, 8) array
        flux, n, hlr, g1, g2, x, y, sky in the pixel frame of the stamps.
    data, ivar : (N, size, size) array
        Pixels and their inverse variance; zero where masked.  Numbers near one suit single
        precision: count pixels in units of their noise.
    transfer, grid, gain
        As for `fisher_matrices`.

    Returns
    -------
    chi2 : (N,) jax array
    score : (N, 8) jax array
        Derivative of the log-likelihood, the weights held fixed.
    fisher : (N, 8, 8) jax array
    """
    inverse_gain = 0.0 if gain is None else 1 / jnp.asarray(gain)
    inverse_gain = jnp.broadcast_to(inverse_gain, params.shape[:1]).astype(params.dtype)
    return _score_rows(params, data, ivar, transfer, inverse_gain, grid)


def bound(fisher, fit_sky=True, fit_centroid=True):
    """Cramér-Rao bound of flux, n, hlr, g1, g2, nuisance parameters marginalised.

    The matrix is scaled to unit diagonal before it is inverted, so that the
    units of the parameters do not matter.

    Parameters
    ----------
    fisher : (N, 8, 8) array_like
        From `fisher_matrices`.
    fit_sky : bool, optional
        Marginalise over the sky level; otherwise it is known.
    fit_centroid : bool, optional
        Marginalise over x and y; otherwise they are known.

    Returns
    -------
    covariance : (N, 5, 5) float64 ndarray
        The bound; NaN where the matrix cannot be inverted.
    singular : (N,) bool ndarray
        True where the condition number of the scaled matrix exceeds
        `CONDITION_LIMITS` for the type of ``fisher``: the bound is unreliable
        there, or NaN.
    """
    fisher = np.asarray(fisher)
    kind = "float32" if fisher.dtype.itemsize <= 4 else "float64"
    keep = [*range(5), *((5, 6) if fit_centroid else ()), *((7,) if fit_sky else ())]
    matrix = fisher.astype(float)[:, keep][:, :, keep]
    scale = np.sqrt(np.maximum(np.diagonal(matrix, axis1=1, axis2=2), 0))
    usable = np.isfinite(matrix).all((1, 2)) & (scale > 0).all(1)
    scale = np.where(usable[:, None], scale, 1.0)
    matrix = matrix / scale[:, :, None] / scale[:, None, :]
    matrix[~usable] = np.eye(len(keep))
    values, vectors = np.linalg.eigh(matrix)
    smallest = len(keep) * np.finfo(kind).eps * values[:, -1]
    invertible = usable & (values[:, 0] > smallest)
    inverse = np.where(invertible[:, None], 1 / np.where(invertible[:, None], values, 1.0), np.nan)
    covariance = np.einsum("nik,nk,njk->nij", vectors[:, :5], inverse, vectors[:, :5])
    covariance /= scale[:, :5, None] * scale[:, None, :5]
    singular = ~invertible | (values[:, -1] > CONDITION_LIMITS[kind] * values[:, 0])
    return covariance, singular


def snr(model, error):
    r"""Signal-to-noise ratio of a known pattern, :math:`\sqrt{\sum_i p_i^2/\sigma_i^2}`.

    This is how many standard deviations the amplitude of the pattern is
    measured at when nothing else is unknown.

    Parameters
    ----------
    model : array_like, any shape
        Noiseless pixel values of the galaxy, without sky.
    error : float or array_like
        One standard deviation of the noise in the unit of ``model``, > 0;
        broadcast against ``model``.

    Returns
    -------
    snr : float
        Masked pixels (of masked arrays) and pixels where ``model`` or ``error`` is
        NaN, or ``error`` infinite, do not count.

    Raises
    ------
    NoiseError
        If ``error`` has values <= 0, or another unit than ``model``.
    InputError
        If the shapes do not fit together.

    Examples
    --------
    >>> import numpy as np
    >>> from galshape_cnn import snr
    >>> snr(np.full((4, 4), 5.0), error=2.0)
    10.0
    """
    model, error = same_unit(model, error, "model")
    model, error = np.ma.asarray(model, float), np.ma.asarray(error, float)
    check_error(error)
    try:
        ratio = np.ma.filled(model, np.nan) / np.ma.filled(error, np.nan)
    except ValueError as problem:
        raise InputError(f"error has shape {error.shape}; it does not fit model {model.shape}") from problem
    return float(np.sqrt(np.nansum(ratio**2)))


def same_unit(value, error, name):
    """Strip units, bringing the noise to the unit of the signal.

    Parameters
    ----------
    value, error : float, array_like or Quantity
        Signal and noise; if one has a unit, both must.
    name : str
        What the signal is, for the message.

    Returns
    -------
    value, error : float or array_like
        In the unit of ``value``.

    Raises
    ------
    NoiseError
        If the units do not fit.
    """
    if getattr(value, "unit", None) is None and getattr(error, "unit", None) is None:
        return value, error
    from astropy.units import Quantity, UnitConversionError

    value = Quantity(value)
    try:
        return value.value, Quantity(error).to_value(value.unit)
    except UnitConversionError as problem:
        raise NoiseError(f"error has another unit than {name}: {problem}") from problem


def check_error(error):
    """Refuse noise that cannot be; NaN means 'this pixel does not count'.

    Parameters
    ----------
    error : float, array_like or masked array
        Standard deviations.

    Raises
    ------
    NoiseError
        If a value is <= 0, or every value is NaN or masked.
    """
    if np.any(error <= 0):
        raise NoiseError(f"error has values <= 0 (smallest: {np.min(error):.4g}); allowed: > 0")
    if np.isnan(np.ma.filled(error, np.nan)).all():
        raise NoiseError("error is NaN or masked in every pixel; give one standard deviation per pixel")
