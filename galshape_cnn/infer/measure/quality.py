# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""Quality flags: training domain, parameter limits, residuals.

Thresholds of the residual tests were fixed on simulated galaxies of one seed such that a
fraction of about 0.1 % of good rows exceeds each; ``galshape validate`` measures completeness and
false alarms on others.
"""

from dataclasses import replace

import numpy as np
from scipy.special import gammaincc

from galshape_cnn.flags import Flag
from galshape_cnn.forward.galaxy_model import SINGLE
from galshape_cnn.forward.psf.shape import psf_shape
from galshape_cnn.forward.render import BLOCK
from galshape_cnn.forward.sersic import N_RANGE
from galshape_cnn.geometry import semi_major_radius
from galshape_cnn.infer.network.trust import is_trusted
from galshape_cnn.infer.residuals.examination import as_if_independent, newton_steps
from galshape_cnn.infer.residuals.point_source import point_source_chi2
from galshape_cnn.infer.residuals.structure import SIGNIFICANT
from galshape_cnn.linalg import quadratic_form

__all__ = [
    "LARGE",
    "LARGEST_SHARE",
    "RESOLVED",
    "SMALL",
    "chi2_of_points",
    "image_flags",
    "limit_flags_of_n",
    "neighbour_flags",
    "row_flags",
    "settled_bounds",
    "with_settled_centres",
]

_N_MARGIN = 0.02  # from a limit of n at which an estimate counts as sitting on it
# A parameter at its limit with an error smaller than this is said to be known there, where hardly a galaxy
# is: what a neighbour makes of one.  With a larger error the limit is one value of many, and the others hold.
# Fixed on injections into a DECaLS image (S/N 5 to 60), judged on others and in HSC and KiDS.
_KNOWN_N, _KNOWN_SHEAR = 0.5, 0.3
_THINNEST = 0.999  # shear above which a radius along the major axis grows no more
_FLAT = 0.85  # shear that counts as at its limit of 0.9: no galaxy has q below 0.08
_PILED_UP = 0.5  # of its width that a posterior's mean is from a limit; no smooth one inside gets below one
# Pixels or radii, and errors, by which a centre may be off: where the galaxy was found, and what was given.
# Positions from catalogues are off by a pixel in x and in y, and that is no fault of the row; nor is a place
# within half of a galaxy's semi-major radius, as catalogues of another band, or rounded, and cutouts have it.
_FOUND, _GIVEN = (1.0, 0.25, 3.0), (1.5, 0.5, 4.0)

# Semi-major radius over half the stamp: of 61 galaxies with 0.5 to 0.8 the network has 59 % right within 3
# sigma, below 99 % (N = 87); a fit has them all, and loses its bound beyond one.
_REACH = {"network": 0.5}
_FIT_SIGMAS = 4.5  # of reduced chi-square
_UNLIKELY = 3e-4  # probability of the squares left where the galaxy is bright
_SPIKE, _PEAK = 5.4, 4.8  # extremes of residuals: of single pixels, smoothed
_SHARP = 0.75  # height of a single pixel over that of the smoothed peak: sharper than any PSF
_CUT = 4.0  # amplitude of a cut core, standard deviations
_SMEAR = 18.0  # chi-square of three patterns of a wrong PSF
_LAG = 4.5  # correlation of adjacent pixels, standard deviations
_TIED = 4  # equal pixels at the top of a core
_STEP = 18.0  # squared distance to the likelihood's maximum: three of a thousand of chi-square with five
#: Of the PSF's width: smaller galaxies are compared with a point source.
SMALL = 0.75
#: Chi-square by which a galaxy, of four parameters more, must beat it.
RESOLVED = 13.0
_POINTS = 2 * BLOCK  # point sources at a time, of whatever number: one program, and few computed for nothing
#: Of the PSF's width: larger galaxies are resolved, whatever the error of the size.
LARGE = 1.5
_SHARED, _OUTSHONE = 0.2, 0.5  # of the light on pixels of others, for NEIGHBOR_LIGHT and BLENDED
#: Of flux or size that structure may move it by.
LARGEST_SHARE = 0.5
_FEW = 16.0  # pixels around the centre: nearer than their root is not a neighbour


def row_flags(batch, judged, network, options):
    """Flags of a batch, decided on the errors that the user gets.

    Parameters
    ----------
    batch : RenderedBatch
        What was judged.
    judged : Judged
        The result, see `galshape_cnn.infer.measure.bounds`.
    network : AmortizedPosterior
        Its ranges of training and region of trust count.
    options : Options
        ``method``, ``fit_sky`` and ``correlation`` are used.

    Returns
    -------
    flags : (N,) int64 ndarray
        Bits of `galshape_cnn.flags`.
    """
    small = np.flatnonzero(_is_small(judged, batch.psf_width))
    points = chi2_of_points(batch, judged.params, small, options)
    flags = image_flags(batch, judged, network, options)
    return flags | np.where(_unresolved(judged, batch.psf_width, points), Flag.UNRESOLVED, 0)


def image_flags(batch, judged, network, options):
    """Flags of a batch but for that of galaxies that are not resolved, which all images of one decide.

    Parameters
    ----------
    batch, judged, network, options
        As for `row_flags`.

    Returns
    -------
    flags : (N,) int64 ndarray
    """
    width = batch.psf_width
    domain = {"snr": (network.domain["snr"][0], np.inf)} if "snr" in network.domain else {}
    if options.method == "network":  # likelihood and sampling depend on no training
        domain = network.domain
    flags = _domain_flags(judged, width, domain) | _psf_flags(batch.stamps, domain)
    flags |= _shape_flags(batch.stamps, judged, _REACH.get(options.method, 1.0)) | _misfit_flags(judged)
    if options.method == "network":
        variance = judged.covariance[:, SINGLE.n, SINGLE.n]
        flags |= limit_flags_of_n(judged.params[:, SINGLE.n], variance, network.domain)
    tested = judged
    if options.correlation is not None:  # expected, so that it is no reason for doubt
        scaled = as_if_independent(judged.examination, options.correlation)
        alike = (options.correlation**2).sum()
        tested = replace(judged, examination=scaled, freedom=judged.freedom / alike)
    spread = np.sqrt(judged.white)[:, None]  # that the map is wrong chi-square says, not each pixel again
    found = tested.examination
    found = found._replace(highest=found.highest / spread, lowest=found.lowest / spread)
    flags |= _residual_flags(replace(tested, examination=found), _is_sharp(judged.examination))
    if options.method == "network":
        flags |= np.where(_off_maximum(judged, options.model), Flag.INCONSISTENT, 0)
    if network.trust:
        ratio = judged.params[:, SINGLE.hlr] / width
        trusted = is_trusted(network.trust, options.method, judged.snr, ratio, judged.params[:, SINGLE.n])
        flags |= np.where(trusted, 0, Flag.UNTRUSTED)
    return flags


def _is_small(judged, width):
    """Rows that are to be compared with a point source."""
    with np.errstate(invalid="ignore"):
        return judged.params[:, SINGLE.hlr] < SMALL * width


def chi2_of_points(batch, params, rows, options):
    """Chi-square of a point source in place of some galaxies.

    Parameters
    ----------
    batch : RenderedBatch
        N stamps.
    params : (N, 8) ndarray
        Where the galaxies are.
    rows : (M,) int ndarray
        Those that are asked for.
    options : Options
        ``fit_sky`` is used.

    Returns
    -------
    chi2 : (N,) ndarray
        NaN for the others.
    """
    out = np.full(len(params), np.nan)
    for part, padded, full in batch.transformed.filled(rows, _POINTS, by_kernel=True):
        arrays = params[padded], full.stamps.data, full.stamps.ivar, full.transfer
        out[part] = point_source_chi2(*arrays, full.grid, options.fit_sky, full.gain)[: len(part)]
    return out


def _outside(values, limits):
    return (values < limits[0]) | (values > limits[1])


def _psf_flags(stamps, domain):
    """Flags of PSFs of another kind than those of the training."""
    if "psf_shape" not in domain:  # in bundles of older versions
        return 0
    limits = np.transpose(domain["psf_shape"])
    outside = _outside(psf_shape(stamps.psf, stamps.psf_oversampling), limits).any(1)
    return np.where(np.broadcast_to(outside, len(stamps)), Flag.PSF_OUT_OF_DOMAIN, 0)


def _domain_flags(judged, width, domain):
    """Flags of rows outside the ranges of training."""
    flags = np.zeros(len(judged.params), np.int64)
    if "snr" in domain:
        flags |= np.where(judged.snr < domain["snr"][0], Flag.LOW_SNR, 0)
        flags |= np.where(judged.snr > domain["snr"][1], Flag.HIGH_SNR, 0)
    widths = domain.get("psf_width", domain.get("psf_fwhm"))  # the latter in bundles of older versions
    if widths is not None:
        flags |= np.where(_outside(width, widths), Flag.PSF_OUT_OF_DOMAIN, 0)
    if "hlr" in domain:
        flags |= np.where(_outside(judged.params[:, SINGLE.hlr], domain["hlr"]), Flag.SIZE_OUT_OF_DOMAIN, 0)
    return flags


def _shape_flags(stamps, judged, largest):
    """Flags of rows whose parameters speak against themselves."""
    params = judged.params
    n = params[:, SINGLE.n]
    at_bound = _outside(n, (N_RANGE[0] + _N_MARGIN, N_RANGE[1] - _N_MARGIN))
    centre = judged.examination.fisher[:, SINGLE.centre, SINGLE.centre]
    with np.errstate(invalid="ignore", divide="ignore"):
        error = 1 / np.sqrt(np.diagonal(centre, axis1=1, axis2=2).min(1))
        moved = np.zeros(len(params), bool)
        # where no position was given, no distance is too large
        for place, limits in ((stamps.center, _FOUND), (stamps.given, _GIVEN)):
            moved |= _distance(params, place) > _reach(params, limits) + limits[-1] * error
    reach = largest * np.sqrt((stamps.ivar > 0).sum((1, 2))) / 2
    too_large = _semi_major(params) > reach
    return (
        np.where(at_bound, Flag.N_AT_BOUND, 0)
        | np.where(too_large, Flag.STAMP_SMALL, 0)
        | np.where(moved, Flag.FAR_CENTROID, 0)
    )


def _distance(params, place):
    return np.hypot(*(params[:, SINGLE.centre] - place).T)


def _reach(params, limits):
    """How far a centre of no error may be from where it is expected."""
    pixels, radii, _ = limits
    return np.maximum(pixels, radii * _semi_major(params))


def _semi_major(params):
    g = np.hypot(*params[:, SINGLE.shear].T)
    return semi_major_radius(params[:, SINGLE.hlr], np.minimum(g, _THINNEST), 0)


def with_settled_centres(stamps, params):
    """Stamps without ``FAR_CENTROID`` where a galaxy reaches the place from which it was searched.

    The search flags what is farther away than a point source may be; how large a galaxy is it does not know.

    Parameters
    ----------
    stamps : Stamps
        N of them; their ``flags``, ``center`` and ``given`` count.
    params : (N, 8) ndarray
        Measured parameters.

    Returns
    -------
    stamps : Stamps
        The same object where nothing changes.
    """
    with np.errstate(invalid="ignore"):
        near = _distance(params, stamps.given) < _reach(params, _GIVEN)
        near &= _distance(params, stamps.center) < _reach(params, _FOUND)
    flags = stamps.flags & ~np.where(near, Flag.FAR_CENTROID, 0)
    return stamps if (flags == stamps.flags).all() else replace(stamps, flags=flags)


def limit_flags_of_n(n, variance, domain):
    """``PRIOR_LIMIT`` where the mean of n is nearer to the training's limit than its width lets it be.

    Parameters
    ----------
    n, variance : (N,) ndarray
        Posterior mean and variance.
    domain : dict
        Ranges of the training.

    Returns
    -------
    flags : (N,) ndarray of int
    """
    with np.errstate(invalid="ignore"):
        near = domain.get("n", N_RANGE)[1] - n < _PILED_UP * np.sqrt(variance)
    return np.where(near, Flag.PRIOR_LIMIT, 0)


def settled_bounds(flags, params, covariance, size):
    """What the errors say of parameters that ended at a limit.

    Parameters
    ----------
    flags : (N,) int64 ndarray
        With ``PARAMETER_AT_BOUND`` where the search ended at a limit of size or shear.
    params : (N, 8) ndarray
        Measured parameters.
    covariance : (N, 5, 5) ndarray
        Their errors, noise and structure.
    size : int
        Side of the stamps, pixels: the largest half-light radius.

    Returns
    -------
    flags : (N,) int64 ndarray
        ``PARAMETER_AT_BOUND`` only where a shear is said to be known to 0.3, an n at its lower limit to 0.5,
        or the size is as large as the stamp; ``UNCONSTRAINED`` at the other limits of size and shear.
    """
    n, hlr, shear = params[:, SINGLE.n], params[:, SINGLE.hlr], params[:, SINGLE.shear]
    length = np.hypot(*shear.T)
    at_bound = flags & Flag.PARAMETER_AT_BOUND > 0
    with np.errstate(invalid="ignore", divide="ignore"):
        along = shear / length[:, None]
        radial = np.sqrt(quadratic_form(covariance[:, SINGLE.shear, SINGLE.shear], along))
        flat = (length > _FLAT) & (radial < _KNOWN_SHEAR)
        known = flat | at_bound & (hlr > 0.98 * size)
        low_n = (n < N_RANGE[0] + _N_MARGIN) & (np.sqrt(covariance[:, SINGLE.n, SINGLE.n]) < _KNOWN_N)
    flags = flags & ~Flag.PARAMETER_AT_BOUND | np.where(known | low_n, Flag.PARAMETER_AT_BOUND, 0)
    return flags | np.where(at_bound & ~known, Flag.UNCONSTRAINED, 0)


def neighbour_flags(fraction, flags):
    """Flags of rows that share pixels with other sources.

    Parameters
    ----------
    fraction : (N,) ndarray
        Share of the galaxy's light on pixels of others; NaN where they were not looked for.
    flags : (N,) int64 ndarray
        With ``NEIGHBOR`` where there are others.

    Returns
    -------
    flags : (N,) int64 ndarray
        ``NEIGHBOR`` where they matter, ``NEIGHBOR_LIGHT``, ``BLENDED``.
    """
    with np.errstate(invalid="ignore"):
        shared, outshone = fraction > _SHARED, fraction > _OUTSHONE
    return flags | np.where(shared, Flag.NEIGHBOR_LIGHT, 0) | np.where(outshone, Flag.BLENDED, 0)


def _is_sharp(examination):
    """Rows whose highest residual is sharper than any PSF: a matter of shape, whatever the noise is."""
    single, smooth = examination.highest[:, 0], examination.highest[:, 1:]
    return single > _SHARP * smooth.max(1)


def _misfit_flags(judged):
    """``MISFIT`` where structure moves flux or size by so much that errors to first order do not hold."""
    which = [SINGLE.flux, SINGLE.hlr]
    sigma = np.sqrt(np.diagonal(judged.structure, axis1=1, axis2=2)[:, which])
    with np.errstate(invalid="ignore"):
        return np.where((sigma > LARGEST_SHARE * np.abs(judged.params[:, which])).any(1), Flag.MISFIT, 0)


def _residual_flags(judged, sharp):
    """Flags of rows whose residuals are not noise."""
    found, chi2 = judged.examination, judged.chi2
    spread = _FIT_SIGMAS * np.sqrt(2 / judged.freedom)
    with np.errstate(invalid="ignore"):
        unlikely = gammaincc(found.inner_number / 2, found.inner / 2) < _UNLIKELY
        smooth, single = found.highest[:, 1:], found.highest[:, 0]
        spike = (single > _SPIKE) & sharp
        apart = found.distance[:, 1:] > np.maximum(np.sqrt(_FEW), judged.params[:, SINGLE.hlr, None])
        neighbor = ((smooth > _PEAK) & apart).any(1) & ~spike
        pattern = (np.abs(found.core) > _CUT) | (found.smear > _SMEAR)
        poor = (np.abs(chi2 - 1) > spread) | unlikely | pattern | (found.lowest[:, 1:].min(1) < -_PEAK)
        poor |= (single > _SPIKE) | (found.lowest[:, 0] < -_SPIKE) | (smooth > _PEAK).any(1)
        # what structure of the galaxy leaves is correlated too, and counted in the errors
        correlated = (found.lags.max(1) > _LAG) & ~(found.galaxy_excess > SIGNIFICANT)
    return (
        np.where(poor, Flag.POOR_FIT, 0)
        | np.where(neighbor, Flag.NEIGHBOR, 0)
        | np.where(spike, Flag.SPIKE, 0)
        | np.where(correlated, Flag.CORRELATED_NOISE, 0)
        | np.where(found.tied >= _TIED, Flag.SATURATED, 0)
    )


def _off_maximum(judged, model):
    """Rows that are farther from the likelihood's maximum than bound and stated covariance allow."""
    step = newton_steps(judged.examination, model.free)[0][:, SINGLE.reported]
    allowed = judged.crb + judged.structure + np.where(np.isfinite(judged.covariance), judged.covariance, 0)
    usable = np.isfinite(allowed).all((1, 2)) & np.isfinite(step).all(1)
    allowed = np.where(usable[:, None, None], allowed, np.eye(5))
    with np.errstate(invalid="ignore", over="ignore"):
        distance = (step * np.linalg.solve(allowed, step[..., None])[..., 0]).sum(1)
        return usable & (distance > _STEP)


def _unresolved(judged, width, point_chi2):
    """Rows that a point source explains as well as a galaxy."""
    size = SINGLE.hlr
    bounds = np.stack([(judged.crb + judged.structure)[:, size, size], judged.covariance[:, size, size]])
    with np.errstate(invalid="ignore"):
        tiny = judged.params[:, size] < np.minimum(2 * np.sqrt(np.fmin(*bounds)), LARGE * width)
        best = np.fmin(judged.examination.chi2, judged.chi2 * judged.freedom)
        return tiny | (point_chi2 - best < RESOLVED)
