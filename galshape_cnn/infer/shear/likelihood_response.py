# Licensed under a 3-clause BSD style license - see LICENSE.rst
r"""Shear response of the maximum-likelihood estimate.

The estimate :math:`\hat\theta(I)` makes the score :math:`s(\theta, I) = D^T W (I - m(\theta))` vanish, with D
the derivatives of the model m.  So it moves with the pixels as

.. math:: \frac{\partial\hat\theta}{\partial\gamma_a} = H^{-1} D^T W\, D_a I, \qquad
          H = -\frac{\partial s}{\partial\theta},

with H the Hessian itself and not its expectation, the Fisher matrix: the difference, the second derivatives
of the model times the residual, is of the order of the noise, as is the bias that is to be found.  H is the
difference of scores at neighbouring parameters.  Where n is at a limit it does not move.

Noise is kept from being sheared as in `galshape_cnn.infer.shear.response`, by fits of two copies.
"""

import jax.numpy as jnp
import numpy as np

from galshape_cnn.compilation import compiled
from galshape_cnn.flags import Flag
from galshape_cnn.forward.galaxy_model import SINGLE
from galshape_cnn.forward.sersic import N_RANGE
from galshape_cnn.infer.fit.maximum_likelihood import maximize_likelihood
from galshape_cnn.infer.likelihood.gaussian import StampLikelihood, source_weights
from galshape_cnn.infer.shear.copies import (
    COPIES,
    MEASURED,
    MIDDLE,
    SLOTS,
    copies_and_tangents,
    copy_batches,
    snr_and_gradient,
    with_snr,
    within_reach,
)
from galshape_cnn.infer.shear.generators import filtered
from galshape_cnn.infer.shear.grids import on_grids

__all__ = ["likelihood_response"]

_STEP = 0.03  # of the bound of each parameter, over which scores are compared
_LONGEST = np.array([0.03, 0.1, 0.02, 0.01, 0.01, 0.05, 0.05, np.inf])  # of flux and hlr as fractions
_FLAT = 1e-5  # eigenvalue of the scaled Hessian at which a maximum counts as none
_ORIGIN = np.zeros((4, 7))
_ORIGIN[0, SINGLE.centre] = MIDDLE  # centres are counted from the middle of the stamp
_LOST = Flag.NOT_CONVERGED | Flag.PARAMETER_AT_BOUND | Flag.NO_DATA


def likelihood_response(batch, params, fit_sky=True, seed=0, correlation=None, noise=None):
    """Fit two copies of each stamp, and find the derivatives of the fits by shear.

    Parameters
    ----------
    batch : RenderedBatch
        N stamps, of which the middle 64 x 64 pixels are used.
    params : (N, 8) ndarray
        Maximum-likelihood estimates, fluxes in the unit of the batch: where the fits of the copies start.
    fit_sky, seed, correlation, noise
        As for `galshape_cnn.infer.shear.response.shear_response`.

    Returns
    -------
    sheared : (N, 2, 4, 6) ndarray
        As of `galshape_cnn.infer.shear.response.shear_response`; NaN also where a copy's fit does not
        converge, ends at a limit other than that of n, or at no maximum.
    """
    out = np.full((len(batch), len(COPIES), len(SLOTS), len(MEASURED)), np.nan)
    known = (batch.stamps.ivar > 0).any((1, 2)) & np.isfinite(params).all(1)
    usable = np.flatnonzero(known)
    if not len(usable):
        return out
    sky = params[:, SINGLE.sky]
    for part in copy_batches(batch, usable, sky, fit_sky, seed, correlation, noise):
        gain = None if batch.gain is None else batch.gain[part.padded]
        out[part.rows] = _of_batch(part, params[part.padded], bool(fit_sky), gain)[: len(part.rows)]
    out[~np.isfinite(out).all((1, 2, 3))] = np.nan
    return out


def _of_batch(part, params, fit_sky, gain):
    """Values and derivatives of a `CopyBatch`, (BATCH_SIZE, 2, 4, 6)."""
    arrays = part.arrays
    light = arrays["light"].astype(float)
    start = params.copy()
    start[:, SINGLE.flux] *= light  # the PSFs here are normalised
    start[:, SINGLE.centre] -= part.corner
    sky = start[:, SINGLE.sky] - part.level
    start[:, SINGLE.sky] = 0
    arrays["data"] = np.where(arrays["ivar"] > 0, arrays["data"] - sky[:, None, None], 0).astype(np.float32)
    part, start, model, slopes = on_grids(part, start)
    arrays, first = part.arrays, start[:, : SINGLE.sky].astype(np.float32)
    first[:, SINGLE.centre] -= np.float32(MIDDLE)
    names = ("data", "ivar", "noise", "inverse_gain", "filters", "asymmetric")
    pixels, snr = _copies(*(arrays[name] for name in names), first, model, slopes)
    done = [_fitted(part, np.asarray(one, float), np.asarray(tangents, float), start, fit_sky, gain)
            for one, tangents in pixels]  # fmt: skip
    done = np.stack(done, 1)
    out = np.stack([np.asarray(with_snr(jnp.asarray(done[:, copy]), first, *snr)) for copy in range(2)], 1)
    out[..., SINGLE.flux] /= light[:, None, None]
    return out


@compiled
def _copies(data, ivar, noise, inverse_gain, filters, asymmetric, first, model, slopes):
    """Copies with their derivatives, and the S/N of the model with its gradient."""
    pixels, weight = copies_and_tangents(
        data, ivar, noise, inverse_gain, filters, asymmetric, first, model, slopes
    )
    return pixels, snr_and_gradient(first, slopes, weight)


@compiled
def _of_psf(model, slopes, filters):
    """Change of model images and of their derivatives by the asymmetry of the PSF."""
    return filtered(model, filters[:, 2]), filtered(slopes, filters[:, 2][:, None])


def _fitted(part, data, tangents, start, fit_sky, gain):
    """Parameters of a copy and their derivatives along tangents, (BATCH_SIZE, 4, 7)."""
    transfer, filters = part.arrays["transfer"], part.arrays["filters"]
    stamps = data, within_reach(part.arrays["ivar"]), transfer, part.grid
    result = maximize_likelihood(*stamps, start, fit_sky=fit_sky, gain=gain)
    good = (result.flags & _LOST) == 0
    whole = StampLikelihood.from_stamps(*stamps)
    unit = SINGLE.units(whole.scale)
    theta = np.where(good[:, None], result.params, start) / unit
    moves = np.ones(theta.shape, bool)
    moves[:, SINGLE.n] = (result.flags & Flag.N_AT_BOUND) == 0
    moves[:, SINGLE.sky] = fit_sky
    weighted = _weighted(whole, theta, gain)
    model, slopes = whole.images_and_derivatives(theta, np.arange(len(theta)))
    light = (model - theta[:, SINGLE.sky, None, None]).astype(np.float32)
    light *= part.arrays["asymmetric"][:, None, None]
    slopes_of_light = slopes[:, : SINGLE.sky] * part.arrays["asymmetric"][:, None, None, None]
    of_model, of_slopes = _of_psf(light, slopes_of_light.astype(np.float32), filters)
    along = np.moveaxis(tangents, 0, 1) / whole.scale[:, None, None, None]
    along[:, 2] -= np.asarray(of_model, float)
    pull = np.einsum("nkyx,nayx->nka", slopes, weighted.ivar[:, None] * along)
    residual = weighted.ivar * (whole.data - model)
    pull[:, : SINGLE.sky, 2] += np.einsum("nkyx,nyx->nk", np.asarray(of_slopes, float), residual)
    # what the search left, once it promised next to nothing, is the fourth
    pull = np.concatenate([pull, np.einsum("nkyx,nyx->nk", slopes, residual)[..., None]], -1)
    moved = _solved(_hessian(whole, theta, gain), pull, moves)
    moved[~good] = np.nan
    found = theta + moved[..., 3]
    done = np.concatenate([found[:, None], np.swapaxes(moved[..., :3], 1, 2)], 1) * unit[:, None]
    return done[..., : SINGLE.sky] - _ORIGIN


def _weighted(likelihood, theta, gain):
    """The likelihood with the photon noise of a model."""
    return likelihood if gain is None else source_weights(likelihood, theta, gain)


def _score(likelihood, theta, gain):
    return _weighted(likelihood, theta, gain).normal_equations(theta, np.arange(len(theta)))[1]


def _hessian(likelihood, theta, gain):
    """Minus the derivative of the score, (N, 8, 8), by differences."""
    _, _, fisher = _weighted(likelihood, theta, gain).normal_equations(theta, np.arange(len(theta)))
    step = _STEP / np.sqrt(np.maximum(np.einsum("nkk->nk", fisher), 1e-30))
    longest = np.tile(_LONGEST, (len(theta), 1))
    longest[:, SINGLE.flux] *= np.abs(theta[:, SINGLE.flux])
    longest[:, SINGLE.hlr] *= theta[:, SINGLE.hlr]
    step = np.minimum(step, longest)
    columns = []
    for k in range(SINGLE.size):
        middle = theta.copy()
        if k == SINGLE.n:
            middle[:, k] = np.clip(theta[:, k], N_RANGE[0] + step[:, k], N_RANGE[1] - step[:, k])
        low, high = middle.copy(), middle
        low[:, k] -= step[:, k]
        high[:, k] += step[:, k]
        scores = (_score(likelihood, one, gain) for one in (low, high))
        columns.append((next(scores) - next(scores)) / (2 * step[:, k, None]))
    hessian = np.stack(columns, -1)
    return (hessian + np.swapaxes(hessian, 1, 2)) / 2


def _solved(hessian, pull, moves):
    """How far parameters move; NaN where there is no maximum."""
    both = moves[:, :, None] & moves[:, None, :]
    hessian = np.where(both, hessian, np.eye(SINGLE.size))
    diagonal = np.einsum("nkk->nk", hessian)
    scale = 1 / np.sqrt(np.where(diagonal > 0, diagonal, 1.0))
    scaled = np.nan_to_num(hessian * scale[:, :, None] * scale[:, None, :])
    maximum = (diagonal > 0).all(1) & (np.linalg.eigvalsh(scaled)[:, 0] > _FLAT)
    scaled = np.where(maximum[:, None, None], scaled, np.eye(SINGLE.size))
    moved = np.linalg.solve(scaled, np.where(moves[..., None], pull, 0) * scale[..., None]) * scale[..., None]
    moved[~maximum] = np.nan
    return moved
