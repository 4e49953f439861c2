# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""Measure galaxies in several images together.

Every exposure is first measured by itself, by the network and with its neighbours dealt with: that gives
the pixels that count, and a start.  Then all images of a galaxy are fitted with one shape, one centre, a flux
for each band and a sky level for each exposure.
"""

from dataclasses import dataclass, replace

import numpy as np

from galshape_cnn.errors import InputError
from galshape_cnn.flags import SEVERE, Flag
from galshape_cnn.forward.galaxy_model import SINGLE
from galshape_cnn.forward.psf.width import psf_width
from galshape_cnn.forward.transfer import grid_for, transfer_functions
from galshape_cnn.infer.catalog.measurement import Measurement
from galshape_cnn.infer.fit.exposures_fit import fit_exposures
from galshape_cnn.infer.likelihood.exposures import ExposureStamps, JointLikelihood
from galshape_cnn.infer.likelihood.fisher import bound
from galshape_cnn.infer.likelihood.gaussian import StampLikelihood
from galshape_cnn.infer.likelihood.residuals import examine, point_source_chi2
from galshape_cnn.infer.measure.neighbours import listed_positions, measure_isolated
from galshape_cnn.infer.measure.pipeline import BATCH_SIZE
from galshape_cnn.infer.measure.quality import Measured, row_flags, small_rows
from galshape_cnn.observe.stamps import Stamps
from galshape_cnn.parallel import mapped

__all__ = ["METHODS", "ExposureRows", "measure_exposures"]

#: Methods that several images can be measured with.
METHODS = ("ml",)

_TOGETHER = 256  # galaxies that are fitted together
_RESOLVED = 13.0  # chi-square by which a galaxy must beat a point source, as for one image

#: Flags that concern the pixels of an image: one exposure that has them is reason for doubt of the row.
_OF_PIXELS = (
    Flag.EDGE | Flag.MASKED | Flag.CENTER_MASKED | Flag.NEIGHBOR | Flag.POOR_FIT | Flag.PSF_ESTIMATED
    | Flag.SATURATED | Flag.SPIKE | Flag.CORRELATED_NOISE | Flag.PSF_OUT_OF_DOMAIN
)  # fmt: skip
#: Flags of a row that all its exposures must have.
_OF_ALL = Flag.RECENTER_FAILED | Flag.FAR_CENTROID | Flag.STAMP_SMALL


@dataclass(frozen=True, eq=False)
class ExposureRows:
    """What each exposure says of N galaxies with the parameters that fit all of them.

    Attributes
    ----------
    params : (N, E, 8) ndarray
        flux, n, hlr, g1, g2, x, y, sky in the pixels and the unit of each exposure; NaN where unseen.
    chi2 : (N, E) ndarray
        Reduced chi-square.
    n_pixels : (N, E) ndarray of int
        Pixels that count.
    snr : (N, E) ndarray
        Signal-to-noise ratio.
    flags : (N, E) ndarray of int64
        Bits of `galshape_cnn.flags`.
    """

    params: np.ndarray
    chi2: np.ndarray
    n_pixels: np.ndarray
    snr: np.ndarray
    flags: np.ndarray

    def __getitem__(self, rows):
        return ExposureRows(*(value[rows] for value in vars(self).values()))


@dataclass(eq=False)
class _Part:
    """Stamps of one size of one exposure with their neighbours dealt with, and what the network says."""

    exposure: int
    rows: np.ndarray
    stamps: Stamps
    first: Measurement
    unit: np.ndarray
    transfer: np.ndarray
    grid: object


def measure_exposures(exposures, network, options, threads=1):
    """Measure galaxies in several images.

    Parameters
    ----------
    exposures : galshape_cnn.observe.exposures.Exposures
        The stamps.
    network : AmortizedPosterior
        The live network, which gives the starts.
    options : Options
        What to do; its gain is not used, that of each exposure is.
    threads : int, optional
        Batches measured at the same time.

    Returns
    -------
    measurement : Measurement
        Of the exposures' model, in the pixels of each galaxy's reference exposure.
    by_exposure : ExposureRows
    treated : list of list of (rows, Stamps)
        The pixels that were measured, of each exposure.
    """
    parts = [part for number in range(len(exposures.names))
             for part in _parts(exposures, number, network, options, threads)]  # fmt: skip
    n, count = len(exposures), len(exposures.names)
    blank = (np.full((n, count, SINGLE.size), np.nan), np.full((n, count), np.nan), np.zeros((n, count), int))
    by_exposure = ExposureRows(*blank, np.full((n, count), np.nan), _unseen_flags(exposures))
    chunks = list(_chunks(exposures))
    done = mapped(lambda rows: _measured(exposures, parts, rows, options, by_exposure), chunks, threads)
    pieces = list(zip(chunks, done, strict=True))
    missing = np.flatnonzero(~exposures.seen.any(1))
    if len(missing) or not pieces:
        lost = Measurement.empty(len(missing), exposures.model)
        flags = by_exposure.flags[missing]
        lost = replace(lost, flags=lost.flags | np.where(flags.all(1), np.bitwise_and.reduce(flags, 1), 0))
        pieces.append((missing, replace(lost, flags=lost.flags | Flag.NO_DATA)))
    treated = [[(p.rows, p.stamps) for p in parts if p.exposure == number] for number in range(count)]
    return Measurement.scatter(n, pieces), by_exposure, treated


def _unseen_flags(exposures):
    """Flags of the stamps, (N, E)."""
    flags = np.zeros(exposures.seen.shape, np.int64)
    for number, observation in enumerate(exposures.observations):
        for index, stamps in observation.groups:
            flags[index, number] = stamps.flags | np.where((stamps.ivar > 0).any((1, 2)), 0, Flag.NO_DATA)
    return flags


def _parts(exposures, number, network, options, threads):
    """Stamps of an exposure, measured by themselves."""
    observation, gain = exposures.observations[number], exposures.gains[number]
    single = replace(options, method="network", gain=gain)
    for (index, stamps), listed in zip(observation.groups, listed_positions(observation), strict=True):
        some = np.flatnonzero(exposures.seen[index, number])
        if not len(some):
            continue
        batches = [some[k : k + BATCH_SIZE] for k in range(0, len(some), BATCH_SIZE)]

        def one(rows, stamps=stamps, listed=listed):
            with np.errstate(all="ignore"):  # of pixels that are no galaxy; their rows are flagged
                return measure_isolated(stamps[rows], network, single, [listed[row] for row in rows])

        done = list(mapped(one, batches, threads))
        first = Measurement.scatter(
            len(some), [(np.arange(len(m)) + k * BATCH_SIZE, m) for k, (m, _) in enumerate(done)]
        )
        kept = [treated for _, treated in done]
        data, ivar = (np.concatenate([getattr(one, name) for one in kept]) for name in ("data", "ivar"))
        seen = stamps[some].with_pixels(data, ivar)
        unit = seen.noise_unit
        grid = grid_for(seen.data.shape[-1], seen.psf_oversampling)
        psf = np.asarray(seen.psf, np.float32)
        transfer = np.asarray(transfer_functions(psf, grid, seen.psf_oversampling))
        yield _Part(number, index[some], seen, first, unit, transfer, grid)


def _chunks(exposures):
    """Rows that are fitted together: of one size of the reference stamp."""
    seen = np.flatnonzero(exposures.seen.any(1))
    side = exposures.placement(seen, exposures.reference[seen])["side"]
    for value in np.unique(side):
        rows = seen[side == value]
        for start in range(0, len(rows), _TOGETHER):
            yield rows[start : start + _TOGETHER]


def _inside(part, rows):
    """Places in a part, and in ``rows``, of the galaxies that both have."""
    _, there, here = np.intersect1d(part.rows, rows, assume_unique=True, return_indices=True)
    return there, here


def _measured(exposures, parts, rows, options, by_exposure):
    """Measurement of some rows; what each exposure says is put into its rows."""
    with np.errstate(all="ignore"):
        likelihood, start = _likelihood(exposures, parts, rows)
        side = int(exposures.placement(rows[:1], exposures.reference[rows[:1]])["side"][0])
        fit = fit_exposures(likelihood, start, side)
        params = fit.params * likelihood.units
        seen = likelihood.free()
        seen[:, exposures.model.skies] |= ~exposures.model.fit_sky
        known = np.where(seen, params, np.nan)
        of_units = likelihood.units[:, :, None] * likelihood.units[:, None, :]
        crb, singular = _bound(fit.fisher / of_units, likelihood.free(), exposures.model)
        flags = np.where(singular, Flag.SINGULAR, 0) | fit.flags
        flags |= np.where(seen[:, exposures.model.fluxes].all(1), 0, Flag.BAND_MISSING)
        snr, chi2, unresolved = _judge(exposures, parts, rows, params, crb, options, by_exposure)
    flags |= np.where(unresolved, Flag.UNRESOLVED, 0)
    own, there = by_exposure.flags[rows], exposures.seen[rows]
    flags |= np.bitwise_or.reduce(np.where(there, own, 0), 1) & _OF_PIXELS
    flags |= np.bitwise_and.reduce(np.where(there, own, -1), 1) & _OF_ALL
    domain = options.domain.get("snr")
    if domain is not None:
        flags |= np.where(snr < domain[0], Flag.LOW_SNR, 0)
    nan = np.full(crb.shape, np.nan)
    empty = np.full(len(rows), np.nan)
    return Measurement(known, nan, crb, snr, chi2, empty, flags & ~SEVERE, model=exposures.model)


def _bound(fisher, free, model):
    """Cramér-Rao bound of the reported parameters; NaN for those of which nothing is known."""
    matrix = np.where(free[:, :, None] & free[:, None, :], fisher, np.eye(model.size))
    crb, singular = bound(matrix.astype(np.float32), model.fit_sky, model=model)
    some = free[:, model.reported]
    return np.where(some[:, :, None] & some[:, None, :], crb, np.nan), singular


def _likelihood(exposures, parts, rows):
    """Joint likelihood of some rows, and the parameters to start from, in its units."""
    model, n = exposures.model, len(rows)
    units = np.ones((n, model.size))
    found = []
    for part in parts:
        there, here = _inside(part, rows)
        if not len(there):
            continue
        some = part.stamps[there]
        transfer = part.transfer if len(part.transfer) == 1 else part.transfer[there]
        likelihood = StampLikelihood.from_stamps(some.data, some.ivar, transfer, part.grid)
        view = exposures.view(rows[here], part.exposure)
        band = view.band
        fresh = units[here, band] == 1
        units[here[fresh], band] = likelihood.scale[fresh] / view.factor[fresh]
        units[here, model.skies.start + part.exposure] = likelihood.scale
        found.append((part, there, here, likelihood, view))
    stamps = []
    for part, _, here, likelihood, view in found:
        factor = view.factor * units[here, view.band] / likelihood.scale
        gain = exposures.gains[part.exposure]
        stamps.append(ExposureStamps(here, likelihood, replace(view, factor=factor), gain))
    return JointLikelihood(model, tuple(stamps), units), _start(exposures, found, stamps, units)


def _start(exposures, found, stamps, units):
    """Shape and centre of the exposure with the highest S/N, and a flux for each band."""
    model = exposures.model
    start = np.zeros((len(units), model.size))
    start[:, model.n], start[:, model.hlr] = 1.5, 3.0
    best, brightest = np.zeros(len(units)), np.zeros((len(units), len(model.bands)))
    for (part, there, here, likelihood, _), one in zip(found, stamps, strict=True):
        first = part.first[there]
        known = np.isfinite(first.params).all(1) & np.isfinite(first.snr)
        own, _ = SINGLE.filled(first.params)
        own = one.view.outward(own / SINGLE.units(likelihood.scale))
        snr = np.where(known, first.snr, 0.0)
        brighter = known & (snr > brightest[here, one.view.band])
        start[here[brighter], one.view.band] = own[brighter, one.view.band]
        brightest[here[brighter], one.view.band] = snr[brighter]
        better = known & (snr > best[here])
        start[here[better], model.searched] = own[better][:, model.searched]
        best[here[better]] = snr[better]
        lost = best[here] == 0  # no network has an answer: a round galaxy at the place in the list
        start[here[lost], model.centre] = one.view.reference[lost]
    return start


def _judge(exposures, parts, rows, params, crb, options, by_exposure):
    """S/N, reduced chi-square, and whether a point source fits as well; by exposure too."""
    model, n = exposures.model, len(rows)
    fisher, chi2, pixels = np.zeros((n, len(model.bands))), np.zeros(n), np.zeros(n, int)
    point, small = np.zeros(n), np.ones(n, bool)
    for part in parts:
        there, here = _inside(part, rows)
        if not len(there):
            continue
        view, number = exposures.view(rows[here], part.exposure), part.exposure
        own = view.params(params[here])
        one = _examined(part, there, own, view, params[here], crb[here], exposures, options)
        measured, flags, point_chi2, is_small = one
        at = (rows[here], number)
        by_exposure.params[at], by_exposure.snr[at] = own, measured.snr
        by_exposure.chi2[at], by_exposure.flags[at] = measured.chi2, flags | by_exposure.flags[at]
        by_exposure.n_pixels[at] = (part.stamps.ivar[there] > 0).sum((1, 2))
        total = measured.chi2 * measured.freedom
        fisher[here, view.band] += measured.snr**2
        chi2[here] += total
        pixels[here] += by_exposure.n_pixels[at]
        small[here] &= is_small
        point[here] += np.where(np.isfinite(point_chi2), point_chi2 - total, 0)
    counted = np.isfinite(crb[:, range(len(crb[0])), range(len(crb[0]))]).sum(1) + 2
    skies = exposures.seen[rows].sum(1) if model.fit_sky else 0
    freedom = np.maximum(pixels - counted - skies, 1)
    with np.errstate(invalid="ignore"):
        tiny = params[:, model.hlr] < 2 * np.sqrt(crb[:, model.hlr, model.hlr])
    return np.sqrt(fisher.sum(1)), chi2 / freedom, tiny | (small & (point < _RESOLVED))


def _examined(part, there, own, view, params, crb, exposures, options):
    """What one exposure says: measurement, flags, chi-square of a point source, and where it was taken."""
    stamps, model = part.stamps[there], exposures.model
    unit, gain = part.unit[there], exposures.gains[part.exposure]
    gain = None if gain is None else gain * unit
    transfer = part.transfer if len(part.transfer) == 1 else part.transfer[there]
    inside, scaled = stamps.in_units_of(unit), own / SINGLE.units(unit)
    arrays = (scaled, inside.data, inside.ivar, transfer, part.grid, model.fit_sky, gain)
    found = examine(*arrays)
    turn = view.jacobian(params)[:, SINGLE.reported, model.reported]
    known = np.where(np.isfinite(crb), crb, 0)
    own_crb = turn @ known @ np.swapaxes(turn, 1, 2) / _outer(SINGLE.units(unit)[:, SINGLE.reported])
    freedom = np.maximum((stamps.ivar > 0).sum((1, 2)) - len(SINGLE.names), 1)
    snr = np.abs(scaled[:, SINGLE.flux]) * np.sqrt(found.fisher[:, SINGLE.flux, SINGLE.flux])
    nan = np.full(own_crb.shape, np.nan)
    measured = Measured(scaled, nan, own_crb, snr, found.chi2 / freedom, freedom, found)
    width = psf_width(stamps.psf, stamps.psf_oversampling)
    small = small_rows(measured, width)
    point = np.where(small, point_source_chi2(*arrays), np.nan)
    single = replace(
        options,
        method="ml",
        gain=gain,
        trust={},
        domain={k: v for k, v in options.domain.items() if k != "snr"},
    )
    flags = row_flags(inside, measured, width, np.full(len(own), np.inf), single) & ~Flag.UNRESOLVED
    return measured, flags, point, small


def _outer(vectors):
    return vectors[:, :, None] * vectors[:, None, :]


def check_method(method):
    """Refuse methods that several images cannot be measured with yet.

    Parameters
    ----------
    method : str

    Raises
    ------
    InputError
        If it is none of `METHODS`.
    """
    if method not in METHODS:
        raise InputError(
            f"method={method!r} does not take several exposures; allowed: {', '.join(map(repr, METHODS))}"
        )
