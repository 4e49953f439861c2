# Licensed under a 3-clause BSD style license - see LICENSE.rst
r"""Adaptive proposals for importance sampling: mixtures of Student-t distributions.

Coordinates are those of `galshape_cnn.forward.coordinates.POSTERIOR` without the flux: logit n,
ln hlr, eta1, eta2, x, y.  The update is one step of population Monte Carlo
(Cappé et al. 2008, Stat. Comput. 18, 447): expectation maximisation on weighted
draws, with each component shrunk towards what it was.
"""

from dataclasses import dataclass

import numpy as np
from scipy.special import gammaln, logsumexp

from galshape_cnn.linalg import cholesky_or

__all__ = ["DEGREES", "StudentMixture"]

#: Degrees of freedom: tails heavier than any posterior's here, yet with a variance.
DEGREES = 7.0

_PRIOR_DRAWS = 12.0  # draws that a component's own mean and covariance are worth
_LEAST_WEIGHT = 0.02


@dataclass(frozen=True, eq=False)
class StudentMixture:
    """Mixtures of multivariate Student-t distributions, one for each galaxy.

    Attributes
    ----------
    weights : (N, K) ndarray
        Mixture weights; rows sum to one.
    means : (N, K, D) ndarray
    chols : (N, K, D, D) ndarray
        Lower triangular Cholesky factors of the scale matrices.
    """

    weights: np.ndarray
    means: np.ndarray
    chols: np.ndarray

    def __getitem__(self, rows):
        return StudentMixture(self.weights[rows], self.means[rows], self.chols[rows])

    def joined(self, other, share):
        """A mixture of this one and another, which gets a share of the weight."""
        return StudentMixture(
            np.concatenate([(1 - share) * self.weights, share * other.weights], 1),
            np.concatenate([self.means, other.means], 1),
            np.concatenate([self.chols, other.chols], 1),
        )

    def draw(self, uniform, normal, chi_square):
        """Turn deviates into draws (N, S, D).

        Uniform ones in [0, 1) and chi-square ones of `DEGREES` degrees of freedom, (N, S), and standard
        normal ones (N, S, D).
        """
        edges = np.cumsum(self.weights, 1)[:, None, :-1]
        component = (uniform[..., None] > edges).sum(-1)
        rows = np.arange(len(self.weights))[:, None]
        stretched = normal * np.sqrt(DEGREES / chi_square)[..., None]
        spread = np.einsum("nsij,nsj->nsi", self.chols[rows, component], stretched)
        return self.means[rows, component] + spread

    def _distances(self, u):
        """Squared Mahalanobis distances (N, K, S), and log densities of the components."""
        inverse = np.linalg.inv(self.chols)
        centred = np.einsum("nki,nkij->nkj", self.means, np.swapaxes(inverse, -1, -2))
        z = u[:, None] @ np.swapaxes(inverse, -1, -2) - centred[:, :, None]
        distance = (z**2).sum(-1)
        d = u.shape[-1]
        log_det = np.log(np.einsum("nkii->nki", self.chols)).sum(-1)
        norm = gammaln((DEGREES + d) / 2) - gammaln(DEGREES / 2) - 0.5 * d * np.log(DEGREES * np.pi)
        log_t = norm - log_det[..., None] - 0.5 * (DEGREES + d) * np.log1p(distance / DEGREES)
        return distance, log_t + np.log(np.maximum(self.weights, 1e-300))[..., None]

    def log_density(self, u):
        """Log of the density at (N, S, D) coordinates, (N, S)."""
        return logsumexp(self._distances(u)[1], axis=1)

    def learned(self, u, weights):
        """The mixture moved towards draws (N, S, D) with importance weights (N, S) of unit sum."""
        distance, log_t = self._distances(u)
        share = np.exp(log_t - logsumexp(log_t, axis=1, keepdims=True)) * weights[:, None]
        total = share.sum(-1)
        count = total**2 / np.maximum((share**2).sum(-1), 1e-300)
        keep = (_PRIOR_DRAWS / (_PRIOR_DRAWS + count))[..., None]
        heavy = share * (DEGREES + u.shape[-1]) / (DEGREES + distance)
        heavy_total = np.maximum(heavy.sum(-1), 1e-300)
        means = (heavy @ u) / heavy_total[..., None]
        means = keep * self.means + (1 - keep) * means
        offset = u[:, None] - means[:, :, None]
        scatter = np.swapaxes(offset, -1, -2) @ (heavy[..., None] * offset)
        scatter /= np.maximum(total, 1e-300)[..., None, None]
        before = self.chols @ np.swapaxes(self.chols, -1, -2)
        keep = keep[..., None]
        scale = keep * before + (1 - keep) * scatter
        mixed = np.maximum(total, _LEAST_WEIGHT)
        chols = cholesky_or(scale, self.chols)
        return StudentMixture(mixed / mixed.sum(1, keepdims=True), means, chols)
