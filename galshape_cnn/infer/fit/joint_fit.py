# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""Galaxies and their neighbours fitted together, all parameters of all of them at once.

A scene of S sources has 7 S parameters and one sky level.  Levenberg-Marquardt with
Fisher scoring in the coordinates of `galshape_cnn.infer.likelihood.coordinates`, inside a box; a
coordinate at a side of the box that the gradient pushes against is held.
"""

from dataclasses import dataclass, replace

import numpy as np

from galshape_cnn.forward.render import render_with_derivatives
from galshape_cnn.forward.sersic import N_RANGE
from galshape_cnn.infer.likelihood.coordinates import (
    HLR_MIN,
    clip_coordinates,
    from_coordinates,
    parameter_derivative,
    to_coordinates,
)
from galshape_cnn.infer.likelihood.gaussian import StampLikelihood, in_batches

__all__ = ["JointFit", "fit_scenes"]

_TOLERANCE = 2e-3  # decrease of chi2, for each source, that the next step must promise
_FLAT = 0.05  # promise below which a step that gained nothing ends the search
_STUCK = 1e6  # damping at which a scene is given up
_STEPS = 40
_REWEIGHTINGS = 3  # as `galshape_cnn.infer.fit.maximum_likelihood` does
_RIDGE = 1e-7  # of the equilibrated matrix: the precision of its entries
_LONGEST_STEP = np.array([np.inf, 0.9, 0.9, 0.5, 0.5, 1.5, 1.5])
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
    theta = to_coordinates(np.array(start, float) / _flux_unit(scale))
    theta[:, 1:, 7] = 0
    if not fit_sky:
        theta[:, 0, 7] = 0
    box = _box(theta, grid.size)
    for _ in range(1 if gain is None else _REWEIGHTINGS):
        weighted = likelihood if gain is None else _with_photons(likelihood, theta, gain)
        state, converged = _search(weighted, theta, box, fit_sky)
        theta = state.theta
    return _summary(weighted, state, converged, scale)


def _flux_unit(scale):
    """Unit of each parameter when fluxes are counted in units of the noise."""
    unit = np.ones((len(scale), 1, 8))
    unit[..., [0, 7]] = scale
    return unit


def _box(theta, size):
    """Lowest and highest coordinates, two (M, S, 7) arrays."""
    low, high = np.full((2, *theta.shape[:2], 7), np.inf) * np.array([-1, 1])[:, None, None, None]
    low[..., 1], high[..., 1] = np.log(N_RANGE)
    low[..., 2], high[..., 2] = np.log([HLR_MIN, size])
    low[..., 5:7] = np.maximum(theta[..., 5:7] - _WANDER, -0.5)
    high[..., 5:7] = np.minimum(theta[..., 5:7] + _WANDER, size - 0.5)
    return low, high


@dataclass(eq=False)
class _State:
    """Where M scenes stand, and the normal equations there (7 S + 1 coordinates, the sky last)."""

    theta: np.ndarray
    chi2: np.ndarray
    gradient: np.ndarray
    fisher: np.ndarray

    def take(self, rows, other):
        for name in ("theta", "chi2", "gradient", "fisher"):
            getattr(self, name)[rows] = getattr(other, name)

    def __getitem__(self, rows):
        return _State(self.theta[rows], self.chi2[rows], self.gradient[rows], self.fisher[rows])


def _image_block(params, data, ivar, transfer, grid):
    return render_with_derivatives(params, transfer, grid)


def _rendered(likelihood, theta, rows):
    """Images (M, S, pixels) of the sources and derivatives (M, S, 7, pixels) by coordinates."""
    m, s = theta.shape[:2]
    flat = theta.reshape(-1, 8).copy()
    flat[:, 7] = 0
    images, slopes = in_batches(_image_block, from_coordinates(flat), np.repeat(rows, s), likelihood)
    turn = np.swapaxes(parameter_derivative(flat)[:, :7, :7], 1, 2)
    slopes = turn @ slopes[:, :7].reshape(m * s, 7, -1)
    return images.reshape(m, s, -1), slopes.reshape(m, s, 7, -1)


def _evaluate(likelihood, theta, rows):
    """Chi-square, gradient and Fisher matrix of the scenes of some stamps."""
    states = []
    for start in range(0, len(rows), 16):
        part = rows[start : start + 16]
        images, slopes = _rendered(likelihood, theta[start : start + 16], part)
        m = len(part)
        weight = np.sqrt(likelihood.ivar[part].reshape(m, -1).astype(float))
        sky = theta[start : start + 16, 0, 7, None]
        residual = (likelihood.data[part].reshape(m, -1) - images.sum(1) - sky) * weight
        columns = np.concatenate(
            [slopes.reshape(m, -1, weight.shape[1]) * weight[:, None], weight[:, None]], 1
        )
        fisher = columns @ np.swapaxes(columns, 1, 2)
        gradient = np.einsum("mik,mk->mi", columns, residual)
        states.append(((residual**2).sum(1), gradient, fisher))
    return _State(theta, *(np.concatenate(part) for part in zip(*states, strict=True)))


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
    here = state.theta[..., :7].reshape(m, -1)
    low, high = (np.concatenate([side.reshape(m, -1) - here, np.full((m, 1), fill)], 1)
                 for side, fill in zip(box, (-np.inf, np.inf), strict=True))  # fmt: skip
    held = np.zeros((m, 7 * s + 1), bool)
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
    out[..., :7] += step[:, :-1].reshape(m, s, 7)
    out[:, 0, 7] += step[:, -1]
    out[..., 0] = np.clip(out[..., 0], 0.2 * theta[..., 0], 5 * theta[..., 0])
    return clip_coordinates(out.reshape(-1, 8), size).reshape(out.shape)


def _search(likelihood, theta, box, fit_sky):
    """Minimise chi-square; the best points found, and whether they are minima."""
    size, count = likelihood.grid.size, len(theta)
    theta = clip_coordinates(theta.reshape(-1, 8), size).reshape(theta.shape)
    theta[..., 0] = np.maximum(theta[..., 0], 1.0)
    state = _evaluate(likelihood, theta, np.arange(count))
    damping, failed, done = np.full(count, 1e-2), np.zeros(count, bool), np.zeros(count, bool)
    active = np.arange(count)
    for _ in range(_STEPS):
        here, sides = state[active], tuple(side[active] for side in box)
        step, expected = _step(here, sides, damping[active], fit_sky)
        _, promise = _step(here, sides, np.zeros(len(active)), fit_sky)
        done[active] = promise < np.where(failed[active], _FLAT, _TOLERANCE) * theta.shape[1]
        going = ~done[active] & (damping[active] < _STUCK)
        active, step, expected = active[going], step[going], expected[going]
        if not len(active):
            break
        trial = _evaluate(likelihood, _moved(state.theta[active], step, size), active)
        gain = (state.chi2[active] - trial.chi2) / np.maximum(expected, 1e-12)
        better = gain > 1e-4
        state.take(active[better], trial[better])
        failed[active] = ~better
        kept = damping[active] * np.clip(1 - (2 * gain - 1) ** 3, 0.05, 4)
        damping[active] = np.where(better, np.maximum(kept, 1e-6), np.maximum(6 * damping[active], 0.02))
    return state, done


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
        from_coordinates(state.theta) * _flux_unit(scale),
        images[:, 1:].sum(1).reshape(m, *shape) * scale,
        (slopes[:, 1:] / np.maximum(norm, 1e-30)).reshape(m, 7 * (s - 1), *shape),
        converged,
    )
