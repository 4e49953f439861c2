# Licensed under a 3-clause BSD style license - see LICENSE.rst
r"""Damped Levenberg-Marquardt steps inside bounds.

The model :math:`\chi^2(\delta) = \chi^2 - 2 g\cdot\delta + \delta^T F \delta` is
minimised over the box that ln n, ln hlr and \|eta\| are confined to.  Those three
are eliminated first, and the 3-dimensional box problem is solved exactly by
trying each set of active bounds.  Steps hold the shear in its radial frame:
component 3 lengthens eta, component 4 turns it.
"""

from itertools import product

import numpy as np

from galshape_cnn.forward.coordinates import ETA_MAX, FIT
from galshape_cnn.forward.galaxy_model import SINGLE

__all__ = ["bounded_step", "moved", "room_to_bounds", "turned"]

_RIDGE = 1e-7  # of the equilibrated Fisher matrix: the precision of its entries
_LONGEST_STEP = np.array([0.9, 0.9, 0.5, 0.5])  # ln n, ln hlr, eta, eta
_LONGEST_CHANGE = 0.5  # of a coefficient of what varies with wavelength
_LONGEST_MOVE = 1.5  # of x, y
_OTHERS = np.array([[1, 2], [0, 2], [0, 1]])  # of three, those beside each
#: Sets of active bounds: 0 for what is free, 1 and 2 for what is at its lower and upper one.
_ENDS = np.array(list(product(range(3), repeat=3)))


def _bounded(model):
    """Where ln n, ln hlr and the radial part of the shear are."""
    return slice(model.n, model.shear.start + 1)


def room_to_bounds(theta, size, model=SINGLE):
    """How far ln n, ln hlr and |eta| may go down and up from here, (M, 3, 2)."""
    room = np.empty((len(theta), 3, 2))
    room[:, :2] = FIT.limits(size) - theta[:, model.n : model.hlr + 1, None]
    room[:, 2, 0] = -np.inf
    room[:, 2, 1] = ETA_MAX * (1 - 1e-12) - np.hypot(*theta[:, model.shear].T)
    return room


def _radial_frame(theta, model):
    """Rotations (M, P, P) that turn eta1, eta2 into its radial and tangential part."""
    eta1, eta2 = theta[:, model.shear].T
    eta = np.hypot(eta1, eta2)
    safe = np.where(eta > 1e-8, eta, 1.0)
    c, s = (np.where(eta > 1e-8, part / safe, d) for part, d in ((eta1, 1.0), (eta2, 0.0)))
    frame = np.broadcast_to(np.eye(model.size), (len(theta), model.size, model.size)).copy()
    frame[:, model.shear, model.shear] = np.moveaxis(np.array([[c, s], [-s, c]]), -1, 0)
    return frame


def turned(theta, gradient, fisher, model=SINGLE):
    """Gradient and Fisher matrix with the shear in its radial frame."""
    frame = _radial_frame(theta, model)
    return np.einsum("nij,nj->ni", frame, gradient), frame @ fisher @ np.swapaxes(frame, 1, 2)


def _nearest(target, metric, low, high):
    """Point of a box nearest to a target in a metric.

    ``target``, ``low``, ``high`` are (M, 3) and ``metric`` (M, 3, 3); zero lies in the box.  Where the target
    is beyond one bound alone, the nearest point on that is the nearest of all, if it is in the box; else each
    set of active bounds is tried.
    """
    beyond = (target < low) | (target > high)
    held = beyond.argmax(1)
    row, free = np.arange(len(target)), _OTHERS[held]
    across = metric[row[:, None], free, held[:, None]]
    follows = np.linalg.solve(metric[row[:, None, None], free[:, :, None], free[:, None]], across[..., None])
    point = np.clip(target, low, high)  # what is held; the others follow
    off = (point - target)[row, held]
    point[row[:, None], free] = target[row[:, None], free] - follows[..., 0] * off[:, None]
    rest = np.flatnonzero((beyond.sum(1) > 1) | ((point < low) | (point > high)).any(1))
    if len(rest):
        point[rest] = _nearest_of_all(target[rest], metric[rest], low[rest], high[rest])
    return point


def _nearest_of_all(target, metric, low, high):
    """The same by trying each set of active bounds: what is held is at its bound, and along what is free the
    cost has no slope."""
    held = _ENDS > 0
    value = np.take_along_axis(np.stack([np.zeros_like(low), low, high], 1), _ENDS[None], 1)
    possible = np.isfinite(value).all(-1)
    value = np.where(possible[..., None], value, 0.0)
    slope = np.where(held, value, (metric @ target[..., None])[:, None, :, 0])
    point = np.linalg.solve(np.where(held[:, :, None], np.eye(3), metric[:, None]), slope[..., None])[..., 0]
    point = np.where(held, value, point)
    inside = possible & ((point >= low[:, None]) & (point <= high[:, None])).all(-1)
    off = point - target[:, None]
    cost = np.where(inside, ((off @ metric) * off).sum(-1), np.inf)
    return point[np.arange(len(point)), cost.argmin(1)]


def bounded_step(gradient, fisher, damping, room, model=SINGLE):
    """Step inside the bounds, and the decrease of chi2 that it promises."""
    diagonal = np.sqrt(np.maximum(np.einsum("nii->ni", fisher), 1e-30))
    scale = diagonal[:, :, None] * diagonal[:, None, :]
    extra = np.full_like(gradient, _RIDGE)
    extra[:, model.searched] += damping[:, None]
    inverse = np.linalg.inv(fisher / scale + extra[:, :, None] * np.eye(model.size)) / scale
    step = np.einsum("nij,nj->ni", inverse, gradient)
    low, high = np.minimum(room[:, :, 0], 0), np.maximum(room[:, :, 1], 0)
    where = _bounded(model)
    target = step[:, where]
    rows = np.flatnonzero(((target < low) | (target > high)).any(1))
    if len(rows):
        metric = np.linalg.inv(inverse[rows, where, where])
        target = target[rows]
        end = _nearest(target, metric, low[rows], high[rows])
        step[rows] += np.einsum("nij,njk,nk->ni", inverse[rows, :, where], metric, end - target)
        step[rows, where] = end
    limits = [*_LONGEST_STEP, *model.coefficients * [_LONGEST_CHANGE], *2 * [_LONGEST_MOVE]]
    longest = np.max(np.abs(step[:, model.searched]) / limits, axis=1)
    step /= np.maximum(longest, 1)[:, None]
    promise = 2 * (gradient * step).sum(1) - np.einsum("ni,nij,nj->n", step, fisher, step)
    return step, promise


def moved(theta, step, size, coordinates=FIT):
    """Coordinates after a step, inside their bounds and with light left."""
    model = coordinates.model
    radial, tangential = step[:, model.shear].T
    eta = theta[:, model.shear.start] + 1j * theta[:, model.shear.start + 1]
    length = np.abs(eta)
    along = np.where(length > 1e-8, eta / np.where(length > 1e-8, length, 1), 1.0)
    # a long shear turns, lest a step along its bound would leave it
    turned = (length + radial) * np.exp(1j * tangential / np.maximum(length, 1)) * along
    eta = np.where(length > 1, turned, eta + (radial + 1j * tangential) * along)
    trial = theta + step
    trial[:, model.shear] = np.stack([eta.real, eta.imag], -1)
    # only a starting value: flux is set to its best value afterwards
    flux = theta[:, model.fluxes]
    ends = np.sort([0.3 * flux, 3 * flux], axis=0)
    trial[:, model.fluxes] = np.clip(trial[:, model.fluxes], *ends)
    return coordinates.clipped(trial, size)
