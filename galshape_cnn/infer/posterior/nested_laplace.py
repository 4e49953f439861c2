# Licensed under a 3-clause BSD style license - see LICENSE.rst
r"""Nested Laplace approximation: posterior moments in several images from a few likelihoods.

Most of what is not Gaussian in the posterior of a galaxy lies along one curve: with n go size and flux.
Given n, the other coordinates are close to Gaussian, so that (Tierney & Kadane 1986, J. Am. Stat. Assoc. 81,
82; Rue, Martino & Chopin 2009, J. R. Stat. Soc. B 71, 319)

.. math:: p(n) \propto p(n, \hat{\mathbf v}(n))\,|P(n)|^{-1/2}

with :math:`\hat{\mathbf v}(n)` the best others and P(n) their Fisher matrix.  Both follow from one evaluation
of the derivatives at a point near by: here at the mode and 2.25 standard deviations of n to either side.

What is left is that size, given n, is skewed where the PSF hides the galaxy.  The third derivatives of a
log-likelihood follow, on average, from the first of the Fisher matrix, which a fourth evaluation gives:
:math:`T_{ijk} = \tfrac12 (F_{ij,k} + F_{ik,j} + F_{jk,i})`.  They move the mean of the size by
:math:`-\tfrac12 \sum_k T_{hkk}` in units of the errors.

Moments are those of draws from the result, which cost no rendering, weighted by the prior.  A row is called
doubtful where the expansion cannot hold.
"""

from dataclasses import dataclass, replace
from functools import cached_property
from typing import NamedTuple

import numpy as np
from scipy.special import log_ndtr, ndtri

from galshape_cnn.forward.coordinates import Coordinates
from galshape_cnn.forward.sersic import N_RANGE
from galshape_cnn.infer.fit.exposures_fit import ExposuresProblem
from galshape_cnn.infer.fit.levenberg_marquardt import Points, search
from galshape_cnn.infer.fit.variable_projection import LIMITS
from galshape_cnn.infer.posterior.draws import effective, even_points
from galshape_cnn.infer.posterior.exposures_target import above_zero
from galshape_cnn.infer.posterior.nodes import (
    REACH,
    Node,
    curved,
    drawn_from,
    log_density,
    mixed,
    straight,
)
from galshape_cnn.infer.posterior.result import PosteriorResult
from galshape_cnn.linalg import cholesky_or_nan, inverse_or_nan, quadratic_form

__all__ = ["Neighbourhood", "nested_moments"]

_NEAR = LIMITS._replace(steps=6, tolerance=0.1)  # the mode is found to 0.3 of its error; the rest is algebra
_ASIDE = -0.7  # standard deviations of size, given n, to the last node
_DRAWS = 256
_FAINTEST = -8.0  # standard deviations below zero at which a flux is cut off
_N_MARGIN = 0.05
#: Where the expansion is not to be trusted: steps to the mode and aside of the curve, in errors; width of
#: logit n; share of the draws that count.
_LONG_STEP, _FAR_ASIDE, _BROAD, _FEW = 0.8, 2.5, 2.2, 0.25
_SKEWED, _SHIFTED = 1.2, 1.0  # largest skewness and shift of the mean of size, given n


@dataclass(frozen=True, eq=False)
class Neighbourhood:
    """N galaxies near the maximum of their posterior.

    Attributes
    ----------
    problem : ExposuresProblem
        With final weights, and a Gaussian in the place of the prior.
    points : Points
        Near its maximum.
    """

    problem: ExposuresProblem
    points: Points

    @classmethod
    def of(cls, likelihood, start, size, penalty):
        """Searched for from a start that is close.

        Parameters
        ----------
        likelihood : JointLikelihood
            Without the photon noise of the galaxies' light.
        start : (N, P) ndarray
            Parameters, in its units.
        size : int
            Side of the reference stamps.
        penalty : Penalty

        Returns
        -------
        neighbourhood : Neighbourhood
        """
        coordinates = Coordinates(likelihood.model)
        theta = coordinates.clipped(coordinates.of(start), size)
        for _ in range(2 if any(part.gain is not None for part in likelihood.parts) else 1):
            problem = ExposuresProblem(likelihood.with_photons(coordinates.params(theta)), size, penalty)
            points, _, _ = search(problem, theta, _NEAR)
            theta = points.theta
        return cls(problem, points)

    @property
    def params(self):
        """Of the points, (N, P) ndarray."""
        return Coordinates(self.problem.likelihood.model).params(self.points.theta)

    @property
    def fisher(self):
        """With respect to the parameters, (N, P, P) ndarray."""
        slope = Coordinates(self.problem.likelihood.model).derivative(self.points.theta)
        inverse = np.linalg.inv(slope)
        return np.swapaxes(inverse, 1, 2) @ self.points.fisher @ inverse


class _Expansion(NamedTuple):
    """Log posterior to second order in logit n, ln hlr, eta1, eta2, ..., x, y, amplitudes at their best.

    At ``u`` (N, D): the logarithm of the density but for the amplitudes, and what they add; gradient (N, D)
    and precision (N, D, D); fluxes (N, B), their derivatives (N, B, D) and variances given the shape.
    """

    u: np.ndarray
    value: np.ndarray
    amplitudes: np.ndarray
    gradient: np.ndarray
    precision: np.ndarray
    flux: np.ndarray
    slope: np.ndarray
    variance: np.ndarray


def nested_moments(target, near):
    """Posterior moments by a nested Laplace approximation.

    Parameters
    ----------
    target : ExposuresTarget
        Whose prior, and prior of the amplitudes, are taken.
    near : Neighbourhood
        Of the same galaxies.

    Returns
    -------
    result : PosteriorResult
        Without samples.
    doubtful : (N,) ndarray of bool
        Rows in which the approximation cannot be trusted.
    """
    with np.errstate(all="ignore"):  # such rows are doubtful
        return _Approximation(target, near).moments()


@dataclass(frozen=True, eq=False)
class _Approximation:
    """What `nested_moments` does."""

    target: object
    near: Neighbourhood

    @property
    def model(self):
        return self.target.model

    @cached_property
    def free(self):
        return self.target.likelihood.free()

    @cached_property
    def centre(self):
        return self._expanded(self.near.points)

    @cached_property
    def covariance(self):
        return inverse_or_nan(self.centre.precision)

    @cached_property
    def step(self):
        """From the centre to the mode, and its length in errors."""
        step = (self.covariance @ self.centre.gradient[..., None])[..., 0]
        length = np.sqrt((step * self.centre.gradient).sum(1))
        return step * np.minimum(1, 3 / np.maximum(length, 1e-9))[:, None], length

    @cached_property
    def mode(self):
        return self.centre.u + self.step[0]

    @cached_property
    def sigma(self):
        """Of logit n."""
        return np.sqrt(self.covariance[:, 0, 0])

    @cached_property
    def lateral(self):
        """Cholesky factor of the covariance of the others given n; its first column is that of size."""
        return cholesky_or_nan(inverse_or_nan(self.centre.precision[:, 1:, 1:]))

    def moments(self):
        along = self.covariance[:, :, 0] / self.sigma[:, None]
        outer = [self._expanded(self._evaluated(self.mode + t * along)) for t in (-REACH, REACH)]
        nodes = [
            self._node(one, t)
            for one, t in zip((outer[0], self.centre, outer[1]), (-REACH, 0.0, REACH), strict=True)
        ]
        shift, skewness = self._of_size()
        u, flux, variance = self._drawn(nodes, shift, skewness)
        weights, params = self._weighted(u)
        result = self._summary(weights, params, flux, variance)
        aside = np.maximum(nodes[0].aside, nodes[2].aside)
        sure = (self.step[1] < _LONG_STEP) & (aside < _FAR_ASIDE) & (self.sigma < _BROAD)
        sure &= (result.ess > _FEW * _DRAWS) & np.isfinite(np.abs(skewness) + np.abs(shift))
        finite = np.isfinite(result.mean) | ~self.free[:, self.model.reported]
        return result, ~(sure & finite.all(1))

    def _evaluated(self, u):
        """Points at coordinates u."""
        model, problem = self.model, self.near.problem
        theta = self.near.points.theta.copy()
        theta[:, model.searched] = np.where(np.isfinite(u), u, theta[:, model.searched])
        n = N_RANGE[0] + (N_RANGE[1] - N_RANGE[0]) / (1 + np.exp(-theta[:, model.n]))
        bad = ~np.isfinite(u).all(1)
        theta[:, model.n] = np.where(bad, self.near.points.theta[:, model.n], np.log(n))
        theta = Coordinates(model).clipped(theta, problem.size)
        return problem.evaluate(theta, np.arange(len(theta)))

    def _expanded(self, points):
        """`_Expansion` of points."""
        model, free = self.model, self.free
        fisher = np.where(free[:, :, None] & free[:, None, :], points.fisher, np.eye(model.size))
        gradient = np.where(free, points.gradient, 0)
        theta = points.theta[:, : model.centre.stop]
        n = np.exp(theta[:, model.n]).clip(N_RANGE[0] + _N_MARGIN, N_RANGE[1] - _N_MARGIN)
        ratio = Coordinates(model, logit_n=True).slope_of_n(n) / n
        fisher[:, model.n] *= ratio[:, None]
        fisher[:, :, model.n] *= ratio[:, None]
        gradient[:, model.n] *= ratio
        u = theta[:, model.searched].copy()
        u[:, 0] = np.log((n - N_RANGE[0]) / (N_RANGE[1] - n))
        linear, searched = model.linear, model.searched
        inner = fisher[:, linear][:, :, linear]
        size = np.sqrt(np.maximum(np.einsum("nii->ni", inner), 1e-30))
        unit = size[:, :, None] * size[:, None]
        inverse = inverse_or_nan(inner / unit + 1e-9 * np.eye(len(linear))) / unit
        cross = fisher[:, linear, searched]
        slope = -inverse @ cross
        bands = len(model.bands)
        flux, variance = theta[:, model.fluxes], np.einsum("nii->ni", inverse)[:, :bands]
        light = np.einsum("nii->ni", fisher)[:, :bands]
        return _Expansion(
            u, -0.5 * points.chi2, self._of_amplitudes(flux, variance, light), gradient[:, searched],
            fisher[:, searched, searched] + np.swapaxes(cross, 1, 2) @ slope,
            flux, slope[:, :bands], variance,
        )  # fmt: skip

    def _of_amplitudes(self, flux, variance, light):
        """What fluxes, integrated over, add to the log density; the sky's part is the same everywhere."""
        seen = self.free[:, self.model.fluxes]
        evidence = 0.5 * np.log(variance) + log_ndtr(flux / np.sqrt(variance))
        shown = [np.where(seen, one, 0)[:, None] for one in (flux, light)]
        return np.where(seen, evidence, 0).sum(1) + np.reshape(self.target.prior_of_amplitude(*shown), -1)

    def _node(self, at, t):
        """The posterior given the n that is t standard deviations from the mode."""
        to_n = self.mode[:, 0] + t * self.sigma - at.u[:, 0]
        across, own = at.precision[:, 1:, 0], at.precision[:, 1:, 1:]
        covariance = inverse_or_nan(own)
        pull = at.gradient[:, 1:] - across * to_n[:, None]
        others = (covariance @ pull[..., None])[..., 0]
        step = np.column_stack([to_n, others])
        value = at.value + (at.gradient * step).sum(1) - 0.5 * quadratic_form(at.precision, step)
        slope = (at.gradient[:, 0] - (at.precision[:, 0] * step).sum(1)) * self.sigma
        curvature = (quadratic_form(covariance, across) - at.precision[:, 0, 0]) * self.sigma**2
        chol = cholesky_or_nan(covariance)
        return Node(
            value, slope, curvature,
            at.amplitudes + np.log(np.einsum("nii->ni", chol)).sum(1), at.u + step, chol,
            np.sqrt(quadratic_form(own, others)), at.flux + (at.slope @ step[..., None])[..., 0],
            at.slope, at.variance,
        )  # fmt: skip

    def _of_size(self):
        """Shift of the mean and skewness of size, given n, in its standard deviations."""
        chol = self.lateral
        aside = self.mode.copy()
        aside[:, 1:] += _ASIDE * chol[:, :, 0]
        there = self._expanded(self._evaluated(aside))
        change = (there.precision - self.centre.precision)[:, 1:, 1:] / _ASIDE
        change = np.einsum("nii->ni", np.swapaxes(chol, 1, 2) @ change @ chol)
        skewness = -1.5 * change[:, 0]
        # Of size with shear: of a galaxy that the PSF hides, moments are seen, r^2 exp(2 eta), and the Fisher
        # matrix follows; of size with centre there is none, as no place is better than another.
        width = np.einsum("nij,nij->ni", chol, chol)
        shear = 0.5 + 0.25 * np.minimum(width[:, 1:3] / width[:, :1], 1)
        others = change[:, 3:] * [*self._of_coefficients(), 0.25, 0.25]
        shift = 0.5 * skewness - (shear * change[:, 1:3]).sum(1) - others.sum(1)
        return shift.clip(-_SHIFTED, _SHIFTED), skewness.clip(-_SKEWED, _SKEWED)

    def _of_coefficients(self):
        """How the mean of size follows from the change of the Fisher matrix of each coefficient.

        One of the size moves the sizes of all bands, as the size itself does: T_hkk is 3/2 of that change.
        """
        return [0.75 if which == 1 else 0.25 for which, _ in self.model.terms]

    def _drawn(self, nodes, shift, skewness):
        """Draws of u, and mean and variance of the fluxes given each."""
        others = 5 + self.model.coefficients
        deviates = even_points(_DRAWS, others + 3).clip(1e-6, 1 - 1e-6)
        t = drawn_from(log_density(nodes), deviates[:, others + 1])
        normal = np.tile(ndtri(deviates[:, :others]), (len(t), 1, 1))
        normal[..., 0] += shift[:, None] + skewness[:, None] / 6 * (normal[..., 0] ** 2 - 1)
        parabola, lines = curved(t), straight(t)
        chol = mixed(lines, [one.chol for one in nodes])
        offset = (chol @ normal[..., None])[..., 0]
        u = mixed(parabola, [one.mean for one in nodes])
        u[..., 0] = self.mode[:, :1] + t * self.sigma[:, None]
        u[..., 1:] += offset
        slope = mixed(lines, [one.flux_slope for one in nodes])[..., 1:]
        flux = mixed(parabola, [one.flux for one in nodes]) + (slope @ offset[..., None])[..., 0]
        return u, flux, mixed(lines, [one.flux_variance for one in nodes])

    def _weighted(self, u):
        """Weights of draws by the prior, over the Gaussian in its place, and their parameters."""
        model, penalty = self.model, self.near.problem.penalty
        coordinates = Coordinates(replace(model, exposures=()), log_flux=True, logit_n=True)
        theta = np.zeros((*u.shape[:2], coordinates.model.size))
        theta[..., model.searched] = u
        params = coordinates.params(theta)
        prior = self.target.prior_of_shape(params) + coordinates.log_determinant(theta)
        theta[..., model.n] = np.log(params[..., model.n])
        shape = slice(model.n, model.varying.stop)
        offset = theta[..., shape] - penalty.center[shape]
        log_weight = prior + 0.5 * (offset**2 * penalty.precision[shape]).sum(-1)
        log_weight = np.where(np.isfinite(log_weight), log_weight, -np.inf)
        weights = np.exp(log_weight - log_weight.max(1, keepdims=True))
        return np.nan_to_num(weights / weights.sum(1, keepdims=True)), params

    def _summary(self, weights, params, flux, variance):
        """Moments of weighted draws."""
        model = self.model
        result = PosteriorResult.blank(len(weights), 0, np.zeros(len(weights), np.int64), model)
        params[..., model.fluxes], more = above_zero(
            np.maximum(flux / np.sqrt(variance), _FAINTEST), np.sqrt(variance)
        )
        params[..., model.fluxes][np.broadcast_to(~self.free[:, None, model.fluxes], flux.shape)] = np.nan
        mean = (weights[:, None] @ params)[:, 0]
        offset = (params - mean[:, None])[..., model.reported]
        result.mean[:], result.center[:] = mean[:, model.reported], mean[:, model.centre]
        result.covariance[:] = np.swapaxes(weights[..., None] * offset, 1, 2) @ offset
        for band in range(len(model.bands)):
            result.covariance[:, band, band] += (weights * more[..., band]).sum(1)
        result.ess[:], result.n_draws[:] = effective(weights), _DRAWS
        return result
