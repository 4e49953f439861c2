# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""Results of importance sampling: moments, draws, effective sample size."""

from dataclasses import dataclass

import numpy as np

from galshape_cnn.flags import Flag
from galshape_cnn.forward.galaxy_model import SINGLE

__all__ = ["PosteriorResult"]


@dataclass(frozen=True, eq=False)
class PosteriorResult:
    """Posteriors of N galaxies.

    Attributes
    ----------
    mean : (N, R) ndarray
        Posterior mean of flux (or of each), n, hlr, g1, g2.
    covariance : (N, R, R) ndarray
        Posterior covariance.
    ess : (N,) ndarray
        Effective number of draws.
    n_draws : (N,) int ndarray
        Draws that were made.
    samples : (N, S, R) float32 ndarray
        Equally weighted draws.
    center : (N, 2) ndarray
        Posterior mean of x, y.
    flags : (N,) int64 ndarray
        ``LOW_ESS`` where the effective number stays below 40; ``NO_DATA``.
    """

    mean: np.ndarray
    covariance: np.ndarray
    ess: np.ndarray
    n_draws: np.ndarray
    samples: np.ndarray
    center: np.ndarray
    flags: np.ndarray

    @classmethod
    def blank(cls, n, n_samples, fit_flags, model=SINGLE):
        """Of n galaxies that were not sampled, with the flags of a fit that there are no data."""
        count = len(model.reported_names)
        samples = np.full((n, n_samples, count), np.nan, np.float32)
        mean, covariance, center = (np.full((n, *k), np.nan) for k in ((count,), (count, count), (2,)))
        flags = Flag.LOW_ESS | (fit_flags & Flag.NO_DATA)
        return cls(mean, covariance, np.zeros(n), np.zeros(n, int), samples, center, flags)
