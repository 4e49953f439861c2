# Licensed under a 3-clause BSD style license - see LICENSE.rst
r"""Network posteriors reweighted to another prior.

Draws from the network's posterior are weighted by the ratio of the priors,
:math:`w \propto \pi_\mathrm{new}(\theta) / \pi_\mathrm{training}(\theta)`, which makes them draws from
the posterior under the new prior, without a look at the pixels (importance weighting; e.g. Owen
2013, Monte Carlo theory, chapter 9).
"""

import numpy as np

from galshape_cnn.forward.galaxy_model import SINGLE
from galshape_cnn.infer.network.amortized import quasi_random_draws

__all__ = ["reweighted_moments"]

_DRAWS = 1024
_OWN_DRAWS = 256  # where only the limits of the prior count


def reweighted_moments(posterior, prior, training_prior):
    """Mean (N, 7) and covariance of flux, n, hlr, g1, g2, x, y under another prior than that of the training.

    NaN where no draw lies in the support of both. Also the effective number (N,) of draws, of 1024, or 256
    where both priors are the same object: then only draws beyond its limits are left out.
    """
    same = prior is training_prior
    draws = quasi_random_draws(posterior, _OWN_DRAWS if same else _DRAWS)
    with np.errstate(all="ignore"):
        shape = np.moveaxis(draws[..., SINGLE.reported], -1, 0)
        wanted, known = prior.log_density(*shape), training_prior.log_density(*shape)
        usable = np.isfinite(wanted) & np.isfinite(known) & np.isfinite(draws).all(-1)
        log_weights = np.where(usable, wanted - np.where(usable, known, 0), -np.inf)
        weights = np.exp(log_weights - log_weights.max(1, keepdims=True))
        weights = np.where(usable, weights, 0)
        weights /= weights.sum(1, keepdims=True)
        draws = np.where(usable[..., None], draws, 0)
        mean = (weights[..., None] * draws).sum(1)
        delta = draws - mean[:, None]
        ess = 1 / (weights**2).sum(1)
        covariance = np.swapaxes(delta * weights[..., None], 1, 2) @ delta
        covariance /= np.maximum(1 - 1 / ess, 0.5)[:, None, None]
    return mean, covariance, np.where(usable.any(1), ess, 0.0)
