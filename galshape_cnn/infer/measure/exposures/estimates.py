# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""Estimates of galaxies in several images: network, maximum likelihood or posterior.

``"network"`` begins from what the network says of the image that says most; where it makes nothing of that,
from its answers to the others, combined (`combined_posterior`).  Those of all images combined are not enough:
each network's own error is a fraction of the error from one image, and adds up, so the
result scatters 20 to 30 % more than the exact posterior mean in flux, n and size.  Steps of Fisher
scoring on all images together lead from there to the posterior's mode, and an expansion about it that
follows n gives the moments (`galshape_cnn.infer.posterior.nested_laplace`).  Where that cannot hold they
come from a few draws, spread evenly about the mode and weighted by the likelihood.
"""

from dataclasses import replace

import numpy as np

from galshape_cnn.flags import Flag
from galshape_cnn.forward.galaxy_model import SINGLE
from galshape_cnn.infer.fit.exposures_fit import fit_exposures
from galshape_cnn.infer.likelihood.exposures import joint_errors
from galshape_cnn.infer.likelihood.nuisance_images import MarginalLikelihood
from galshape_cnn.infer.likelihood.sandwich import on_known, stretching
from galshape_cnn.infer.measure.estimates import Estimate, estimate, limit_flags
from galshape_cnn.infer.network.combination import combined_posterior
from galshape_cnn.infer.posterior.exposures_target import ExposuresTarget
from galshape_cnn.infer.posterior.importance_sampling import sample_evenly, sample_target
from galshape_cnn.infer.posterior.nested_laplace import Neighbourhood, nested_moments
from galshape_cnn.infer.posterior.result import PosteriorResult
from galshape_cnn.infer.posterior.target import first_proposal, prior_penalty

__all__ = [
    "network_exposures",
    "of_fit",
    "of_one_image",
    "sample_exposures",
]

_SAMPLES = 256  # as for one image
_EVEN, _MORE = 64, 128  # draws where the expansion cannot hold, and of those rows of which few of them count
# effective draws that call for more, and below which the row is not taken from them
_FEW, _FEWEST = 12.0, 5.0


def of_fit(fit, likelihood):
    """Maximum-likelihood estimates.

    Parameters
    ----------
    fit : ExposuresFit
    likelihood : JointLikelihood
        That was fitted.

    Returns
    -------
    estimate : Estimate
    """
    count = len(likelihood.model.reported_names)
    nan = np.full((len(likelihood), count, count), np.nan)
    return Estimate(fit.params * likelihood.units, nan, fit.flags, nan[:, 0, 0])


def of_one_image(parts, likelihood, network, options):
    """The networks' answer for a single exposure, which is that for a single image.

    Parameters
    ----------
    parts : list of (ExposurePart, places)
        Whose stamps the parts of the likelihood are.
    likelihood : JointLikelihood
        Of N galaxies.
    network : AmortizedPosterior
    options : Options

    Returns
    -------
    estimate : Estimate
    """
    model, units, n = likelihood.model, likelihood.units, len(likelihood)
    params, count = np.full((n, model.size), np.nan), len(model.reported_names)
    covariance, flags = np.full((n, count, count), np.nan), np.zeros(n, np.int64)
    for (part, there), stamps in zip(parts, likelihood.parts, strict=True):
        found, rows = estimate(part.batch[there], network, options), stamps.rows
        own = SINGLE.units(stamps.likelihood.scale)
        params[rows] = stamps.view.outward(found.params / own) * units[rows]
        turn = np.linalg.inv(stamps.view.jacobian(params[rows])[:, SINGLE.reported, model.reported])
        turn = turn / own[:, None, SINGLE.reported] * units[rows, model.reported, None]
        covariance[rows] = turn @ found.covariance @ np.swapaxes(turn, 1, 2)
        flags[rows] = found.flags
    return Estimate(params, covariance, flags, np.full(n, np.nan))


def sample_exposures(task):
    """Posterior means by importance sampling; maximum likelihood where there are no draws to speak of.

    Parameters
    ----------
    task : SamplingTask

    Returns
    -------
    estimate : Estimate
    """
    fit, target = _target(task, task.start, task.again)
    n = len(task.likelihood)
    result = PosteriorResult.blank(n, _SAMPLES, fit.flags, task.likelihood.model)
    sample_target(result, np.arange(n), target, first_proposal(target), _SAMPLES, task.options.seed)
    return _with_likelihood(_estimate(task, target, result), task)


def network_exposures(task):
    """Posterior means from the networks' answers to each image, and the likelihood of all near these.

    Parameters
    ----------
    task : SamplingTask

    Returns
    -------
    estimate : Estimate
        Without samples.
    """
    likelihood = _with_nuisance(_tempered(task), task.parts)
    penalty = prior_penalty(task.prior, likelihood.model)
    near = Neighbourhood.of(likelihood, _combined_start(task), task.side, penalty)
    weighted = near.problem.likelihood
    fisher = _of_fitted(near.fisher, weighted, penalty)
    target = ExposuresTarget(weighted, near.params, fisher, task.prior, task.side)
    result, doubtful = nested_moments(target, near)
    rows = np.flatnonzero(doubtful)
    if len(rows):
        _put(result, rows, _evenly_sampled(target[rows], task.options.seed))
    found = _estimate(task, target, result)
    found = replace(found, flags=np.zeros(len(result.ess), np.int64), samples=None)
    return replace(_with_posterior(found, task), ess=np.full(len(result.ess), np.nan))


def _with_posterior(found, task):
    """Estimates, sampled from the best fit on where too few draws count: the network's start was far off."""
    lost = np.flatnonzero(~(found.ess >= _FEW))
    if not len(lost):
        return found
    return found.replaced(lost, sample_exposures(task[lost]))


def _evenly_sampled(target, seed):
    """Posterior moments from few draws, more of them where few count."""
    mixture = first_proposal(target)
    result = sample_evenly(target, mixture, _EVEN, seed)
    rows = np.flatnonzero(result.ess < _FEW)
    if len(rows):
        more = PosteriorResult.blank(len(rows), _MORE, result.flags[rows], target.model)
        sample_target(more, np.arange(len(rows)), target[rows], mixture[rows], _MORE, seed)
        _put(result, rows, more)
    return result


def _put(result, rows, other):
    """Replace the moments of some rows."""
    for name in ("mean", "covariance", "ess", "center"):
        getattr(result, name)[rows] = getattr(other, name)


def _combined_start(task):
    """Mean of the networks' combined posteriors; of rows without, the start of the fit."""
    likelihood, pieces = task.likelihood, []
    for (part, there), stamps in zip(task.parts, likelihood.parts, strict=True):
        mean = part.mean[there].copy()
        mean[:, SINGLE.flux] -= np.log(stamps.likelihood.scale)  # fluxes in units of the likelihood
        view = replace(stamps.view, model=replace(likelihood.model, vary=(), wavelengths=()))
        pieces.append((stamps.rows, view, mean, part.chol[there]))
    model = replace(likelihood.model, vary=(), wavelengths=())
    mean, _ = combined_posterior(model, len(likelihood), pieces, task.network.prior)
    some = np.isfinite(mean)
    some[:, model.searched] &= some[:, model.searched].all(1)[:, None]
    start, varying = task.start.copy(), likelihood.model.varying
    known = np.delete(np.arange(varying.stop + 2), varying)  # the networks know of no wavelength
    start[:, known] = np.where(some, mean, start[:, known])
    return start


def _target(task, start, again):
    """Fit under the prior, and the posterior's density with the weights of the best-fitting model."""
    tempered = _tempered(task)
    penalty = prior_penalty(task.prior, tempered.model)
    fit = fit_exposures(tempered, start, task.side, again, penalty)
    weighted = _with_nuisance(tempered, task.parts).with_photons(fit.params)
    fisher = _of_fitted(fit.fisher, weighted, penalty)
    return fit, ExposuresTarget(weighted, fit.params, fisher, task.prior, task.side)


def _of_fitted(fisher, likelihood, penalty):
    """Fisher matrices that know of coefficients that are not fitted no more than the prior does."""
    which = likelihood.model.varying
    if which.start == which.stop:
        return fisher
    free = likelihood.free()
    free[:, : which.start], free[:, which.stop :] = True, True
    return np.where(free[:, :, None] & free[:, None, :], fisher, np.diag(penalty.precision))


def _estimate(task, target, result):
    """Result of sampling in the unit of the user, widths mended where noise is correlated."""
    model, units = task.likelihood.model, task.likelihood.units
    params = target.best.copy()
    good = result.ess > 0
    params[good, model.reported], params[good, model.centre] = result.mean[good], result.center[good]
    covariance, samples = _of_coefficients_known(task, result)
    stretch = _stretch(task, params, covariance)
    if stretch is not None:
        known = np.isfinite(covariance)
        covariance = np.where(known, covariance, 0)
        covariance = stretch @ covariance @ np.swapaxes(stretch, 1, 2)
        covariance = np.where(known, covariance, np.nan)
        samples = _stretched(samples, result.mean, stretch, model, task.prior)
    own = units[:, model.reported]
    flags = result.flags
    if samples.shape[1]:
        flags = flags | limit_flags(samples[..., model.n - 1 : model.shear.stop], task.prior)
    return Estimate(
        params * units, covariance * own[:, :, None] * own[:, None], flags, result.ess,
        (samples * own[:, None]).astype(np.float32),
    )  # fmt: skip


def _of_coefficients_known(task, result):
    """Covariance and samples, NaN for coefficients that are not fitted."""
    model, covariance, samples = task.likelihood.model, result.covariance, result.samples
    if not model.coefficients:
        return covariance, samples
    known = task.likelihood.free()[:, model.reported]
    known[:, : model.varying.start] = True
    covariance = np.where(known[:, :, None] & known[:, None, :], covariance, np.nan)
    return covariance, np.where(known[:, None], samples, np.nan)


def _stretch(task, params, covariance):
    """Linear map of deviates that mends what one power for all parameters left; None without correlations."""
    if all(power is None for power in task.powers):
        return None
    model, n = task.likelihood.model, len(params)
    naive, actual = np.zeros((2, n, model.size, model.size))
    parts = zip(task.likelihood.parts, task.powers, task.information(params), strict=True)
    for stamps, power, matrices in parts:
        if matrices is None:
            own = stamps.view.params(params[stamps.rows])
            matrices = 2 * [stamps.likelihood.normal_equations(own, np.arange(len(own)))[2]]
            scale, power = np.ones_like(own), np.ones(len(own))
        else:
            scale = SINGLE.units(stamps.likelihood.scale)
        turn = stamps.view.jacobian(params[stamps.rows]) * scale[:, :, None]
        for total, matrix, weight in zip((naive, actual), matrices, (power, power**2), strict=True):
            total[stamps.rows] += weight[:, None, None] * (np.swapaxes(turn, 1, 2) @ matrix @ turn)
    reached, supposed, _ = joint_errors(model, naive, actual, task.likelihood.free())
    return on_known(
        stretching, covariance, supposed, reached, np.tile(np.eye(covariance.shape[-1]), (n, 1, 1))
    )


def _stretched(samples, mean, stretch, model, prior):
    """Draws moved away from their mean; those that would leave the prior stay where they are."""
    offset = samples - mean[:, None]
    known = np.isfinite(offset)
    moved = mean[:, None] + np.einsum("nij,nsj->nsi", stretch, np.where(known, offset, 0))
    shape = np.moveaxis(moved[..., model.shape], -1, 0)
    with np.errstate(invalid="ignore", divide="ignore"):
        possible = np.isfinite(prior.log_density_of_shape(*shape))
        possible &= ((moved > 0) | ~known)[..., model.fluxes].all(-1)
    return np.where(possible[..., None] & known, moved, samples)


def _with_likelihood(found, task):
    """Estimates by sampling, by maximum likelihood where there are too few draws to speak of."""
    lost = np.flatnonzero(~(found.ess >= _FEWEST))
    if not len(lost):
        return found
    likelihood = task.likelihood[lost]
    best = of_fit(fit_exposures(likelihood, task.start[lost], task.side), likelihood)
    params, covariance, flags = found.params.copy(), found.covariance.copy(), found.flags.copy()
    params[lost], covariance[lost] = best.params, best.covariance
    flags[lost] = (flags[lost] & ~(Flag.LOW_ESS | Flag.PRIOR_LIMIT)) | best.flags | Flag.NOT_SAMPLED
    samples = found.samples
    if samples is not None:
        samples = samples.copy()
        samples[lost] = np.nan
    return Estimate(params, covariance, flags, found.ess, samples)


def _tempered(task):
    """The likelihood with the weights of exposures of correlated noise lowered by what that costs."""
    parts = []
    for stamps, power in zip(task.likelihood.parts, task.powers, strict=True):
        if power is not None:
            ivar = (stamps.likelihood.ivar * power[:, None, None]).astype(np.float32)
            gain = None if stamps.gain is None else stamps.gain * power
            stamps = replace(stamps, likelihood=replace(stamps.likelihood, ivar=ivar), gain=gain)
        parts.append(stamps)
    return replace(task.likelihood, parts=tuple(parts))


def _with_nuisance(likelihood, found):
    """The likelihood with the parameters of fitted neighbours integrated out."""
    parts = []
    for (part, there), stamps in zip(found, likelihood.parts, strict=True):
        nuisance = part.batch.stamps.nuisance
        if nuisance is not None:
            stamps = replace(stamps, likelihood=MarginalLikelihood.of(stamps.likelihood, nuisance[there]))
        parts.append(stamps)
    return replace(likelihood, parts=tuple(parts))
