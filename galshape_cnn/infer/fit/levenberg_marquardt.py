# Licensed under a 3-clause BSD style license - see LICENSE.rst
r"""The search for the maximum of the likelihood, over a batch.

Each step solves :math:`(F + \lambda\,\mathrm{diag} F)\,\delta = D^T W r` in the
coordinates of `galshape_cnn.infer.likelihood.coordinates`.  Flux and sky enter linearly,
so after each evaluation they are set to their best values by algebra on F
(variable projection; Golub & Pereyra 1973, SIAM J. Numer. Anal. 10, 413, with
Kaufman's approximation): the search has six dimensions, not eight.
"""

from dataclasses import dataclass, fields

import numpy as np

from galshape_cnn.infer.fit.bounded_steps import SHAPE, bounded_step, moved, room_to_bounds, turned
from galshape_cnn.infer.likelihood.coordinates import clip_coordinates, from_coordinates, parameter_derivative

__all__ = ["TOLERANCE", "Penalty", "Points", "search"]

#: A galaxy has converged when the next step would lower chi2 by less than
#: this: the estimate is then within sqrt(TOLERANCE) = 0.03 sigma of the maximum.
TOLERANCE = 1e-3

_FLAT = 0.02  # promise below which a step that gained nothing ends the search: chi2 is flat there
_STUCK = 1e5  # damping at which a galaxy that finds no better point is given up


@dataclass(eq=False)
class Points:
    """Where M galaxies stand: coordinates, and the normal equations there.

    Attributes
    ----------
    theta : (M, 8) ndarray
        Coordinates.
    chi2 : (M,) ndarray
    gradient : (M, 8) ndarray
        D^T W r.
    fisher : (M, 8, 8) ndarray
        D^T W D.
    """

    theta: np.ndarray
    chi2: np.ndarray
    gradient: np.ndarray
    fisher: np.ndarray

    def __getitem__(self, rows):
        return Points(*(getattr(self, f.name)[rows] for f in fields(self)))

    def __setitem__(self, rows, points):
        for f in fields(self):
            getattr(self, f.name)[rows] = getattr(points, f.name)


def _quadratic(matrix, vector):
    return np.einsum("ni,nij,nj->n", vector, matrix, vector)


def _project_linear(points, linear):
    """Set flux and sky to their best values, and update the equations to there."""
    f, g = points.fisher, points.gradient
    sub = f[:, linear][:, :, linear]
    size = np.sqrt(np.maximum(np.einsum("nii->ni", sub), 1e-30))
    sub = sub / (size[:, :, None] * size[:, None, :]) + 1e-9 * np.eye(len(linear))
    change = np.linalg.solve(sub, (g[:, linear] / size)[..., None])[..., 0] / size
    # A model without light has no shape: the flux stays above a fraction of its error.
    flux = points.theta[:, 0]
    lowest = 0.1 / size[:, 0]
    negative = flux + change[:, 0] < lowest
    change[negative, 0] = (lowest - flux)[negative]
    if len(linear) == 2:
        sky = (g[:, 7] - f[:, 0, 7] * change[:, 0]) / np.maximum(f[:, 7, 7], 1e-30)
        change[negative, 1] = sky[negative]
    step = np.zeros_like(points.theta)
    step[:, linear] = change
    chi2 = points.chi2 - 2 * (g * step).sum(1) + _quadratic(f, step)
    gradient = g - np.einsum("nij,nj->ni", f, step)
    ratio = np.ones_like(step)
    ratio[:, SHAPE] = ((flux + change[:, 0]) / flux)[:, None]
    return Points(points.theta + step, chi2, gradient * ratio, f * ratio[:, :, None] * ratio[:, None, :])


@dataclass(frozen=True)
class Penalty:
    """A Gaussian on the coordinates, added to chi-square.

    Attributes
    ----------
    center, precision : (8,) ndarray
        Mean and inverse variance of each coordinate; zero precision for none.
        Flux and sky must have none.
    """

    center: np.ndarray
    precision: np.ndarray

    def added(self, points):
        """Points with the penalty in chi2, gradient and Fisher matrix."""
        offset = np.where(self.precision > 0, self.center - points.theta, 0)
        return Points(
            points.theta,
            points.chi2 + offset**2 @ self.precision,
            points.gradient + offset * self.precision,
            points.fisher + np.diag(self.precision),
        )


def _evaluate(likelihood, theta, rows, linear, penalty):
    """Normal equations at coordinates, flux and sky at their best."""
    chi2, gradient, fisher = likelihood.normal_equations(from_coordinates(theta), rows)
    turn = parameter_derivative(theta)
    gradient = np.einsum("nij,ni->nj", turn, gradient)
    fisher = np.einsum("nki,nkl,nlj->nij", turn, fisher, turn)
    points = _project_linear(Points(theta, chi2, gradient, fisher), linear)
    return points if penalty is None else penalty.added(points)


def _propose(points, damping, size, fit_sky):
    """Steps to try (shear in its radial frame), what they and undamped ones promise."""
    gradient, fisher = turned(points.theta, points.gradient, points.fisher)
    if not fit_sky:
        gradient[:, 7] = fisher[:, 7, :] = fisher[:, :, 7] = 0
        fisher[:, 7, 7] = 1
    room = room_to_bounds(points.theta, size)
    _, promise = bounded_step(gradient, fisher, np.zeros(len(damping)), room)
    step, expected = bounded_step(gradient, fisher, damping, room)
    return step, expected, promise


def _next_damping(damping, gain, better):
    """Less damping after a step that kept its promise, more after one that did not (Nielsen 1999)."""
    kept = damping * np.clip(1 - (2 * gain - 1) ** 3, 0.05, 4)
    return np.where(better, np.maximum(kept, 1e-6), np.maximum(6 * damping, 0.02))


def search(likelihood, theta, linear, max_iterations, penalty=None):
    """Minimise chi-square with the likelihood's weights.

    Parameters
    ----------
    likelihood : StampLikelihood
        Of M stamps.
    theta : (M, 8) ndarray
        Coordinates to start from, in units of the likelihood's scale.
    linear : list of int
        Indices of the linear parameters that are fitted: flux, and sky or not.
    max_iterations : int
        Steps allowed.
    penalty : Penalty, optional
        Added to chi-square.

    Returns
    -------
    points : Points
        The best points found.
    done : (M,) bool ndarray
        Whether they are minima.
    evaluations : (M,) int ndarray
        Evaluations of the derivatives that were spent.
    """
    size, fit_sky = likelihood.grid.size, len(linear) == 2
    count = len(theta)
    theta = clip_coordinates(theta, size)
    theta[:, 0] = np.maximum(theta[:, 0], 1.0)
    points = _evaluate(likelihood, theta, np.arange(count), linear, penalty)
    evaluations = np.ones(count, int)
    damping = np.full(count, 1e-3)
    done, failed = np.zeros(count, bool), np.zeros(count, bool)
    active = np.arange(count)
    for _ in range(max_iterations):
        step, expected, promise = _propose(points[active], damping[active], size, fit_sky)
        done[active] = promise < np.where(failed[active], _FLAT, TOLERANCE)
        going = ~done[active] & (damping[active] < _STUCK)
        active, step, expected = active[going], step[going], expected[going]
        if not len(active):
            break
        trial = _evaluate(likelihood, moved(points.theta[active], step, size), active, linear, penalty)
        evaluations[active] += 1
        gain = (points.chi2[active] - trial.chi2) / np.maximum(expected, 1e-12)
        better = gain > 1e-4
        points[active[better]] = trial[better]
        failed[active] = ~better
        damping[active] = _next_damping(damping[active], gain, better)
    return points, done, evaluations
