# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""Estimates of galaxies in several images: those of the fit, or posterior means by importance sampling."""

from dataclasses import dataclass, replace

import numpy as np

from galshape_cnn.flags import Flag
from galshape_cnn.forward.galaxy_model import SINGLE
from galshape_cnn.infer.fit.exposures_fit import fit_exposures
from galshape_cnn.infer.likelihood.nuisance import MarginalLikelihood
from galshape_cnn.infer.likelihood.sandwich import information, tempering
from galshape_cnn.infer.posterior.exposures_target import ExposuresTarget
from galshape_cnn.infer.posterior.importance_sampling import PosteriorResult, prior_penalty, sample_target
from galshape_cnn.infer.posterior.target import first_proposal

__all__ = ["ExposuresEstimate", "of_fit", "sample_exposures"]

_SAMPLES = 256  # as for one image


@dataclass(frozen=True, eq=False)
class ExposuresEstimate:
    """Estimates of N galaxies in the unit of the user.

    Attributes
    ----------
    params : (N, P) ndarray
        Of the exposures' model.
    covariance : (N, R, R) ndarray
        Posterior covariance of the reported ones; NaN where there is none.
    flags : (N,) int64 ndarray
        What the estimator has to say.
    ess : (N,) ndarray
        Effective number of draws; NaN without any.
    samples : (N, S, R) float32 ndarray or None
        Equally weighted draws.
    """

    params: np.ndarray
    covariance: np.ndarray
    flags: np.ndarray
    ess: np.ndarray
    samples: np.ndarray | None = None


def of_fit(fit, likelihood):
    """Maximum-likelihood estimates.

    Parameters
    ----------
    fit : ExposuresFit
    likelihood : JointLikelihood
        That was fitted.

    Returns
    -------
    estimate : ExposuresEstimate
    """
    count = len(likelihood.model.reported_names)
    nan = np.full((len(likelihood), count, count), np.nan)
    return ExposuresEstimate(fit.params * likelihood.units, nan, fit.flags, nan[:, 0, 0])


def sample_exposures(exposures, likelihood, found, start, again, side, network, options):
    """Posterior means; maximum likelihood where there are no draws to speak of.

    Parameters
    ----------
    exposures : Exposures
    likelihood : JointLikelihood
        Of N galaxies.
    found : list of (ExposurePart, places)
        Whose stamps the parts of the likelihood are.
    start, again
        As for `galshape_cnn.infer.fit.exposures_fit.fit_exposures`.
    side : int
        Of the reference stamps.
    network : AmortizedPosterior
        The prior of its training holds without another.
    options : Options
        ``prior`` (lengths in pixels of the reference exposure; that of the amplitude is not used: fluxes have
        a flat prior above zero) and ``seed``.

    Returns
    -------
    estimate : ExposuresEstimate
    """
    model, n = likelihood.model, len(likelihood)
    prior = network.prior.reaching(hlr=side / 2) if options.prior is None else options.prior
    tempered = _tempered(exposures, likelihood, found, start, options)
    fit = fit_exposures(tempered, start, side, again, prior_penalty(prior, model))
    weighted = _with_nuisance(tempered, found).with_photons(fit.params)
    target = ExposuresTarget(weighted, fit.params, fit.fisher, prior, side)
    result = PosteriorResult.blank(n, _SAMPLES, fit.flags, model)
    sample_target(result, np.arange(n), target, first_proposal(target), _SAMPLES, options.seed)
    units = likelihood.units
    params, flags = fit.params * units, result.flags
    params[:, model.reported] = result.mean * units[:, model.reported]
    params[:, model.centre] = result.center
    lost = np.flatnonzero(result.ess == 0)
    covariance = result.covariance * _outer(units[:, model.reported])
    samples = (result.samples * units[:, None, model.reported]).astype(np.float32)
    if len(lost):
        best = of_fit(fit_exposures(likelihood[lost], start[lost], side), likelihood[lost])
        params[lost], flags[lost] = best.params, best.flags | Flag.NOT_SAMPLED
    return ExposuresEstimate(params, covariance, flags, result.ess, samples)


def _outer(vectors):
    return vectors[:, :, None] * vectors[:, None, :]


def _tempered(exposures, likelihood, found, start, options):
    """The likelihood with the weights of exposures of correlated noise lowered by what that costs."""
    parts = []
    for (part, there), stamps in zip(found, likelihood.parts, strict=True):
        correlation = exposures.correlations[part.exposure]
        if correlation is not None:
            own = stamps.view.params(start[stamps.rows])
            own = own * SINGLE.units(stamps.likelihood.scale)
            power = tempering(*information(part.batch[there], own, correlation), options.fit_sky)
            ivar = (stamps.likelihood.ivar * power[:, None, None]).astype(np.float32)
            gain = None if stamps.gain is None else stamps.gain * power
            stamps = replace(stamps, likelihood=replace(stamps.likelihood, ivar=ivar), gain=gain)
        parts.append(stamps)
    return replace(likelihood, parts=tuple(parts))


def _with_nuisance(likelihood, found):
    """The likelihood with the parameters of fitted neighbours integrated out."""
    parts = []
    for (part, there), stamps in zip(found, likelihood.parts, strict=True):
        nuisance = part.batch.stamps.nuisance
        if nuisance is not None and nuisance[there].any():
            stamps = replace(stamps, likelihood=MarginalLikelihood.of(stamps.likelihood, nuisance[there]))
        parts.append(stamps)
    return replace(likelihood, parts=tuple(parts))
