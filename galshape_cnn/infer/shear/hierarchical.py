# Licensed under a 3-clause BSD style license - see LICENSE.rst
r"""Hierarchical mean shear, from the likelihoods of shapes.

The probability of the pixels of galaxy i under a shear is :math:`P_i(\gamma) = \int L_i(\theta)\,
\pi(\theta)\, p(g\,|\,\gamma)\, d\theta`, with :math:`p(g\,|\,\gamma)` the distribution of shapes before the
shear, moved by it (Bernstein & Armstrong 2014, MNRAS 438, 1880).  Of draws :math:`\theta_k` from a
proposal q,

.. math:: \hat P_i(\gamma) = \frac1K\sum_k x_k, \qquad
          x_k = \frac{L_i(\theta_k)\,\pi(\theta_k)}{q(\theta_k)}\, p(g_k\,|\,\gamma)

has no bias; its logarithm has, by :math:`-\mathrm{Var}(x)/2K\bar x^2`, which depends on the shear, for every
galaxy alike, so that no number of galaxies averages it out.  It is added back.  What remains is of the order
:math:`K^{-2}`.

The shape distribution is :math:`p_0 \propto (1 - (g/g_m)^2)^2 \exp(-g^2/2s^2)`, isotropic, and smooth at its
edge, or else the likelihood has steps in the shear.  Its width s is found from the same galaxies.

The prior of everything else, and the profile, must be right: model bias goes straight into the shear.
"""

from typing import NamedTuple

import numpy as np

from galshape_cnn.errors import InputError
from galshape_cnn.forward.galaxy_model import SINGLE

__all__ = ["EDGE", "PosteriorShear", "log_shape_density", "posterior_shear", "shape_draws"]

#: Largest |g| of the distribution of shapes.
EDGE = 0.9

_STEP = 0.01  # of shear and of ln(width), for derivatives of the likelihood
_ROUNDS, _CONVERGED = 10, 1e-5  # of Newton's method, and its last step
_WIDTHS = np.log([0.05, 1.0])


class PosteriorShear(NamedTuple):
    """Shear of galaxies by the likelihood of their pixels.

    Attributes
    ----------
    shear : (2,) ndarray
        The most probable shear.
    covariance : (2, 2) ndarray
        Of it, from the scatter of the galaxies' derivatives.
    width : float
        s of the distribution of shapes.
    n : int
        Galaxies that count.
    """

    shear: np.ndarray
    covariance: np.ndarray
    width: float
    n: int


def log_shape_density(g, width):
    """Logarithm of the density of shapes before the shear, per unit area of g.

    Parameters
    ----------
    g : (...) complex ndarray
    width : float

    Returns
    -------
    log_density : (...) ndarray
        -inf beyond `EDGE`.
    """
    radius = np.linspace(0, EDGE, 2001)
    norm = np.trapezoid(2 * np.pi * radius * np.exp(_log_radial(radius[:-1], width, pad=True)), radius)
    return _log_radial(np.abs(g), width) - np.log(norm)


def _log_radial(radius, width, pad=False):
    with np.errstate(divide="ignore"):
        edge = 2 * np.log(np.maximum(1 - (radius / EDGE) ** 2, 0))
    out = edge - 0.5 * (radius / width) ** 2
    return np.concatenate([out, [-np.inf]]) if pad else out


def posterior_shear(shapes, log_weights, *, correct=True):
    """Shear, and the width of the distribution of shapes, of draws of many galaxies.

    Parameters
    ----------
    shapes : (N, K, 2) array_like
        g1, g2 of independent draws for each galaxy, not resampled.
    log_weights : (N, K) array_like
        ln(likelihood times prior of everything but the shape over the proposal), from `shape_draws`; galaxies
        without any finite weight do not count.
    correct : bool, optional
        Take back the bias of the logarithm of a mean of K draws.

    Returns
    -------
    result : PosteriorShear

    Raises
    ------
    InputError
        If the shapes do not fit together, or no galaxy counts.
    """
    shapes, log_weights = np.asarray(shapes, float), np.asarray(log_weights, float)
    if (
        shapes.ndim != 3
        or shapes.shape[2] != 2
        or log_weights.shape != shapes.shape[:2]
        or shapes.shape[1] < 2
    ):
        raise InputError(
            f"shapes has shape {shapes.shape} and log_weights {log_weights.shape}; needed: (N, K, 2) and "
            "(N, K), K > 1"
        )
    g = shapes[..., 0] + 1j * shapes[..., 1]
    log_weights = np.where(np.isfinite(g) & ~np.isnan(log_weights) & (np.abs(g) < EDGE), log_weights, -np.inf)
    g = np.where(np.isfinite(g), g, 0)
    counts = np.isfinite(log_weights.max(1))
    if not counts.any():
        raise InputError("log_weights: no galaxy has a finite weight")
    g, weights = g[counts], log_weights[counts]
    weights = np.exp(weights - weights.max(1, keepdims=True))
    point = np.array([0.0, 0.0, np.log(0.25)])
    for _ in range(_ROUNDS):
        slopes, hessian = _derivatives(g, weights, point, correct)
        step = np.linalg.solve(_definite(hessian), slopes.sum(0))
        point = point + np.clip(step, -0.3, 0.3)
        point[2] = np.clip(point[2], *_WIDTHS)
        if np.abs(step).max() < _CONVERGED:
            break
    slopes, hessian = _derivatives(g, weights, point, correct)
    inverse = np.linalg.inv(_definite(hessian))
    covariance = (inverse @ (slopes.T @ slopes) @ inverse)[:2, :2]
    return PosteriorShear(point[:2], covariance, float(np.exp(point[2])), int(counts.sum()))


def _definite(hessian):
    """A matrix whose eigenvalues are not negative, so that steps lead upwards."""
    values, vectors = np.linalg.eigh(hessian)
    return (vectors * np.maximum(np.abs(values), 1e-9)) @ vectors.T


def _log_probabilities(g, weights, point, correct):
    """ln P of each galaxy, (N,), at a shear and ln(width)."""
    gamma, count = point[0] + 1j * point[1], g.shape[1]
    away = 1 - np.conj(gamma) * g
    log_jacobian = 2 * np.log((1 - np.abs(gamma) ** 2) / np.abs(away) ** 2)
    x = weights * np.exp(log_shape_density((g - gamma) / away, np.exp(point[2])) + log_jacobian)
    mean = np.maximum(x.mean(1), 1e-300)
    if not correct:
        return np.log(mean)
    return np.log(mean) + ((x**2).mean(1) / mean**2 - 1) / (2 * (count - 1))


def _derivatives(g, weights, point, correct):
    """Derivatives of each ln P, (N, 3), and minus the second derivatives of their sum, (3, 3)."""
    at = {}

    def value(*steps):
        if steps not in at:
            at[steps] = _log_probabilities(g, weights, point + _STEP * np.array(steps), correct)
        return at[steps]

    unit = np.eye(3, dtype=int)
    slopes = np.stack([(value(*one) - value(*-one)) / (2 * _STEP) for one in unit], -1)
    hessian = np.empty((3, 3))
    for i in range(3):
        for j in range(i, 3):
            both, other = unit[i] + unit[j], unit[i] - unit[j]
            terms = value(*both) + value(*-both) - value(*other) - value(*-other)
            hessian[i, j] = hessian[j, i] = -terms.sum() / (4 * _STEP**2)
    return slopes, hessian


def shape_draws(batch, network, prior, *, n_draws=256, fit_sky=True, seed=0):
    """Draws of shapes for `posterior_shear`, the network's posterior as first proposal.

    Parameters
    ----------
    batch : RenderedBatch
        N stamps, in which all noise is independent.
    network : AmortizedPosterior
        The live networks.
    prior : Prior
        Of flux or S/N, n and hlr; its part of the shape is where draws are looked for, no more, and must
        reach as far as the shapes do.
    n_draws : int, optional
        Of each galaxy.
    fit_sky : bool, optional
        False when the sky is known to be zero.
    seed : int, optional
        Of the draws, which depend on it and on the galaxy's own pixels.

    Returns
    -------
    shapes : (N, n_draws, 2) ndarray
    log_weights : (N, n_draws) ndarray
    """
    from galshape_cnn.infer.network.amortized import sky_free_posterior
    from galshape_cnn.infer.posterior.importance_sampling import raw_draws

    shapes = np.full((len(batch), n_draws, 2), np.nan)
    log_weights = np.full((len(batch), n_draws), -np.inf)
    for rows, _, full in batch.filled():
        proposal, _, _ = sky_free_posterior(full, network, fit_sky)
        some = batch[rows]
        params, weights = raw_draws(
            some.stamps.data, some.stamps.ivar, some.transfer, some.grid, proposal[: len(rows)], prior,
            fit_sky=fit_sky, gain=some.gain, n_draws=n_draws, seed=seed,
        )  # fmt: skip
        shapes[rows] = params[..., SINGLE.shear]
        log_weights[rows] = weights - prior.log_density_of_shear(*np.moveaxis(shapes[rows], -1, 0))
    return shapes, log_weights
