# Licensed under a 3-clause BSD style license - see LICENSE.rst
r"""Batched Levenberg-Marquardt: the one loop of all fits.

Each step solves :math:`(F + \lambda\,\mathrm{diag} F)\,\delta = D^T W r` in the
coordinates of `galshape_cnn.forward.coordinates`.  Every row has its own damping, and leaves the batch
when the decrease of chi-square that the undamped step promises is below the problem's tolerance.

A problem says how to evaluate points, propose steps and move: one galaxy alone is
`galshape_cnn.infer.fit.variable_projection.GalaxyProblem`; galaxies with their neighbours are in
`galshape_cnn.infer.fit.joint_fit`; several images of a galaxy in `galshape_cnn.infer.fit.exposures_fit`.
"""

from dataclasses import dataclass, fields
from typing import NamedTuple

import numpy as np

__all__ = ["Limits", "Points", "Step", "search"]


@dataclass(eq=False)
class Points:
    """Where M rows stand: coordinates, and the normal equations there.

    Attributes
    ----------
    theta : (M, ...) ndarray
        Coordinates, P in number.
    chi2 : (M,) ndarray
    gradient : (M, P) ndarray
        D^T W r.
    fisher : (M, P, P) ndarray
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


class Limits(NamedTuple):
    """When a search begins, and when it ends.

    Attributes
    ----------
    damping : float
        Of the first step.
    tolerance : float
        Decrease of chi-square below which the next step is not worth taking: the estimate is then
        within the root of it, in standard deviations, of the minimum.
    flat : float
        The same after a step that gained nothing: chi-square is flat there.
    stuck : float
        Damping at which a row that finds no better point is given up.
    steps : int
        That are tried at most.
    """

    damping: float
    tolerance: float
    flat: float
    stuck: float
    steps: int


class Step(NamedTuple):
    """Steps to try, the decrease of chi-square expected of them, and that which undamped ones promise.

    Attributes
    ----------
    step : (M, ...) ndarray
    expected, promise : (M,) ndarray
    """

    step: np.ndarray
    expected: np.ndarray
    promise: np.ndarray


def _next_damping(damping, gain, better):
    """Less damping after a step that kept its promise, more after one that did not (Nielsen 1999)."""
    kept = damping * np.clip(1 - (2 * gain - 1) ** 3, 0.05, 4)
    return np.where(better, np.maximum(kept, 1e-6), np.maximum(6 * damping, 0.02))


def search(problem, theta, limits):
    """Minimise chi-square.

    Parameters
    ----------
    problem : object
        With ``evaluate(theta, rows)``, which returns `Points` of some rows;
        ``propose(points, rows, damping)``, which returns a `Step`; and ``moved(theta, step)``.
    theta : (M, ...) ndarray
        Coordinates to start from, inside their bounds.
    limits : Limits
        When to begin and to end.

    Returns
    -------
    points : Points
        The best points found.
    done : (M,) bool ndarray
        Whether they are minima.
    evaluations : (M,) int ndarray
        Evaluations of the derivatives that were spent.
    """
    count = len(theta)
    points = problem.evaluate(theta, np.arange(count))
    evaluations, damping = np.ones(count, int), np.full(count, limits.damping)
    done, failed = np.zeros(count, bool), np.zeros(count, bool)
    active = np.arange(count)
    for _ in range(limits.steps):
        step, expected, promise = problem.propose(points[active], active, damping[active])
        done[active] = promise < np.where(failed[active], limits.flat, limits.tolerance)
        going = ~done[active] & (damping[active] < limits.stuck)
        active, step, expected = active[going], step[going], expected[going]
        if not len(active):
            break
        trial = problem.evaluate(problem.moved(points.theta[active], step), active)
        evaluations[active] += 1
        gain = (points.chi2[active] - trial.chi2) / np.maximum(expected, 1e-12)
        better = gain > 1e-4
        points[active[better]] = trial[better]
        failed[active] = ~better
        damping[active] = _next_damping(damping[active], gain, better)
    return points, done, evaluations
