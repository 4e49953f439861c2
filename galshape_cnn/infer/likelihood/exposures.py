# Licensed under a 3-clause BSD style license - see LICENSE.rst
r"""Likelihood of galaxies in several images: the sum over the images.

For each exposure the kernel of one image gives chi-square, score and Fisher matrix with respect to its own
eight parameters.  With the derivative J of these by the model's parameters
(`galshape_cnn.forward.view.View`) the sums over the exposures are

.. math:: \mathbf g = \sum_e J_e^T \mathbf g_e, \qquad F = \sum_e J_e^T F_e J_e .

Fluxes and sky levels enter linearly: for a given shape and centre the best ones follow by algebra, and so
do the equations there.
"""

from dataclasses import dataclass, replace

import numpy as np

from galshape_cnn.forward.galaxy_model import SINGLE, GalaxyModel
from galshape_cnn.forward.view import View
from galshape_cnn.infer.likelihood.gaussian import StampLikelihood, source_weights
from galshape_cnn.infer.likelihood.sandwich import sandwich
from galshape_cnn.parallel import places_of

__all__ = ["ExposureStamps", "JointLikelihood", "joint_errors"]

_RIDGE = 1e-9  # of the equilibrated linear equations
_LEAST_FLUX = 0.3  # in units of a pixel's noise: what the kernel is asked to render at least
_FAINTEST = 0.1  # of its error: the flux that a galaxy without light is left with


@dataclass(frozen=True, eq=False)
class ExposureStamps:
    """Stamps of one exposure that have one size.

    Attributes
    ----------
    rows : (M,) ndarray of int
        Which of the N galaxies they show.
    likelihood : StampLikelihood
        Of M stamps.
    view : View
        Of M rows; its factor turns fluxes in the units of `JointLikelihood` into those of the stamps.
    gain : (M,) ndarray or None
        Electrons per unit of the pixels, where the galaxy's own photon noise is to be added.
    """

    rows: np.ndarray
    likelihood: StampLikelihood
    view: View
    gain: np.ndarray | None = None


@dataclass(frozen=True, eq=False)
class _Equations:
    """Normal equations of some stamps in their own eight parameters, and the way to the model's."""

    rows: np.ndarray
    flux: np.ndarray
    jacobian: np.ndarray
    chi2: np.ndarray
    gradient: np.ndarray
    fisher: np.ndarray

    def moved(self, change):
        """The equations after a change (N, P) of fluxes and sky levels, which is linear."""
        step = (self.jacobian @ change[self.rows, :, None])[..., 0]
        along = (self.fisher @ step[..., None])[..., 0]
        ratio = np.ones_like(step)
        ratio[:, SINGLE.searched] = ((self.flux + step[:, SINGLE.flux]) / self.flux)[:, None]
        return replace(
            self,
            flux=self.flux + step[:, SINGLE.flux],
            chi2=self.chi2 - 2 * (self.gradient * step).sum(1) + (along * step).sum(1),
            gradient=(self.gradient - along) * ratio,
            fisher=self.fisher * ratio[:, :, None] * ratio[:, None, :],
        )


@dataclass(frozen=True, eq=False)
class JointLikelihood:
    """Gaussian likelihood of N galaxies in several exposures, with fixed weights.

    Attributes
    ----------
    model : GalaxyModel
        With P parameters.
    parts : tuple of ExposureStamps
        All stamps.
    units : (N, P) ndarray
        What one of each parameter stands for: the noise of a pixel for fluxes and sky levels, else one.
    """

    model: GalaxyModel
    parts: tuple
    units: np.ndarray

    def __len__(self):
        return len(self.units)

    @property
    def n_data(self):
        """Number of pixels that count, (N,)."""
        total = np.zeros(len(self), int)
        for part in self.parts:
            np.add.at(total, part.rows, part.likelihood.n_data)
        return total

    def __getitem__(self, rows):
        """The likelihood of some galaxies, (M,) int ndarray, each at most once."""
        place, parts = places_of(rows, len(self)), []
        for part in self.parts:
            inside = np.flatnonzero(place[part.rows] >= 0)
            if len(inside):
                gain = part.gain if part.gain is None else part.gain[inside]
                parts.append(
                    ExposureStamps(place[part.rows[inside]], part.likelihood[inside], part.view[inside], gain)
                )
        return replace(self, parts=tuple(parts), units=self.units[rows])

    def free(self):
        """Parameters that some pixel says something of, and that are fitted, (N, P) ndarray of bool."""
        model, seen = self.model, np.zeros((len(self), self.model.size), bool)
        seen[:, model.searched] = True
        for part in self.parts:
            seen[part.rows, part.view.band] = True
            seen[part.rows, model.skies.start + part.view.exposure] = model.fit_sky
        if model.coefficients:  # a polynomial has no more of them than the galaxy is seen at wavelengths
            different = np.unique(model.wavelengths, return_inverse=True)[1]
            at = np.stack([seen[:, model.fluxes][:, different == one].any(1) for one in set(different)], 1)
            order = np.array([order for _, order in model.terms])
            seen[:, model.varying] = order < at.sum(1)[:, None]
        return seen

    def with_photons(self, params):
        """The likelihood with the photon noise of models (N, P) in `units`, where a gain is known."""
        parts = []
        for part in self.parts:
            likelihood = part.likelihood
            if part.gain is not None:
                likelihood = source_weights(likelihood, part.view.params(params[part.rows]), part.gain)
            parts.append(replace(part, likelihood=likelihood))
        return replace(self, parts=tuple(parts))

    def _equations(self, params, rows):
        """Equations of the stamps of some rows, each part's own."""
        place = places_of(rows, len(self))
        out = []
        for part in self.parts:
            inside = np.flatnonzero(place[part.rows] >= 0)
            if not len(inside):
                continue
            at, view = place[part.rows[inside]], part.view[inside]
            own = view.params(params[at])
            equations = part.likelihood.normal_equations(own, inside)
            out.append(_Equations(at, own[:, SINGLE.flux], view.jacobian(params[at]), *equations))
        return out

    def _summed(self, equations, count):
        """Chi-square, gradient and Fisher matrix by the model's parameters."""
        size = self.model.size
        chi2, gradient, fisher = np.zeros(count), np.zeros((count, size)), np.zeros((count, size, size))
        for one in equations:
            turn = np.swapaxes(one.jacobian, 1, 2)
            chi2[one.rows] += one.chi2
            gradient[one.rows] += (turn @ one.gradient[..., None])[..., 0]
            fisher[one.rows] += turn @ one.fisher @ one.jacobian
        return chi2, gradient, fisher

    def at_best_amplitudes(self, params, rows):
        """Normal equations with fluxes and sky levels at their best for given shapes and centres.

        Parameters
        ----------
        params : (M, P) ndarray
            In `units`; fluxes and sky levels are where the kernel is evaluated.
        rows : (M,) ndarray of int
            The galaxies, each at most once.

        Returns
        -------
        params : (M, P) ndarray
            With the best fluxes and sky levels.
        chi2, gradient, fisher
            Arrays (M,), (M, P) and (M, P, P): there, by the model's parameters.
        """
        model, params = self.model, params.copy()
        flux = params[:, model.fluxes]
        params[:, model.fluxes] = np.where(np.abs(flux) < _LEAST_FLUX, np.copysign(_LEAST_FLUX, flux), flux)
        equations = self._equations(params, rows)
        change = self._best_change(params, *self._summed(equations, len(rows))[1:])
        equations = [one.moved(change) for one in equations]
        return params + change, *self._summed(equations, len(rows))

    def _best_change(self, params, gradient, fisher):
        """Change of fluxes and sky levels to their best values, (M, P)."""
        linear, model = self.model.linear, self.model
        sub = fisher[:, linear][:, :, linear]
        size = np.sqrt(np.maximum(np.einsum("nii->ni", sub), 1e-30))
        matrix = sub / (size[:, :, None] * size[:, None, :]) + _RIDGE * np.eye(len(linear))
        pull = gradient[:, linear] / size
        found = np.linalg.solve(matrix, pull[..., None])[..., 0] / size
        fluxes = np.arange(len(model.bands))  # the first of the linear parameters
        dark = _without_light(params[:, model.fluxes] + found[:, fluxes], size[:, fluxes])
        if dark.any():  # their fluxes are held at a little light, and the sky levels follow
            held = _FAINTEST / size[dark][:, fluxes] - params[dark][:, model.fluxes]
            found[dark] = _with_held(matrix[dark], pull[dark], held * size[dark][:, fluxes]) / size[dark]
        change = np.zeros_like(gradient)
        change[:, linear] = found
        return change


def joint_errors(model, naive, actual, free):
    """Covariance of a weighted fit to several images, reached and supposed.

    Parameters
    ----------
    model : GalaxyModel
        With P parameters, R of them reported.
    naive, actual : (N, P, P) ndarray
        Sums over the images of the Fisher matrices for independent noise, and of the covariances of the
        score.
    free : (N, P) ndarray of bool
        Parameters that are fitted.

    Returns
    -------
    reached, supposed : (N, R, R) ndarray
        With the actual noise, and with independent noise of the same weights; NaN where unknown.
    singular : (N,) ndarray of bool
        As for `galshape_cnn.infer.likelihood.fisher.bound`.
    """
    both = free[:, :, None] & free[:, None, :]
    # relative to the errors of each parameter alone: single precision then holds any unit
    scale = np.sqrt(np.where(free, np.diagonal(naive, axis1=1, axis2=2), 1.0))
    scale = np.where(scale > 0, scale, 1.0)
    unit = scale[:, :, None] * scale[:, None, :]
    naive, actual = (np.where(both, m / unit, np.eye(model.size)).astype(np.float32) for m in (naive, actual))
    reached, singular = sandwich(naive, actual, model.fit_sky, model)
    supposed, _ = sandwich(naive, naive, model.fit_sky, model)
    known, unit = both[:, model.reported, model.reported], unit[:, model.reported, model.reported]
    return *(np.where(known, one / unit, np.nan) for one in (reached, supposed)), singular


def _without_light(fluxes, size):
    """Rows whose fluxes are negative on the whole: a model without light has no shape."""
    strength = fluxes * size
    return (strength * np.abs(strength)).sum(1) <= _FAINTEST**2


def _with_held(matrix, pull, held):
    """Solution of linear equations of which the first unknowns are held at given values."""
    bands = held.shape[1]
    out = np.empty(pull.shape)
    out[:, :bands] = held
    rest = pull[:, bands:] - (matrix[:, bands:, :bands] @ held[..., None])[..., 0]
    if rest.shape[1]:
        out[:, bands:] = np.linalg.solve(matrix[:, bands:, bands:], rest[..., None])[..., 0]
    return out
