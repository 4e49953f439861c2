# Licensed under a 3-clause BSD style license - see LICENSE.rst
r"""Fisher matrix, Cramér-Rao bound and signal-to-noise ratio.

For pixels with independent Gaussian noise of variance :math:`V_i`,

.. math:: F_{ab} = \sum_i \frac{1}{V_i}\,
          \frac{\partial p_i}{\partial\theta_a}\,\frac{\partial p_i}{\partial\theta_b},

and no unbiased estimator has a covariance below :math:`F^{-1}` (Rao 1945, Bull.
Calcutta Math. Soc. 37, 81; Cramér 1946).  Inverting the matrix of all
parameters before reading off the block of interest marginalises over the rest.
"""

from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np

from galshape_cnn.compilation import compiled
from galshape_cnn.errors import InputError, NoiseError
from galshape_cnn.forward.galaxy_model import SINGLE
from galshape_cnn.forward.kernel import calls
from galshape_cnn.forward.kernel.library import with_kernel
from galshape_cnn.forward.render import in_blocks, unit_quadrants
from galshape_cnn.forward.synthesis import quartered

__all__ = [
    "CONDITION_LIMITS",
    "bound",
    "check_error",
    "fisher_matrices",
    "inverse_gain",
    "normal_block",
    "real_values",
    "same_unit",
    "score_and_fisher",
    "snr",
]

#: Condition number of the equilibrated matrix above which a bound is called
#: singular, by precision of the derivatives, whose rounding it amplifies.  Over the domain of
#: training, float32 bounds are within 1.5 % below this limit and 20 % off ten times above it.
CONDITION_LIMITS = {"float32": 1e5, "float64": 1e10}


def inverse_gain(gain, number):
    """Units of the image per electron, (number,) float32; zero without a gain."""
    inverse = 0.0 if gain is None else 1 / np.asarray(gain, float)
    return np.broadcast_to(inverse, number).astype(np.float32)


def normal_block(params, transfer, data, ivar, inverse_gain, grid):
    """Normal equations of a block of B stamps, in one pass over modes and pixels.

    As `score_and_fisher`, with ``inverse_gain`` (B,), units of the image per electron. In place of chi-square
    come its parts by rows (B, size / 2), whose sum in double precision keeps differences of 1e-3.
    """
    flux, sky = params[:, SINGLE.flux, None, None], params[:, SINGLE.sky, None, None]
    # stored, lest each quadrant be put together again for every use
    images = jax.lax.optimization_barrier(unit_quadrants(params, transfer, grid))
    data, ivar = quartered(data), quartered(ivar)
    chi2 = products = 0.0
    for quadrant in range(4):
        unit, *slopes = (jnp.moveaxis(image[quadrant], 1, 0) for image in images)
        weight = ivar[:, quadrant]
        light = jnp.maximum(flux * unit, 0.0) * inverse_gain[:, None, None]
        weight = jnp.sqrt(weight / (1 + weight * light))
        residual = (data[:, quadrant] - flux * unit - sky) * weight
        columns = [unit * weight, *(one * weight for one in slopes), weight, residual]
        # stored apart, then side by side: computed inside the concatenation they would be slow
        columns = jax.lax.optimization_barrier([c.reshape(len(params), -1) for c in columns])
        columns = jax.lax.optimization_barrier(jnp.stack(columns, 1))
        products = products + jnp.einsum("bik,bjk->bij", columns, columns)
        chi2 = chi2 + jnp.sum(residual**2, 1)
    flux, size = params[:, SINGLE.flux], SINGLE.size
    scale = [jnp.ones_like(flux)] * size
    scale[SINGLE.searched] = [flux] * 6
    scale[SINGLE.hlr] = flux / params[:, SINGLE.hlr]  # the kernel's slope is that by ln hlr
    scale = jnp.stack(scale, 1)
    score, fisher = products[:, size, :size], products[:, :size, :size]
    return chi2, score * scale, fisher * scale[:, :, None] * scale[:, None, :]


def _normal_by_kernel(params, data, ivar, transfer, grid, gain=None):
    inverse = 0.0 if gain is None else 1 / np.asarray(gain, float)
    rows = np.arange(len(params))
    found = calls.normal_equations(params, rows, data, ivar, transfer, grid, inverse)
    return tuple(one.astype(np.float32) for one in found)


@compiled(static_argnames="grid")
def _normal_rows(params, data, ivar, transfer, inverse_gain, grid):
    """Normal equations of a batch; compiled once per grid and batch size."""
    row_sums, score, fisher = in_blocks(normal_block, params, transfer, grid, data, ivar, inverse_gain)
    return row_sums.sum(1), score, fisher


@with_kernel(_normal_by_kernel, "params", "data", "ivar", "transfer")
def score_and_fisher(params, data, ivar, transfer, grid, gain=None):
    """Chi-square (N,), score (N, 8) and Fisher matrix (N, 8, 8) of a batch of stamps, in one pass.

    With residuals :math:`r = d - p` and weights :math:`W = 1/V`, the score :math:`D^T W r` is the derivative
    of the log likelihood, the matrix is :math:`D^T W D`, and one step of Fisher scoring is :math:`F^{-1} D^T
    W r`.

    Arguments as of `fisher_matrices`, with pixels ``data`` (N, size, size), finite where masked. Chi-square
    is of NumPy where the kernel computes it, else of JAX.
    """
    inverse = 0.0 if gain is None else 1 / jnp.asarray(gain)
    inverse = jnp.broadcast_to(inverse, params.shape[:1]).astype(params.dtype)
    return _normal_rows(params, data, ivar, transfer, inverse, grid)


def fisher_matrices(params, ivar, transfer, grid, gain=None):
    r"""Fisher matrices of a batch of stamps.

    Parameters
    ----------
    params : (N, 8) array
        flux, n, hlr, g1, g2, x, y, sky in the pixel frame of the stamps.
    ivar : (N, size, size) array
        Inverse variance of the pixels; zero where masked.
    transfer : (N, 2 K, K) or (1, 2 K, K) complex array
        From `galshape_cnn.forward.transfer.transfer_functions`.
    grid : FourierGrid
        Stamp size and bandwidth.
    gain : float or (N,) array_like, optional
        Electrons per unit of the image.  The photon noise of the source is then
        added to the variance: V = 1/ivar + (model without sky) / gain.

    Returns
    -------
    fisher : (N, 8, 8) array
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
    return score_and_fisher(params, 0 * ivar, ivar, transfer, grid, gain)[2]


def bound(fisher, fit_sky=True, fit_centroid=True, model=SINGLE):
    """Cramér-Rao bound of fluxes, n, hlr, g1, g2, nuisance parameters marginalised.

    Of Fisher matrices (N, P, P) by the parameters of a ``GalaxyModel``; sky levels and centre are known where
    ``fit_sky`` and ``fit_centroid`` are False. Matrices are scaled to unit diagonal before they are inverted,
    so that units do not matter.

    Returns the covariance (N, R, R), NaN where a matrix cannot be inverted, and (N,) bool, True where its
    condition number exceeds `CONDITION_LIMITS` for the type of ``fisher``: the bound is unreliable there, or
    NaN.
    """
    fisher = np.asarray(fisher)
    kind = "float32" if fisher.dtype.itemsize <= 4 else "float64"
    keep = replace(model, fit_sky=bool(fit_sky)).free
    if not fit_centroid:
        keep = [k for k in keep if k not in range(model.size)[model.centre]]
    kept = model.reported
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
    covariance = np.einsum("nik,nk,njk->nij", vectors[:, kept], inverse, vectors[:, kept])
    covariance /= scale[:, kept, None] * scale[:, None, kept]
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
    model, error = real_values(model, "model"), real_values(error, "error")
    check_error(error)
    try:
        ratio = np.ma.filled(model, np.nan) / np.ma.filled(error, np.nan)
    except ValueError as problem:
        raise InputError(f"error has shape {error.shape}; it does not fit model {model.shape}") from problem
    return float(np.sqrt(np.nansum(ratio**2)))


def same_unit(value, error, name):
    """Signal and noise without units, in that of the signal; if one has a unit, both must.

    ``NoiseError``, with the name of the signal, if the units do not fit.
    """
    if getattr(value, "unit", None) is None and getattr(error, "unit", None) is None:
        return value, error
    from astropy.units import Quantity, UnitConversionError

    value = Quantity(value)
    try:
        return value.value, Quantity(error).to_value(value.unit)
    except UnitConversionError as problem:
        raise NoiseError(f"error has another unit than {name}: {problem}") from problem


def real_values(values, name):
    """Real numbers as a masked array; ``InputError``, naming the argument, if they are none."""
    try:
        if values is None or np.iscomplexobj(values):
            raise TypeError("no real number")  # None would become NaN
        return np.ma.asarray(values, float)
    except (TypeError, ValueError) as problem:
        kind = type(values).__name__
        raise InputError(f"{name} is a {kind}; a number or an array of numbers is needed") from problem


def check_error(error):
    """Refuse noise that cannot be: ``NoiseError`` if a value is <= 0, or every value is NaN or masked.

    NaN means 'this pixel does not count'.
    """
    if np.any(error <= 0):
        raise NoiseError(f"error has values <= 0 (smallest: {np.min(error):.4g}); allowed: > 0")
    if np.isnan(np.ma.filled(error, np.nan)).all():
        raise NoiseError("error is NaN or masked in every pixel; give one standard deviation per pixel")
