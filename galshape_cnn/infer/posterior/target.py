# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""Target density of importance sampling: likelihood times prior, over shape and centre."""

from dataclasses import dataclass
from zlib import crc32

import numpy as np
from scipy.special import ndtri

from galshape_cnn.forward.coordinates import POSTERIOR, Coordinates
from galshape_cnn.forward.galaxy_model import SINGLE, GalaxyModel
from galshape_cnn.forward.render import BLOCK
from galshape_cnn.forward.sersic import N_RANGE
from galshape_cnn.infer.fit.variable_projection import Penalty
from galshape_cnn.infer.likelihood.gaussian import StampLikelihood
from galshape_cnn.infer.posterior.proposal import StudentMixture
from galshape_cnn.infer.posterior.varying_prior import coefficient_widths
from galshape_cnn.linalg import cholesky_or, inverse_or_nan
from galshape_cnn.parallel import filled_up

__all__ = ["LARGEST_ETA", "ShapeTarget", "first_proposal", "in_blocks_of_draws", "prior_penalty"]

# Spread of galaxies in logit n, ln hlr, eta1, eta2, x, y: what is known without data.
_BROAD = np.array([1.8, 1.0, 0.4, 0.4, 1.0, 1.0])
_WIDER = 4.0  # covariance of the wide component in units of the narrow one's
_ALONG_N = (1.2, 2.5, -1.2)  # sigmas of n at which further components sit
_MODE_WEIGHTS = (0.3, 0.2, 0.2, 0.2, 0.1)
_NETWORK_SHARE = 0.5
_N_MARGIN = 0.05  # the proposal's centre stays this far from the limits of n
_OTHER_FLUXES = (0.3, 0.6, 0.85, 1.2, 1.7, 3.0)
_STRATA = 6  # fluxes looked at for each draw
LARGEST_ETA = 3.0  # the renderer's single precision ends near |g| = 0.995


def _with_unit_flux(u):
    return np.concatenate([np.zeros((*u.shape[:-1], 1)), u], -1)


@dataclass(frozen=True, eq=False)
class ShapeTarget:
    """Posterior density of N galaxies over logit n, ln hlr, eta1, eta2, x, y.

    Attributes
    ----------
    likelihood : StampLikelihood
        The stamps, with final weights.
    best : (N, 8) ndarray
        Parameters at the maximum of the likelihood, in units of its scale.
    fisher : (N, 8, 8) ndarray
        Fisher matrix of ``best``.
    prior : object
        With ``log_density(flux, n, hlr, g1, g2)``, which takes ``snr=`` too if its ``by_snr`` is true.
    fit_sky : bool
        Integrate over the sky, or keep that of ``best``.
    """

    likelihood: StampLikelihood
    best: np.ndarray
    fisher: np.ndarray
    prior: object
    fit_sky: bool

    deviates = 2  # uniform ones that a draw of the flux needs

    @property
    def model(self):
        """`GalaxyModel` of the parameters."""
        return GalaxyModel(fit_sky=bool(self.fit_sky))

    def fingerprints(self):
        """A number for each galaxy that depends on its own pixels only, (N,) list."""
        return [crc32(stamp.tobytes()) for stamp in self.likelihood.data]

    def __getitem__(self, rows):
        return ShapeTarget(
            self.likelihood[rows], self.best[rows], self.fisher[rows], self.prior, self.fit_sky
        )

    def __call__(self, u, uniform):
        """Log density (N, S) at points (N, S, 6), and a flux (N, S, 1) drawn for each, in the data's unit.

        Deviates (N, S, 2) in [0, 1) draw the flux. The density is with respect to ``u``, up to a constant for
        each galaxy; -inf outside the prior.
        """
        params = POSTERIOR.params(_with_unit_flux(u))
        possible = self._possible(u, params)
        chi2, mean, sigma, log_volume, unit_snr = self._given_shape(params, possible)
        flux, prior = self._with_prior(mean, sigma, unit_snr, params, uniform)
        with np.errstate(invalid="ignore", divide="ignore"):
            density = -0.5 * chi2 + log_volume + prior + POSTERIOR.log_determinant(_with_unit_flux(u))
        usable = possible & np.isfinite(density)
        return np.where(usable, density, -np.inf), flux[..., None]

    def _with_prior(self, mean, sigma, unit_snr, params, uniform):
        """A flux from the conditional Gaussian times the prior, and the prior's mean over the Gaussian.

        Strata of the Gaussian give a few fluxes; one is drawn in proportion to
        the prior.  The mean over the strata is an unbiased estimate, and that is
        all an importance weight needs.
        """
        strata = (np.arange(_STRATA) + uniform[..., :1]) / _STRATA
        scaled = mean[..., None] + sigma[..., None] * ndtri(strata)
        flux = scaled * self.likelihood.scale[:, None, None]
        by_snr = getattr(self.prior, "by_snr", False)
        amplitude = {"snr": scaled * unit_snr[..., None]} if by_snr else {}
        with np.errstate(invalid="ignore", divide="ignore"):
            shape = np.moveaxis(params[..., SINGLE.shape, None], -2, 0)
            prior = self.prior.log_density(flux, *shape, **amplitude)
        prior = np.where((flux > 0) & np.isfinite(prior), prior, -np.inf)
        peak = np.maximum(prior.max(-1, keepdims=True), -1e300)
        share = np.cumsum(np.exp(prior - peak), -1)
        total = share[..., -1]
        chosen = (share < uniform[..., 1:] * share[..., -1:]).sum(-1)
        with np.errstate(divide="ignore"):
            mean_prior = peak[..., 0] + np.log(total / _STRATA)
        return np.take_along_axis(flux, np.minimum(chosen, _STRATA - 1)[..., None], -1)[..., 0], mean_prior

    def _possible(self, u, params):
        """Points worth rendering: inside the stamp, and inside the prior for some flux."""
        size = self.likelihood.grid.size
        inside = (np.abs(params[..., SINGLE.centre] - (size - 1) / 2) < size / 2).all(-1)
        inside &= np.hypot(*np.moveaxis(u[..., SINGLE.searched_shear], -1, 0)) < LARGEST_ETA
        inside &= (params[..., SINGLE.hlr] > 1e-3) & (params[..., SINGLE.hlr] < 2 * size)
        flux = (self.best[:, SINGLE.flux] * self.likelihood.scale)[:, None]
        shape = np.moveaxis(params[..., SINGLE.shape], -1, 0)
        flux = np.broadcast_to(flux, inside.shape)
        with np.errstate(invalid="ignore", divide="ignore"):
            allowed = self.prior.log_density(flux, *shape) > -np.inf
            row, draw = np.nonzero(inside & ~allowed)
            for factor in _OTHER_FLUXES:
                rest = self.prior.log_density(flux[row, draw] * factor, *shape[:, row, draw]) > -np.inf
                allowed[row[rest], draw[rest]] = True
        return inside & allowed

    def _given_shape(self, params, possible):
        """Lowest chi2, the flux's conditional mean and sigma, ln volume of flux and sky, S/N of unit flux."""
        trial = SINGLE.with_sky(params, self.best[:, None, SINGLE.skies])
        trial[..., SINGLE.flux] = self.best[:, SINGLE.flux, None]
        rows, blocks = in_blocks_of_draws(possible)
        chi2, gradient, fisher = self.likelihood.linear_equations_of_draws(trial[rows[:, None], blocks], rows)
        out = [np.full(possible.shape, fill) for fill in (np.inf, *[np.nan] * 4)]
        # a needle that single precision cannot render is no model, nor is a galaxy as flat as the sky
        sound = np.isfinite(chi2) & np.isfinite(gradient).all(-1) & np.isfinite(fisher).all((-1, -2))
        product = np.where(sound, fisher[..., 0, 0] * fisher[..., 1, 1], 0)
        sound &= product - np.where(sound, fisher[..., 0, 1], 0) ** 2 > 1e-6 * product
        fisher = np.where(sound[..., None, None], fisher, np.eye(2))
        gradient = np.where(sound[..., None], gradient, 0)
        chi2 = np.where(sound, chi2, np.inf)
        linear = slice(0, 2 if self.fit_sky else 1)
        covariance = np.linalg.inv(fisher[..., linear, linear])
        change = np.einsum("...ij,...j->...i", covariance, gradient[..., linear])
        least = chi2 - (gradient[..., linear] * change).sum(-1)
        mean = trial[rows[:, None], blocks, SINGLE.flux] + change[..., 0]
        log_volume = 0.5 * np.linalg.slogdet(covariance)[1]
        values = least, mean, np.sqrt(covariance[..., 0, 0]), log_volume, np.sqrt(fisher[..., 0, 0])
        for array, value in zip(out, values, strict=True):
            array[rows[:, None], blocks] = value
        return out


def in_blocks_of_draws(possible):
    """Row and draw numbers of the possible draws in blocks of one galaxy each.

    The last block of a galaxy is filled up by repeating its first draw.
    """
    rows, blocks = [], []
    for row, wanted in enumerate(possible):
        draws = np.flatnonzero(wanted)
        if not len(draws):
            draws = np.zeros(1, int)
        blocks.append(filled_up(draws, BLOCK).reshape(-1, BLOCK))
        rows.append(np.full(len(blocks[-1]), row))
    return np.concatenate(rows), np.concatenate(blocks)


def _shape_precision(target, at):
    """Fisher matrix of the six coordinates at parameters ``at``, flux and sky marginalised."""
    model, coordinates = target.model, Coordinates(target.model)
    slope = coordinates.derivative(coordinates.of(at))
    slope[:, model.n, model.n] = POSTERIOR.slope_of_n(at[:, model.n])
    fisher = np.swapaxes(slope, 1, 2) @ target.fisher @ slope
    searched, other = model.searched, model.linear
    inner = fisher[:, other][:, :, other]
    size = np.sqrt(np.maximum(np.einsum("nii->ni", inner), 1e-30))
    inner = inner / (size[:, :, None] * size[:, None, :]) + 1e-6 * np.eye(len(other))
    cross = fisher[:, searched][:, :, other] / size[:, None]
    return fisher[:, searched, searched] - cross @ np.linalg.solve(inner, np.swapaxes(cross, 1, 2))


def first_proposal(target, network=None):
    """Mixture to draw from first: the network's, if it is given, and Student-t about the mode."""
    at, model = target.best.copy(), target.model
    at[:, model.n] = np.clip(at[:, model.n], N_RANGE[0] + _N_MARGIN, N_RANGE[1] - _N_MARGIN)
    broad = np.concatenate([_BROAD[:4], coefficient_widths(model), _BROAD[4:]])
    precision = _shape_precision(target, at)
    precision = precision + np.diag([_BROAD[0] ** -2, *np.zeros(len(broad) - 1)])
    narrow = inverse_or_nan(0.5 * (precision + np.swapaxes(precision, 1, 2)))
    mean = Coordinates(model, logit_n=True).of(at)[:, model.searched]
    # with n go flux and size, and the posterior's tail on that side is the long one
    along_n = narrow[:, :, 0] / np.sqrt(narrow[:, 0, 0])[:, None]
    means = [mean, mean, *(mean + t * along_n for t in _ALONG_N)]
    scales = [narrow, _WIDER * narrow, *[narrow] * len(_ALONG_N)]
    weights = np.tile(_MODE_WEIGHTS, (len(at), 1))
    if network is None:
        wide = 0.3 * (narrow + np.diag(broad**2) * [1, 1, 1, 1, *np.zeros(len(broad) - 4)])
        means, scales = [*means, mean], [*scales, wide]
        weights = np.concatenate([0.9 * weights, np.full((len(at), 1), 0.1)], 1)
    fallback = np.diag(broad)  # where a galaxy far outside of the training has no covariance
    means, chols = np.stack(means, 1), cholesky_or(np.stack(scales, 1), fallback)
    if network is not None:
        covariance = (network.chols @ np.swapaxes(network.chols, -1, -2))[..., 1:, 1:]
        means = np.concatenate([network.means[..., 1:], means], 1)
        chols = np.concatenate([cholesky_or(covariance, fallback), chols], 1)
        weights = np.concatenate([_NETWORK_SHARE * network.weights, (1 - _NETWORK_SHARE) * weights], 1)
    means = np.where(np.isfinite(means), means, mean[:, None])
    return StudentMixture(weights, means, chols)


def prior_penalty(prior, model=SINGLE):
    r"""A Gaussian like the prior, which leads the search to the posterior's mode and no further.

    Without it, maxima with \|g\| near one draw the proposal where the prior is zero.  For the coefficients
    of what varies with wavelength it is the prior.
    """
    center, sigma = np.zeros(model.size), np.full(model.size, np.inf)
    center[model.n], sigma[model.n], sigma[model.shear] = np.log(2), 0.8, 0.4
    if hasattr(prior, "sample"):
        _, n, hlr, g1, g2 = prior.sample(np.random.default_rng(0), 2000).T
        center[model.n], center[model.hlr] = np.log(n).mean(), np.log(hlr).mean()
        spread = np.arctanh(np.hypot(g1, g2)).clip(0.05)
        sigma[model.shape] = np.log(n).std(), np.log(hlr).std(), *2 * [np.sqrt(0.5 * (spread**2).mean())]
    sigma = np.maximum(sigma, 0.1)
    sigma[model.varying] = coefficient_widths(model)
    return Penalty(center, sigma**-2.0)
