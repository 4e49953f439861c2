# Licensed under a 3-clause BSD style license - see LICENSE.rst
r"""Van Trees bound: the smallest mean square error of any estimator, averaged over a prior.

The Cramér-Rao bound binds unbiased estimators.  A posterior mean is not one, and what binds it is (van
Trees 1968; Gill & Levit 1995, Bernoulli 1, 59): for a function psi of the parameters with gradient
:math:`\nabla\psi`, and any diagonal matrix T of weights, each of which vanishes where the prior pi of its
parameter ends,

.. math:: \mathrm E (\hat\psi - \psi)^2 \ge \mathbf v^T \left( \mathrm E[T I T] + Q \right)^{-1} \mathbf v,
          \quad \mathbf v = \mathrm E[T \nabla\psi],
          \quad Q = \mathrm E[\mathbf w \mathbf w^T],
          \quad w_i = T_{ii}\, \partial_i \ln \pi + \partial_i T_{ii},

with I the Fisher matrix and expectations over the prior.  Here centre and sky count as known, which can only
lower the bound, and the prior is cut into bins of S/N and of PSF width, which the estimator may know: the
bound holds in each and so on average.  It is not sharp, because the average of I is ruled by the
galaxies that are measured best.
"""

import numpy as np
from astropy.table import Table

from galshape_cnn.forward.galaxy_model import SINGLE
from galshape_cnn.infer.catalog.columns import SHAPE_PARAMETERS
from galshape_cnn.infer.posterior.prior import Prior

__all__ = ["information", "van_trees_bound", "van_trees_table"]

_TAPERS = (0.02, 0.05, 0.12, 0.25, 0.5)  # of the range of each parameter: the best of them counts
_GROUPS = 3  # of PSF width
_STEP = 1e-4  # of numerical derivatives, in the range of a parameter
_FEWEST = 30


def information(fisher, params):
    """Fisher matrices (N, 5, 5) of ln S/N, n, ln hlr, g1, g2, and how ln flux depends on them, (N, 5).

    From those (N, 8, 8) of flux, n, hlr, g1, g2, x, y, sky at the truth; centre and sky are taken as known.
    The gradient of ln flux is one, and minus the derivatives of the S/N of unit flux.
    """
    reported, lengths = SINGLE.reported, [SINGLE.flux, SINGLE.hlr]
    scale = np.ones((len(params), len(SINGLE.reported_names)))
    scale[:, lengths] = np.asarray(params)[:, lengths]
    matrix = np.asarray(fisher, float)[:, reported, reported] * scale[:, :, None] * scale[:, None, :]
    gradient = -matrix[:, 0] / matrix[:, :1, 0]
    gradient[:, 0] = 1.0
    change = np.broadcast_to(np.eye(5), matrix.shape).copy()
    change[:, 0] = gradient
    return np.swapaxes(change, 1, 2) @ matrix @ change, gradient


def van_trees_bound(matrices, gradient, taper, taper_slope, prior_slope):
    """Bound on the root mean square error of ln flux, n, ln hlr, g1, g2.

    Parameters
    ----------
    matrices : (N, 5, 5) ndarray
        Fisher matrices of galaxies drawn from the prior.
    gradient : (N, 5) ndarray
        Of ln flux with respect to the parameters; the other four are parameters themselves.
    taper, taper_slope : (N, 5) ndarray
        The weight of each parameter and its derivative.
    prior_slope : (N, 5) ndarray
        Gradient of ln pi.

    Returns
    -------
    bound : (5,) ndarray
    """
    weighted = taper[:, :, None] * matrices * taper[:, None, :]
    slope = taper * prior_slope + taper_slope
    total = weighted.mean(0) + slope.T @ slope / len(slope)
    targets = np.diag(taper.mean(0))
    targets[0] = (taper * gradient).mean(0)
    return np.sqrt(np.einsum("ki,ki->k", targets, np.linalg.solve(total, targets.T).T))


def van_trees_table(matrices, gradient, truth, prior, edges):
    """Bounds of `information` in bins of S/N: ``low``, ``high``, ``parameter``, ``bound``.

    ``truth`` has ``snr``, ``n``, ``hlr``, ``g1``, ``g2`` and ``psf_width`` of galaxies drawn from ``prior``.
    There are no rows where that sets the flux and not the S/N, which has no bins of S/N then.
    """
    prior, rows = Prior(prior), []
    snr, width = np.asarray(truth["snr"], float), np.asarray(truth["psf_width"], float)
    for low, high in zip(edges[:-1], edges[1:], strict=True) if prior.by_snr else ():
        inside = (snr >= low) & (snr < high) & np.isfinite(matrices).all((1, 2))
        if inside.sum() < _FEWEST:
            continue
        groups = np.array_split(np.flatnonzero(inside)[np.argsort(width[inside])], _GROUPS)
        squares = [_group_bound(matrices[g], gradient[g], truth[g], prior, (low, high)) ** 2 for g in groups]
        share = [len(group) / inside.sum() for group in groups]
        bound = np.sqrt(np.average(squares, axis=0, weights=share))
        rows += [
            {"low": low, "high": high, "parameter": name, "bound": value}
            for name, value in zip(SHAPE_PARAMETERS, bound, strict=True)
        ]
    return Table(rows=rows, names=("low", "high", "parameter", "bound"), dtype=(float, float, str, float))


def _group_bound(matrices, gradient, truth, prior, limits):
    """Bound for galaxies of one bin."""
    n, hlr = np.asarray(truth["n"], float), np.log(np.asarray(truth["hlr"], float))
    g = np.hypot(truth["g1"], truth["g2"])
    direction = np.stack([truth["g1"], truth["g2"]], 1) / np.maximum(g, 1e-9)[:, None]
    density = np.column_stack(
        [
            np.zeros(len(n)),  # S/N is uniform in its logarithm
            _log_slope(prior["n"].log_density, n, prior["n"]),
            _log_slope(lambda x: prior["hlr"].log_density(np.exp(x)) + x, hlr, prior["hlr"], np.log),
            _log_slope(lambda x: prior["g"].log_density(x) - np.log(x), g, prior["g"])[:, None] * direction,
        ]
    )
    ranges = (
        (np.log(np.asarray(truth["snr"], float)), *np.log(limits)),
        (n, prior["n"].low, prior["n"].high),
        (hlr, np.log(prior["hlr"].low), np.log(prior["hlr"].high)),
        (g, -prior["g"].high, prior["g"].high),
    )
    bounds = []
    for width in _TAPERS:
        windows = [_window(*one, width) for one in ranges]
        taper = np.column_stack([value for value, _ in windows] + [windows[3][0]])
        slope = np.column_stack([slope for _, slope in windows[:3]] + [windows[3][1][:, None] * direction])
        bounds.append(van_trees_bound(matrices, gradient, taper, slope, density))
    return np.max(bounds, axis=0)


def _window(x, low, high, width):
    """Weight that is zero at the ends of a range and one away from them, and its slope."""
    length = high - low
    u = np.clip((x - low) / length, 0, 1)
    edge = np.minimum(u, 1 - u)
    phase = np.pi * np.minimum(edge / width, 1) / 2
    slope = np.where(edge < width, np.sin(2 * phase) * np.pi / (2 * width * length), 0.0)
    return np.sin(phase) ** 2, np.where(u <= 0.5, slope, -slope)


def _log_slope(log_density, x, distribution, transform=lambda x: x):
    """Derivative of a log-density by central differences, inside its support."""
    low, high = transform(distribution.low or 1e-12), transform(distribution.high)
    step = _STEP * (high - low)
    x = np.clip(x, low + 2 * step, high - 2 * step)
    return (log_density(x + step) - log_density(x - step)) / (2 * step)
