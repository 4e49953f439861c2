# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""Measurement of galaxies in several images together.

Each exposure goes through the first steps of the chain by itself: neighbours are found and treated.  The
network is shown the image of a galaxy that says most, to begin from what it sees there.  Then all images are
fitted with one shape, one centre, a flux for each band and a sky level for each exposure, and judged
together; those whose residuals show a source are fitted again without it.
"""

from dataclasses import dataclass, replace
from functools import partial

import numpy as np

from galshape_cnn.flags import Flag
from galshape_cnn.forward.coordinates import POSTERIOR
from galshape_cnn.forward.galaxy_model import SINGLE
from galshape_cnn.forward.sersic import N_RANGE
from galshape_cnn.forward.varying import band_shape
from galshape_cnn.infer.catalog.measurement import Measurement
from galshape_cnn.infer.fit.exposures_fit import fit_exposures
from galshape_cnn.infer.fit.moments import moment_start
from galshape_cnn.infer.likelihood.exposures import ExposureStamps, JointLikelihood
from galshape_cnn.infer.likelihood.gaussian import StampLikelihood
from galshape_cnn.infer.likelihood.rendering import BATCH_SIZE, RenderedBatch
from galshape_cnn.infer.measure.exposures.estimates import (
    network_exposures,
    of_fit,
    of_one_image,
    sample_exposures,
)
from galshape_cnn.infer.measure.exposures.quality import ExposureRows, is_single, judge
from galshape_cnn.infer.measure.exposures.residual_sources import (
    cleaned_parts,
    pixels_measured,
    with_shifts,
)
from galshape_cnn.infer.measure.exposures.task import SamplingTask
from galshape_cnn.infer.measure.neighbours import Treated, listed_positions, segment, treat
from galshape_cnn.infer.measure.quality import settled_bounds
from galshape_cnn.infer.network.amortized import sky_free_posterior
from galshape_cnn.infer.network.likelihood_update import expansion_point
from galshape_cnn.observe.stamps import Stamps
from galshape_cnn.parallel import mapped

__all__ = ["ExposurePart", "measure_exposures"]

_TOGETHER = 256  # galaxies that are fitted together
_SAFE_SNR = 1e-3  # of an exposure whose network gives no start
_SHOWN = 1  # images of each galaxy that the network sees; the others where it makes nothing of these
_ROUNDS = 3  # of the search for sources in the residuals
_WINDOW = 0.6  # of the PSF's width: sigma of the Gaussian that a galaxy's S/N is guessed with


@dataclass(frozen=True, eq=False)
class ExposurePart:
    """Stamps of one size of one exposure, neighbours treated, and what the network says of some of them.

    Attributes
    ----------
    exposure : int
        Its number.
    rows : (M,) ndarray of int
        The galaxies, ascending.
    treated : Treated
        What is to be measured.
    measured : Stamps
        The same in the unit of the user.
    mean, chol : (M, 7), (M, 7, 7) ndarray
        Mean and Cholesky factor of the network's posterior in the coordinates, fluxes in the batch's unit;
        NaN in rows that it was not shown.
    """

    exposure: int
    rows: np.ndarray
    treated: Treated
    measured: Stamps
    mean: np.ndarray
    chol: np.ndarray

    @property
    def batch(self):
        """`RenderedBatch` of the stamps."""
        return self.treated.batch

    def places(self, rows):
        """Where galaxies are in this part, and where in ``rows``, of those that are in both."""
        _, there, here = np.intersect1d(self.rows, rows, assume_unique=True, return_indices=True)
        return there, here


def measure_exposures(exposures, network, options, threads=1, advance=None):
    """Measure galaxies in several images.

    Parameters
    ----------
    exposures : galshape_cnn.observe.exposures.Exposures
        The stamps of N galaxies.
    network : AmortizedPosterior
        The live network, which gives the starts, and with ``method='network'`` the answer for a single image.
    options : Options
        ``method`` and ``neighbours``; gains and correlations are those of the exposures.
    threads : int, optional
        Batches measured at the same time.
    advance : callable, optional
        Told how many galaxies have been finished.

    Returns
    -------
    measurement : Measurement
        Of the exposures' model, in the pixels of each galaxy's reference exposure.
    by_exposure : ExposureRows
        What each exposure says.
    measured : list of list of (rows, Stamps)
        The pixels that were measured, of each exposure.
    """
    parts = [
        part for number in range(len(exposures.names))
        for part in _parts(exposures, number, network, options, threads)
    ]  # fmt: skip
    _show(exposures, parts, network, options, threads)
    by_exposure = ExposureRows.blank(exposures)
    chunks, pieces, pixels = list(_chunks(exposures)), [], []
    rounds = 0 if options.shear_response else _ROUNDS  # copies know nothing of what a search would find

    def one(rows):
        with np.errstate(all="ignore"):  # of pixels that are no galaxy; their rows are flagged
            return _measured(exposures, parts, rows, network, options, by_exposure, rounds)

    for rows, (measurement, some) in zip(chunks, mapped(one, chunks, threads), strict=True):
        pieces.append((rows, measurement))
        pixels += some
        if advance is not None:
            advance(len(rows))
    lost = np.flatnonzero(~exposures.seen.any(1))
    pieces.append((lost, _not_measured(exposures, by_exposure.flags[lost])))
    measured = [[] for _ in exposures.names]
    for part in parts:
        measured[part.exposure].append((part.rows, pixels_measured(part, pixels)))
    return Measurement.scatter(len(exposures), pieces), by_exposure, measured


def _not_measured(exposures, flags):
    """Rows that no exposure has data of; what all exposures say of them is kept."""
    blank = Measurement.empty(len(flags), exposures.model)
    common = np.bitwise_and.reduce(flags, axis=1, initial=-1) if len(flags) else blank.flags
    return replace(blank, flags=blank.flags | Flag.NO_DATA | Flag.BAND_MISSING | common)


def _parts(exposures, number, network, options, threads):
    """Stamps of an exposure with their neighbours treated, before the network has seen them."""
    observation = exposures.observations[number]
    for (index, stamps), listed in zip(observation.groups, listed_positions(observation), strict=True):
        some = np.flatnonzero(exposures.seen[index, number])
        if not len(some):
            continue
        batches = [some[k : k + BATCH_SIZE] for k in range(0, len(some), BATCH_SIZE)]

        def one(rows, stamps=stamps, listed=listed):
            with np.errstate(all="ignore"):
                batch = RenderedBatch.from_stamps(stamps[rows], exposures.gains[number])
                found = segment(batch, [listed[row] for row in rows], options)
                treated = treat(batch, found, network, replace(options, gain=exposures.gains[number]))
                return treated, treated.in_units_of_user(stamps[rows])

        size = POSTERIOR.model.size
        for rows, done in zip(batches, mapped(one, batches, threads), strict=True):
            blank = np.full((len(rows), size), np.nan), np.full((len(rows), size, size), np.nan)
            yield ExposurePart(number, index[rows], *done, *blank)


def _show(exposures, parts, network, options, threads):
    """Show the network the images of each galaxy that say most; the others if it makes nothing of these."""
    worth = np.full(exposures.seen.shape, -np.inf)
    for part in parts:
        worth[part.rows, part.exposure] = _worth(part, exposures.view(part.rows, part.exposure))
    rank = np.argsort(np.argsort(-worth, axis=1, kind="stable"), axis=1)
    known = np.zeros(len(worth), bool)
    for wanted in (rank < _SHOWN, rank >= _SHOWN):
        todo = [np.flatnonzero(wanted[part.rows, part.exposure] & ~known[part.rows]) for part in parts]
        looks = [(part, rows) for part, rows in zip(parts, todo, strict=True) if len(rows)]

        def one(look):
            part, rows = look
            batch = part.batch if len(rows) == len(part.rows) else part.batch[rows]
            with np.errstate(all="ignore"):
                return _look(batch, network, options)

        for (part, rows), (mean, chol) in zip(looks, mapped(one, looks, threads), strict=True):
            part.mean[rows], part.chol[rows] = mean, chol
            known[part.rows[rows]] |= np.isfinite(mean).all(1) & np.isfinite(chol).all((1, 2))


def _worth(part, view):
    """What images may say of shapes: S/N in a small window, over the width of the PSF in the common frame."""
    stamps = part.batch.stamps
    width = part.batch.psf_width
    axis = np.arange(stamps.data.shape[-1])
    along = [
        np.exp(-0.5 * ((axis - centre[:, None]) / (_WINDOW * width[:, None])) ** 2)
        for centre in stamps.center.T
    ]
    window = along[1][:, :, None] * along[0][:, None]
    weight = stamps.ivar * window
    # without the sky, whatever its level is
    level = weight.sum((1, 2)) / np.maximum(stamps.ivar.sum((1, 2), dtype=float), 1e-300)
    window = window - level[:, None, None]
    weight = stamps.ivar * window
    signal = (weight * np.where(stamps.ivar > 0, stamps.data, 0)).sum((1, 2))
    noise = np.sqrt(np.maximum((weight * window).sum((1, 2)), 1e-300))
    scale = np.sqrt(np.abs(np.linalg.det(view.frame)))
    return np.nan_to_num(signal / noise * scale / width, nan=-np.inf)


def _look(batch, network, options):
    """Mean and Cholesky factor of the network's posteriors."""
    mean = np.full((len(batch), POSTERIOR.model.size), np.nan)
    chol = np.full((len(batch), POSTERIOR.model.size, POSTERIOR.model.size), np.nan)
    usable = np.flatnonzero((batch.stamps.ivar > 0).any((1, 2)))
    for rows, _, full in batch.filled(usable, by_kernel=True):
        posterior = sky_free_posterior(full, network, options.fit_sky)[0]
        mean[rows], chol[rows] = (one[: len(rows)] for one in expansion_point(posterior))
    return mean, chol


def _chunks(exposures):
    """Rows that are fitted together: of one size of the reference stamp."""
    seen = np.flatnonzero(exposures.seen.any(1))
    side = exposures.placement(seen, exposures.reference[seen])["side"]
    for value in np.unique(side):
        rows = seen[side == value]
        for start in range(0, len(rows), _TOGETHER):
            yield rows[start : start + _TOGETHER]


def _measured(exposures, parts, rows, network, options, by_exposure, rounds):
    """Measurement of rows without the sources that their residuals show, and the pixels that changed."""
    before = by_exposure.flags[rows].copy()
    first, looks = _measured_once(exposures, parts, rows, network, options, by_exposure)
    if not rounds:
        return first, []
    cleaned = cleaned_parts(looks, rows)
    again, kept = np.flatnonzero(cleaned.changed), np.flatnonzero(~cleaned.changed)
    if not len(again):
        return first, []
    by_exposure.flags[rows[again]] = before[again]
    known = network, options, by_exposure, rounds - 1
    second, more = _measured(exposures, cleaned.parts, rows[again], *known)
    second = with_shifts(second, first[again], cleaned.close[again])
    pieces = [piece for piece in ((kept, first[kept]), (again, second)) if len(piece[0])]
    return Measurement.scatter(len(rows), pieces), cleaned.pixels + more


def _measured_once(exposures, parts, rows, network, options, by_exposure):
    """Measurement of some rows, and looks at each of their images.

    What each exposure says is put into its own rows.
    """
    likelihood, found = _likelihood(exposures, parts, rows)
    start, best = _start(likelihood, found)
    side = int(exposures.placement(rows[:1], exposures.reference[rows[:1]])["side"][0])
    again = partial(_start_again, likelihood, start, best)
    if is_single(exposures, options):
        found = of_one_image(found, likelihood, network, options)
    elif options.method != "ml":
        task = SamplingTask(exposures, likelihood, tuple(found), start, again, side, network, options)
        found = sample_exposures(task) if options.method == "posterior" else network_exposures(task)
    else:
        found = of_fit(fit_exposures(likelihood, start, side, again), likelihood)
    free = likelihood.free()
    judged = judge(exposures, parts, rows, found, free, network, options, by_exposure)
    known = free.copy()
    known[:, exposures.model.skies] = exposures.seen[rows]  # a sky that is not fitted is zero
    flags = (
        found.flags | judged.flags | np.where(free[:, exposures.model.fluxes].all(1), 0, Flag.BAND_MISSING)
    )
    # flux of the last band, n, hlr, g1, g2, as of one image
    last = slice(exposures.model.n - 1, exposures.model.shear.stop)
    five = found.params[:, last], (judged.crb + judged.structure)[:, last, last]
    flags = settled_bounds(flags, *five, side) | _at_limits(found.params, free, exposures.model)
    errors = judged.covariance, judged.crb, judged.snr, judged.chi2, found.ess
    params = np.where(known, found.params, np.nan)
    measurement = Measurement(
        params, *errors, flags, found.samples, structure=judged.structure, model=exposures.model
    )
    return measurement, judged.looks


def _at_limits(params, free, model):
    """``N_AT_BOUND`` where the index that varies has reached an end of its range in a band with data."""
    flags = np.zeros(len(params), np.int64)
    for band in range(len(model.bands)) if model.coefficients else ():
        n = band_shape(params, model, band)[0][:, 0]
        ends = (n <= N_RANGE[0]) | (n >= N_RANGE[1])
        flags |= np.where(ends & free[:, band], Flag.N_AT_BOUND, 0)
    return flags


def _likelihood(exposures, parts, rows):
    """Joint likelihood of some rows, and for each of its parts the part of the exposures and places in it."""
    model, units, found = exposures.model, np.ones((len(rows), exposures.model.size)), []
    fresh = np.ones((len(rows), len(model.bands)), bool)
    for part in parts:
        there, here = part.places(rows)
        if not len(there):
            continue
        batch = part.batch[there]
        likelihood = StampLikelihood.from_stamps(
            batch.stamps.data, batch.stamps.ivar, batch.transfer, batch.grid
        )
        scale = likelihood.scale * batch.unit  # of its pixels, in the unit of the user
        view = exposures.view(rows[here], part.exposure)
        new = fresh[here, view.band]
        units[here[new], view.band] = (scale / view.factor)[new]
        fresh[here, view.band] = False
        units[here, model.skies.start + part.exposure] = scale
        found.append((part, there, here, likelihood, view, scale))
    stamps = []
    for part, _, here, likelihood, view, scale in found:
        factor = view.factor * units[here, view.band] / scale
        gain = exposures.gains[part.exposure]
        gain = None if gain is None else gain * scale / likelihood.scale  # electrons per unit of the batch
        stamps.append(ExposureStamps(here, likelihood, replace(view, factor=factor), gain))
    joint = JointLikelihood(model, tuple(stamps), units)
    return joint, [(part, there) for part, there, *_ in found]


def _start(likelihood, found):
    """Shape and centre of the exposure that says most, by its network, and a flux for each band.

    Second result: the number of that exposure among the parts of the likelihood.
    """
    model, n = likelihood.model, len(likelihood)
    start = np.zeros((n, model.size))
    start[:, model.fluxes], start[:, model.n], start[:, model.hlr] = 1.0, 1.5, 3.0
    chosen = np.zeros(n, int)
    best, brightest = np.zeros(n), np.zeros((n, len(model.bands)))
    for number, ((part, there), stamps) in enumerate(zip(found, likelihood.parts, strict=True)):
        rows, band = stamps.rows, stamps.view.band
        own, known = SINGLE.filled(SINGLE.with_sky(POSTERIOR.params(part.mean[there]), 0.0))
        own = stamps.view.outward(own / SINGLE.units(stamps.likelihood.scale))
        certainty = 1 / np.where(known, part.chol[there, 0, 0], np.inf)  # flux over its error
        certainty = np.where(np.isfinite(certainty), certainty, 0.0)
        brighter = certainty > brightest[rows, band]
        start[rows[brighter], band] = own[brighter, band]
        brightest[rows[brighter], band] = certainty[brighter]
        better = certainty > best[rows]
        start[rows[better], model.searched] = own[better][:, model.searched]
        best[rows[better]], chosen[rows[better]] = certainty[better], number
        unknown = best[rows] == 0  # no network has an answer: a round galaxy where the list has it
        start[rows[unknown], model.centre] = stamps.view.reference[unknown]
        best[rows[unknown]], chosen[rows[unknown]] = _SAFE_SNR, number
    return start, chosen


def _start_again(likelihood, start, best, rows):
    """Other starts for some rows: moments of the exposure that says most."""
    out = start[rows].copy()
    for number in np.unique(best[rows]):
        stamps = likelihood.parts[number]
        inside = np.flatnonzero(np.isin(stamps.rows, rows[best[rows] == number]))
        some, view = stamps.likelihood[inside], stamps.view[inside]
        center = view.params(start[stamps.rows[inside]])[:, SINGLE.centre]
        own = moment_start(some.data, some.ivar, some.transfer, some.grid, center)
        at = np.searchsorted(rows, stamps.rows[inside])
        out[at, likelihood.model.searched] = view.outward(own)[:, likelihood.model.searched]
    return out
