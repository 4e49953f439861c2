# Licensed under a 3-clause BSD style license - see LICENSE.rst
r"""Posterior density of galaxies in several images.

Given shape and centre the likelihood is Gaussian in the flux of each band and the sky level of each exposure.
Sky levels are integrated out.  Fluxes are drawn from that Gaussian, above zero, and weighted by their prior.

A prior on S/N says how the S/N of all images together is distributed, and that every ratio of the S/N of the
bands is equally likely: with :math:`\phi_b = f_b \sqrt{F_{bb}}` the S/N of a band and S that of all,
:math:`p(\phi_1 \ldots \phi_B) \propto p(S)\,S^{1-B}`.  A band may be dark, and with one band it is the prior
of one image.
"""

from dataclasses import dataclass, replace
from functools import cached_property
from typing import NamedTuple
from zlib import crc32

import numpy as np
from scipy.special import log_ndtr, ndtr, ndtri

from galshape_cnn.forward.coordinates import Coordinates
from galshape_cnn.forward.galaxy_model import SINGLE
from galshape_cnn.forward.render import BLOCK
from galshape_cnn.infer.likelihood.exposures import JointLikelihood
from galshape_cnn.infer.posterior.target import LARGEST_ETA, in_blocks_of_draws
from galshape_cnn.infer.posterior.varying_prior import coefficient_widths

__all__ = ["ExposuresTarget", "above_zero"]

_LEAST_FLUX = 0.3  # in units of a pixel's noise: what the kernel is asked to render at least
_FAINTEST = -8.0  # standard deviations below zero at which the draw of a flux is cut off


class _GivenShape(NamedTuple):
    """At given shapes: log prior and likelihood (N, S); mean / sigma, sigma, S/N of fluxes (N, S, B)."""

    prior: np.ndarray
    log_likelihood: np.ndarray
    strength: np.ndarray
    sigma: np.ndarray
    seen: np.ndarray
    light: np.ndarray


@dataclass(frozen=True, eq=False)
class ExposuresTarget:
    """Posterior density of N galaxies over logit n, ln hlr, eta1, eta2, coefficients of what varies, x, y.

    Coefficients that are not fitted are zero in the likelihood, and distributed as their prior.

    Attributes
    ----------
    likelihood : JointLikelihood
        Of all images, with final weights.
    best : (N, P) ndarray
        Parameters near the maximum, in its units.
    fisher : (N, P, P) ndarray
        Fisher matrix there.
    prior : Prior
        Of n, hlr (in pixels of the reference frame), the shear, and S/N or flux.  A prior on flux holds with
        one band; with several, fluxes above zero are equally likely.
    size : int
        Side of the reference stamps, pixels.
    """

    likelihood: JointLikelihood
    best: np.ndarray
    fisher: np.ndarray
    prior: object
    size: int

    def __getitem__(self, rows):
        some = self.likelihood[rows]
        return ExposuresTarget(some, self.best[rows], self.fisher[rows], self.prior, self.size)

    @property
    def model(self):
        """`GalaxyModel` of the parameters."""
        return self.likelihood.model

    @property
    def deviates(self):
        """Uniform deviates that a draw of the fluxes needs."""
        return len(self.model.bands)

    @property
    def flux_units(self):
        """(N, B) ndarray: what fluxes are multiplied with in the end."""
        return self.likelihood.units[:, self.model.fluxes]

    @cached_property
    def coordinates(self):
        """Of a draw: fluxes, which stay zero, and the points."""
        return Coordinates(replace(self.model, exposures=()), log_flux=True, logit_n=True)

    def fingerprints(self):
        """A number for each galaxy that depends on its own pixels only, (N,) list."""
        found = [0] * len(self.likelihood)
        for part in self.likelihood.parts:
            for row, stamp in zip(part.rows, part.likelihood.data, strict=True):
                found[row] = crc32(stamp.tobytes(), found[row])
        return found

    def __call__(self, u, uniform):
        """Log density, and fluxes drawn for each point.

        Parameters
        ----------
        u : (N, S, D) ndarray
            Points.
        uniform : (N, S, B) ndarray
            Deviates in [0, 1) that draw the fluxes.

        Returns
        -------
        log_density : (N, S) ndarray
            With respect to ``u``, up to a constant for each galaxy; -inf outside the prior.
        flux : (N, S, B) ndarray
            In `flux_units`; NaN for bands without data.
        """
        given = self._given_shape(u)
        flux = given.sigma * (given.strength - ndtri((1 - uniform) * ndtr(given.strength)))
        return self._density(u, given, flux), flux

    def moments(self, u):
        """Log density, and mean and variance of the fluxes at each point.

        Parameters
        ----------
        u : (N, S, D) ndarray
            Points.

        Returns
        -------
        log_density : (N, S) ndarray
            With respect to ``u``, up to a constant for each galaxy, with the prior of the mean fluxes.
        mean, variance : (N, S, B) ndarray
            Of the fluxes given the point, in `flux_units`; NaN for bands without data.
        """
        given = self._given_shape(u)
        mean, variance = above_zero(given.strength, given.sigma)
        return self._density(u, given, mean), mean, variance

    def _density(self, u, given, flux):
        """Log density at points and fluxes."""
        theta = np.zeros((*u.shape[:2], self.coordinates.model.size))
        theta[..., self.model.searched] = u
        prior = given.prior + self.prior_of_amplitude(np.where(given.seen, flux, 0), given.light)
        density = given.log_likelihood + prior + self.coordinates.log_determinant(theta)
        usable = np.isfinite(density) & (~given.seen | np.isfinite(flux)).all(-1)
        return np.where(usable, density, -np.inf)

    def _given_shape(self, u):
        """What is known at given shapes and centres."""
        theta = np.zeros((*u.shape[:2], self.coordinates.model.size))
        theta[..., self.model.searched] = u
        params = self.coordinates.params(theta)
        prior = self.prior_of_shape(params)
        params = self._without_unknown(params)
        possible = self._is_inside(u, params) & np.isfinite(prior)
        chi2, log_volume, pull, weight, trial, light = self._equations(params, possible)
        seen = self.likelihood.free()[:, None, self.model.fluxes]
        weight = np.where(seen & (weight > 0), weight, np.nan)
        mean, sigma = trial + pull / weight, 1 / np.sqrt(weight)
        strength = np.maximum(mean / sigma, _FAINTEST)
        evidence = 0.5 * pull**2 / weight - 0.5 * np.log(weight) + log_ndtr(strength)
        log_likelihood = -0.5 * chi2 + log_volume + np.where(seen, evidence, 0).sum(-1)
        log_likelihood = np.where(possible, log_likelihood, -np.inf)
        return _GivenShape(prior, log_likelihood, strength, sigma, seen, light)

    def _without_unknown(self, params):
        """Parameters with the coefficients that are not fitted at zero."""
        if self.model.coefficients:
            which = self.model.varying
            params[..., which] = np.where(self.likelihood.free()[:, None, which], params[..., which], 0)
        return params

    def prior_of_shape(self, params):
        """Log density of n, hlr, g1, g2 and of the coefficients of what varies.

        Parameters
        ----------
        params : (N, S, Q) ndarray
            Of the model without sky levels.

        Returns
        -------
        log_density : (N, S) ndarray
        """
        shape = np.moveaxis(params[..., self.model.shape], -1, 0)
        with np.errstate(invalid="ignore", divide="ignore"):
            density = self.prior.log_density_of_shape(*shape)
        if self.model.coefficients:
            scaled = params[..., self.model.varying] / coefficient_widths(self.model)
            density = density - 0.5 * (scaled**2).sum(-1)
        return density

    def prior_of_amplitude(self, flux, light):
        """Log density of the fluxes.

        Parameters
        ----------
        flux, light : (N, S, B) ndarray
            In `flux_units`, and squared S/N of a unit of flux; zero in bands without data.

        Returns
        -------
        log_density : (N, S) ndarray
        """
        with np.errstate(invalid="ignore", divide="ignore"):
            if self.prior.by_snr:
                seen = light > 0
                snr = np.sqrt((flux**2 * light).sum(-1))
                volume = 0.5 * np.log(np.where(seen, light, 1)).sum(-1)
                return self.prior["snr"].log_density(snr) + volume + (1 - seen.sum(-1)) * np.log(snr)
            if len(self.model.bands) > 1:
                return 0.0
            return self.prior["flux"].log_density(flux[..., 0] * self.flux_units[:, None, 0])

    def _is_inside(self, u, params):
        """Points worth rendering."""
        model, size = self.model, self.size
        inside = (np.abs(params[..., model.centre] - (size - 1) / 2) < size / 2).all(-1)
        inside &= np.hypot(*np.moveaxis(u[..., model.searched_shear], -1, 0)) < LARGEST_ETA
        return inside & (params[..., model.hlr] > 1e-3) & (params[..., model.hlr] < 2 * size)

    def _equations(self, params, possible):
        """Chi-square without sky, ln of its volume; score, information, value and S/N of each flux."""
        model, shape = self.model, possible.shape
        trial = model.with_sky(params, self.best[:, None, model.skies])
        flux = self.best[:, model.fluxes]
        flux = np.where(np.abs(flux) < _LEAST_FLUX, np.copysign(_LEAST_FLUX, flux), flux)
        trial[..., model.fluxes] = flux[:, None]
        chi2, log_volume = np.zeros(shape), np.zeros(shape)
        pull, weight, light = np.zeros((3, *shape, len(model.bands)))
        for part in self.likelihood.parts:
            least, volume, own = self._given_one(part, trial, possible)
            chi2[part.rows] += least
            log_volume[part.rows] += volume
            factor = np.broadcast_to(part.view.factor, len(part.rows))[:, None]
            pull[part.rows, :, part.view.band] += factor * own[0]
            weight[part.rows, :, part.view.band] += factor**2 * own[1]
            light[part.rows, :, part.view.band] += factor**2 * own[2]
        return chi2, log_volume, pull, weight, trial[..., model.fluxes], light

    def _given_one(self, part, trial, possible):
        """The same of one part, by its own flux."""
        shape = len(part.rows), possible.shape[1]
        rows, blocks = in_blocks_of_draws(possible[part.rows])
        params = trial[part.rows[rows][:, None], blocks].reshape(-1, self.model.size)
        own = part.view[np.repeat(rows, BLOCK)].params(params).reshape(*blocks.shape, SINGLE.size)
        chi2, gradient, fisher = part.likelihood.linear_equations_of_draws(own, rows)
        light, across, level = fisher[..., 0, 0], fisher[..., 0, 1], fisher[..., 1, 1]
        pull, sky_pull, strength = gradient[..., 0], gradient[..., 1], light
        volume = np.zeros_like(chi2)
        if self.model.fit_sky:
            chi2, volume = chi2 - sky_pull**2 / level, -0.5 * np.log(level)
            pull, light = pull - across * sky_pull / level, light - across**2 / level
        # a galaxy as flat as the sky is no model, nor is what single precision cannot render
        sound = np.isfinite(chi2) & np.isfinite(pull) & (light > 1e-6 * fisher[..., 0, 0])
        out = [np.full(shape, fill) for fill in (np.inf, 0.0, 0.0, 0.0, 0.0)]
        sums = (np.where(sound, one, 0) for one in (pull, light, strength))
        values = np.where(sound, chi2, np.inf), volume, *sums
        for array, value in zip(out, values, strict=True):
            array[rows[:, None], blocks] = value
        return out[0], out[1], out[2:]


def above_zero(strength, sigma):
    """Mean and variance of Gaussians that are cut off at zero.

    Parameters
    ----------
    strength, sigma : ndarray
        Mean in units of the standard deviation, not far below zero, and standard deviation, before the cut.

    Returns
    -------
    mean, variance : ndarray
    """
    ratio = np.exp(-0.5 * strength**2 - log_ndtr(strength)) / np.sqrt(2 * np.pi)
    return sigma * (strength + ratio), sigma**2 * np.maximum(1 - ratio * (ratio + strength), 0)
