# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""Flags of measured rows: ranges of training, limits of parameters, and what residuals say.

Thresholds of the residual tests were fixed on simulated galaxies of one seed such that a
fraction of about 0.1 % of good rows exceeds each; ``galshape validate`` measures completeness and
false alarms on others.
"""

from typing import NamedTuple

import numpy as np
from scipy.special import gammaincc

from galshape_cnn.flags import Flag
from galshape_cnn.forward.psf.shape import psf_shape
from galshape_cnn.forward.sersic import N_RANGE
from galshape_cnn.infer.likelihood.residuals import as_if_independent, newton_steps
from galshape_cnn.infer.network.trust import is_trusted

__all__ = ["Measured", "row_flags", "small_rows"]

_N_MARGIN = 0.02  # from a limit of n at which an estimate counts as sitting on it
_LARGEST_MOVE = 3.0  # pixels, or half the radius, beyond which a fit has gone to another galaxy

_FIT_SIGMAS = 4.5  # of reduced chi-square
_UNLIKELY = 3e-4  # probability of the squares left where the galaxy is bright
_SPIKE, _PEAK = 5.4, 4.8  # extremes of residuals: of single pixels, smoothed
_SHARP = 0.75  # height of a single pixel over that of the smoothed peak: sharper than any PSF
_CUT = 4.0  # amplitude of a cut core, standard deviations
_SMEAR = 18.0  # chi-square of three patterns of a wrong PSF
_LAG = 4.5  # correlation of adjacent pixels, standard deviations
_TIED = 4  # equal pixels at the top of a core
_STEP = 18.0  # squared distance to the likelihood's maximum: three of a thousand of chi-square with five
_SMALL = 0.75  # of the PSF's width: smaller galaxies are compared with a point source
_RESOLVED = 13.0  # chi-square by which a galaxy, of four parameters more, must beat it
_FEW = 16.0  # pixels around the centre: nearer than their root is not a neighbour


class Measured(NamedTuple):
    """What the flags of N rows are decided on.

    Attributes
    ----------
    params : (N, 8) ndarray
        flux, n, hlr, g1, g2, x, y, sky.
    covariance, crb : (N, 5, 5) ndarray
        Stated covariance (NaN where there is none) and bound.
    snr, chi2, freedom : (N,) ndarray
        S/N, reduced chi-square and degrees of freedom.
    examination : galshape_cnn.infer.likelihood.residuals.Examination
        What the pixels say.
    """

    params: np.ndarray
    covariance: np.ndarray
    crb: np.ndarray
    snr: np.ndarray
    chi2: np.ndarray
    freedom: np.ndarray
    examination: tuple


def row_flags(stamps, measured, width, point_chi2, options):
    """Flags of a batch.

    Parameters
    ----------
    stamps : Stamps
        What was measured.
    measured : Measured
        The result.
    width : (N,) ndarray
        Of the PSFs, see `galshape_cnn.forward.psf.width.psf_width`.
    point_chi2 : (N,) ndarray
        Chi-square of the best point source; NaN where it was not looked for.
    options : galshape_cnn.infer.measure.options.Options
        Of which the method, ``fit_sky``, the ranges of training and the region of trust count.

    Returns
    -------
    flags : (N,) int64 ndarray
        Bits of `galshape_cnn.flags`.
    """
    flags = _domain_flags(measured, width, options.domain)
    if "psf_shape" in options.domain:  # not in bundles of older versions
        shapes = psf_shape(stamps.psf, stamps.psf_oversampling)
        limits = np.transpose(options.domain["psf_shape"])
        flags |= np.where(_outside(shapes, limits).any(1), Flag.PSF_OUT_OF_DOMAIN, 0)
    flags |= _shape_flags(stamps, measured)
    tested = measured
    if options.correlation is not None:  # expected, so that it is no reason for doubt
        scaled = as_if_independent(measured.examination, options.correlation)
        alike = (options.correlation**2).sum()
        tested = measured._replace(examination=scaled, freedom=measured.freedom / alike)
    flags |= _residual_flags(tested)
    flags |= np.where(_unresolved(measured, point_chi2), Flag.UNRESOLVED, 0)
    if options.method == "network":
        flags |= np.where(_off_maximum(tested, options.fit_sky), Flag.INCONSISTENT, 0)
    if options.trust:
        ratio = measured.params[:, 2] / width
        trusted = is_trusted(options.trust, options.method, measured.snr, ratio, measured.params[:, 1])
        flags |= np.where(trusted, 0, Flag.UNTRUSTED)
    return flags


def small_rows(measured, width):
    """Rows that are to be compared with a point source.

    Parameters
    ----------
    measured : Measured
        The result.
    width : (N,) ndarray
        Of the PSFs, pixels.

    Returns
    -------
    small : (N,) bool ndarray
    """
    with np.errstate(invalid="ignore"):
        return measured.params[:, 2] < _SMALL * width


def _outside(values, limits):
    return (values < limits[0]) | (values > limits[1])


def _domain_flags(measured, width, domain):
    """Flags of rows outside the ranges of training."""
    flags = np.zeros(len(measured.params), np.int64)
    if "snr" in domain:
        flags |= np.where(measured.snr < domain["snr"][0], Flag.LOW_SNR, 0)
        flags |= np.where(measured.snr > domain["snr"][1], Flag.HIGH_SNR, 0)
    widths = domain.get("psf_width", domain.get("psf_fwhm"))  # the latter in bundles of older versions
    if widths is not None:
        flags |= np.where(_outside(width, widths), Flag.PSF_OUT_OF_DOMAIN, 0)
    if "hlr" in domain:
        flags |= np.where(_outside(measured.params[:, 2], domain["hlr"]), Flag.SIZE_OUT_OF_DOMAIN, 0)
    return flags


def _shape_flags(stamps, measured):
    """Flags of rows whose parameters speak against themselves."""
    params = measured.params
    n, hlr = params[:, 1], params[:, 2]
    g = np.hypot(params[:, 3], params[:, 4])
    at_bound = _outside(n, (N_RANGE[0] + _N_MARGIN, N_RANGE[1] - _N_MARGIN))
    with np.errstate(invalid="ignore"):
        moved = np.hypot(*(params[:, 5:7] - stamps.center).T) > np.maximum(_LARGEST_MOVE, hlr / 2)
    reach = np.sqrt((stamps.ivar > 0).sum((1, 2))) / 2
    too_large = hlr * np.sqrt((1 + g) / np.maximum(1 - g, 1e-3)) > reach
    return (
        np.where(at_bound, Flag.N_AT_BOUND, 0)
        | np.where(too_large, Flag.STAMP_SMALL, 0)
        | np.where(moved, Flag.FAR_CENTROID, 0)
    )


def _residual_flags(measured):
    """Flags of rows whose residuals are not noise."""
    found, chi2 = measured.examination, measured.chi2
    spread = _FIT_SIGMAS * np.sqrt(2 / measured.freedom)
    with np.errstate(invalid="ignore"):
        unlikely = gammaincc(found.inner_number / 2, found.inner / 2) < _UNLIKELY
        smooth, single = found.highest[:, 1:], found.highest[:, 0]
        spike = (single > _SPIKE) & (single > _SHARP * smooth.max(1))
        apart = found.distance[:, 1:] > np.maximum(np.sqrt(_FEW), measured.params[:, 2, None])
        neighbor = ((smooth > _PEAK) & apart).any(1) & ~spike
        pattern = (np.abs(found.core) > _CUT) | (found.smear > _SMEAR)
        poor = (np.abs(chi2 - 1) > spread) | unlikely | pattern | (found.lowest[:, 1:].min(1) < -_PEAK)
        poor |= (single > _SPIKE) | (found.lowest[:, 0] < -_SPIKE) | (smooth > _PEAK).any(1)
        correlated = found.lags.max(1) > _LAG
    return (
        np.where(poor, Flag.POOR_FIT, 0)
        | np.where(neighbor, Flag.NEIGHBOR, 0)
        | np.where(spike, Flag.SPIKE, 0)
        | np.where(correlated, Flag.CORRELATED_NOISE, 0)
        | np.where(found.tied >= _TIED, Flag.SATURATED, 0)
    )


def _off_maximum(measured, fit_sky):
    """Rows that are farther from the likelihood's maximum than bound and stated covariance allow."""
    free = [0, 1, 2, 3, 4, 5, 6, 7] if fit_sky else [0, 1, 2, 3, 4, 5, 6]
    step = newton_steps(measured.examination, free)[0][:, :5]
    allowed = measured.crb + np.where(np.isfinite(measured.covariance), measured.covariance, 0)
    usable = np.isfinite(allowed).all((1, 2)) & np.isfinite(step).all(1)
    allowed = np.where(usable[:, None, None], allowed, np.eye(5))
    with np.errstate(invalid="ignore", over="ignore"):
        distance = (step * np.linalg.solve(allowed, step[..., None])[..., 0]).sum(1)
        return usable & (distance > _STEP)


def _unresolved(measured, point_chi2):
    """Rows that a point source explains as well as a galaxy."""
    bounds = np.stack([measured.crb[:, 2, 2], measured.covariance[:, 2, 2]])
    with np.errstate(invalid="ignore"):
        tiny = measured.params[:, 2] < 2 * np.sqrt(np.fmin(*bounds))
        best = np.fmin(measured.examination.chi2, measured.chi2 * measured.freedom)
        return tiny | (point_chi2 - best < _RESOLVED)
