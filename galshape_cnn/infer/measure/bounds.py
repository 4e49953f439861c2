# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""Errors of estimates: the Cramér-Rao bound, or the sandwich where the weights do not know the noise."""

from dataclasses import dataclass

import jax
import numpy as np

from galshape_cnn.flags import Flag
from galshape_cnn.forward.galaxy_model import SINGLE
from galshape_cnn.infer.likelihood.fisher import bound
from galshape_cnn.infer.likelihood.residuals import Examination, examine
from galshape_cnn.infer.likelihood.sandwich import information, sandwich, widened

__all__ = ["Judged", "errors_of"]


@dataclass(frozen=True, eq=False)
class Judged:
    """Estimates of N galaxies with their errors, and what the pixels say of them.

    Attributes
    ----------
    params : (N, 8) ndarray
        flux, n, hlr, g1, g2, x, y, sky; the sky is the best for the others.
    covariance, crb : (N, 5, 5) ndarray
        Stated covariance (NaN where there is none) and bound: those that the user gets.
    snr, chi2, freedom : (N,) ndarray
        S/N, reduced chi-square and degrees of freedom.
    flags : (N,) int64 ndarray
        ``SINGULAR`` where there is no bound.
    examination : galshape_cnn.infer.likelihood.residuals.Examination
        What the pixels say.
    """

    params: np.ndarray
    covariance: np.ndarray
    crb: np.ndarray
    snr: np.ndarray
    chi2: np.ndarray
    freedom: np.ndarray
    flags: np.ndarray
    examination: Examination


def errors_of(batch, found, fitted, options):
    """Bound, S/N and chi-square at the estimates.

    Parameters
    ----------
    batch : RenderedBatch
        N stamps.
    found : Estimate
        Of the same.
    fitted : (N,) bool ndarray
        Rows whose neighbours were fitted: their uncertainty is part of the bound.
    options : Options
        ``method``, ``fit_sky`` and ``correlation`` are used.

    Returns
    -------
    judged : Judged
    """
    params = found.params.copy()
    examination = _examined(batch, params, options.fit_sky)
    flux, sky = SINGLE.flux, SINGLE.sky
    snr = np.abs(params[:, flux]) * np.sqrt(examination.fisher[:, flux, flux])
    chi2 = examination.chi2
    if options.fit_sky:  # the sky that is best for these parameters
        step = examination.score[:, sky] / np.maximum(examination.fisher[:, sky, sky], 1e-30)
        chi2 = chi2 - step * examination.score[:, sky]
        params[:, sky] += step
    crb, singular = bound(examination.fisher.astype(np.float32), fit_sky=options.fit_sky)
    freedom = np.maximum((batch.stamps.ivar > 0).sum((1, 2)) - len(options.model.free), 1)
    covariance = found.covariance
    rows = np.arange(len(batch)) if options.correlation is not None else np.flatnonzero(fitted)
    if len(rows):
        crb, covariance, singular = _with_sandwich(batch, params, (crb, covariance, singular), rows, options)
    flags = np.where(singular, Flag.SINGULAR, 0)
    return Judged(params, covariance, crb, snr, chi2 / freedom, freedom, flags, examination)


def _examined(batch, params, fit_sky):
    """What the pixels say of every row, in batches of the compiled size."""
    parts = []
    for _, padded, full in batch.filled():
        pixels = full.stamps.data, full.stamps.ivar, full.transfer, full.grid
        parts.append(examine(params[padded], *pixels, fit_sky, full.gain))
    return jax.tree.map(lambda *arrays: np.concatenate(arrays)[: len(batch)], *parts)


def _with_sandwich(batch, params, errors, rows, options):
    """Replace bound and widths of some rows by what their estimates are worth.

    With correlated noise that is the covariance of the weighted fit; where neighbours were
    fitted it contains theirs.  Widths of the network, which knew of neither, follow.
    """
    crb, covariance, singular = (array.copy() for array in errors)
    some = batch if len(rows) == len(batch) else batch[rows]
    reached, lost = sandwich(*information(some, params[rows], options.correlation), options.fit_sky)
    if options.method == "network":
        covariance[rows] = widened(covariance[rows], crb[rows], reached)
    crb[rows], singular[rows] = reached, singular[rows] | lost
    return crb, covariance, singular
