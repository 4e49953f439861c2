# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""Rounds of importance sampling: draws, weights, adaptation of the proposal."""

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from scipy.stats import qmc

from galshape_cnn.infer.posterior.proposal import DEGREES, StudentMixture

__all__ = [
    "DEFENSIVE",
    "Draws",
    "drawn",
    "effective",
    "even_points",
    "random_generators",
    "tempered",
    "with_more",
]

#: Share of the first proposal in each later one: it bounds the weights.
DEFENSIVE = 0.15


@dataclass(eq=False)
class Draws:
    """All draws so far of M galaxies, and what they taught.

    Attributes
    ----------
    u : (M, S, D) ndarray
        Points.
    flux, log_ratio : (M, S) ndarray
        A flux of each, and ln(target over the proposal of the draw's own round).
    counts : tuple of int
        Draws of each round.
    first, learned : StudentMixture
        The first proposal, and the one learned last.
    """

    u: np.ndarray
    flux: np.ndarray
    log_ratio: np.ndarray
    counts: tuple
    first: StudentMixture
    learned: StudentMixture

    def __getitem__(self, rows):
        first, learned = self.first[rows], self.learned[rows]
        return Draws(self.u[rows], self.flux[rows], self.log_ratio[rows], self.counts, first, learned)

    def weights(self):
        """Normalised importance weights (M, S); zero where no draw is possible.

        A round counts in proportion to its effective fraction.
        """
        peak = self.log_ratio.max(1, keepdims=True)
        ratio = np.exp(self.log_ratio - np.where(np.isfinite(peak), peak, 0))
        rounds = np.split(ratio, np.cumsum(self.counts)[:-1], axis=1)
        weight = np.concatenate([r * _round_worth(r)[:, None] for r in rounds], 1)
        return weight / np.maximum(weight.sum(1, keepdims=True), 1e-300)


def _round_worth(ratio):
    """Effective fraction of one round, at least a thousandth."""
    total, square = ratio.sum(1), (ratio**2).sum(1)
    return np.maximum(total**2 / np.maximum(square, 1e-300) / ratio.shape[1], 1e-3)


def effective(weights):
    """Effective number of draws (M,) of normalised weights (M, S); zero for a galaxy without any."""
    square = (weights**2).sum(1)
    return np.where(square > 0, 1 / np.maximum(square, 1e-300), 0.0)


def tempered(weights):
    """Weights (M, S), normalised, flattened until they are worth 24 draws, to learn from."""
    out = weights
    for power in (0.6, 0.35, 0.2, 0.1):
        few = effective(out) < 24.0
        if not few.any():
            break
        flat = np.where(weights[few] > 0, np.maximum(weights[few], 1e-300) ** power, 0)
        out = out.copy()
        out[few] = flat / np.maximum(flat.sum(1, keepdims=True), 1e-300)
    return out


def random_generators(target, seed):
    """One random generator for each galaxy of a target, from the seed and its own pixels."""
    return [np.random.default_rng([seed, number]) for number in target.fingerprints()]


@lru_cache(maxsize=4)
def even_points(count, dimensions=8):
    """Quasi-random points (count, dimensions) in the unit cube; their number is a power of two."""
    return qmc.Sobol(dimensions, seed=20261128).random(count)


def drawn(target, mixture, count, generators):
    """A round of draws of each galaxy from a mixture: points, fluxes and log ratios to the target.

    There is one generator for each galaxy.
    """
    uniform = np.stack([g.uniform(size=(count, 1 + target.deviates)) for g in generators])
    normal = np.stack([g.standard_normal((count, mixture.means.shape[-1])) for g in generators])
    u = mixture.draw(uniform[..., 0], normal, np.stack([g.chisquare(DEGREES, count) for g in generators]))
    log_target, flux = target(u, uniform[..., 1:])
    return u, flux, log_target - mixture.log_density(u)


def with_more(draws, target, count, generators):
    """Learn from the draws of M galaxies so far and add a round; other arguments as for `drawn`."""
    learned = draws.learned.learned(draws.u, tempered(draws.weights()))
    new = drawn(target, learned.joined(draws.first, DEFENSIVE), count, generators)
    joined = (
        np.concatenate(pair, 1) for pair in zip((draws.u, draws.flux, draws.log_ratio), new, strict=True)
    )
    return Draws(*joined, (*draws.counts, count), draws.first, learned)
