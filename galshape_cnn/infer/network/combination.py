# Licensed under a 3-clause BSD style license - see LICENSE.rst
r"""Combination of single-image posteriors by precision, the prior counted once.

Where posteriors are Gaussian their precisions add up.  Each one contains the prior of the training, which is
to be counted once:

.. math:: P = P_0 + \sum_e (P_e - P_0), \qquad
          P\,\mathbf u = P_0 \mathbf u_0 + \sum_e (P_e \mathbf u_e - P_0 \mathbf u_0)

in the coordinates of `galshape_cnn.forward.coordinates`, with ln flux of each band, and after size, shear and
centre have been carried to one frame.  Of :math:`P_e - P_0`, what an image says, no eigenvalue is taken below
zero.
"""

from dataclasses import replace

import numpy as np

from galshape_cnn.forward.coordinates import POSTERIOR, Coordinates
from galshape_cnn.forward.galaxy_model import SINGLE

__all__ = ["combined_posterior"]

_SHAPE = POSTERIOR.model.shape
_LEAST = 1e-4  # precision of ln flux and centre that the prior is taken to have: none to speak of


def combined_posterior(model, count, pieces, prior):
    """Mean (N, Q) of Gaussian posteriors of several images, and their covariance.

    ``pieces`` are, of each image, the galaxies (M,) that it shows, its `View` of them, mean (M, 7) and
    Cholesky factor (M, 7, 7) of the covariance in the coordinates `POSTERIOR`, in the image's frame; each
    contains the ``prior`` of the training.

    The mean has the parameters of the model but the sky levels, NaN where no image says anything, fluxes NaN
    in bands that none does. The covariance is of the coordinates ln fluxes, logit n, ln hlr, eta1, eta2, x,
    y.
    """
    coordinates = Coordinates(replace(model, exposures=()), log_flux=True, logit_n=True)
    size = coordinates.model.size
    center, known = _prior(prior)
    precision, pull = np.zeros((count, size, size)), np.zeros((count, size))
    seen = np.zeros((count, len(model.bands)), bool)
    shape = slice(model.n, model.n + 4)
    precision[:, shape, shape] = np.diag(known)
    pull[:, shape] = known * center
    for rows, view, mean, chol in pieces:
        some = np.flatnonzero(np.isfinite(mean).all(1) & np.isfinite(chol).all((1, 2)))
        own, covariance = _carried(view[some], mean[some], chol[some])
        good = np.isfinite(own).all(1) & np.isfinite(covariance).all((1, 2))
        added, pulled = _of_data(own[good], covariance[good], center, known)
        at, where = [view.band, *range(model.n, size)], rows[some[good]]
        precision[np.ix_(where, at, at)] += added
        pull[np.ix_(where, at)] += pulled
        seen[where, view.band] = True
    lost = np.concatenate([~seen, np.tile(~seen.any(1)[:, None], 6)], 1)
    covariance = np.linalg.inv(np.where(lost[:, :, None] | lost[:, None, :], np.eye(size), precision))
    theta = (covariance @ np.where(lost, 0, pull)[..., None])[..., 0]
    mean = coordinates.params(theta)
    return np.where(lost, np.nan, mean), np.where(lost[:, :, None] | lost[:, None, :], np.nan, covariance)


def _prior(prior):
    """Mean and precision of logit n, ln hlr, eta1, eta2 under a prior."""
    draws = prior.sample(np.random.default_rng(0), 4000)
    draws[:, 0] = 1
    u = POSTERIOR.of(np.column_stack([draws, np.zeros((len(draws), 2))]))[:, _SHAPE]
    u = u[np.isfinite(u).all(1)]
    return u.mean(0) * [1, 1, 0, 0], 1 / u.var(0)


def _carried(view, mean, chol):
    """Mean and covariance of ln flux, logit n, ln hlr, eta1, eta2, x, y in the model's frame."""
    model = view.model
    own = POSTERIOR.params(mean)
    full = view.outward(np.column_stack([own, np.zeros(len(own))]))
    at = [view.band, *range(model.size)[model.searched]]
    there = full[:, at]
    turn = np.linalg.inv(view.jacobian(full)[:, SINGLE.without_sky][:, :, at])
    with np.errstate(invalid="ignore", divide="ignore"):
        u = POSTERIOR.of(there)
    outward = np.linalg.inv(POSTERIOR.derivative(u)) @ turn @ POSTERIOR.derivative(mean)
    factor = outward @ chol
    return u, factor @ np.swapaxes(factor, 1, 2)


def _of_data(mean, covariance, center, known):
    """Precision of what the image itself says, and that times its mean."""
    root = np.sqrt(np.concatenate([[_LEAST], known, [_LEAST] * 2]))
    scaled = np.linalg.inv(covariance) / root[:, None] / root
    values, vectors = np.linalg.eigh(0.5 * (scaled + np.swapaxes(scaled, 1, 2)))
    own, prior = mean * root, mean * root
    prior[:, _SHAPE] = center * root[_SHAPE]
    along, before = ((np.swapaxes(vectors, 1, 2) @ one[..., None])[..., 0] for one in (own, prior))
    more = np.maximum(values - 1, 0)
    pull = (vectors @ np.where(values > 1, values * along - before, 0)[..., None])[..., 0]
    precision = (vectors * more[:, None]) @ np.swapaxes(vectors, 1, 2)
    return precision * root[:, None] * root, pull * root
