# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""Gaussian mixtures in the coordinates of a posterior: the answer of a network."""

from dataclasses import dataclass

import numpy as np
from scipy.linalg import solve_triangular
from scipy.special import logsumexp

__all__ = ["MixturePosterior"]


@dataclass(frozen=True)
class MixturePosterior:
    """Gaussian mixtures over the coordinates `galshape_cnn.forward.coordinates.POSTERIOR`, one per galaxy.

    Attributes
    ----------
    weights : (N, K) ndarray
        Mixture weights; each row sums to one.
    means : (N, K, 7) ndarray
        Means, in the order of the coordinates.
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

    def replaced(self, rows, others):
        """A copy with others, one for each of some rows, in their places."""
        count = max(self.weights.shape[1], others.weights.shape[1])
        out, others = (one.with_components(count) for one in (self, others))
        fields = {}
        for name in ("weights", "means", "chols"):
            fields[name] = getattr(out, name).copy()
            fields[name][rows] = getattr(others, name)
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
        """Draw coordinates, (N, size, 7)."""
        return self.transform(rng.uniform(size=(len(self), size)), rng.standard_normal((len(self), size, 7)))

    def transform(self, uniform, normal):
        """Turn uniform and normal deviates, (N, S) and (N or 1, S, 7), into draws."""
        edges, normal = np.cumsum(self.weights, 1), np.ascontiguousarray(np.swapaxes(normal, 1, 2))
        draws = self.chols[:, 0] @ normal  # (N, 7, S): draws of a coordinate side by side are faster
        draws += self.means[:, 0, :, None]
        for k in range(1, self.weights.shape[1]):
            other = self.chols[:, k] @ normal
            other += self.means[:, k, :, None]
            np.copyto(draws, other, where=(uniform > edges[:, k - 1, None])[:, None])
        return np.swapaxes(draws, 1, 2)

    def log_density(self, u):
        """Logarithm of the density (N, S) with respect to the coordinates, at coordinates (N, S, 7)."""
        delta = np.asarray(u)[:, None] - self.means[:, :, None]
        z = solve_triangular(self.chols, np.swapaxes(delta, -1, -2), lower=True)
        log_det = np.log(np.einsum("nkii->nki", self.chols)).sum(-1)
        norm = np.log(np.maximum(self.weights, 1e-300)) - log_det - 0.5 * z.shape[-2] * np.log(2 * np.pi)
        return logsumexp(norm[..., None] - 0.5 * (z**2).sum(-2), axis=1)
