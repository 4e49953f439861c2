# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""Errors of estimates: Cramér-Rao bound or sandwich covariance."""

from dataclasses import dataclass, fields, replace
from typing import NamedTuple

import jax
import numpy as np

from galshape_cnn.flags import Flag
from galshape_cnn.forward.galaxy_model import SINGLE
from galshape_cnn.forward.render import BLOCK
from galshape_cnn.infer.fit.profile_likelihood import profile_covariance
from galshape_cnn.infer.likelihood.fisher import bound
from galshape_cnn.infer.likelihood.sandwich import products_at, sandwich, widened
from galshape_cnn.infer.residuals.companions import Companions, find_companions
from galshape_cnn.infer.residuals.examination import Examination, as_if_independent, examine
from galshape_cnn.infer.residuals.structure import (
    SIGNIFICANT,
    Structure,
    estimate_structure,
    significances,
)
from galshape_cnn.linalg import symmetric_root

__all__ = [
    "Judged",
    "Suspicions",
    "bounded",
    "errors_of",
    "hidden_sources",
    "structure_at",
    "stretched",
    "structure_of",
    "suspicions",
    "with_shifts",
    "without_errors",
]

# Standard deviations of squares, and of smoothed residuals near and anywhere, worth a search for companions.
_LEFT, _HIGH = 1.0, (3.5, 5.0)


@dataclass(frozen=True, eq=False)
class Judged:
    """Estimates of N galaxies with their errors, and what the pixels say of them.

    Attributes
    ----------
    params : (N, 8) ndarray
        flux, n, hlr, g1, g2, x, y, sky; the sky is the best for the others.
    covariance, crb : (N, 5, 5) ndarray
        Stated covariance (NaN where there is none), of noise and structure, and bound, of noise alone.
    structure : (N, 5, 5) ndarray
        What structure that no Sérsic profile has, noise beyond the noise map's and an uncertain PSF add to
        the bound; zero where none is seen.
    profile : (N, 5, 5) ndarray
        What the shape of chi-square changes in the errors of a maximum-likelihood fit, which may become
        smaller, see `galshape_cnn.infer.fit.profile_likelihood`, and what sources that hide in the galaxy's
        light add to those of any, see `galshape_cnn.infer.residuals.companions`.
    white : (N,) ndarray
        Variance of the white noise in units of the noise map's; one unless that is significantly too small.
    sky_level : (N,) ndarray
        Variance of the sky's structure in units of the noise's, see
        `galshape_cnn.infer.residuals.structure.Structure`.
    snr, chi2, freedom : (N,) ndarray
        S/N, reduced chi-square and degrees of freedom.
    flags : (N,) int64 ndarray
        ``SINGULAR`` where there is no bound, ``NEIGHBOR_LIGHT`` where a hidden source moves a parameter.
    examination : galshape_cnn.infer.residuals.examination.Examination
        What the pixels say.
    """

    params: np.ndarray
    covariance: np.ndarray
    crb: np.ndarray
    structure: np.ndarray
    profile: np.ndarray
    white: np.ndarray
    sky_level: np.ndarray
    snr: np.ndarray
    chi2: np.ndarray
    freedom: np.ndarray
    flags: np.ndarray
    examination: Examination

    def __getitem__(self, rows):
        """Some of the galaxies, by an array of int or bool."""
        arrays = {item.name: getattr(self, item.name) for item in fields(self)}
        return Judged(**{name: jax.tree.map(lambda array: array[rows], one) for name, one in arrays.items()})


def errors_of(batch, found, fitted, options):
    """Bound, S/N and chi-square at the estimates of N stamps, as `Judged`.

    ``fitted`` are rows whose neighbours were fitted: their uncertainty is part of the bound.
    """
    judged = without_errors(batch, found.params, options)
    params, fisher = judged.params, judged.examination.fisher
    crb, singular = bound(fisher.astype(np.float32), fit_sky=options.fit_sky)
    supposed, covariance, profile = crb, found.covariance, judged.profile
    rows = np.arange(len(batch)) if options.correlation is not None else np.flatnonzero(fitted)
    if len(rows):
        errors = crb, covariance, singular
        crb, covariance, singular = _with_sandwich(batch, judged, errors, rows, options)
    n = len(params)
    structure, white, sky_level = np.zeros((n, 5, 5)), np.ones(n), np.zeros(n)
    structured = np.zeros(n, bool)
    rows, parts = structure_of(batch, judged, options)
    if parts is not None:
        white[rows], sky_level[rows] = parts.white, parts.sky_level
        structured[rows] = parts.galaxy_significance > SIGNIFICANT
        more = parts.white[:, None, None] - 1
        noise = np.where(more > 0, more * crb[rows], 0)  # where there is none, a bound may be NaN
        structure[rows] = parts.covariance()[:, SINGLE.reported, SINGLE.reported] + noise
    if options.psf_error is not None:
        structure += options.psf_error.covariance(batch, params, fisher, options.fit_sky)
    covariance = _with_more(covariance, crb, structure)
    if options.method == "ml":
        known = judged.chi2 * judged.freedom, (supposed, crb + structure)
        profile = profile_covariance(batch, params, *known, options.fit_sky, structured)
    stated = covariance, crb + structure + profile
    found = hidden_sources(batch, replace(judged, white=white), stated, options)
    errors = {
        "covariance": covariance,
        "crb": crb,
        "structure": structure,
        "profile": profile,
        "white": white,
        "sky_level": sky_level,
    }
    judged = with_shifts(replace(judged, **errors), found.shift)
    # no row without errors may look good
    unknown = singular | ~np.isfinite(judged.crb + judged.structure + judged.profile).all((1, 2))
    flags = np.where(unknown, Flag.SINGULAR, 0) | np.where(found.hidden, Flag.NEIGHBOR_LIGHT, 0)
    return replace(judged, flags=flags)


def with_shifts(judged, shift):
    """The same estimates, as uncertain as it is whether they are off by a shift.

    Parameters
    ----------
    judged : Judged
    shift : (N, 5) ndarray
        Of flux, n, hlr, g1, g2; zero where there is none.

    Returns
    -------
    judged : Judged
    """
    more = shift[:, :, None] * shift[:, None, :]
    covariance = _with_more(judged.covariance, judged.crb, more)
    return replace(judged, profile=judged.profile + more, covariance=covariance)


def bounded(judged, size):
    """The same estimates, no error of a size larger than the stamp; such rows are ``SINGULAR``.

    What structure adds is known to first order, and where a size hangs on it by more than that a row knows
    nothing but that the galaxy is in the stamp.

    Parameters
    ----------
    judged : Judged
    size : int
        Side of the stamps, pixels.

    Returns
    -------
    judged : Judged
        The same object where nothing changes.
    """
    which, parts = SINGLE.hlr, {}
    stated = judged.crb + judged.structure + judged.profile
    with np.errstate(invalid="ignore"):
        wide = np.fmax(stated[:, which, which], judged.covariance[:, which, which]) > size**2
    if not wide.any():
        return judged
    for name in ("structure", "profile", "covariance"):
        matrix = getattr(judged, name)
        share = size**2 / np.fmax(np.where(wide, matrix[:, which, which], 0), size**2)
        parts[name] = matrix * share[:, None, None]
    return replace(judged, **parts, flags=judged.flags | np.where(wide, Flag.SINGULAR, 0))


def stretched(judged, stretch):
    """The same estimates, their errors grown as those of something else that was fitted.

    Parameters
    ----------
    judged : Judged
    stretch : (N, 5, 5) ndarray
        M, by which a covariance C becomes M C M^T; what that adds is part of ``structure``.

    Returns
    -------
    judged : Judged
    """
    more = stretch @ judged.crb @ np.swapaxes(stretch, 1, 2) - judged.crb
    root = symmetric_root(np.where(np.isfinite(more), more, 0))
    more = root @ root  # no less than before
    covariance = _with_more(judged.covariance, judged.crb, more)
    return replace(judged, structure=judged.structure + more, covariance=covariance)


def _with_more(covariance, crb, more):
    """Stated covariances as much wider as the bounds are with something more."""
    rows = np.flatnonzero(more.any((1, 2)))
    if not len(rows):
        return covariance
    covariance = covariance.copy()
    covariance[rows] = widened(covariance[rows], crb[rows], crb[rows] + more[rows])
    return covariance


def without_errors(batch, params, options):
    """S/N, chi-square and what the pixels say at estimates (N, 8); errors are NaN, without structure.

    Of the sky, where it is fitted, the best level is found.
    """
    params = params.copy()
    examination = _examined(batch, params, options)
    flux, sky = SINGLE.flux, SINGLE.sky
    snr = np.abs(params[:, flux]) * np.sqrt(examination.fisher[:, flux, flux])
    chi2 = examination.chi2
    if options.fit_sky:  # the sky that is best for these parameters
        step = examination.score[:, sky] / np.maximum(examination.fisher[:, sky, sky], 1e-30)
        chi2 = chi2 - step * examination.score[:, sky]
        params[:, sky] += step
    freedom = np.maximum((batch.stamps.ivar > 0).sum((1, 2)) - len(options.model.free), 1)
    n = len(params)
    nan, none = np.full((n, 5, 5), np.nan), np.zeros((n, 5, 5))
    errors = nan, nan, none, none, np.ones(n), np.zeros(n)
    flags = np.zeros(n, np.int64)
    return Judged(params, *errors, snr, chi2 / freedom, freedom, flags, examination)


def _examined(batch, params, options):
    """What the pixels say of every row, in batches of the compiled size."""
    parts, n = [], len(batch)
    # with images of unknown amplitude the products are others
    correlation = options.correlation if batch.stamps.nuisance is None else None
    for _, padded, full in batch.filled(by_kernel=True):
        pixels = full.stamps.data, full.stamps.ivar, full.transfer, full.grid
        parts.append(examine(params[padded], *pixels, options.fit_sky, full.gain, correlation))
    return jax.tree.map(lambda *arrays: np.concatenate(arrays)[:n], *parts)


def structure_of(batch, judged, options):
    """Numbers of the rows that are worth a closer look, and their structure; None if there are none."""
    likely = np.flatnonzero(suspicions(judged, options).likely)
    return likely, structure_at(batch, judged, likely, options)


class Suspicions(NamedTuple):
    """What the residuals of N rows say of structure before a closer look.

    Attributes
    ----------
    galaxy, sky : (N,) ndarray
        Significance of structure of the galaxy and of the sky if the noise map is right; what a closer look
        finds is that or less.
    white, likely : (N,) ndarray of bool
        Whether there may be more white noise than the noise map says; and whether any of the three calls for
        a closer look.
    """

    galaxy: np.ndarray
    sky: np.ndarray
    white: np.ndarray
    likely: np.ndarray


def suspicions(judged, options, least=SIGNIFICANT):
    """What the residuals of N rows say of structure before a closer look.

    Parameters
    ----------
    judged : Judged
    options : Options
        ``correlation`` is used.
    least : float, optional
        Significance of structure from which a row is likely to have some.

    Returns
    -------
    suspicions : Suspicions
    """
    scaled, alike = judged.examination, 1.0
    if options.correlation is not None:
        scaled = as_if_independent(scaled, options.correlation)
        alike = (options.correlation**2).sum()
    galaxy, sky, white = significances(scaled, judged.chi2, judged.freedom / alike)
    likely = (galaxy > least) | (sky > least) | white
    return Suspicions(galaxy, sky, white, likely & np.isfinite(judged.params).all(1))


def structure_at(batch, judged, rows, options, least=SIGNIFICANT):
    """Structure of some rows, at a closer look.

    Parameters
    ----------
    batch, judged, options
        As for `structure_of`.
    rows : (M,) ndarray of int
    least : float, optional
        As for `~galshape_cnn.infer.residuals.structure.estimate_structure`.

    Returns
    -------
    structure : `~galshape_cnn.infer.residuals.structure.Structure` or None
        Of these rows; None if there are none.
    """
    params, found = judged.params, []
    for some, padded, full in batch.filled(rows, BLOCK, by_kernel=True):
        pixels = full.stamps.data, full.stamps.ivar, full.transfer, full.grid
        known = options.fit_sky, full.gain, options.correlation, least
        part = estimate_structure(params[padded], *pixels, *known)
        found.append([array[: len(some)] for array in part])
    if not found:
        return None
    return Structure(*map(np.concatenate, zip(*found, strict=True)))


def hidden_sources(batch, judged, errors, options):
    """`Companions` in the light of N galaxies; rows that leave nothing near the centre are not searched.

    ``errors``: stated covariance (N, 5, 5), and that of an unbiased estimate where none is stated.
    """
    n, examination = len(batch), judged.examination
    if options.correlation is not None:
        examination = as_if_independent(examination, options.correlation)
    stated, bounds = (np.sqrt(np.diagonal(one, axis1=1, axis2=2)) for one in errors)
    stated = np.where(np.isfinite(stated), stated, bounds)
    width = batch.psf_width
    highest = examination.highest[:, 1:] / np.sqrt(judged.white)[:, None]
    near = examination.distance[:, 1:] < 2 * width[:, None]
    likely = (highest > np.where(near, *_HIGH)).any(1) | (examination.galaxy_excess > _LEFT)
    likely &= np.isfinite(judged.params).all(1) & (stated > 0).all(1)
    shift, hidden = np.zeros((n, 5)), np.zeros(n, bool)
    for rows, padded, full in batch.transformed.filled(np.flatnonzero(likely), BLOCK, by_kernel=True):
        pixels = full.stamps.data, full.stamps.ivar, full.transfer, full.grid, options.fit_sky, full.gain
        params = judged.params[padded]
        found = find_companions(params, stated[padded], width[padded], *pixels, options.correlation)
        shift[rows], hidden[rows] = (one[: len(rows)] for one in found)
    return Companions(shift, hidden)


def _with_sandwich(batch, judged, errors, rows, options):
    """Replace bound and widths of some rows by what their estimates are worth.

    With correlated noise that is the covariance of the weighted fit; where neighbours were
    fitted it contains theirs.  Widths of the network, which knew of neither, follow.
    """
    crb, covariance, singular = (array.copy() for array in errors)
    known = judged.params, judged.examination, options.correlation
    products = products_at(batch, *known, rows)
    reached, lost = sandwich(*products, options.fit_sky)
    if options.method == "network":
        covariance[rows] = widened(covariance[rows], crb[rows], reached)
    crb[rows], singular[rows] = reached, singular[rows] | lost
    return crb, covariance, singular
