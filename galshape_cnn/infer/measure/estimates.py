# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""Estimates of a batch: network, maximum likelihood or posterior sampling."""

from dataclasses import dataclass, fields, replace
from typing import NamedTuple

import numpy as np

from galshape_cnn.flags import Flag
from galshape_cnn.forward.galaxy_model import SINGLE
from galshape_cnn.forward.sersic import N_RANGE
from galshape_cnn.infer.fit.maximum_likelihood import maximize_likelihood
from galshape_cnn.infer.likelihood.fisher import bound
from galshape_cnn.infer.likelihood.sandwich import information, sandwich, stretching, tempering
from galshape_cnn.infer.measure.options import prior_in_units_of, prior_of_training
from galshape_cnn.infer.network.amortized import posterior_moments, sky_free_posterior
from galshape_cnn.infer.network.reweighting import reweighted_moments
from galshape_cnn.linalg import symmetric_root

__all__ = ["Estimate", "estimate", "limit_flags", "samples_as_wide"]

_FEWEST_DRAWS = 5  # effective draws, below which a row is not taken from them
_AT_LIMIT, _PILED_UP = 0.97, 0.05  # of a limit of the prior, and share of the draws beyond that
_FEW_DRAWS = 40  # effective draws of a reweighted answer below which it is flagged

_ARRAYS = "params", "covariance", "flags", "ess"  # of an estimate, beside its draws


@dataclass(eq=False)
class Estimate:
    """Estimates of N galaxies, fluxes in the unit of the batch, or of the user for several exposures.

    Attributes
    ----------
    params : (N, P) ndarray
        Of the model: flux, n, hlr, g1, g2, x, y, sky for one image.
    covariance : (N, R, R) ndarray
        Posterior covariance of what is reported, the first five for one image; NaN where there is none.
    flags : (N,) int64 ndarray
        What the estimator itself has to say.
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

    def __getitem__(self, rows):
        """Some of the galaxies, by an array of int or bool."""
        samples = None if self.samples is None else self.samples[rows]
        return Estimate(*(getattr(self, name)[rows] for name in _ARRAYS), samples)

    def replaced(self, rows, other):
        """A copy without draws, with some rows of another."""
        arrays = {name: getattr(self, name).copy() for name in _ARRAYS}
        for name, array in arrays.items():
            array[rows] = getattr(other, name)
        return Estimate(**arrays)

    @classmethod
    def joined(cls, n, parts):
        """Estimates of n galaxies from (rows, Estimate) of parts that cover them."""
        out = {}
        for name in (field.name for field in fields(cls)):
            arrays = [getattr(part, name) for _, part in parts]
            if arrays and arrays[0] is not None:
                out[name] = np.empty((n, *arrays[0].shape[1:]), arrays[0].dtype)
                for (rows, _), array in zip(parts, arrays, strict=True):
                    out[name][rows] = array
        return cls(**out)


def estimate(batch, network, options):
    """Estimate the galaxies of a batch, each with data; every method starts from the networks' answer."""
    if options.method == "ml":
        batches = batch.filled(by_kernel=True)
        looks = [(rows, _look(full, len(rows), network, options)) for rows, _, full in batches]
        return _maximum_likelihood(batch, looks, options)
    one = _sampled if options.method == "posterior" else _of_network
    parts = []
    for alike in _rows_of_one_unit(batch, options):
        for rows, _, full in batch.filled(alike, by_kernel=True):
            look = _look(full, len(rows), network, options)
            own = full if len(full) == len(rows) else batch[rows]
            parts.append((rows, one(own, look, network, options)))
    return Estimate.joined(len(batch), parts)


def _rows_of_one_unit(batch, options):
    """Rows that may share a batch: a prior on flux knows one unit at a time."""
    if options.method != "posterior" and options.prior is None:
        return [np.arange(len(batch))]
    return [np.flatnonzero(batch.unit == unit) for unit in np.unique(batch.unit)]


class _Look(NamedTuple):
    """Network's answer for the first rows of a batch."""

    posterior: object
    params: np.ndarray
    covariance: np.ndarray
    flags: np.ndarray


def _look(full, count, network, options):
    """What the networks say of the first ``count`` rows of a full batch."""
    posterior, strangeness, sky = sky_free_posterior(full, network, options.fit_sky)
    mean, covariance = posterior_moments(posterior)
    params = SINGLE.with_sky(mean, sky[:, None])
    # infinite under a condition that training kept constant, whatever the bundle says of its domain
    strange = (strangeness > network.domain.get("context", np.inf)) | np.isposinf(strangeness)
    flags = np.where(strange, Flag.UNLIKE_TRAINING, 0).astype(np.int64)
    covariance = covariance[:count, SINGLE.reported, SINGLE.reported]
    return _Look(posterior[:count], params[:count], covariance, flags[:count])


def _of_network(batch, look, network, options):
    """The networks' own answer, under the user's prior if there is one, else within the limits of its own."""
    params, covariance, flags = look.params, look.covariance, look.flags
    if options.prior is not None:
        priors = [prior_in_units_of(prior, batch.unit[0]) for prior in (options.prior, network.prior)]
        params, covariance, flags = _reweighted(look, *priors)
    elif network.keeps_limits:
        own = prior_in_units_of(network.prior, batch.unit[:, None])
        params, covariance, flags = _reweighted(look, own, own)
    found = Estimate(params, covariance, flags, np.full(len(params), np.nan))
    lost = ~_is_stateable(params, covariance, batch.grid.size)
    return _with_likelihood(found, lost, Flag.SIZE_OUT_OF_DOMAIN, batch, look, options)


def _is_stateable(params, covariance, size):
    """Rows that can be a galaxy in a stamp: what the network extrapolates to may be none."""
    known = np.isfinite(params).all(1) & np.isfinite(covariance).all((1, 2))
    variance = covariance[:, SINGLE.hlr, SINGLE.hlr]
    with np.errstate(invalid="ignore"):
        return known & (params[:, SINGLE.hlr] <= size) & (variance <= size**2)


def _reweighted(look, prior, training_prior):
    """Moments and flags under another prior; the network's own where the priors do not meet."""
    mean, covariance, ess = reweighted_moments(look.posterior, prior, training_prior)
    known = ess >= 2
    params = look.params.copy()
    params[:, SINGLE.without_sky] = np.where(known[:, None], mean, params[:, SINGLE.without_sky])
    covariance = covariance[:, SINGLE.reported, SINGLE.reported]
    covariance = np.where(known[:, None, None], covariance, look.covariance)
    return params, covariance, look.flags | np.where(ess < _FEW_DRAWS, Flag.LOW_ESS, 0)


def _maximum_likelihood(batch, looks, options):
    """Maximum-likelihood estimates, searched for together."""
    start = np.concatenate([_possible_start(look.params, batch.stamps.center[rows]) for rows, look in looks])
    pixels = batch.stamps.data, batch.stamps.ivar, batch.transfer, batch.grid
    result = maximize_likelihood(*pixels, start, fit_sky=options.fit_sky, gain=batch.gain)
    nan = np.full((len(batch), 5, 5), np.nan)  # what is strange to the networks is of no concern here
    return Estimate(result.params, nan, result.flags, nan[:, 0, 0])


def _possible_start(params, center):
    """Starts of the search, where the network gave none for a galaxy far outside its training."""
    other = np.column_stack(
        [np.tile([1.0, 1.5, 3.0, 0.0, 0.0], (len(params), 1)), center, np.zeros(len(params))]
    )
    return np.where(np.isfinite(params).all(1)[:, None], params, other)


def _sampled(batch, look, network, options):
    """Posterior means by importance sampling, the network's answer as proposal."""
    from galshape_cnn.infer.posterior.importance_sampling import sample_posterior

    stamps, ivar, gain = batch.stamps, batch.stamps.ivar, batch.gain
    if options.correlation is not None:
        # a power of a Gaussian likelihood is one with all variances multiplied
        power = tempering(*information(batch, look.params, options.correlation), options.fit_sky)
        ivar, gain = ivar * power[:, None, None], None if gain is None else gain * power
    asked = options.prior
    if asked is None:
        asked = prior_of_training(network, batch.stamps.data.shape[-1])
    prior = prior_in_units_of(asked, batch.unit[0])
    result = sample_posterior(
        stamps.data, ivar, batch.transfer, batch.grid, look.posterior, prior,
        fit_sky=options.fit_sky, gain=gain, seed=options.seed, nuisance=stamps.nuisance,
    )  # fmt: skip
    params = look.params.copy()
    good = np.isfinite(result.mean).all(1)
    params[good, SINGLE.reported], params[good, SINGLE.centre] = result.mean[good], result.center[good]
    if options.correlation is not None:
        result = _stretched(result, batch, params, power, prior, options)
    flags = result.flags | limit_flags(result.samples, asked)
    sampled = Estimate(params, result.covariance, flags, result.ess, result.samples)
    lost = ~np.isfinite(sampled.params).all(1) | ~(sampled.ess >= _FEWEST_DRAWS)
    return _with_likelihood(sampled, lost, 0, batch, look, options)


def limit_flags(samples, prior):
    """``PRIOR_LIMIT`` where draws (N, S, 5) pile up at the prior's largest size or ellipticity."""
    with np.errstate(invalid="ignore"):
        large = samples[..., SINGLE.hlr] > _AT_LIMIT * prior["hlr"].high
        flat = np.hypot(*np.moveaxis(samples[..., SINGLE.shear], -1, 0)) > _AT_LIMIT * prior["g"].high
        piled = (large.mean(1) > _PILED_UP) | (flat.mean(1) > _PILED_UP)
    return np.where(piled, Flag.PRIOR_LIMIT, 0)


def _with_likelihood(sampled, lost, flags, batch, look, options):
    """Estimates, by maximum likelihood where they are lost: too few draws, or no galaxy; with more flags."""
    rows = np.flatnonzero(lost)
    if not len(rows):
        return sampled
    look = _Look(None, look.params[rows], None, look.flags[rows])
    fit = _maximum_likelihood(batch[rows], [(np.arange(len(rows)), look)], options)
    sampled.params[rows], sampled.covariance[rows] = fit.params, fit.covariance
    kept = sampled.flags[rows] & ~(Flag.LOW_ESS | Flag.PRIOR_LIMIT)
    sampled.flags[rows] = kept | fit.flags | flags | Flag.NOT_SAMPLED
    if sampled.samples is not None:
        sampled.samples[rows] = np.nan
    return sampled


def _stretched(result, batch, params, power, prior, options):
    """Tempered posteriors with the width of each parameter mended, see `stretching`.

    A draw that would leave the prior's limits stays where it is.
    """
    matrices = information(batch, params, options.correlation)
    supposed = bound(matrices[0], options.fit_sky)[0] / power[:, None, None]
    stretch = stretching(result.covariance, supposed, sandwich(*matrices, options.fit_sky)[0])
    mean = result.mean[:, None]
    moved = mean + np.einsum("nij,nsj->nsi", stretch, result.samples - mean)
    possible = np.isfinite(prior.log_density(*np.moveaxis(moved, -1, 0)))
    samples = np.where(possible[..., None], moved, result.samples)
    covariance = stretch @ result.covariance @ np.swapaxes(stretch, 1, 2)
    return replace(result, covariance=covariance, samples=samples.astype(np.float32))


def samples_as_wide(found, covariance):
    """Draws about their mean as wide as the covariance (N, 5, 5) that is stated, or the same object.

    Structure, hidden sources and an uncertain PSF widen a covariance after the draws were made.  The map is
    the one that moves draws least (of Gaussians; optimal transport); a draw that it would put where no galaxy
    is stays where it was.
    """
    changed = (covariance != found.covariance).any((1, 2))
    known = np.isfinite(covariance).all((1, 2)) & np.isfinite(found.covariance).all((1, 2))
    rows = np.flatnonzero(changed & known)
    if found.samples is None or not len(rows):
        return found.samples
    samples = found.samples.copy()
    for row in rows:
        mean, old = found.params[row, SINGLE.reported], found.samples[row].astype(float)
        moved = mean + (old - mean) @ _least_move(found.covariance[row], covariance[row]).T
        samples[row] = np.where(_is_possible(moved)[:, None], moved, old)
    return samples


def _is_possible(samples):
    """Draws (S, 5) of galaxies as they can be."""
    n, hlr, shear = samples[:, SINGLE.n], samples[:, SINGLE.hlr], samples[:, SINGLE.shear]
    with np.errstate(invalid="ignore"):
        return (n >= N_RANGE[0]) & (n <= N_RANGE[1]) & (hlr > 0) & (np.hypot(*shear.T) < 1)


def _least_move(before, after):
    """Linear map from a Gaussian of one covariance to that of another, (5, 5)."""
    scale = np.sqrt(np.maximum(np.diagonal(before), 1e-300))
    unit = np.outer(scale, scale)
    before, after = before / unit, after / unit
    root = symmetric_root((before + before.T) / 2)
    inverse, both = np.linalg.pinv(root), root @ after @ root
    move = inverse @ symmetric_root((both + both.T) / 2) @ inverse
    return scale[:, None] * move / scale
