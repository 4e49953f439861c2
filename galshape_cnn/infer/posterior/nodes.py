# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""Interpolation of a posterior along n, from three nodes.

They lie at the mode and `REACH` standard deviations to either side.
"""

from typing import NamedTuple

import numpy as np

__all__ = ["REACH", "Node", "curved", "drawn_from", "log_density", "mixed", "straight"]

#: Standard deviations of n from the mode to the outer nodes.
REACH = 2.25
_GRID = np.linspace(-6.0, 6.0, 121)  # of n, standard deviations
_FARTHEST = 1.7  # reaches, to which means are extrapolated
_FLATTEST = -0.2  # curvature of the log density beyond the nodes, at most


class Node(NamedTuple):
    """The posterior of N galaxies given one n.

    Attributes
    ----------
    value, slope, curvature : (N,) ndarray
        Log of the profile likelihood and penalty, and its derivatives by standard deviations of n.
    rest : (N,) ndarray
        What amplitudes and the widths of the others add to the log density.
    mean, chol : (N, D), (N, D - 1, D - 1) ndarray
        Of the coordinates, and Cholesky factor of the covariance of those after n.
    aside : (N,) ndarray
        Distance of the mean from where the likelihood was evaluated, in errors.
    flux, flux_slope, flux_variance : (N, B), (N, B, D), (N, B) ndarray
        Of the bands, derivatives by the coordinates, and variance given all of them.
    """

    value: np.ndarray
    slope: np.ndarray
    curvature: np.ndarray
    rest: np.ndarray
    mean: np.ndarray
    chol: np.ndarray
    aside: np.ndarray
    flux: np.ndarray
    flux_slope: np.ndarray
    flux_variance: np.ndarray


def _hermite():
    """Matrix from values and slopes at -1, 0 and 1 to the coefficients of the quintic polynomial."""
    rows = []
    for x in (-1.0, 0.0, 1.0):
        rows.append([x**k for k in range(6)])
        rows.append([k * x ** max(k - 1, 0) if k else 0.0 for k in range(6)])
    return np.linalg.inv(rows)


_HERMITE = _hermite()


def log_density(nodes):
    """Log density along n on the grid.

    Parameters
    ----------
    nodes : sequence of Node
        Three, of ascending n.

    Returns
    -------
    log_density : (N, G) ndarray
        Up to a constant for each galaxy.
    """
    x = _GRID / REACH
    known = np.stack([one for node in nodes for one in (node.value, node.slope * REACH)], -1)
    known[:, ::2] -= nodes[1].value[:, None]
    # row by row: a product of all of them would round differently with another number of galaxies
    polynomial = known[:, None] @ _HERMITE.T
    out = (polynomial @ (x.clip(-1, 1)[:, None] ** np.arange(6)).T)[:, 0]
    for node, beyond in ((nodes[0], np.minimum(x + 1, 0)), (nodes[2], np.maximum(x - 1, 0))):
        beyond = beyond * REACH
        out += node.slope[:, None] * beyond + 0.5 * np.minimum(node.curvature, _FLATTEST)[:, None] * beyond**2
    rest = np.stack([node.rest - nodes[1].rest for node in nodes], 1)[:, None]
    return out + (rest @ np.swapaxes(curved(_GRID[None].clip(-2 * REACH, 2 * REACH)), 1, 2))[:, 0]


def drawn_from(log_densities, uniform):
    """Deviates of densities on the grid.

    Parameters
    ----------
    log_densities : (N, G) ndarray
        From `log_density`.
    uniform : (S,) ndarray
        Deviates in (0, 1).

    Returns
    -------
    t : (N, S) ndarray
        Standard deviations of n.
    """
    density = np.exp(log_densities - log_densities.max(1, keepdims=True))
    total = np.cumsum(np.nan_to_num(density), 1)
    total = (total - 0.5 * density) / np.maximum(total[:, -1:], 1e-300)
    return np.stack([np.interp(uniform, row, _GRID) for row in total])


def curved(t):
    """Weights (N, S, 3) of the nodes in a parabola through them, at n that is t (N, S) deviations off."""
    x = (t / REACH).clip(-_FARTHEST, _FARTHEST)
    return np.stack([0.5 * x * (x - 1), 1 - x**2, 0.5 * x * (x + 1)], -1)


def straight(t):
    """As `curved`, in straight lines between the nodes, constant beyond."""
    x = (t / REACH).clip(-1, 1)
    return np.stack([np.maximum(-x, 0), 1 - np.abs(x), np.maximum(x, 0)], -1)


def mixed(weights, arrays):
    """Weighted sums of what is known at the nodes.

    Parameters
    ----------
    weights : (N, S, 3) ndarray
    arrays : sequence of (N, ...) ndarray
        Of each node.

    Returns
    -------
    mixed : (N, S, ...) ndarray
    """
    stacked = np.stack(arrays, 1)
    flat = weights @ stacked.reshape(*stacked.shape[:2], -1)
    return flat.reshape(*weights.shape[:2], *stacked.shape[2:])
