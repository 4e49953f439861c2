# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""Bound, S/N, chi-square and flags of galaxies that were fitted in several images."""

from dataclasses import dataclass, replace

import numpy as np

from galshape_cnn.flags import Flag
from galshape_cnn.forward.galaxy_model import SINGLE
from galshape_cnn.forward.psf.width import psf_width
from galshape_cnn.forward.render import BLOCK
from galshape_cnn.infer.likelihood.exposures import joint_errors
from galshape_cnn.infer.likelihood.residuals import point_source_chi2
from galshape_cnn.infer.likelihood.sandwich import information
from galshape_cnn.infer.measure.bounds import errors_of
from galshape_cnn.infer.measure.estimates import Estimate
from galshape_cnn.infer.measure.quality import row_flags

__all__ = ["ExposureRows", "JudgedRows", "is_single", "judge"]

#: Of the PSF's width: smaller galaxies are compared with a point source; chi-square by which a galaxy must
#: beat it, in all images together.  As for one image.
_SMALL, _RESOLVED = 0.75, 13.0

#: Flags that concern the pixels of an image: one exposure that has them is reason for doubt of the row.
_OF_ANY = (
    Flag.EDGE | Flag.MASKED | Flag.CENTER_MASKED | Flag.NEIGHBOR | Flag.POOR_FIT | Flag.PSF_ESTIMATED
    | Flag.SATURATED | Flag.SPIKE | Flag.CORRELATED_NOISE | Flag.N_AT_BOUND | Flag.PSF_OUT_OF_DOMAIN
    | Flag.SIZE_OUT_OF_DOMAIN | Flag.INCONSISTENT
)  # fmt: skip
#: Flags that a row has when all its exposures have them.
_OF_ALL = Flag.RECENTER_FAILED | Flag.FAR_CENTROID | Flag.STAMP_SMALL
#: Flags of one image that say nothing of an exposure, or are decided for all exposures together.
_OF_ROW = Flag.LOW_SNR | Flag.HIGH_SNR | Flag.UNTRUSTED | Flag.UNRESOLVED | Flag.SINGULAR


@dataclass(frozen=True, eq=False)
class ExposureRows:
    """What each of E exposures says of N galaxies, with the parameters that fit all of them.

    Attributes
    ----------
    params : (N, E, 8) ndarray
        flux, n, hlr, g1, g2, x, y, sky in the pixels and the unit of each exposure; NaN where unseen.
    chi2, snr : (N, E) ndarray
        Reduced chi-square and S/N.
    n_pixels : (N, E) ndarray of int
        Pixels that count.
    flags : (N, E) ndarray of int64
        Bits of `galshape_cnn.flags`.
    """

    params: np.ndarray
    chi2: np.ndarray
    snr: np.ndarray
    n_pixels: np.ndarray
    flags: np.ndarray

    @classmethod
    def blank(cls, exposures):
        """Of exposures that were not looked at: flags of their stamps."""
        shape = exposures.seen.shape
        flags = np.zeros(shape, np.int64)
        for number, observation in enumerate(exposures.observations):
            for index, stamps in observation.groups:
                empty = ~(stamps.ivar > 0).any((1, 2))
                flags[index, number] = stamps.flags | np.where(empty, Flag.NO_DATA, 0)
        nan = np.full((*shape, SINGLE.size + 2), np.nan)
        params, chi2, snr = nan[..., :-2].copy(), nan[..., -2].copy(), nan[..., -1].copy()
        return cls(params, chi2, snr, np.zeros(shape, int), flags)

    def __getitem__(self, rows):
        return ExposureRows(*(value[rows] for value in vars(self).values()))


@dataclass(frozen=True, eq=False)
class JudgedRows:
    """Bound, and that with independent noise, (N, R, R); S/N, reduced chi-square and flags (N,) of rows."""

    crb: np.ndarray
    supposed: np.ndarray
    snr: np.ndarray
    chi2: np.ndarray
    flags: np.ndarray


@dataclass(frozen=True, eq=False)
class _Look:
    """Rows of one part of the exposures at their joint parameters."""

    part: object
    there: np.ndarray
    here: np.ndarray
    view: object
    batch: object
    judged: object
    options: object

    @property
    def own(self):
        """Parameters in the exposure's pixels, fluxes in the batch's unit."""
        return self.judged.params


def is_single(exposures, options):
    """Whether the answer is that of a network to a single image.

    Parameters
    ----------
    exposures : Exposures
    options : Options

    Returns
    -------
    single : bool
    """
    return options.method == "network" and len(exposures.names) == 1


def judge(exposures, parts, rows, params, free, network, options, by_exposure):
    """Judge galaxies at the parameters that fit all their images.

    Parameters
    ----------
    exposures : Exposures
    parts : list of ExposurePart
        All stamps.
    rows : (M,) ndarray of int
        The galaxies.
    params : (M, P) ndarray
        Of the exposures' model, in the unit of the user.
    free : (M, P) ndarray of bool
        Which of them were fitted.
    network : AmortizedPosterior
        Its ranges of training count.
    options : Options
    by_exposure : ExposureRows
        Of all galaxies; the rows of these are filled in.

    Returns
    -------
    judged : JudgedRows
    """
    looks = [_look(exposures, part, *part.places(rows), rows, params, options) for part in parts]
    looks = [look for look in looks if look is not None]
    crb, supposed, singular = _errors(exposures, looks, params, free)
    strength, chi2, freedom = np.zeros(len(rows)), np.zeros(len(rows)), np.zeros(len(rows))
    gain, small = np.zeros(len(rows)), np.ones(len(rows), bool)
    for look in looks:
        flags = _flags_of(look, crb, params, network, exposures.model)
        at = (rows[look.here], look.part.exposure)
        judged, used = look.judged, (look.batch.stamps.ivar > 0).sum((1, 2))
        by_exposure.params[at] = look.own * SINGLE.units(look.batch.unit)
        by_exposure.chi2[at], by_exposure.snr[at] = judged.chi2, judged.snr
        by_exposure.n_pixels[at], by_exposure.flags[at] = used, by_exposure.flags[at] | flags
        strength[look.here] += judged.snr**2
        chi2[look.here] += judged.chi2 * judged.freedom
        freedom[look.here] += used
        better, is_small = _against_point(look)
        gain[look.here] += better
        small[look.here] &= is_small
    freedom = np.maximum(freedom - free.sum(1), 1)
    own = np.where(exposures.seen[rows], by_exposure.flags[rows], 0)
    common = np.where(exposures.seen[rows], by_exposure.flags[rows], -1)
    flags = np.bitwise_or.reduce(own, 1) & _OF_ANY | np.bitwise_and.reduce(common, 1) & _OF_ALL
    hlr = exposures.model.hlr
    tiny = params[:, hlr] < 2 * np.sqrt(crb[:, hlr, hlr])
    flags |= np.where(singular, Flag.SINGULAR, 0)
    flags |= np.where(tiny | (small & (gain < _RESOLVED)), Flag.UNRESOLVED, 0)
    snr = np.sqrt(strength)
    if "snr" in network.domain:
        flags |= np.where(snr < network.domain["snr"][0], Flag.LOW_SNR, 0)
        above = (snr > network.domain["snr"][1]) & is_single(exposures, options)
        flags |= np.where(above, Flag.HIGH_SNR, 0)
    return JudgedRows(crb, supposed, snr, chi2 / freedom, flags)


def _look(exposures, part, there, here, rows, params, options):
    """One part at the joint parameters; None if it shows none of the galaxies."""
    if not len(there):
        return None
    view, batch = exposures.view(rows[here], part.exposure), part.batch[there]
    own = view.params(params[here]) / SINGLE.units(batch.unit)
    nan = np.full((len(own), 5, 5), np.nan)
    found = Estimate(own, nan, np.zeros(len(own), np.int64), nan[:, 0, 0])
    if not is_single(exposures, options):  # likelihood and sampling depend on no training
        options = replace(options, method="ml")
    options = replace(options, gain=exposures.gains[part.exposure], correlation=None)
    judged = errors_of(batch, found, np.zeros(len(own), bool), options)
    options = replace(options, correlation=exposures.correlations[part.exposure])
    return _Look(part, there, here, view, batch, judged, options)


def _errors(exposures, looks, params, free):
    """Bound of the joint fit, or sandwich where noise is correlated, bound, and where there is none."""
    model, n = exposures.model, len(params)
    naive, actual = np.zeros((2, n, model.size, model.size))
    changed = np.zeros(n, bool)
    for look in looks:
        turn = look.view.jacobian(params[look.here]) / SINGLE.units(look.batch.unit)[:, :, None]
        own = [look.judged.examination.fisher] * 2
        fitted = look.part.treated.fitted[look.there]
        if look.options.correlation is not None or fitted.any():
            own = information(look.batch, look.own, look.options.correlation)
            changed[look.here] |= fitted | (look.options.correlation is not None)
        for total, matrix in zip((naive, actual), own, strict=True):
            total[look.here] += np.swapaxes(turn, 1, 2) @ matrix @ turn
    return joint_errors(model, naive, actual, free)


def _flags_of(look, crb, params, network, model):
    """Flags of one exposure, decided on the errors of the joint fit."""
    unit = SINGLE.units(look.batch.unit)[:, SINGLE.reported]
    turn = look.view.jacobian(params[look.here])[:, SINGLE.reported, model.reported] / unit[:, :, None]
    joint = np.where(np.isfinite(crb[look.here]), crb[look.here], 0)
    judged = replace(look.judged, crb=turn @ joint @ np.swapaxes(turn, 1, 2))
    return row_flags(look.batch, judged, network, look.options) & ~_OF_ROW


def _against_point(look):
    """Chi-square that a galaxy wins over a point source, and whether it is small enough to ask."""
    width = np.broadcast_to(
        psf_width(look.batch.stamps.psf, look.batch.stamps.psf_oversampling), len(look.here)
    )
    small = look.own[:, SINGLE.hlr] < _SMALL * width
    better = np.zeros(len(small))
    for rows, padded, full in look.batch.filled(np.flatnonzero(small), 2 * BLOCK):
        arrays = look.own[padded], full.stamps.data, full.stamps.ivar, full.transfer
        point = point_source_chi2(*arrays, full.grid, look.options.fit_sky, full.gain)[: len(rows)]
        better[rows] = point - (look.judged.chi2 * look.judged.freedom)[rows]
    return better, small
