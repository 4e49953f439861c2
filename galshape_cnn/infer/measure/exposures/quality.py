# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""Bound, S/N, chi-square and flags of galaxies measured in several images."""

from dataclasses import dataclass, replace

import numpy as np

from galshape_cnn.flags import Flag
from galshape_cnn.forward.galaxy_model import SINGLE
from galshape_cnn.infer.likelihood.exposures import joint_errors
from galshape_cnn.infer.likelihood.sandwich import on_known, products_at, widened
from galshape_cnn.infer.measure.bounds import hidden_sources, structure_at, suspicions, without_errors
from galshape_cnn.infer.measure.exposures.gradients import ShapeDifferences, shape_differences
from galshape_cnn.infer.measure.quality import (
    LARGE,
    LARGEST_SHARE,
    RESOLVED,
    SMALL,
    chi2_of_points,
    image_flags,
    limit_flags_of_n,
    neighbour_flags,
)
from galshape_cnn.infer.residuals.structure import SIGNIFICANT, score_roots

__all__ = ["ExposureRows", "JudgedRows", "is_single", "judge"]

_UNLIKELY = 1e-4  # probability of differences between bands, below which one shape does not hold in all

#: Flags that concern the pixels of an image: one exposure that has them is reason for doubt of the row.
_OF_ANY = (
    Flag.EDGE | Flag.MASKED | Flag.CENTER_MASKED | Flag.NEIGHBOR | Flag.NEIGHBOR_LIGHT | Flag.POOR_FIT
    | Flag.PSF_ESTIMATED | Flag.SATURATED | Flag.SPIKE | Flag.CORRELATED_NOISE | Flag.N_AT_BOUND
    | Flag.PSF_OUT_OF_DOMAIN | Flag.SIZE_OUT_OF_DOMAIN | Flag.INCONSISTENT
)  # fmt: skip
#: Flags that a row has when all its exposures have them.
_OF_ALL = Flag.RECENTER_FAILED | Flag.FAR_CENTROID | Flag.STAMP_SMALL | Flag.BLENDED
#: Flags of one image that say nothing of an exposure, or are decided for all exposures together.
_OF_ROW = Flag.LOW_SNR | Flag.HIGH_SNR | Flag.UNTRUSTED | Flag.UNRESOLVED | Flag.SINGULAR
_SUSPECTED = 1.0  # significance of structure in one image from which it counts in the sum over images
_ROUNDING = 0.05  # of significances, which two codes compute in single precision


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
    gradient, gradient_error : (N,) ndarray
        ln hlr in the last band minus that in the first, see
        `galshape_cnn.infer.measure.exposures.gradients`.
    """

    params: np.ndarray
    chi2: np.ndarray
    snr: np.ndarray
    n_pixels: np.ndarray
    flags: np.ndarray
    gradient: np.ndarray
    gradient_error: np.ndarray

    @classmethod
    def blank(cls, exposures):
        """Of exposures that were not looked at: flags of their stamps."""
        out = cls.empty(exposures.seen.shape)
        for number, observation in enumerate(exposures.observations):
            for index, stamps in observation.groups:
                no_data = ~(stamps.ivar > 0).any((1, 2))
                out.flags[index, number] = stamps.flags | np.where(no_data, Flag.NO_DATA, 0)
        return out

    @classmethod
    def empty(cls, shape):
        """Of nothing: (N, E) rows of NaN without flags."""
        params, (chi2, snr) = np.full((*shape, SINGLE.size), np.nan), np.full((2, *shape), np.nan)
        gradient = np.full((2, shape[0]), np.nan)
        return cls(params, chi2, snr, np.zeros(shape, int), np.zeros(shape, np.int64), *gradient)

    def __getitem__(self, rows):
        return ExposureRows(*(value[rows] for value in vars(self).values()))


@dataclass(frozen=True, eq=False)
class JudgedRows:
    """What all images say of rows.

    Attributes
    ----------
    crb, structure, covariance : (N, R, R) ndarray
        Bound (in correlated noise the sandwich), what structure adds to it, and the posterior's covariance,
        which contains it.
    snr, chi2 : (N,) ndarray
        S/N, and reduced chi-square.
    flags : (N,) ndarray of int64
    looks : list of (_Look, Judged)
        At each image, with its errors those of the joint fit.
    """

    crb: np.ndarray
    structure: np.ndarray
    covariance: np.ndarray
    snr: np.ndarray
    chi2: np.ndarray
    flags: np.ndarray
    looks: list


@dataclass(frozen=True, eq=False)
class _Errors:
    """Covariances (N, R, R) of all images together: reached, supposed, of structure, and stated."""

    crb: np.ndarray
    supposed: np.ndarray
    structure: np.ndarray
    covariance: np.ndarray
    singular: np.ndarray
    differences: ShapeDifferences
    white: list

    def variance(self, index):
        """The lesser of stated variance and that of an unbiased estimate, of one parameter."""
        return np.fmin((self.crb + self.structure)[:, index, index], self.covariance[:, index, index])


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

    def shared(self, matrix, params):
        """Products of two scores, (M, 8, 8) of this exposure, by the parameters of all."""
        turn = self.turn(params)
        return np.swapaxes(turn, 1, 2) @ matrix @ turn

    def turn(self, params):
        """Derivative of this exposure's parameters (M, 8, P) by those of all."""
        return self.view.jacobian(params[self.here]) / SINGLE.units(self.batch.unit)[:, :, None]


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


def judge(exposures, parts, rows, found, free, network, options, by_exposure):
    """Judge galaxies at the parameters that fit all their images.

    Parameters
    ----------
    exposures : Exposures
    parts : list of ExposurePart
        All stamps.
    rows : (M,) ndarray of int
        The galaxies.
    found : galshape_cnn.infer.measure.estimates.Estimate
        Parameters and covariance in the unit of the user.
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
    params, model = found.params, exposures.model
    looks = [_look(exposures, part, *part.places(rows), rows, params, options) for part in parts]
    looks = [look for look in looks if look is not None]
    errors = _errors(exposures, looks, found, free, is_single(exposures, options))
    strength, chi2, freedom, gain = np.zeros((4, len(rows)))
    (small, resolved), seen = np.ones((2, len(rows)), bool), []
    for look, white in zip(looks, errors.white, strict=True):
        seen.append((look, _with_errors(look, white, errors, params, model)))
        flags = _flags_of(*seen[-1], network)
        at = (rows[look.here], look.part.exposure)
        judged, used = look.judged, (look.batch.stamps.ivar > 0).sum((1, 2))
        by_exposure.params[at] = look.own * SINGLE.units(look.batch.unit)
        by_exposure.chi2[at], by_exposure.snr[at] = judged.chi2, judged.snr
        by_exposure.n_pixels[at], by_exposure.flags[at] = used, by_exposure.flags[at] | flags
        strength[look.here] += judged.snr**2
        chi2[look.here] += judged.chi2 * judged.freedom
        freedom[look.here] += used
        better, is_small, is_large = _against_point(look)
        gain[look.here] += better
        small[look.here] &= is_small
        resolved[look.here] &= is_large
    chi2 = chi2 / np.maximum(freedom - free.sum(1), 1)
    own = np.where(exposures.seen[rows], by_exposure.flags[rows], 0)
    common = np.where(exposures.seen[rows], by_exposure.flags[rows], -1)
    flags = np.bitwise_or.reduce(own, 1) & _OF_ANY | np.bitwise_and.reduce(common, 1) & _OF_ALL
    tiny = ~resolved & (params[:, model.hlr] < 2 * np.sqrt(errors.variance(model.hlr)))
    flags |= np.where(errors.singular, Flag.SINGULAR, 0)
    flags |= np.where(tiny | (small & (gain < RESOLVED)), Flag.UNRESOLVED, 0)
    flags |= _misfit(errors, params, model)
    flags |= np.where(errors.differences.probability < _UNLIKELY, Flag.SHAPE_VARIES, 0)
    by_exposure.gradient[rows] = errors.differences.gradient
    by_exposure.gradient_error[rows] = errors.differences.error
    if options.method == "network":
        variance = errors.covariance[:, model.n, model.n]
        flags |= limit_flags_of_n(params[:, model.n], variance, network.domain)
    snr = np.sqrt(strength)
    if "snr" in network.domain:
        flags |= np.where(snr < network.domain["snr"][0], Flag.LOW_SNR, 0)
        above = (snr > network.domain["snr"][1]) & is_single(exposures, options)
        flags |= np.where(above, Flag.HIGH_SNR, 0)
    return JudgedRows(errors.crb, errors.structure, errors.covariance, snr, chi2, flags, seen)


def _misfit(errors, params, model):
    """``MISFIT`` where structure moves a flux or the size by too much for errors to first order."""
    which = [*range(model.n), model.hlr]
    sigma = np.sqrt(np.diagonal(errors.structure, axis1=1, axis2=2)[:, which])
    with np.errstate(invalid="ignore"):
        return np.where((sigma > LARGEST_SHARE * np.abs(params[:, which])).any(1), Flag.MISFIT, 0)


def _look(exposures, part, there, here, rows, params, options):
    """One part at the joint parameters; None if it shows none of the galaxies."""
    if not len(there):
        return None
    view, batch = exposures.view(rows[here], part.exposure), part.batch[there]
    own = view.params(params[here]) / SINGLE.units(batch.unit)
    if not is_single(exposures, options):  # likelihood and sampling depend on no training
        options = replace(options, method="ml")
    gain, correlation = exposures.gains[part.exposure], exposures.correlations[part.exposure]
    psf_error = None if options.psf_error is None else options.psf_error[part.exposure]
    options = replace(options.with_noise(gain, correlation), psf_error=psf_error)
    return _Look(part, there, here, view, batch, without_errors(batch, own, options), options)


def _errors(exposures, looks, found, free, is_single):
    """Errors of the joint fit; NaN where nothing is known."""
    model, n = exposures.model, len(found.params)
    naive, actual = np.zeros((2, n, model.size, model.size))
    matrices = []
    for look in looks:
        own = [look.judged.examination.fisher] * 2
        if look.options.correlation is not None or look.part.treated.fitted[look.there].any():
            own = products_at(look.batch, look.own, look.judged.examination, look.options.correlation)
        for total, matrix in zip((naive, actual), own, strict=True):
            total[look.here] += look.shared(matrix, found.params)
        matrices.append(own)
    crb, supposed, singular = joint_errors(model, naive, actual, free)
    roots, white = _structure_roots(looks, found.params, naive)
    structure = _beyond_the_map(looks, matrices, white, found.params, naive, free)
    matrices = [(own[0], own[1] * one[:, None, None]) for own, one in zip(matrices, white, strict=True)]
    for kind in roots:
        total = np.zeros(naive.shape)
        for look, root in zip(looks, kind, strict=True):
            total[look.here] += root
        structure = structure + joint_errors(model, naive, total @ np.swapaxes(total, 1, 2), free)[0]
    structure = structure + _of_uncertain_psfs(looks, found.params, naive, free)
    covariance = found.covariance
    differences = shape_differences(looks, matrices, roots, found.params, free, model)
    if is_single:  # the network knew of no correlation and no fitted neighbour
        covariance = on_known(widened, covariance, supposed, crb, covariance)
    rows = np.flatnonzero(np.nan_to_num(structure).any((1, 2)))
    if len(rows):
        covariance = covariance.copy()
        own = covariance[rows], crb[rows], crb[rows] + structure[rows]
        covariance[rows] = on_known(widened, *own, covariance[rows])
    return _Errors(crb, supposed, structure, covariance, singular, differences, white)


def _beyond_the_map(looks, matrices, white, params, fisher, free):
    """What white noise beyond the noise maps adds to the covariance."""
    more = np.zeros(fisher.shape)
    for look, own, one in zip(looks, matrices, white, strict=True):
        more[look.here] += look.shared((one - 1)[:, None, None] * own[1], params)
    if not more.any():
        return 0.0
    return np.nan_to_num(joint_errors(looks[0].view.model, fisher, more, free)[0])


def _of_uncertain_psfs(looks, params, fisher, free):
    """What PSFs that are not exactly known, each for itself, add to the covariance."""
    more = np.zeros(fisher.shape)
    for look in looks:
        known = look.options.psf_error
        if known is not None:
            own = known.score_covariance(look.batch, look.own, look.options.fit_sky)
            more[look.here] += look.shared(own, params)
    if not more.any():
        return 0.0
    return np.nan_to_num(joint_errors(looks[0].view.model, fisher, more, free)[0])


def _structure_roots(looks, params, fisher):
    """Roots of the scores of structure in each look, of galaxy and of sky; zero where none is seen.

    Second result: the variance (M,) of each look's white noise in units of its noise map's.
    """
    n, out = len(params), []
    parts = list(_structure_of(looks, n))
    white = [np.ones(len(look.here)) for look in looks]
    for one, (_, rows, found) in zip(white, parts, strict=True):
        if found is not None:
            one[rows] = np.where(np.isfinite(found.white), found.white, 1.0)
    for kind in ("galaxy", "sky"):
        doubt, scores = np.zeros(n), []
        for look, rows, found in parts:
            own = np.zeros((len(look.here), SINGLE.size, SINGLE.size))
            if found is not None:
                doubt[look.here[rows]] += np.nan_to_num(getattr(found, f"{kind}_significance"))
                own[rows] = np.nan_to_num(getattr(found, f"{kind}_score"))
            scores.append((look.here, look.shared(own, params)))
        out.append(score_roots(scores, fisher, doubt > _needed(looks, n)))
    return out, white


def _needed(looks, n):
    """Sum of the significances of structure in all images of a row, above which it counts, (N,)."""
    count = np.zeros(n)
    for look in looks:
        count[look.here] += 1
    return SIGNIFICANT * np.sqrt(np.maximum(count, 1))


def _structure_of(looks, n):
    """(look, rows, structure) of each look; no structure where there is none.

    What no image alone shows, all together may.  A closer look is slow, and finds no more than what was
    suspected before; so only galaxies are looked at whose suspicions add up to enough.
    """
    suspected = [suspicions(look.judged, look.options, _SUSPECTED) for look in looks]
    sums, white = np.zeros((2, n)), np.zeros(n, bool)
    for look, one in zip(looks, suspected, strict=True):
        for total, value in zip(sums, (one.galaxy, one.sky), strict=True):
            total[look.here] += np.where(one.likely, np.nan_to_num(value), 0)
        white[look.here] |= one.likely & one.white
    wanted = white | (sums > _needed(looks, n) - _ROUNDING).any(0)
    for look, one in zip(looks, suspected, strict=True):
        rows = np.flatnonzero(one.likely & wanted[look.here])
        yield look, rows, structure_at(look.batch, look.judged, rows, look.options, _SUSPECTED)


def _with_errors(look, white, errors, params, model):
    """What one exposure says, with the errors of the joint fit."""
    unit = SINGLE.units(look.batch.unit)[:, SINGLE.reported]
    turn = look.view.jacobian(params[look.here])[:, SINGLE.reported, model.reported] / unit[:, :, None]
    own = {"white": white}
    for name in ("crb", "structure", "covariance"):
        joint = getattr(errors, name)[look.here]
        stated = np.isfinite(joint).any((1, 2))[:, None, None]
        own[name] = np.where(stated, turn @ np.nan_to_num(joint) @ np.swapaxes(turn, 1, 2), np.nan)
    return replace(look.judged, **own)


def _flags_of(look, judged, network):
    """Flags of one exposure, decided on the errors of the joint fit."""
    treated = look.part.treated
    fraction = treated.light_on_others(look.own, look.there)
    flags = image_flags(look.batch, judged, network, look.options)
    stated = judged.covariance, judged.crb + judged.structure
    hidden = hidden_sources(look.batch, judged, stated, look.options).hidden
    flags |= np.where(hidden, Flag.NEIGHBOR_LIGHT, 0)
    return (flags | neighbour_flags(fraction, treated.flags[look.there])) & ~_OF_ROW


def _against_point(look):
    """Chi-square that a galaxy wins over a point source, if it is small enough to ask, and if it is large."""
    small = look.own[:, SINGLE.hlr] < SMALL * look.batch.psf_width
    points = chi2_of_points(look.batch, look.own, np.flatnonzero(small), look.options)
    better = np.where(small, points - look.judged.chi2 * look.judged.freedom, 0.0)
    return better, small, look.own[:, SINGLE.hlr] >= LARGE * look.batch.psf_width
