# Licensed under a 3-clause BSD style license - see LICENSE.rst
r"""Variable projection: the fit of one galaxy in one image, flux and sky eliminated.

Flux and sky enter linearly, so after each evaluation they are set to their best values by algebra on F
(variable projection; Golub & Pereyra 1973, SIAM J. Numer. Anal. 10, 413, with
Kaufman's approximation): the search has six dimensions, not eight.
"""

from dataclasses import dataclass

import numpy as np

from galshape_cnn.forward.coordinates import FIT
from galshape_cnn.forward.galaxy_model import SINGLE, GalaxyModel
from galshape_cnn.infer.fit.bounded_steps import bounded_step, moved, room_to_bounds, turned
from galshape_cnn.infer.fit.levenberg_marquardt import Limits, Points, Step, search
from galshape_cnn.infer.likelihood.gaussian import StampLikelihood

__all__ = ["LIMITS", "GalaxyProblem", "Penalty", "fit_galaxies"]

#: A galaxy has converged when the next step would lower chi2 by less than 1e-3: the estimate is then
#: within 0.03 sigma of the maximum.
LIMITS = Limits(damping=1e-3, tolerance=1e-3, flat=0.02, stuck=1e5, steps=40)


def _quadratic(matrix, vector):
    return np.einsum("ni,nij,nj->n", vector, matrix, vector)


def _project_linear(points, model):
    """Set flux and sky to their best values, and update the equations to there."""
    f, g, linear, sky = points.fisher, points.gradient, model.linear, model.sky
    sub = f[:, linear][:, :, linear]
    size = np.sqrt(np.maximum(np.einsum("nii->ni", sub), 1e-30))
    sub = sub / (size[:, :, None] * size[:, None, :]) + 1e-9 * np.eye(len(linear))
    change = np.linalg.solve(sub, (g[:, linear] / size)[..., None])[..., 0] / size
    # A model without light has no shape: the flux stays above a fraction of its error.
    flux = points.theta[:, model.flux]
    lowest = 0.1 / size[:, 0]
    negative = flux + change[:, 0] < lowest
    change[negative, 0] = (lowest - flux)[negative]
    if model.fit_sky:
        level = (g[:, sky] - f[:, model.flux, sky] * change[:, 0]) / np.maximum(f[:, sky, sky], 1e-30)
        change[negative, 1] = level[negative]
    step = np.zeros_like(points.theta)
    step[:, linear] = change
    chi2 = points.chi2 - 2 * (g * step).sum(1) + _quadratic(f, step)
    gradient = g - np.einsum("nij,nj->ni", f, step)
    ratio = np.ones_like(step)
    ratio[:, model.searched] = ((flux + change[:, 0]) / flux)[:, None]
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
            points.chi2 + (offset**2 * self.precision).sum(1),  # a product rounds by the number of rows
            points.gradient + offset * self.precision,
            points.fisher + np.diag(self.precision),
        )


@dataclass(frozen=True, eq=False)
class GalaxyProblem:
    """M galaxies, each alone in one stamp.

    Attributes
    ----------
    likelihood : StampLikelihood
        Of M stamps.
    model : GalaxyModel
        Of one band and one exposure.
    penalty : Penalty or None
        Added to chi-square.
    """

    likelihood: StampLikelihood
    model: GalaxyModel = SINGLE
    penalty: Penalty | None = None

    @property
    def size(self):
        """Side of the stamps, pixels."""
        return self.likelihood.grid.size

    def evaluate(self, theta, rows):
        """Normal equations at coordinates (M, 8) of some rows, flux and sky at their best."""
        chi2, gradient, fisher = self.likelihood.normal_equations(FIT.params(theta), rows)
        turn = FIT.derivative(theta)
        gradient = np.einsum("nij,ni->nj", turn, gradient)
        fisher = np.ascontiguousarray(np.swapaxes(turn, 1, 2)) @ fisher @ turn
        points = _project_linear(Points(theta, chi2, gradient, fisher), self.model)
        return points if self.penalty is None else self.penalty.added(points)

    def propose(self, points, rows, damping):
        """Steps to try (shear in its radial frame), what they and undamped ones promise."""
        gradient, fisher = turned(points.theta, points.gradient, points.fisher)
        if not self.model.fit_sky:
            sky = self.model.sky
            gradient[:, sky] = fisher[:, sky, :] = fisher[:, :, sky] = 0
            fisher[:, sky, sky] = 1
        room = room_to_bounds(points.theta, self.size)
        # both in one call, as rows of their own: for few galaxies its cost is that of the call
        both = (np.concatenate([one, one]) for one in (gradient, fisher))
        damping = np.concatenate([damping, np.zeros(len(damping))])
        step, promise = bounded_step(*both, damping, np.concatenate([room, room]))
        half = len(step) // 2
        return Step(step[:half], promise[:half], promise[half:])

    def moved(self, theta, step):
        """Coordinates after a step."""
        return moved(theta, step, self.size)


def fit_galaxies(problem, theta, steps=LIMITS.steps):
    """Minimise chi-square of M stamps with the likelihood's weights, from coordinates (M, 8).

    Result as of `galshape_cnn.infer.fit.levenberg_marquardt.search`.
    """
    theta = FIT.clipped(theta, problem.size)
    theta[:, SINGLE.flux] = np.maximum(theta[:, SINGLE.flux], 1.0)
    return search(problem, theta, LIMITS._replace(steps=steps))
