# Licensed under a 3-clause BSD style license - see LICENSE.rst
r"""Profile-likelihood errors where chi-square is no parabola: how badly a high Sérsic index fits.

The wings of a galaxy of high n may be in the noise.  A fit then finds a smaller one of low n, and the
curvature of chi-square *there* promises errors with which the truth is off by many of them.  Chi-square
itself knows better: held at n = 5.5, with everything else fitted again, it is larger by a few units only (a
profile likelihood: Murphy & van der Vaart 2000, J. Am. Stat. Assoc. 95, 449).

With :math:`\delta` the way from the best fit to that one, in flux, n, hlr, g1 and g2, a parabola has
:math:`\Delta\chi^2 = \delta^T B^{-1} \delta`, B being the bound.  Where it is much smaller, by a factor s,
the covariance C gets a term along :math:`\delta` that makes this way f = 1.7 times as long in standard
deviations as chi-square says it is:

.. math:: C' = C + \frac{1/(f^2 s) - 1}{\delta^T C^{-1} \delta}\,\delta\delta^T

With f = 1 no truth at its far end would look excluded, and 68 % intervals would hold 78 to 80 %.
"""

import numpy as np

from galshape_cnn.forward.coordinates import FIT
from galshape_cnn.forward.galaxy_model import SINGLE
from galshape_cnn.infer.fit.maximum_likelihood import maximize_likelihood
from galshape_cnn.infer.fit.variable_projection import Penalty

__all__ = ["HIGH_N", "profile_covariance"]

#: Sérsic index of the alternative: few galaxies have more.
HIGH_N = 5.5
# Fixed on injections into three survey images.  Nearer to the alternative an error has no room to be wrong.
_LOW_N, _FAR = 2.5, (3.0, 40.0)  # n below it, and so many stated errors from the alternative
_LEAST_DISTANCE = 4.0  # of the whole way, standard deviations: below, chi-square is not asked
_PARABOLA = 0.47  # of the parabola's increase of chi-square, stretched: with more it is one
_EXCLUDED = 13.6  # standard deviations, stretched, by which chi-square itself excludes the alternative
_NEAREST = 1.0  # standard deviation that the alternative counts for at least
# Chi-square is a parabola near the best fit and rises slowly far from it.  Errors that made the whole way as
# long as it says would be too wide near the fit, where most truths are: it may be longer by this factor.
_STRETCH = 1.7
_HELD = 1e6  # inverse variance of ln n
_STEPS, _LARGER = 7, 1.4  # of the search; size and flux of the start over those of the fit


def profile_covariance(batch, params, chi2, errors, fit_sky=True):
    """What the shape of chi-square adds to the covariance of maximum-likelihood estimates.

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

    Returns
    -------
    more : (N, 5, 5) ndarray
        Zero where errors hold.
    """
    supposed, stated = errors
    more, n = np.zeros(stated.shape), params[:, SINGLE.n]
    with np.errstate(invalid="ignore", divide="ignore"):
        far = (HIGH_N - n) / np.sqrt(stated[:, SINGLE.n, SINGLE.n])
        doubtful = (n < _LOW_N) & (far > _FAR[0]) & (far < _FAR[1])
    known = np.isfinite(params).all(1) & np.isfinite(stated).all((1, 2)) & np.isfinite(supposed).all((1, 2))
    rows = np.flatnonzero(doubtful & known)
    if not len(rows):
        return more
    other, lost = _held_at(HIGH_N, batch[rows], params[rows], fit_sky)
    step = (other - params[rows])[:, SINGLE.reported]
    increase = np.maximum(lost - chi2[rows], 0)
    parabola, squared = (_distance(matrix[rows], step) for matrix in (supposed, stated))
    with np.errstate(invalid="ignore", divide="ignore"):
        share = _STRETCH**2 * np.maximum(increase / parabola, _NEAREST**2 / squared)
        short = (squared > _LEAST_DISTANCE**2) & (share < _PARABOLA) & (share * squared < _EXCLUDED**2)
        growth = np.where(short, (1 / share - 1) / squared, 0)
    step = np.where(short[:, None], step, 0)
    more[rows] = growth[:, None, None] * step[:, :, None] * step[:, None, :]
    return more


def _distance(covariance, step):
    """Squared length of steps in standard deviations, NaN where it is not known."""
    good = np.isfinite(step).all(1)
    steps = np.where(good[:, None], step, 0.0)
    scale = np.sqrt(np.maximum(np.diagonal(covariance, axis1=1, axis2=2), 1e-300))
    unit = covariance / (scale[:, :, None] * scale[:, None, :]) + 1e-12 * np.eye(covariance.shape[-1])
    whitened = steps / scale
    return np.where(good, (whitened * np.linalg.solve(unit, whitened[..., None])[..., 0]).sum(1), np.nan)


def _held_at(n, batch, params, fit_sky):
    """Best fits with n held, and their chi-square with the weights of the free fit."""
    stamps, ivar = batch.stamps, batch.stamps.ivar
    if batch.gain is not None:
        light = np.maximum(batch.images(params), 0)
        ivar = ivar / (1 + ivar * light / batch.gain[:, None, None])
    start = params.copy()
    start[:, SINGLE.n] = n
    start[:, [SINGLE.flux, SINGLE.hlr]] *= _LARGER
    start[:, SINGLE.hlr] = np.minimum(start[:, SINGLE.hlr], batch.grid.size)
    center = np.where(np.arange(SINGLE.size) == SINGLE.n, np.log(n), 0.0)
    penalty = Penalty(center, np.where(np.arange(SINGLE.size) == SINGLE.n, _HELD, 0.0))
    pixels = stamps.data, ivar.astype(np.float32), batch.transfer, batch.grid
    how = {"fit_sky": fit_sky, "max_iterations": _STEPS, "retry": False, "penalty": penalty}
    found = maximize_likelihood(*pixels, start, **how)
    off = FIT.of(np.where(np.isfinite(found.params), found.params, 1.0))[:, SINGLE.n] - np.log(n)
    return found.params, found.chi2 - _HELD * off**2
