# Licensed under a 3-clause BSD style license - see LICENSE.rst
r"""Errors from the shape of chi-square where that is no parabola: moments of the profile likelihood in n.

The wings of a galaxy of high n may be in the noise.  A fit then finds a smaller one of low n, and the
curvature of chi-square *there* promises errors with which the truth is off by many of them.  Where a fit
finds a high n, the curvature promises errors of n that its range has no room for, and of flux and size that
no galaxy of lower n would have, though such a galaxy fits nearly as well.  Chi-square itself knows better.
Held at a few Sérsic indices, with everything else fitted again, it gives the profile likelihood (Murphy &
van der Vaart 2000, J. Am. Stat. Assoc. 95, 449), and the fits are the way :math:`\delta(n)` along which
flux, n, hlr, g1 and g2 go.  Errors are the root mean squares over all n that are possible,

.. math::
    C = \frac{\int L(n)\,[\delta(n)\,\delta(n)^T + C(n)]\,dn}{\int L(n)\,dn}, \qquad
    L(n) = e^{-\Delta\chi^2(n)/2},

with the covariance C(n) of everything else at that n.  Where chi-square is a parabola far from the limits of
n, C is the bound.  In noise that chi-square does not know of, correlated or from structure, the stated
covariance is :math:`S = W B W^T` with the bound B of the noise that it does know: C(n) becomes
:math:`W C(n) W^T`, and :math:`\Delta\chi^2` shrinks as the way is shorter by S than by B.
"""

import numpy as np

from galshape_cnn.forward.coordinates import FIT
from galshape_cnn.forward.galaxy_model import SINGLE
from galshape_cnn.forward.sersic import N_RANGE
from galshape_cnn.forward.transfer import of_rows
from galshape_cnn.infer.fit.maximum_likelihood import maximize_likelihood
from galshape_cnn.infer.fit.variable_projection import Penalty
from galshape_cnn.infer.likelihood.fisher import bound
from galshape_cnn.linalg import inverse_or_nan, quadratic_form, symmetric_root

__all__ = ["profile_covariance"]

#: Sérsic indices that are held, and of ln n how near to one of these the fit itself stands for it.
_HELD_N, _SAME = (0.45, 2.0, 5.5), (0.1, 0.5, 0.1)
_UNCERTAIN = 0.25  # relative error of n from which the shape of chi-square matters
_GRID = N_RANGE[0] + (np.arange(48) + 0.5) / 48 * (N_RANGE[1] - N_RANGE[0])
_HELD = 1e6  # inverse variance of ln n
_STEPS = 1  # of a search: more change coverage by a per cent at most
_LARGEST = 2.0  # relative error of a size: with more it is that of a point, of which no bound knows
_FARTHEST = np.log(2.5)  # of flux and size, between a fit and the start of another
_RIDGE = 1e-9  # of equilibrated matrices


def profile_covariance(batch, params, chi2, errors, fit_sky=True, structured=None):
    """What the shape of chi-square changes in the covariance of maximum-likelihood estimates.

    Parameters
    ----------
    batch : RenderedBatch
        N stamps.
    params : (N, 8) ndarray
        Their best fits.
    chi2 : (N,) ndarray
        Chi-square there.
    errors : ((N, 5, 5) ndarray, (N, 5, 5) ndarray)
        Bound for the noise that chi-square supposes, and stated covariance.
    fit_sky : bool, optional
        Whether the sky level is fitted.
    structured : (N,) ndarray of bool, optional
        Galaxies with structure of their own, whose errors become no smaller: it may take n to a limit and
        still move flux and size.

    Returns
    -------
    more : (N, 5, 5) ndarray
        To be added to the stated covariance, of which it leaves a covariance; zero where n is known to a
        quarter.
    """
    supposed, stated = errors
    more, n = np.zeros(stated.shape), params[:, SINGLE.n]
    with np.errstate(invalid="ignore"):
        uncertain = np.sqrt(stated[:, SINGLE.n, SINGLE.n]) > _UNCERTAIN * n
    known = np.isfinite(params).all(1) & np.isfinite(stated).all((1, 2)) & np.isfinite(supposed).all((1, 2))
    rows = np.flatnonzero(uncertain & known)
    if not len(rows):
        return more
    found, failed = _held_fits(batch[rows], params[rows], chi2[rows], supposed[rows], fit_sky)
    unit = np.sqrt(np.maximum(np.diagonal(supposed[rows], axis1=1, axis2=2), 1e-300))
    units = unit[:, :, None] * unit[:, None, :]
    before = stated[rows] / units
    moments = _moments(n[rows], found, supposed[rows] / units, before, unit)
    if structured is not None:
        some = structured[rows]
        moments[some] = _no_smaller(moments[some], before[some])
    good = (np.isfinite(moments).all((1, 2)) & ~failed)[:, None, None]
    more[rows] = np.where(good, moments * units - stated[rows], 0)
    return more


def _held_fits(batch, params, chi2, supposed, fit_sky):
    """Fits with n held, at K indices: steps of the parameters, increases of chi-square and covariances.

    Arrays (K, M, 5), (K, M), (K, M, 5, 5), NaN where the fit itself is taken; and whether one failed, (M,).
    A covariance alone is NaN where it is that of a point.
    """
    count, number = len(_HELD_N), len(params)
    failed = np.zeros(number, bool)
    step, increase, width = (np.full((count, number, *shape), np.nan) for shape in ((5,), (), (5, 5)))
    stamps, ivar = batch.stamps, batch.stamps.ivar
    if batch.gain is not None:  # the weights of the free fit
        light = np.maximum(batch.images(params), 0)
        ivar = (ivar / (1 + ivar * light / batch.gain[:, None, None])).astype(np.float32)
    slope = supposed[:, :, SINGLE.n] / supposed[:, SINGLE.n, SINGLE.n, None]
    for k, (n, same) in enumerate(zip(_HELD_N, _SAME, strict=True)):
        rows = np.flatnonzero(np.abs(np.log(params[:, SINGLE.n] / n)) > same)
        if not len(rows):
            continue
        pixels = stamps.data[rows], ivar[rows], of_rows(batch.transfer, rows), batch.grid
        start = _start(params[rows], slope[rows], n, batch.grid.size)
        held = np.arange(SINGLE.size) == SINGLE.n
        penalty = Penalty(np.where(held, np.log(n), 0.0), np.where(held, _HELD, 0.0))
        how = {"fit_sky": fit_sky, "max_iterations": _STEPS, "retry": False, "penalty": penalty}
        found = maximize_likelihood(*pixels, start, **how)
        off = FIT.of(np.where(np.isfinite(found.params), found.params, 1.0))[:, SINGLE.n] - np.log(n)
        step[k, rows] = (found.params - params[rows])[:, SINGLE.reported]
        increase[k, rows] = np.maximum(found.chi2 - _HELD * off**2 - chi2[rows], 0)
        own = bound(found.fisher, fit_sky)[0]
        with np.errstate(invalid="ignore"):
            is_point = np.sqrt(own[:, SINGLE.hlr, SINGLE.hlr]) > _LARGEST * found.params[:, SINGLE.hlr]
        width[k, rows] = np.where(is_point[:, None, None], np.nan, own)
        failed[rows] |= ~(np.isfinite(step[k, rows]).all(1) & np.isfinite(increase[k, rows]))
    return (step, increase, width), failed


def _start(params, slope, n, size):
    """Where the fit with n held is to be expected, flux and size along the bound's line, as powers of n."""
    start, which = params.copy(), [SINGLE.flux, SINGLE.hlr]
    power = slope[:, which] * params[:, [SINGLE.n]] / params[:, which]
    change = power * np.log(n / params[:, [SINGLE.n]])
    start[:, which] *= np.exp(np.clip(np.nan_to_num(change), -_FARTHEST, _FARTHEST))
    start[:, SINGLE.hlr] = np.minimum(start[:, SINGLE.hlr], size)
    start[:, SINGLE.n] = n
    return start


def _moments(n, found, supposed, stated, unit):
    """Mean squares of the profile likelihood about the fits, (M, 5, 5), all in units (M, 5)."""
    step, increase, width = found
    step, width = step / unit, width / (unit[:, :, None] * unit[:, None, :])
    ridge = _RIDGE * np.eye(step.shape[-1])
    # noise that chi-square does not know of: errors that it supposes become those that are stated
    turn = symmetric_root(stated) @ inverse_or_nan(symmetric_root(supposed) + ridge)
    width = turn @ width @ np.swapaxes(turn, -1, -2)
    far, near = (quadratic_form(inverse_or_nan(one + ridge)[None], step) for one in (supposed, stated))
    with np.errstate(invalid="ignore", divide="ignore"):
        rise = np.sqrt(increase * np.where(far > 0, near / far, 1))
    lost = ~(np.isfinite(rise) & np.isfinite(step).all(-1))
    at = np.where(lost, n, np.array(_HELD_N)[:, None])
    rise, step = np.where(lost, 0, rise * np.sign(at - n)), np.where(lost[..., None], 0, step)
    # the fit itself is one of them, and stands for those near it; its width, for those that have none
    across = stated[:, :, SINGLE.n, None] * stated[:, None, :, SINGLE.n]
    own = stated - across / stated[:, SINGLE.n, SINGLE.n, None, None]
    unknown = lost | ~np.isfinite(width).all((-1, -2))
    width = np.where(unknown[..., None, None], own, width)
    fit = n, np.zeros(n.shape), np.zeros(unit.shape), own
    order = np.argsort(np.concatenate([at, n[None]]), 0, kind="stable")
    at, rise, step, width = (
        np.swapaxes(_ordered(np.concatenate([some, one[None]]), order), 0, 1)
        for some, one in zip((at, rise, step, width), fit, strict=True)
    )
    shares = _interpolation(at)
    likelihood = np.exp(-0.5 * (shares @ rise[..., None])[..., 0] ** 2)
    likelihood /= likelihood.sum(1, keepdims=True)
    way = (shares @ step) * np.sqrt(likelihood)[..., None]
    weight = (likelihood[:, None] @ shares)[:, 0]
    return np.swapaxes(way, 1, 2) @ way + (weight[..., None, None] * width).sum(1)


def _no_smaller(covariance, least):
    """Covariances (M, 5, 5) raised to those of others in the directions in which they are smaller."""
    root = symmetric_root(least)
    inverse = inverse_or_nan(root + _RIDGE * np.eye(root.shape[-1]))
    extra = inverse @ np.where(np.isfinite(covariance), covariance - least, 0) @ inverse
    half = symmetric_root(np.where(np.isfinite(extra), extra, 0))
    return least + root @ half @ half @ root


def _ordered(array, order):
    """Array (K, M, ...) with the first axis in an order (K, M) of its own for each of the second."""
    return np.take_along_axis(array, order.reshape(order.shape + (1,) * (array.ndim - 2)), 0)


def _interpolation(at):
    """Shares (M, G, K) that K ascending indices have in each of the grid: linear between, constant beyond."""
    low = np.clip((at[:, None] <= _GRID[:, None]).sum(-1) - 1, 0, at.shape[1] - 2)
    left, right = (np.take_along_axis(at, low + k, 1) for k in (0, 1))
    gap = right - left
    share = np.clip(np.where(gap > 0, (_GRID - left) / np.where(gap > 0, gap, 1), 0), 0, 1)
    places, low, share = np.arange(at.shape[1]), low[..., None], share[..., None]
    return np.where(places == low, 1 - share, 0) + np.where(places == low + 1, share, 0)
