# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""Maximum likelihood in several images: one shape and centre, a flux per band, a sky per exposure."""

from dataclasses import dataclass

import numpy as np

from galshape_cnn.flags import Flag
from galshape_cnn.forward.coordinates import Coordinates
from galshape_cnn.infer.fit.bounded_steps import bounded_step, moved, room_to_bounds, turned
from galshape_cnn.infer.fit.levenberg_marquardt import Points, Step, search
from galshape_cnn.infer.fit.maximum_likelihood import fit_flags
from galshape_cnn.infer.fit.variable_projection import LIMITS, Penalty
from galshape_cnn.infer.likelihood.exposures import JointLikelihood

__all__ = ["ExposuresFit", "ExposuresProblem", "fit_exposures"]

_REWEIGHTINGS = 3
_POOR = 5.0  # standard deviations of chi2 above which a fit is doubted


@dataclass(frozen=True, eq=False)
class ExposuresFit:
    """Maximum-likelihood estimates of N galaxies in several exposures.

    Attributes
    ----------
    params : (N, P) ndarray
        Of the model, in the units of the likelihood.
    fisher : (N, P, P) ndarray
        Of these parameters.
    chi2 : (N,) ndarray
    flags : (N,) ndarray of int64
        As of `galshape_cnn.infer.fit.maximum_likelihood.fit_flags`.
    """

    params: np.ndarray
    fisher: np.ndarray
    chi2: np.ndarray
    flags: np.ndarray


@dataclass(frozen=True, eq=False)
class ExposuresProblem:
    """N galaxies in several exposures as a problem for the search.

    Attributes
    ----------
    likelihood : JointLikelihood
        With final weights.
    size : int
        Side of the reference stamps, pixels.
    penalty : Penalty or None
        Added to chi-square.
    """

    likelihood: JointLikelihood
    size: int
    penalty: Penalty | None = None

    @property
    def coordinates(self):
        """Of the search."""
        return Coordinates(self.likelihood.model)

    def evaluate(self, theta, rows):
        """`Points` at coordinates (M, P) of some rows, fluxes and sky levels at their best."""
        coordinates = self.coordinates
        params = coordinates.params(theta)
        best, chi2, gradient, fisher = self.likelihood.at_best_amplitudes(params, rows)
        theta = theta.copy()
        amplitudes = self.likelihood.model.amplitudes
        theta[:, amplitudes] = best[:, amplitudes]
        turn = coordinates.derivative(theta)
        gradient = np.einsum("nij,ni->nj", turn, gradient)
        points = Points(theta, chi2, gradient, np.swapaxes(turn, 1, 2) @ fisher @ turn)
        return points if self.penalty is None else self.penalty.added(points)

    def propose(self, points, rows, damping):
        """Steps to try (shear in its radial frame), what they and undamped ones promise."""
        model = self.likelihood.model
        gradient, fisher = turned(points.theta, points.gradient, points.fisher, model)
        free = self.likelihood.free()[rows]
        gradient = np.where(free, gradient, 0)
        fisher = np.where(free[:, :, None] & free[:, None, :], fisher, np.eye(model.size))
        room = room_to_bounds(points.theta, self.size, model)
        _, promise = bounded_step(gradient, fisher, np.zeros(len(damping)), room, model)
        return Step(*bounded_step(gradient, fisher, damping, room, model), promise)

    def moved(self, theta, step):
        """Coordinates after a step."""
        return moved(theta, step, self.size, self.coordinates)


def fit_exposures(likelihood, start, size, again=None, penalty=None, steps=LIMITS.steps):
    """Maximise the likelihood of galaxies in several exposures.

    Parameters
    ----------
    likelihood : JointLikelihood
        Of N galaxies, without the photon noise of their light.
    start : (N, P) ndarray
        Parameters to start from, in its units; fluxes need no more than their sign.
    size : int
        Side of the stamps of the reference exposures, pixels: the largest half-light radius.
    again : callable, optional
        Takes row numbers and returns other starts, for galaxies whose first search did not converge, fits
        badly or ended at a limit of size or shear.  The better end is kept.
    penalty : Penalty, optional
        A Gaussian prior on the coordinates, which chi-square and Fisher matrix then contain.
    steps : int, optional
        Of a search, at most.

    Returns
    -------
    fit : ExposuresFit
    """
    fit = _fitted(likelihood, start, size, penalty, steps)
    excess = (fit.chi2 - likelihood.n_data) / np.sqrt(2 * np.maximum(likelihood.n_data, 1))
    rows = np.flatnonzero((fit.flags & ~Flag.N_AT_BOUND != 0) | (excess > _POOR))
    if again is None or not len(rows):
        return fit
    second = _fitted(likelihood[rows], again(rows), size, penalty, steps)
    converged = [(one & (Flag.NOT_CONVERGED | Flag.NO_DATA)) == 0 for one in (fit.flags[rows], second.flags)]
    change = converged[1].astype(int) - converged[0]
    better = (change > 0) | ((change == 0) & (second.chi2 < fit.chi2[rows]))
    for name in ("params", "fisher", "chi2", "flags"):
        getattr(fit, name)[rows[better]] = getattr(second, name)[better]
    return fit


def _fitted(likelihood, start, size, penalty, steps):
    """One search from one start, and again with the photon noise of what it found."""
    coordinates = Coordinates(likelihood.model)
    theta = coordinates.clipped(coordinates.of(start), size)
    photons = any(part.gain is not None for part in likelihood.parts)
    weighted, limits = likelihood, LIMITS._replace(steps=steps)
    for _ in range(_REWEIGHTINGS if photons else 1):
        if photons:
            weighted = likelihood.with_photons(coordinates.params(theta))
        points, done, _ = search(ExposuresProblem(weighted, size, penalty), theta, limits)
        theta = points.theta
    inverse = np.linalg.inv(coordinates.derivative(theta))
    fisher = np.swapaxes(inverse, 1, 2) @ points.fisher @ inverse
    flags = fit_flags(_with_known(points, likelihood.free()), done, size, likelihood.model)
    flags = np.where(likelihood.n_data > 0, flags, Flag.NO_DATA)
    return ExposuresFit(coordinates.params(theta), fisher, points.chi2, flags)


def _with_known(points, free):
    """Points whose parameters that no pixel says anything of count as known."""
    fisher = np.where(free[:, :, None] & free[:, None, :], points.fisher, np.eye(free.shape[1]))
    return Points(points.theta, points.chi2, points.gradient, fisher)
