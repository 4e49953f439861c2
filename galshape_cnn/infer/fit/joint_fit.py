# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""Joint fits of galaxies and their neighbours.

A scene of S sources has 7 S parameters and one sky level.  Levenberg-Marquardt with
Fisher scoring in the coordinates of `galshape_cnn.forward.coordinates`, inside a box; a
coordinate at a side of the box that the gradient pushes against is held.
"""

from dataclasses import dataclass, replace

import numpy as np

from galshape_cnn.forward.coordinates import FIT
from galshape_cnn.forward.galaxy_model import SINGLE
from galshape_cnn.infer.fit.levenberg_marquardt import Limits, Points, Step, search
from galshape_cnn.infer.likelihood.gaussian import StampLikelihood

__all__ = ["JointFit", "fit_scenes"]

# tolerance and flat are for each source of a scene
_LIMITS = Limits(damping=1e-2, tolerance=2e-3, flat=0.05, stuck=1e6, steps=40)
_REWEIGHTINGS = 3  # as `galshape_cnn.infer.fit.maximum_likelihood` does
_RIDGE = 1e-7  # of the equilibrated matrix: the precision of its entries
_LONGEST_STEP = np.array([np.inf, 0.9, 0.9, 0.5, 0.5, 1.5, 1.5])
_OWN = SINGLE.sky  # parameters of each source: all but the sky level, which the scene has
_WANDER = 3.0  # pixels that a source may move from where it was found


@dataclass(eq=False)
class JointFit:
    """M scenes of S sources each; the first source is the galaxy.

    Attributes
    ----------
    params : (M, S, 8) ndarray
        Parameters of each source; the sky is with the first, zero in the others.
    others : (M, size, size) ndarray
        Light of the neighbours.
    slopes : (M, 7 (S - 1), size, size) ndarray
        Its derivatives by the neighbours' parameters, each to some scale.
    converged : (M,) bool ndarray
    """

    params: np.ndarray
    others: np.ndarray
    slopes: np.ndarray
    converged: np.ndarray


def fit_scenes(data, ivar, transfer, grid, start, *, fit_sky=True, gain=None):
    """Fit scenes that have the same number of sources.

    Parameters
    ----------
    data, ivar : (M, size, size) array_like
        Pixels and inverse variances; zero inverse variance means masked.
    transfer : (M or 1, Ky, Kx) complex array
        PSF transfer functions on ``grid``.
    grid : FourierGrid
        Fourier grid of the stamps' size.
    start : (M, S, 8) array_like
        Parameters of each source to start from, the galaxy first.
    fit_sky : bool, optional
        Fit a constant sky level; otherwise it is zero.
    gain : (M,) ndarray, optional
        Electrons per unit of data: adds the photon noise of all sources.

    Returns
    -------
    fit : JointFit
    """
    likelihood = StampLikelihood.from_stamps(data, ivar, transfer, grid)
    scale = likelihood.scale[:, None, None]
    theta = FIT.of(np.array(start, float) / _units(scale))
    theta[:, 1:, SINGLE.sky] = 0
    if not fit_sky:
        theta[:, 0, SINGLE.sky] = 0
    box = _box(theta, grid.size)
    limits = _LIMITS._replace(
        tolerance=_LIMITS.tolerance * theta.shape[1], flat=_LIMITS.flat * theta.shape[1]
    )
    for _ in range(1 if gain is None else _REWEIGHTINGS):
        weighted = likelihood if gain is None else _with_photons(likelihood, theta, gain)
        theta = FIT.clipped(theta.reshape(-1, SINGLE.size), grid.size).reshape(theta.shape)
        theta[..., SINGLE.flux] = np.maximum(theta[..., SINGLE.flux], 1.0)
        state, converged, _ = search(_Scenes(weighted, box, fit_sky), theta, limits)
        theta = state.theta
    return _summary(weighted, state, converged, scale)


def _units(scale):
    """Unit of each parameter when fluxes are counted in units of the noise."""
    return SINGLE.units(scale[:, 0])


def _box(theta, size):
    """Lowest and highest coordinates, two (M, S, 7) arrays."""
    low, high = np.full((2, *theta.shape[:2], _OWN), np.inf) * np.array([-1, 1])[:, None, None, None]
    for k, limits in zip((SINGLE.n, SINGLE.hlr), FIT.limits(size), strict=True):
        low[..., k], high[..., k] = limits
    centre = theta[..., SINGLE.centre]
    low[..., SINGLE.centre] = np.maximum(centre - _WANDER, -0.5)
    high[..., SINGLE.centre] = np.minimum(centre + _WANDER, size - 0.5)
    return low, high


@dataclass(frozen=True, eq=False)
class _Scenes:
    """M scenes as a problem for the search: 7 S + 1 coordinates, the sky last."""

    likelihood: StampLikelihood
    box: tuple
    fit_sky: bool

    def evaluate(self, theta, rows):
        return _evaluate(self.likelihood, theta, rows)

    def propose(self, points, rows, damping):
        box = tuple(side[rows] for side in self.box)
        step = _step(points, box, damping, self.fit_sky)
        return Step(*step, _step(points, box, np.zeros(len(rows)), self.fit_sky)[1])

    def moved(self, theta, step):
        return _moved(theta, step, self.likelihood.grid.size)


def _rendered(likelihood, theta, rows):
    """Images (M, S, pixels) of the sources and derivatives (M, S, 7, pixels) by coordinates."""
    m, s = theta.shape[:2]
    flat = theta.reshape(-1, SINGLE.size).copy()
    flat[:, SINGLE.sky] = 0
    images, slopes = likelihood.images_and_derivatives(FIT.params(flat), np.repeat(rows, s))
    turn = np.swapaxes(FIT.derivative(flat)[:, :_OWN, :_OWN], 1, 2)
    slopes = turn @ slopes[:, :_OWN].reshape(m * s, _OWN, -1)
    return images.reshape(m, s, -1), slopes.reshape(m, s, _OWN, -1)


def _evaluate(likelihood, theta, rows):
    """Chi-square, gradient and Fisher matrix of the scenes of some stamps."""
    states = []
    for start in range(0, len(rows), 16):
        part = rows[start : start + 16]
        images, slopes = _rendered(likelihood, theta[start : start + 16], part)
        m = len(part)
        weight = np.sqrt(likelihood.ivar[part].reshape(m, -1).astype(float))
        sky = theta[start : start + 16, 0, SINGLE.sky, None]
        residual = (likelihood.data[part].reshape(m, -1) - images.sum(1) - sky) * weight
        columns = np.concatenate(
            [slopes.reshape(m, -1, weight.shape[1]) * weight[:, None], weight[:, None]], 1
        )
        fisher = columns @ np.swapaxes(columns, 1, 2)
        gradient = np.einsum("mik,mk->mi", columns, residual)
        states.append(((residual**2).sum(1), gradient, fisher))
    return Points(theta, *(np.concatenate(part) for part in zip(*states, strict=True)))


def _solved(gradient, fisher, held, damping):
    """Damped step with some coordinates held."""
    diagonal = np.sqrt(np.maximum(np.einsum("nii->ni", fisher), 1e-30))
    matrix = fisher / (diagonal[:, :, None] * diagonal[:, None, :])
    free = ~held
    matrix = np.where(free[:, :, None] & free[:, None, :], matrix, 0)
    index = np.arange(matrix.shape[1])
    matrix[:, index, index] = np.where(held, 1, 1 + _RIDGE + damping[:, None])
    return np.linalg.solve(matrix, (np.where(held, 0, gradient) / diagonal)[..., None])[..., 0] / diagonal


def _step(state, box, damping, fit_sky):
    """Step inside the box (M, 7 S + 1), and the decrease of chi2 it promises."""
    m, s = state.theta.shape[:2]
    here = state.theta[..., :_OWN].reshape(m, -1)
    low, high = (np.concatenate([side.reshape(m, -1) - here, np.full((m, 1), fill)], 1)
                 for side, fill in zip(box, (-np.inf, np.inf), strict=True))  # fmt: skip
    held = np.zeros((m, _OWN * s + 1), bool)
    held[:, -1] = not fit_sky
    for _ in range(3):
        step = _solved(state.gradient, state.fisher, held, damping)
        out = ((step > high) & (high < 1e-9)) | ((step < low) & (low > -1e-9))
        if not (out & ~held).any():
            break
        held |= out
    step = np.clip(step, low, high)
    longest = np.tile(_LONGEST_STEP, s)
    step /= np.maximum(np.max(np.abs(step[:, :-1]) / longest, axis=1), 1)[:, None]
    promise = 2 * (state.gradient * step).sum(1) - np.einsum("ni,nij,nj->n", step, state.fisher, step)
    return step, promise


def _moved(theta, step, size):
    """Coordinates after a step; fluxes stay positive."""
    m, s = theta.shape[:2]
    out = theta.copy()
    out[..., :_OWN] += step[:, :-1].reshape(m, s, _OWN)
    out[:, 0, SINGLE.sky] += step[:, -1]
    flux = theta[..., SINGLE.flux]
    out[..., SINGLE.flux] = np.clip(out[..., SINGLE.flux], 0.2 * flux, 5 * flux)
    return FIT.clipped(out.reshape(-1, SINGLE.size), size).reshape(out.shape)


def _with_photons(likelihood, theta, gain):
    """Likelihood whose weights contain the photon noise of all sources."""
    images, _ = _rendered(likelihood, theta, np.arange(len(theta)))
    light = np.maximum(images.sum(1), 0).reshape(likelihood.ivar.shape)
    ivar = likelihood.ivar
    weights = ivar / (1 + ivar * light / (gain * likelihood.scale)[:, None, None])
    return replace(likelihood, ivar=weights.astype(np.float32))


def _summary(likelihood, state, converged, scale):
    """The fit in the unit of the data."""
    m, s = state.theta.shape[:2]
    images, slopes = _rendered(likelihood, state.theta, np.arange(m))
    shape = likelihood.data.shape[1:]
    norm = np.sqrt((slopes[:, 1:] ** 2).sum(-1, keepdims=True))
    return JointFit(
        FIT.params(state.theta) * _units(scale),
        images[:, 1:].sum(1).reshape(m, *shape) * scale,
        (slopes[:, 1:] / np.maximum(norm, 1e-30)).reshape(m, _OWN * (s - 1), *shape),
        converged,
    )
