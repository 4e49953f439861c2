# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""Unbounded coordinates of the parameters, and the posterior the network states.

The coordinates are ln flux, logit n, ln hlr, the conformal-like shear
eta = g atanh(|g|)/|g|, x and y: a Gaussian mixture in them can be skewed, and can
pile up at the limits of n, without ever leaving the allowed range.
"""

from dataclasses import dataclass

import numpy as np
from scipy.linalg import solve_triangular
from scipy.special import expit, logsumexp

from galshape_cnn.forward.sersic import N_RANGE
from galshape_cnn.geometry import conformal_shear, reduced_shear

__all__ = ["COORDINATES", "MixturePosterior", "from_parameters", "log_jacobian", "to_parameters"]

#: Names of the coordinates, in the order of every array.
COORDINATES = ("ln_flux", "logit_n", "ln_hlr", "eta1", "eta2", "x", "y")


def from_parameters(params):
    """Coordinates of parameters.

    Parameters
    ----------
    params : (..., 7) array_like
        flux > 0; n inside (0.3, 6.2); hlr > 0; g1, g2 with |g| < 1; x; y.

    Returns
    -------
    u : (..., 7) ndarray
        In the order of `COORDINATES`.
    """
    flux, n, hlr, g1, g2, x, y = np.moveaxis(np.asarray(params, float), -1, 0)
    logit_n = np.log((n - N_RANGE[0]) / (N_RANGE[1] - n))
    return np.stack([np.log(flux), logit_n, np.log(hlr), *conformal_shear(g1, g2), x, y], -1)


def to_parameters(u):
    """Parameters of coordinates; the inverse of `from_parameters`.

    Parameters
    ----------
    u : (..., 7) array_like
        In the order of `COORDINATES`.

    Returns
    -------
    params : (..., 7) ndarray
        flux, n, hlr, g1, g2, x, y; infinite where a logarithm is too large, as far out in the tails of
        a wide proposal.
    """
    ln_flux, logit_n, ln_hlr, eta1, eta2, x, y = np.moveaxis(np.asarray(u, float), -1, 0)
    n = N_RANGE[0] + (N_RANGE[1] - N_RANGE[0]) * expit(logit_n)
    with np.errstate(over="ignore"):
        flux, hlr = np.exp(ln_flux), np.exp(ln_hlr)
    return np.stack([flux, n, hlr, *reduced_shear(eta1, eta2), x, y], -1)


def log_jacobian(u):
    """Log of the determinant of d(parameters) / d(coordinates), to turn one density into the other.

    Parameters
    ----------
    u : (..., 7) array_like
        In the order of `COORDINATES`.

    Returns
    -------
    log_det : (...) ndarray
        ``log_density_in_parameters = log_density_in_u - log_det``.
    """
    ln_flux, logit_n, ln_hlr, eta1, eta2, _, _ = np.moveaxis(np.asarray(u, float), -1, 0)
    eta = np.maximum(np.hypot(eta1, eta2), 1e-6)
    by_n = np.log(N_RANGE[1] - N_RANGE[0]) - np.logaddexp(0, logit_n) - np.logaddexp(0, -logit_n)
    return ln_flux + by_n + ln_hlr - 2 * np.log(np.cosh(eta)) + np.log(np.tanh(eta) / eta)


@dataclass(frozen=True)
class MixturePosterior:
    """Gaussian mixtures over the coordinates, one for each galaxy.

    Attributes
    ----------
    weights : (N, K) ndarray
        Mixture weights; each row sums to one.
    means : (N, K, 7) ndarray
        Means, in the order of `COORDINATES`.
    chols : (N, K, 7, 7) ndarray
        Lower triangular Cholesky factors of the covariances.
    """

    weights: np.ndarray
    means: np.ndarray
    chols: np.ndarray

    def __len__(self):
        return len(self.weights)

    def __getitem__(self, index):
        return MixturePosterior(self.weights[index], self.means[index], self.chols[index])

    def replaced(self, rows, other):
        """A copy with some rows of another mixture of as many components."""
        fields = {}
        for name in ("weights", "means", "chols"):
            fields[name] = getattr(self, name).copy()
            fields[name][rows] = getattr(other, name)[rows]
        return MixturePosterior(**fields)

    def with_components(self, count):
        """The same density with further components of no weight."""
        more = count - self.weights.shape[1]
        if not more:
            return self
        weights = np.pad(self.weights, ((0, 0), (0, more)))
        means, chols = (np.concatenate([a] + more * [a[:, :1]], 1) for a in (self.means, self.chols))
        return MixturePosterior(weights, means, chols)

    def sample(self, rng, size):
        """Draw coordinates.

        Parameters
        ----------
        rng : numpy.random.Generator
            Source of randomness.
        size : int
            Draws for each galaxy.

        Returns
        -------
        u : (N, size, 7) ndarray
            Draws, in the order of `COORDINATES`.
        """
        return self.transform(rng.uniform(size=(len(self), size)), rng.standard_normal((len(self), size, 7)))

    def transform(self, uniform, normal):
        """Turn uniform and normal deviates, (N, S) and (N or 1, S, 7), into draws."""
        edges = np.cumsum(self.weights, 1)
        draws = normal @ np.swapaxes(self.chols[:, 0], -1, -2) + self.means[:, :1]
        for k in range(1, self.weights.shape[1]):
            other = normal @ np.swapaxes(self.chols[:, k], -1, -2) + self.means[:, k, None]
            draws = np.where((uniform > edges[:, k - 1, None])[..., None], other, draws)
        return draws

    def log_density(self, u):
        """Logarithm of the density at given coordinates.

        Parameters
        ----------
        u : (N, S, 7) array_like
            In the order of `COORDINATES`.

        Returns
        -------
        log_density : (N, S) ndarray
            Density with respect to the coordinates.
        """
        delta = np.asarray(u)[:, None] - self.means[:, :, None]
        z = solve_triangular(self.chols, np.swapaxes(delta, -1, -2), lower=True)
        log_det = np.log(np.einsum("nkii->nki", self.chols)).sum(-1)
        norm = np.log(np.maximum(self.weights, 1e-300)) - log_det - 3.5 * np.log(2 * np.pi)
        return logsumexp(norm[..., None] - 0.5 * (z**2).sum(-2), axis=1)
