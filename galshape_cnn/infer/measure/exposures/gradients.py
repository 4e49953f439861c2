# Licensed under a 3-clause BSD style license - see LICENSE.rst
r"""Score test for shapes that vary with wavelength, and the size of colour gradients.

Let each band but the first have a shape of its own, :math:`n + \delta n_b` and so on.  At the common shape
the derivatives of the likelihood by these differences are known: they are those by the shape, of the images
of one band alone.  One step of Fisher scoring gives the differences to first order, and their squares in
units of their covariance are a chi-square if there are none (Rao 1948, Proc.  Camb.  Phil.  Soc. 44, 50),
with the covariance of a sandwich where the noise is correlated or the galaxy has structure.
"""

from dataclasses import dataclass

import numpy as np
from scipy.special import chdtrc

__all__ = ["ShapeDifferences", "shape_differences"]

_SHAPE = 4  # n, hlr, g1, g2


@dataclass(frozen=True, eq=False)
class ShapeDifferences:
    """How far the shapes of N galaxies differ between bands.

    Attributes
    ----------
    probability : (N,) ndarray
        Of differences as large as these where there are none; one with fewer than two bands.
    gradient, error : (N,) ndarray
        ln of the half-light radius in the last band over that in the first, and its standard deviation;
        NaN where one of them has no data.
    """

    probability: np.ndarray
    gradient: np.ndarray
    error: np.ndarray


def shape_differences(looks, matrices, roots, params, free, model):
    """Test whether one shape holds in all bands.

    Parameters
    ----------
    looks : sequence
        Exposures at the common parameters, with ``here`` (rows), ``view``, ``turn(params)``, the derivative
        of their own parameters by the common ones, and ``judged.examination.score``.
    matrices : sequence of ((M, 8, 8), (M, 8, 8)) ndarray
        Fisher matrix and covariance of the score of each, by its own parameters.
    roots : sequence of sequence of (M, P, P) ndarray
        For each kind of structure, which is the same in all images, roots of the covariances of each one's
        score, see `galshape_cnn.infer.residuals.structure.score_roots`.
    params : (N, P) ndarray
        Common parameters.
    free : (N, P) ndarray of bool
        Which of them were fitted.
    model : GalaxyModel

    Returns
    -------
    differences : ShapeDifferences
    """
    n, bands = len(params), len(model.bands)
    out = ShapeDifferences(np.ones(n), np.full(n, np.nan), np.full(n, np.nan))
    if bands < 2:
        return out
    size = model.size + _SHAPE * bands
    score, fisher, actual = np.zeros((n, size)), np.zeros((n, size, size)), np.zeros((n, size, size))
    for look, (naive, spread) in zip(looks, matrices, strict=True):
        wide = look.turn(params) @ _widening(model, look.view.band)
        back = np.swapaxes(wide, 1, 2)
        score[look.here] += (back @ look.judged.examination.score[..., None])[..., 0]
        fisher[look.here] += back @ naive @ wide
        actual[look.here] += back @ spread @ wide
    for kind in roots:
        total = np.zeros((n, size, model.size))
        for look, root in zip(looks, kind, strict=True):
            total[look.here] += _widening(model, look.view.band).T @ root
        actual += total @ np.swapaxes(total, 1, 2)
    for pattern in np.unique(free, axis=0):
        rows = np.flatnonzero((free == pattern).all(1))
        _fill(out, rows, (score[rows], fisher[rows], actual[rows]), params[rows], pattern, model)
    return out


def _widening(model, band):
    """Derivative (P, Q) of the parameters that a band sees by the common ones and all differences."""
    start = model.size + _SHAPE * band
    out = np.zeros((model.size, model.size + _SHAPE * len(model.bands)))
    out[:, : model.size] = np.eye(model.size)
    out[model.shape, start : start + _SHAPE] = np.eye(_SHAPE)
    return out


def _differences(seen, pattern, model):
    """Which differences are not those of a polynomial that is fitted: its order and one bands have none."""
    order = np.zeros(_SHAPE, int)
    for free, (which, one) in zip(pattern[model.varying], model.terms, strict=True):
        order[which] = max(order[which], one * free)
    return np.array(
        [model.size + _SHAPE * band + which for k, band in enumerate(seen) for which in range(_SHAPE)
         if k > order[which]],
        int,
    )  # fmt: skip


def _fill(out, rows, equations, params, pattern, model):
    """Put the differences of rows with data in the same bands into the result."""
    seen = np.flatnonzero(pattern[model.fluxes])
    if len(seen) < 2:
        return
    own = _differences(seen, pattern, model)
    if not len(own):
        return
    keep = np.concatenate([np.flatnonzero(pattern), own])
    score, fisher, actual = equations[0][:, keep], *(m[:, keep][:, :, keep] for m in equations[1:])
    scale = np.sqrt(np.maximum(np.diagonal(fisher, axis1=1, axis2=2), 1e-300))
    unit = scale[:, :, None] * scale[:, None, :]
    good = np.isfinite(fisher).all((1, 2)) & np.isfinite(actual).all((1, 2)) & np.isfinite(score).all(1)
    safe = np.where(good[:, None, None], fisher / unit, np.eye(len(keep)))
    inverse = np.linalg.pinv(safe, rcond=1e-9, hermitian=True)
    last = slice(len(keep) - len(own), None)
    step = (inverse @ (score / scale)[..., None])[:, last, 0]
    covariance = (inverse @ (actual / unit) @ inverse)[:, last, last]
    covariance = np.where(good[:, None, None], covariance, np.eye(len(own)))
    chi2 = (step * (np.linalg.pinv(covariance, rcond=1e-9, hermitian=True) @ step[..., None])[..., 0]).sum(1)
    out.probability[rows] = np.where(good, chdtrc(len(own), np.maximum(np.nan_to_num(chi2), 0)), 1.0)
    size_of_last = model.size + _SHAPE * (len(model.bands) - 1) + 1
    if seen[0] == 0 and size_of_last in own:
        at = int(np.flatnonzero(own == size_of_last)[0])
        size = scale[:, last][:, at] * params[:, model.hlr]
        out.gradient[rows] = np.where(good, step[:, at] / size, np.nan)
        out.error[rows] = np.where(good, np.sqrt(np.maximum(covariance[:, at, at], 0)) / size, np.nan)
