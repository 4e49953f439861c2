# Licensed under a 3-clause BSD style license - see LICENSE.rst
r"""Exact posteriors by importance sampling.

The posterior is likelihood times prior, and the network only proposes:

.. math:: w_s \propto \frac{L(\theta_s)\,\pi(\theta_s)}{q(\theta_s)}

(Robert & Casella 2004, *Monte Carlo Statistical Methods*, Ch. 3), so its errors
cost draws, never truth.  Given shape and centre, the likelihood is Gaussian in
flux and sky; the sky is integrated out and the flux drawn from that Gaussian, so
only n, hlr, g1, g2, x, y need a proposal.

The proposal mixes the network's posterior and Student-t distributions about the
posterior's mode, and learns from its own draws in a few rounds
(`galshape_cnn.infer.posterior.proposal`).  Draws are weighted by the proposal of their own
round, which knew nothing of them: dividing by the mixture of all rounds (Cornuet
et al. 2012, Scand. J. Stat. 39, 798) has a larger effective number, but a
proposal that has learned from the very draws it reweights loses the tails (with
64 draws a round the mean was 0.05 sigma low and the variance 5 % small).  The
effective number of draws, 1 / sum(w^2), is the proof of what the result is worth.
"""

from dataclasses import replace

import numpy as np
from scipy.special import gammaincinv, ndtri

from galshape_cnn.errors import InputError
from galshape_cnn.flags import Flag
from galshape_cnn.forward.coordinates import POSTERIOR, Coordinates
from galshape_cnn.forward.galaxy_model import SINGLE
from galshape_cnn.infer.fit.maximum_likelihood import maximize_likelihood
from galshape_cnn.infer.fit.moments import moment_start
from galshape_cnn.infer.likelihood.gaussian import StampLikelihood, source_weights
from galshape_cnn.infer.likelihood.nuisance_images import MarginalLikelihood
from galshape_cnn.infer.posterior.draws import (
    DEFENSIVE,
    Draws,
    drawn,
    effective,
    even_points,
    random_generators,
    tempered,
    with_more,
)
from galshape_cnn.infer.posterior.proposal import DEGREES
from galshape_cnn.infer.posterior.result import PosteriorResult
from galshape_cnn.infer.posterior.target import ShapeTarget, first_proposal, prior_penalty

__all__ = [
    "PosteriorResult",
    "prior_penalty",
    "raw_draws",
    "sample_evenly",
    "sample_posterior",
    "sample_target",
]


_ROUNDS = (0.34, 0.33, 0.33)  # of the draws
_ENOUGH = 0.15  # effective fraction below which a galaxy gets more draws
_EXTRA_ROUNDS = 3
_FLAGGED = 40.0  # effective draws below which the widths are flagged


def sample_posterior(
    data,
    ivar,
    transfer,
    grid,
    proposal,
    prior,
    *,
    fit_sky=True,
    gain=None,
    n_samples=256,
    seed=0,
    nuisance=None,
):
    """Sample the posterior of each stamp.

    Parameters
    ----------
    data, ivar : (N, size, size) array_like
        Pixel values and inverse variances; zero inverse variance means masked.
    transfer : (N or 1, Ky, Kx) complex array
        PSF transfer functions on ``grid``.
    grid : FourierGrid
        Fourier grid of the stamps' size.
    proposal : MixturePosterior or None
        The network's posterior; None starts from moments alone.
    prior : object
        With ``log_density(flux, n, hlr, g1, g2)``, -inf outside its support,
        such as `galshape_cnn.infer.posterior.prior.Prior`.  The prior of the centre and
        of the sky is flat.
    fit_sky : bool, optional
        Integrate over a constant sky level; otherwise it is zero.
    gain : float or (N,) array_like, optional
        Electrons per unit of data: adds the source's photon noise, with the
        variance of the best-fitting model.
    n_samples : int, optional
        Draws, at least 64, and samples returned.  Up to 2.5 times as many are
        drawn where the effective fraction is below 15 %.
    seed : int, optional
        Of the draws, which depend on it and on the galaxy's own pixels, not on
        the rest of the batch.
    nuisance : (N, m, size, size) array_like, optional
        Images that lie under each galaxy with unknown amplitudes, which are integrated out.

    Returns
    -------
    result : PosteriorResult
        NaN in rows without data or without any draw of non-zero weight.

    Raises
    ------
    InputError
        If shapes do not fit or ``n_samples`` is too small.
    """
    if n_samples < 64:
        raise InputError(f"n_samples={n_samples}; at least 64 are needed")
    stamps = data, ivar, transfer, grid
    fit, rows, target, mixture = _begun(stamps, proposal, prior, fit_sky, gain, nuisance)
    result = PosteriorResult.blank(len(fit.params), n_samples, fit.flags)
    if len(rows):
        sample_target(result, rows, target, mixture, n_samples, seed)
    return result


def raw_draws(data, ivar, transfer, grid, proposal, prior, *, fit_sky=True, gain=None, n_draws=256, seed=0):
    """Draws of each stamp's parameters from a fixed proposal, with their weights as they are.

    The proposal learns from other draws, as many, which are then forgotten, so that means of the weights
    times any function have no bias, whatever the proposal is.  Arguments are those of `sample_posterior`.

    Returns flux, n, hlr, g1, g2, x, y, (N, n_draws, 7), NaN in rows without data, and ln(likelihood times
    prior over proposal), (N, n_draws), up to a constant of each galaxy; -inf where the prior is zero.
    """
    stamps = data, ivar, transfer, grid
    fit, rows, target, mixture = _begun(stamps, proposal, prior, fit_sky, gain, None)
    params = np.full((len(fit.params), n_draws, SINGLE.sky), np.nan)
    log_weights = np.full((len(fit.params), n_draws), -np.inf)
    if len(rows):
        generators = random_generators(target, seed)
        first = drawn(target, mixture, n_draws // 2, generators)
        draws = Draws(*first, (n_draws // 2,), mixture, mixture)
        learned = with_more(draws, target, n_draws // 2, generators)
        last = learned.learned.learned(learned.u, tempered(learned.weights())).joined(mixture, DEFENSIVE)
        u, flux, log_weights[rows] = drawn(target, last, n_draws, generators)
        params[rows] = _params_of(u, flux, target.model)
    return params, log_weights


def _begun(stamps, proposal, prior, fit_sky, gain, nuisance):
    """Fit, rows that can be sampled, and of these the density and the first proposal."""
    data, ivar, transfer, grid = stamps
    if proposal is not None and len(proposal.weights) != len(data):
        raise InputError(f"proposal holds {len(proposal.weights)} galaxies; data holds {len(data)}")
    start = _start(data, ivar, transfer, grid, proposal)
    if not fit_sky:
        start[:, SINGLE.sky] = 0  # moments come with a level of the border, which would stay
    fit = maximize_likelihood(
        data, ivar, transfer, grid, start, fit_sky=fit_sky, gain=gain, retry=False,
        penalty=prior_penalty(prior),
    )  # fmt: skip
    likelihood = StampLikelihood.from_stamps(data, ivar, transfer, grid)
    if nuisance is not None:
        likelihood = MarginalLikelihood.of(likelihood, nuisance)
    rows = np.flatnonzero(np.isfinite(fit.params).all(1))
    if not len(rows):
        return fit, rows, None, None
    target = _target(likelihood[rows], fit, rows, prior, fit_sky, gain)
    return fit, rows, target, first_proposal(target, None if proposal is None else proposal[rows])


def _params_of(u, flux, model):
    """Parameters without sky levels of points and fluxes."""
    coordinates = Coordinates(replace(model, exposures=()), log_flux=True, logit_n=True)
    params = coordinates.params(np.concatenate([np.zeros(flux.shape), u], -1))
    params[..., model.fluxes] = flux
    return params


def _target(likelihood, fit, rows, prior, fit_sky, gain):
    """The posterior density, with the weights of the best-fitting model."""
    unit = SINGLE.units(likelihood.scale)
    best = fit.params[rows] / unit
    if gain is not None:
        gain = np.broadcast_to(np.asarray(gain, float), len(fit.params))[rows]
        likelihood = source_weights(likelihood, best, gain)
    fisher = fit.fisher[rows] * unit[:, :, None] * unit[:, None, :]
    return ShapeTarget(likelihood, best, fisher, prior, fit_sky)


def _start(data, ivar, transfer, grid, proposal):
    if proposal is None:
        return moment_start(data, ivar, transfer, grid)
    mean = np.einsum("nk,nki->ni", proposal.weights, proposal.means)
    return SINGLE.with_sky(POSTERIOR.params(mean))


def sample_target(result, rows, target, mixture, n_samples, seed):
    """Draw in rounds, more of them where few draws count, and fill the rows (M,) of a result.

    ``target`` is the density of these M galaxies, ``mixture`` what is drawn from first; the others are those
    of `sample_posterior`.
    """
    generators = random_generators(target, seed)
    counts = np.ceil(np.array(_ROUNDS) * n_samples).astype(int).tolist()
    draws = Draws(*drawn(target, mixture, counts[0], generators), (counts[0],), mixture, mixture)
    for count in counts[1:]:
        draws = with_more(draws, target, count, generators)
    for extra in range(_EXTRA_ROUNDS + 1):
        ess = effective(draws.weights())
        low = (ess < _ENOUGH * draws.u.shape[1]) & (extra < _EXTRA_ROUNDS)
        finished = np.flatnonzero(~low)
        _summarise(result, rows[finished], draws[finished], finished, generators, target.model)
        if not low.any():
            return
        rows, target, draws = rows[low], target[np.flatnonzero(low)], draws[np.flatnonzero(low)]
        generators = [g for g, more in zip(generators, low, strict=True) if more]
        draws = with_more(draws, target, n_samples // 2, generators)


def sample_evenly(target, mixture, count, seed):
    """Posterior moments, without samples, from few draws (a power of two) that are spread evenly.

    They are a quasi-random set, shifted at random for each galaxy (Cranley & Patterson 1976, SIAM J. Numer.
    Anal. 13, 904), by the seed and its own pixels, so that errors of many galaxies average out.  Fluxes are
    not drawn: their means and variances at each draw are known.
    """
    n, model, size = len(target.best), target.model, mixture.means.shape[-1]
    shift = np.stack([g.uniform(size=(1, size + 2)) for g in random_generators(target, seed)])
    points = ((even_points(count, size + 2) + shift) % 1).clip(1e-6, 1 - 1e-6)
    chi_square = 2 * gammaincinv(DEGREES / 2, points[..., size])
    u = mixture.draw(points[..., size + 1], ndtri(points[..., :size]), chi_square)
    log_target, flux, variance = target.moments(u)
    draws = Draws(u, flux, log_target - mixture.log_density(u), (count,), mixture, mixture)
    result = PosteriorResult.blank(n, 0, np.zeros(n, np.int64), model)
    _summarise(result, np.arange(n), draws, np.arange(n), None, model)
    more = np.einsum("ns,nsb->nb", draws.weights(), np.where(draws.weights()[..., None] > 0, variance, 0))
    for band in range(len(model.bands)):
        result.covariance[:, band, band] += more[:, band]
    return result


def _summarise(result, rows, draws, inside, generators, model):
    """Moments and equally weighted samples of finished galaxies."""
    weights = draws.weights()
    params = np.where(weights[..., None] > 0, _params_of(draws.u, draws.flux, model), 0)
    ess = effective(weights)
    result.ess[rows], result.n_draws[rows] = ess, draws.u.shape[1]
    some = ess > 0
    mean = np.einsum("ns,nsp->np", weights, params)
    offset = params[..., model.reported] - mean[:, None, model.reported]
    covariance = np.einsum("ns,nsp,nsq->npq", weights, offset, offset)
    covariance /= np.maximum(1 - 1 / np.maximum(ess, 1), 0.5)[:, None, None]
    result.mean[rows[some]] = mean[some, model.reported]
    result.center[rows[some]] = mean[some, model.centre]
    result.covariance[rows[some]] = covariance[some]
    result.flags[rows] = np.where(ess < _FLAGGED, Flag.LOW_ESS, 0)
    for i in np.flatnonzero(some) if result.samples.shape[1] else ():
        chosen = _resampled(weights[i], result.samples.shape[1], generators[inside[i]])
        result.samples[rows[i]] = params[i, chosen, model.reported]


def _resampled(weights, count, generator):
    """Indices of equally weighted draws (systematic resampling)."""
    positions = (generator.uniform() + np.arange(count)) / count
    return np.minimum(np.searchsorted(np.cumsum(weights), positions), len(weights) - 1)
