# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""Posterior of galaxies in several images: likelihood of all of them times the prior of the shape.

Given shape and centre the likelihood is Gaussian in the flux of each band and the sky level of each exposure.
Sky levels are integrated out; fluxes, which have a flat prior above zero, are integrated out and drawn.
"""

from dataclasses import dataclass, replace
from functools import cached_property
from zlib import crc32

import numpy as np
from scipy.special import log_ndtr, ndtr, ndtri

from galshape_cnn.forward.coordinates import Coordinates
from galshape_cnn.forward.galaxy_model import SINGLE
from galshape_cnn.forward.render import BLOCK
from galshape_cnn.infer.likelihood.exposures import JointLikelihood
from galshape_cnn.infer.posterior.target import LARGEST_ETA, in_blocks_of_draws

__all__ = ["ExposuresTarget"]

_LEAST_FLUX = 0.3  # in units of a pixel's noise: what the kernel is asked to render at least
_FAINTEST = -8.0  # standard deviations below zero at which the draw of a flux is cut off


@dataclass(frozen=True, eq=False)
class ExposuresTarget:
    """Posterior density of N galaxies over logit n, ln hlr, eta1, eta2, x, y.

    Attributes
    ----------
    likelihood : JointLikelihood
        Of all images, with final weights.
    best : (N, P) ndarray
        Parameters near the maximum, in its units.
    fisher : (N, P, P) ndarray
        Fisher matrix there.
    prior : Prior
        Of which that of n, hlr (in pixels of the reference frame) and the shear counts.
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
        """Of a draw: fluxes, which stay zero, and the six."""
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
        u : (N, S, 6) ndarray
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
        theta = np.zeros((*u.shape[:2], self.coordinates.model.size))
        theta[..., self.model.searched] = u
        params = self.coordinates.params(theta)
        prior = self._prior_of_shape(params)
        possible = self._is_inside(u, params) & np.isfinite(prior)
        chi2, log_volume, pull, weight, trial = self._given_shape(params, possible)
        seen = self.likelihood.free()[:, None, self.model.fluxes]
        weight = np.where(seen & (weight > 0), weight, np.nan)
        mean, sigma = trial + pull / weight, 1 / np.sqrt(weight)
        strength = np.maximum(mean / sigma, _FAINTEST)
        evidence = 0.5 * pull**2 / weight - 0.5 * np.log(weight) + log_ndtr(strength)
        log_volume = log_volume + np.where(seen, evidence, 0).sum(-1)
        below = ndtr(-strength)
        flux = sigma * (strength + ndtri(below + uniform * (1 - below)))
        density = -0.5 * chi2 + log_volume + prior + self.coordinates.log_determinant(theta)
        usable = possible & np.isfinite(density) & (~seen | np.isfinite(flux)).all(-1)
        return np.where(usable, density, -np.inf), flux

    def _prior_of_shape(self, params):
        """Log density of n, hlr, g1, g2; that of the amplitude is constant."""
        shape = np.moveaxis(params[..., self.model.shape], -1, 0)
        with np.errstate(invalid="ignore", divide="ignore"):
            return self.prior.log_density_of_shape(*shape)

    def _is_inside(self, u, params):
        """Points worth rendering."""
        model, size = self.model, self.size
        inside = (np.abs(params[..., model.centre] - (size - 1) / 2) < size / 2).all(-1)
        inside &= np.hypot(u[..., 2], u[..., 3]) < LARGEST_ETA
        return inside & (params[..., model.hlr] > 1e-3) & (params[..., model.hlr] < 2 * size)

    def _given_shape(self, params, possible):
        """Chi-square without sky, ln of its volume, score and information of each flux, and at which flux."""
        model, shape = self.model, possible.shape
        trial = model.with_sky(params, self.best[:, None, model.skies])
        flux = self.best[:, model.fluxes]
        flux = np.where(np.abs(flux) < _LEAST_FLUX, np.copysign(_LEAST_FLUX, flux), flux)
        trial[..., model.fluxes] = flux[:, None]
        chi2, log_volume = np.zeros(shape), np.zeros(shape)
        pull, weight = np.zeros((2, *shape, len(model.bands)))
        for part in self.likelihood.parts:
            least, volume, own = self._given_one(part, trial, possible)
            chi2[part.rows] += least
            log_volume[part.rows] += volume
            factor = np.broadcast_to(part.view.factor, len(part.rows))[:, None]
            pull[part.rows, :, part.view.band] += factor * own[0]
            weight[part.rows, :, part.view.band] += factor**2 * own[1]
        return chi2, log_volume, pull, weight, trial[..., model.fluxes]

    def _given_one(self, part, trial, possible):
        """The same of one part, by its own flux."""
        shape = len(part.rows), possible.shape[1]
        rows, blocks = in_blocks_of_draws(possible[part.rows])
        params = trial[part.rows[rows][:, None], blocks].reshape(-1, self.model.size)
        own = part.view[np.repeat(rows, BLOCK)].params(params).reshape(*blocks.shape, SINGLE.size)
        chi2, gradient, fisher = part.likelihood.linear_equations_of_draws(own, rows)
        light, across, level = fisher[..., 0, 0], fisher[..., 0, 1], fisher[..., 1, 1]
        pull, sky_pull = gradient[..., 0], gradient[..., 1]
        volume = np.zeros_like(chi2)
        if self.model.fit_sky:
            chi2, volume = chi2 - sky_pull**2 / level, -0.5 * np.log(level)
            pull, light = pull - across * sky_pull / level, light - across**2 / level
        # a galaxy as flat as the sky is no model, nor is what single precision cannot render
        sound = np.isfinite(chi2) & np.isfinite(pull) & (light > 1e-6 * fisher[..., 0, 0])
        out = [np.full(shape, fill) for fill in (np.inf, 0.0, 0.0, 0.0)]
        values = np.where(sound, chi2, np.inf), volume, np.where(sound, pull, 0), np.where(sound, light, 0)
        for array, value in zip(out, values, strict=True):
            array[rows[:, None], blocks] = value
        return out[0], out[1], out[2:]
