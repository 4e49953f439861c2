# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""The chain of a measurement: segment, treat neighbours, estimate, bound, look at the residuals, flag.

Every step takes a `RenderedBatch` and returns something final; nothing patches a result afterwards.
"""

from dataclasses import replace

import numpy as np

from galshape_cnn.flags import Flag
from galshape_cnn.forward.galaxy_model import SINGLE
from galshape_cnn.infer.catalog.measurement import Measurement
from galshape_cnn.infer.likelihood.rendering import BATCH_SIZE, RenderedBatch
from galshape_cnn.infer.measure.bounds import bounded, errors_of, stretched, with_shifts
from galshape_cnn.infer.measure.estimates import estimate, samples_as_wide
from galshape_cnn.infer.measure.neighbours import examined, joined, listed_positions, segment, treat
from galshape_cnn.infer.measure.quality import (
    neighbour_flags,
    row_flags,
    settled_bounds,
    with_settled_centres,
)
from galshape_cnn.infer.measure.residual_sources import without_residual_sources
from galshape_cnn.infer.measure.sky_field import without_sky_field
from galshape_cnn.parallel import mapped

__all__ = ["measure_batch", "measure_observation", "measured_together"]

#: Stamps of 64 pixels that are measured together, by method: what Python does for a batch is shared by its
#: galaxies.  Of those that maximum likelihood refines most need five evaluations and a few need fifty: in
#: larger company these fill blocks that would be computed for one of them otherwise.
_TOGETHER = {"network": 256, "ml": 512, "posterior": 128}
_FEWEST = 16  # of a batch: for fewer it is not worth another thread
_MOST_OF = 0.9  # of the rows of a batch
_MOST_FLUX = 1e3  # of a galaxy, over the sum of the pixels


def measure_observation(observation, network, options, threads, bar, to_examine):
    """The observation with the pixels that were measured, and a measurement of each of its groups.

    ``bar`` advances the progress by a number of galaxies; stamps that nobody has cut and searched yet are
    first to be examined.
    """
    groups, listed, batches = observation.groups, listed_positions(observation), []
    for number, (_, stamps) in enumerate(groups):
        size = measured_together(options.method, stamps.data.shape[-1], len(stamps), threads)
        batches += [(number, np.arange(len(stamps))[k : k + size]) for k in range(0, len(stamps), size)]

    def one(batch):
        number, rows = batch
        stamps = groups[number][1][rows[0] : rows[-1] + 1]  # a part, not copied
        with np.errstate(all="ignore"):  # of pixels that are no galaxy; their rows are flagged
            stamps = examined(stamps) if to_examine else stamps
            others = [listed[number][row] for row in rows]
            return stamps, *measure_batch(stamps, others, network, options)

    parts, used = [[] for _ in groups], [[] for _ in groups]
    for (number, rows), done in zip(batches, mapped(one, batches, threads), strict=True):
        before, measured, after = done
        parts[number].append((rows, measured))
        used[number].append((before, after))
        bar(len(rows))
    measurements = [Measurement.scatter(len(g[1]), part) for g, part in zip(groups, parts, strict=True)]
    groups = tuple(
        (index, with_settled_centres(joined(stamps, u), m.params))
        for (index, stamps), u, m in zip(groups, used, measurements, strict=True)
    )
    return replace(observation, groups=groups), measurements


def measured_together(method, side, count, threads):
    """Number of stamps that are best given to `measure_batch` at a time, of ``count`` on some threads."""
    most = max(BATCH_SIZE, _TOGETHER[method] * 64**2 // side**2)
    rounds = -(-count // (threads * most))  # in which all threads have as many
    return max(_FEWEST, -(-count // (threads * max(1, rounds))))


def measure_batch(stamps, listed, network, options):
    """Measure any number of stamps of one size, square and even-sized; see `measured_together`.

    ``listed`` says for each stamp where in it the user listed other galaxies, (K, 2).

    Returns the measurement, rows without data NaN and flagged, and the pixels that were measured: neighbours
    masked or subtracted, ``stamps`` itself without any.
    """
    batch = RenderedBatch.from_stamps(stamps, options.gain)
    treated = treat(batch, segment(batch, listed, options), network, options)
    usable = np.flatnonzero((treated.batch.stamps.ivar > 0).any((1, 2)))
    treated, parts = _measured(treated, usable, network, options)
    lost = np.setdiff1d(np.arange(len(batch)), usable)
    if len(lost):
        parts = [*parts, (lost, _not_measured(treated.flags[lost] | Flag.NO_DATA))]
    measurement = Measurement.scatter(len(batch), parts)
    return measurement.in_units_of(1 / batch.unit), treated.in_units_of_user(stamps)


def _measured(treated, usable, network, options):
    """Measurements of the stamps with data, fluxes in units of their noise, and what was measured.

    Returns
    -------
    treated : Treated
        The same object where no residual shows a source, or structure of the sky.
    parts : list of ((M,) int ndarray, Measurement)
        Rows and what was found there.
    """
    if not len(usable):
        return treated, []
    batch = treated.batch if len(usable) == len(treated.batch) else treated.batch[usable]
    first = _judged(batch, treated.fitted[usable], network, options)
    changed, close, treated, cleaned = without_residual_sources(treated, usable, first[1], options)
    if not len(changed):
        return _settled(batch, *first, None, treated, usable, network, options)
    again = usable[changed]
    found, judged = _judged(cleaned, treated.fitted[again], network, options)
    shift = (judged.params - first[1].params[changed])[:, SINGLE.reported]
    shift = np.where(close[:, None], shift, 0)  # clump or neighbour
    treated, parts = _settled(cleaned, found, judged, shift, treated, again, network, options)
    kept = np.setdiff1d(np.arange(len(usable)), changed)
    treated, more = _settled(batch, *first, None, treated, usable, network, options, kept)
    return treated, parts + more


def _settled(batch, found, judged, shift, treated, rows, network, options, kept=None):
    """Measurements of stamps, ``rows`` of ``treated``, on a sky without structure; as `_measured`.

    ``shift`` is what the parameters may be off by, (M, 5); None for nothing. ``kept`` are numbers into
    ``rows``, all by default: of the others there is no measurement.
    """
    if kept is not None:
        level = np.zeros(len(rows))
        level[kept] = judged.sky_level[kept]
        judged = replace(judged, sky_level=level)
    changed, treated, cleaned, stretch = without_sky_field(treated, batch, rows, judged, options)
    parts, kept = [], np.setdiff1d(np.arange(len(rows)) if kept is None else kept, changed)
    if len(changed):
        again, settled = _judged(cleaned, treated.fitted[rows[changed]], network, options)
        settled = _with_some(stretched(settled, stretch), shift, changed)
        parts = _finished_parts(cleaned, again, settled, treated, rows[changed], network, options)
    if not len(kept):
        return treated, parts
    if len(kept) < _MOST_OF * len(rows):
        judged = _with_some(judged[kept], shift, kept)
        parts += _finished_parts(batch[kept], found[kept], judged, treated, rows[kept], network, options)
        return treated, parts
    # to judge a few rows that are not wanted costs less than a copy of all others
    judged = _with_some(judged, shift, np.arange(len(rows)))
    for some, measured in _finished_parts(batch, found, judged, treated, rows, network, options):
        wanted = np.isin(some, rows[kept])
        parts += [(some, measured) if wanted.all() else (some[wanted], measured[wanted])]
    return treated, parts


def _with_some(judged, shift, rows):
    """Estimates as uncertain as some rows of a shift make them; of none they are what they were."""
    return judged if shift is None else with_shifts(judged, shift[rows])


def _without_absurd(rows, measured, batch):
    """Rows and measurements; where the best model is no galaxy of the stamp, there is none.

    That is one centred outside, or with a thousand times the flux of all pixels and their noise: pixels that
    no model fits lead there.
    """
    size, (x, y) = batch.grid.size, measured.params[:, SINGLE.centre].T
    light = (batch.stamps.ivar > 0).sum((1, 2), dtype=float)  # the noise is near one in each pixel
    flux = np.abs(measured.params[:, SINGLE.flux])
    bright = np.flatnonzero(~(flux < _MOST_FLUX * light))  # the pixels of few need be added up
    light[bright] += np.abs(batch.stamps.data[bright]).sum((1, 2), dtype=float)
    inside = (np.abs([x, y] - np.array(size - 1) / 2) < size / 2).all(0)
    lost = ~inside | ~(flux < _MOST_FLUX * light)
    if not lost.any():
        return [(rows, measured)]
    parts = [(rows[lost], _not_measured(measured.flags[lost]))]
    return parts if lost.all() else [*parts, (rows[~lost], measured[~lost])]


def _finished_parts(batch, found, judged, treated, rows, network, options):
    """Rows of ``treated`` and their measurements."""
    return _without_absurd(rows, _finished(batch, found, judged, treated, rows, network, options), batch)


def _judged(batch, fitted, network, options):
    """Estimates with their errors."""
    found = estimate(batch, network, options)
    return found, errors_of(batch, found, fitted, options)


def _finished(batch, found, judged, treated, rows, network, options):
    """Measurement of stamps, of which ``rows`` are in ``treated``, with flags and draws."""
    judged = bounded(judged, batch.grid.size)
    flags = found.flags | judged.flags | row_flags(batch, judged, network, options)
    flags = settled_bounds(flags, judged.params, judged.crb + judged.structure, batch.grid.size)
    fraction = treated.light_on_others(judged.params, rows)
    flags |= neighbour_flags(fraction, treated.flags[rows])
    errors = judged.covariance, judged.crb, judged.snr, judged.chi2
    more = {"structure": judged.structure + judged.profile, "rff": judged.examination.rff}
    more["sheared"] = _sheared(batch, judged.params, network, options)
    samples = samples_as_wide(found, judged.covariance)
    return Measurement(judged.params, *errors, found.ess, flags, samples, fraction, **more)


def _sheared(batch, params, network, options):
    """Measurements of the shear response; None where they are not wanted."""
    if not options.shear_response:
        return None
    how = options.fit_sky, options.seed, options.correlation
    if options.method == "ml":
        from galshape_cnn.infer.shear.likelihood_response import likelihood_response

        return likelihood_response(batch, params, *how)
    from galshape_cnn.infer.shear.response import shear_response

    return shear_response(batch, network, params[:, SINGLE.sky], *how)


def _not_measured(flags):
    """Rows without data."""
    return replace(Measurement.empty(len(flags)), flags=flags | Flag.NOT_MEASURED)
