# Licensed under a 3-clause BSD style license - see LICENSE.rst
r"""Second look: the first answer corrected by score and Fisher matrix of the likelihood.

A network that compresses pixels has a scatter of its own, which shows where the data say more
than it can keep: at high S/N.  The derivatives of the log-likelihood at its first answer
:math:`\mathbf u_0` hold what it lost.  With :math:`L L^T` the covariance the network states, the
score and the information in its units are

.. math:: \mathbf z = L^T D^T W \mathbf r, \qquad M = L^T D^T W D L,

and :math:`\mathbf y_0 = (M + \epsilon)^{-1}\mathbf z` is a step of Fisher scoring, damped where the
pixels say less than the network knows.  One such step from an estimate that is good to the
order of its error is efficient (Le Cam 1956; van der Vaart 1998, Asymptotic Statistics, section 5.7),
and score and information at a point near the truth are the locally sufficient statistics of the data
(Alsing & Wandelt 2018, MNRAS 476, L60).  A small second network sees both beside the first answer and
states the posterior of

.. math:: \mathbf w = B^{-1}(\mathbf y - \mathbf y_0), \qquad B B^T = (M + \epsilon)^{-1},
          \qquad \mathbf u = \mathbf u_0 + L\,\mathbf y,

which would be a standard normal if the likelihood were Gaussian; it learns how far it is not.
"""

from dataclasses import dataclass

import numpy as np

from galshape_cnn.forward.coordinates import POSTERIOR
from galshape_cnn.forward.galaxy_model import SINGLE
from galshape_cnn.infer.posterior.mixture import MixturePosterior
from galshape_cnn.linalg import cholesky_or_nan, inverse_or_nan

__all__ = ["Frame", "expansion_point", "frame_at", "likelihood_features", "update_features"]

_DIM = POSTERIOR.model.size
_OFF = np.tril_indices(_DIM, -1)
_DAMPING = 0.25  # epsilon above
_LONGEST_STEP = 10.0  # in standard deviations of the first answer


@dataclass(frozen=True)
class Frame:
    """Coordinates in which a galaxy's posterior is close to a standard normal.

    Attributes
    ----------
    origin : (N, 7) ndarray
        Coordinates (`galshape_cnn.forward.coordinates.POSTERIOR`) after the damped step.
    chol : (N, 7, 7) ndarray
        Lower triangular L B: ``u = origin + chol @ w``.
    """

    origin: np.ndarray
    chol: np.ndarray

    def inward(self, u):
        """Whitened coordinates w of u, (N, 7)."""
        return np.linalg.solve(self.chol, (np.asarray(u) - self.origin)[..., None])[..., 0]

    def outward(self, weights, means, chols):
        """Mixture over u from one over w."""
        spread = self.chol[:, None]
        means = self.origin[:, None] + (spread @ means[..., None])[..., 0]
        return MixturePosterior(weights, means, spread @ chols)


def expansion_point(posterior):
    """Mean (N, 7) and Cholesky factor (N, 7, 7) of a mixture's covariance, in the coordinates.

    NaN where the mixture has none.
    """
    mean = np.einsum("nk,nki->ni", posterior.weights, posterior.means)
    delta = posterior.means - mean[:, None]
    covariance = np.einsum("nk,nki,nkj->nij", posterior.weights, delta, delta)
    covariance += np.einsum("nk,nkil,nkjl->nij", posterior.weights, posterior.chols, posterior.chols)
    finite = np.isfinite(covariance).all((1, 2))[:, None, None]
    return mean, np.where(finite, cholesky_or_nan(np.where(finite, covariance, np.eye(_DIM))), np.nan)


def _without_sky(score, fisher, fit_sky):
    """Score and information of the first seven parameters, the sky marginalised where unknown."""
    inner, across, sky = fisher[:, :_DIM, :_DIM], fisher[:, :_DIM, _DIM], fisher[:, _DIM, _DIM]
    unknown = np.broadcast_to(fit_sky, len(score)) & (sky > 0)
    ratio = np.where(unknown, 1 / np.where(sky > 0, sky, 1.0), 0.0)[:, None] * across
    return score[:, :_DIM] - ratio * score[:, _DIM:], inner - ratio[:, :, None] * across[:, None, :]


def frame_at(mean, chol, score, fisher, fit_sky):
    """Frame from the likelihood's score (N, 8) and Fisher matrix (N, 8, 8) at the first answer.

    ``mean`` and ``chol`` are from `expansion_point`. Also the damped step y0 (N, 7), at most ten standard
    deviations of the first answer long, and B (N, 7, 7).
    """
    score, fisher = _without_sky(np.asarray(score, float), np.asarray(fisher, float), fit_sky)
    inward = POSTERIOR.derivative(mean) @ chol
    z = np.einsum("nij,ni->nj", inward, score)
    information = np.swapaxes(inward, 1, 2) @ fisher @ inward
    covariance = inverse_or_nan(information + _DAMPING * np.eye(_DIM))
    step = (covariance @ z[..., None])[..., 0]
    length = np.linalg.norm(step, axis=1, keepdims=True)
    step *= np.minimum(1, _LONGEST_STEP / np.maximum(length, 1e-12))
    factor = cholesky_or_nan(0.5 * (covariance + np.swapaxes(covariance, 1, 2)))
    origin = mean + (chol @ step[..., None])[..., 0]
    return Frame(origin, chol @ factor), step, factor


def update_features(outputs, context, chol, step, factor):
    """What the second network sees, (N, F) float32.

    The first one's raw outputs (N, O) and standardised context (N, C), and ``chol``, ``step``, ``factor``
    from `expansion_point` and `frame_at`.
    """
    diagonal = np.arange(_DIM)
    backward = np.linalg.solve(factor, step[..., None])[..., 0]
    relative = factor / factor[:, diagonal, diagonal][:, :, None]
    parts = [
        np.clip(outputs, -15, 15),
        np.clip(context, -8, 8),
        np.log(chol[:, diagonal, diagonal]),
        np.log(factor[:, diagonal, diagonal]),
        np.clip(relative[:, _OFF[0], _OFF[1]], -10, 10),
        np.arcsinh(step),
        np.arcsinh(backward),
        np.clip(backward, -5, 5),
        np.log1p((backward**2).sum(1, keepdims=True)),
    ]
    return np.concatenate(parts, 1).astype(np.float32)


def likelihood_features(outputs, context, mean, chol, score, fisher, fit_sky):
    """Frame and features (N, F) of a batch, whatever its rows are worth: arguments may hold NaN.

    As of `update_features` and `frame_at`. Also (N,) bool, False in rows without a finite frame: their frame
    and features mean nothing.
    """
    score, fisher = np.asarray(score, float), np.asarray(fisher, float)
    usable = np.isfinite(mean).all(1) & np.isfinite(chol).all((1, 2))
    usable &= np.isfinite(score).all(1) & np.isfinite(fisher).all((1, 2))
    mean = np.where(usable[:, None], mean, 0.0)
    chol = np.where(usable[:, None, None], chol, np.eye(_DIM))
    score = np.where(usable[:, None], score, 0.0)
    fisher = np.where(usable[:, None, None], fisher, np.eye(SINGLE.size))
    frame, step, factor = frame_at(mean, chol, score, fisher, fit_sky)
    features = update_features(outputs, context, chol, step, factor)
    # Where the galaxy is far outside of the training, numbers may be finite and mean nothing.
    usable &= np.isfinite(features).all(1)
    usable &= np.isfinite(frame.origin).all(1) & np.isfinite(frame.chol).all((1, 2))
    origin = np.where(usable[:, None], frame.origin, 0.0)
    frame = Frame(origin, np.where(usable[:, None, None], frame.chol, np.eye(_DIM)))
    return frame, np.where(usable[:, None], features, np.float32(0)), usable
