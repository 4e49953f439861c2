# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""Estimates of the network under validation.

The galaxies go the way of users: as arrays with the middle of the stamp for a position, recentred and with
the estimator's own defaults.
"""

from dataclasses import replace

import numpy as np

from galshape_cnn.forward.coordinates import POSTERIOR
from galshape_cnn.forward.galaxy_model import SINGLE
from galshape_cnn.forward.transfer import grid_for, transfer_functions
from galshape_cnn.infer.catalog.measurement import Measurement
from galshape_cnn.infer.likelihood.fisher import bound, fisher_matrices
from galshape_cnn.infer.likelihood.rendering import BATCH_SIZE, RenderedBatch
from galshape_cnn.infer.measure.estimator import ShapeEstimator
from galshape_cnn.infer.measure.options import prior_in_units_of
from galshape_cnn.infer.network.amortized import network_posterior, posterior_moments
from galshape_cnn.infer.network.conditions import settled_sky
from galshape_cnn.infer.network.reweighting import reweighted_moments
from galshape_cnn.observe.observation import prepare
from galshape_cnn.parallel import fixed_batches

__all__ = ["ValidatedNetwork", "true_bounds"]

_AT_ONCE = 512  # stamps between two reports of progress
_DRAWS = 255  # of the ranks of the truth


class ValidatedNetwork:
    """A bundle, live.

    Parameters
    ----------
    bundle : Bundle
        The network to be validated.

    Attributes
    ----------
    bundle : Bundle
    estimator : ShapeEstimator
        As users call it.
    """

    def __init__(self, bundle):
        self.bundle = bundle
        self.estimator = ShapeEstimator(bundle)
        self._network = self.estimator.live_network()
        self._sky = settled_sky(bundle, None, "network")

    def measure(self, stamps, fit_sky, method="network", seed=0, report=None):
        """Measure stamps; the sky is known to be zero where ``fit_sky`` (N,) is False.

        The estimator is told where that is not its default. ``'posterior'`` uses the prior of the training;
        ``report`` receives the number of stamps so far.
        """
        parts, done = [], 0
        for rows, known in _batches(len(stamps), fit_sky, _AT_ONCE):
            told = {} if known == self._sky else {"fit_sky": known}
            given = _as_given(stamps[rows])
            catalog = self.estimator(given.pop("data"), method=method, seed=seed, **told, **given)
            params = catalog.measurement.params.copy()
            params[:, SINGLE.centre] += catalog.placement.origin
            parts.append((rows, replace(catalog.measurement, params=params)))
            done += len(rows)
            if report is not None:
                report(done)
        return Measurement.scatter(len(stamps), parts)

    def _posteriors(self, stamps, fit_sky):
        """Rows and networks' posteriors of a batch that begins with them, one batch after the other."""
        batch = RenderedBatch.from_stamps(stamps)
        for rows, known in _batches(len(stamps), fit_sky):
            ((_, _, full),) = batch.filled(rows)
            yield rows, network_posterior(full, self._network, known)[0]

    def means(self, stamps, fit_sky):
        """Posterior means of flux, n, hlr, g1, g2 (N, 5) of the network alone, without bounds and flags."""
        stamps = _recentred(stamps)
        out = np.full((len(stamps), 5), np.nan)
        for rows, posterior in self._posteriors(stamps, fit_sky):
            posterior = posterior[: len(rows)]
            mean = posterior_moments(posterior)[0]
            if self._network.keeps_limits:
                own = prior_in_units_of(self._network.prior, stamps.noise_unit[rows, None])
                inside, _, count = reweighted_moments(posterior, own, own)
                mean = np.where((count >= 2)[:, None], inside, mean)
            out[rows] = mean[:, SINGLE.reported]
        out[:, SINGLE.flux] *= stamps.noise_unit
        return out

    def draws(self, stamps, fit_sky, seed=0):
        """Draws (N, 255, 5) of flux, n, hlr, g1, g2 from the network's own posterior."""
        stamps, rng = _recentred(stamps), np.random.default_rng(seed)
        out = np.full((len(stamps), _DRAWS, 5), np.nan)
        for rows, posterior in self._posteriors(stamps, fit_sky):
            with np.errstate(over="ignore", invalid="ignore"):  # the tails of a galaxy it has never seen
                drawn = POSTERIOR.params(posterior.sample(rng, 2 * _DRAWS))[: len(rows), :, SINGLE.reported]
            out[rows] = self._within_limits(drawn, stamps.noise_unit[rows, None])
        out[..., SINGLE.flux] *= stamps.noise_unit[:, None]
        return out

    def _within_limits(self, draws, unit):
        """The first draws of each galaxy, or those within the limits of the prior where these are kept."""
        if not self._network.keeps_limits:
            return draws[:, :_DRAWS]
        own = prior_in_units_of(self._network.prior, unit)
        inside = np.isfinite(own.log_density(*np.moveaxis(draws, -1, 0)))
        order = np.argsort(~inside, axis=1, kind="stable")
        count = np.maximum(inside.sum(1, keepdims=True), 1)  # few ones are repeated
        chosen = np.take_along_axis(order, np.arange(_DRAWS)[None] % count, 1)
        return np.take_along_axis(draws, chosen[..., None], 1)


def _as_given(stamps):
    """What a user has of such stamps: arguments of the estimator."""
    bad = stamps.ivar == 0
    error = 1 / np.sqrt(np.where(bad, 1, np.asarray(stamps.ivar, float)))
    given = {"data": stamps.data, "error": error, "mask": bad, "psf": stamps.psf}
    # the arrays are cut from PSFs of unit sum
    return given | {"psf_oversampling": stamps.psf_oversampling, "normalize_psf": False}


def _recentred(stamps):
    """The stamps as the estimator makes them of what a user has."""
    given = _as_given(stamps)
    return prepare(given.pop("data"), **given).groups[0][1]


def _batches(n, fit_sky, size=BATCH_SIZE):
    """Rows of equal ``fit_sky``, a batch at a time."""
    fit_sky = np.broadcast_to(np.asarray(fit_sky, bool), (n,))
    for value in (True, False):
        rows = np.flatnonzero(fit_sky == value)
        for start in range(0, len(rows), size):
            yield rows[start : start + size], value


def true_bounds(stamps, params, fit_sky):
    """Cramér-Rao bounds (N, 5, 5) and Fisher matrices (N, 8, 8) at the true parameters (N, 8).

    The sky is marginalised where ``fit_sky`` (N,) says so. NaN where a matrix cannot be inverted or used.
    """
    grid = grid_for(stamps.data.shape[-1], stamps.psf_oversampling)
    params = np.asarray(params, np.float32)
    out, fisher = np.full((len(stamps), 5, 5), np.nan), np.full((len(stamps), 8, 8), np.nan)
    for rows, known in _batches(len(stamps), fit_sky):
        ((_, padded),) = fixed_batches(rows, BATCH_SIZE)
        psf = np.broadcast_to(stamps.psf, (len(stamps),) + stamps.psf.shape[1:])[padded]
        transfer = transfer_functions(psf.astype(np.float32), grid, stamps.psf_oversampling)
        scale = params[padded, SINGLE.flux].copy()  # single precision wants fluxes near one
        unit = params[padded].copy()
        unit[:, SINGLE.amplitudes] /= scale[:, None]
        ivar = stamps.ivar[padded] * scale[:, None, None] ** 2
        inside = np.asarray(fisher_matrices(unit, ivar, transfer, grid))
        covariance, singular = bound(inside, fit_sky=known)
        covariance[singular] = np.nan
        amplitude = np.ones((len(padded), 8))
        amplitude[:, SINGLE.amplitudes] = scale[:, None]
        covariance *= amplitude[:, SINGLE.reported, None] * amplitude[:, None, SINGLE.reported]
        out[rows] = covariance[: len(rows)]
        fisher[rows] = (inside / amplitude[:, :, None] / amplitude[:, None, :])[: len(rows)]
    return out, fisher
