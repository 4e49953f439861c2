# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""Measure equal-sized stamps: network, then what the method adds.

Batches are padded to one size (`BATCH_SIZE`).  Compiled functions are then reused whatever the
number of galaxies, and the numbers of a galaxy are the same, bit for bit, whatever it shares its
batch with: a matrix product rounds differently in another shape, but not in another row.
"""

from dataclasses import dataclass, replace

import numpy as np

from galshape_cnn.flags import Flag
from galshape_cnn.forward.grid import FourierGrid
from galshape_cnn.forward.psf.width import psf_width
from galshape_cnn.forward.render import BLOCK
from galshape_cnn.forward.transfer import grid_for, transfer_functions
from galshape_cnn.infer.catalog.measurement import Measurement
from galshape_cnn.infer.fit.maximum_likelihood import maximize_likelihood
from galshape_cnn.infer.likelihood.fisher import bound
from galshape_cnn.infer.likelihood.gaussian import StampLikelihood
from galshape_cnn.infer.likelihood.residuals import examine, point_source_chi2
from galshape_cnn.infer.likelihood.sandwich import information, sandwich, stretching, tempering, widened
from galshape_cnn.infer.likelihood.structure import estimate_structure
from galshape_cnn.infer.measure.options import Options
from galshape_cnn.infer.measure.quality import Measured, row_flags, small_rows
from galshape_cnn.infer.network.amortized import posterior_moments
from galshape_cnn.infer.network.posterior import sky_free_posterior
from galshape_cnn.infer.network.reweighting import reweighted_moments
from galshape_cnn.observe.stamps import Stamps

__all__ = [
    "BATCH_SIZE",
    "measure_stamps",
    "measured_together",
    "model_images",
]

#: Batch size the network and the bounds are compiled for: the arrays of one stay in cache.
BATCH_SIZE = 64
#: Transfer functions up to this size, in bytes, are repeated for each stamp, so that a PSF for all and a
#: PSF for each need one program and give the same numbers.
_SMALL = 2**26

#: Stamps of 64 pixels that maximum likelihood refines together.  Most galaxies need five evaluations and a
#: few need fifty: in larger company these fill blocks that would be computed for one of them otherwise.
_REFINED_TOGETHER = 512

_POINTS = 2 * BLOCK  # point sources at a time, of whatever number: one program, and few computed for nothing

_STRUCTURED = 2.0  # standard deviations of the residuals' squares above which structure counts

_FEW_DRAWS = 40  # effective draws of a reweighted answer below which it is flagged


def measured_together(method, side, count, threads):
    """Number of stamps that are best given to `measure_stamps` at a time.

    Parameters
    ----------
    method : {'network', 'ml', 'posterior'}
        Estimator.
    side : int
        Of the stamps, in pixels.
    count : int
        Number of all stamps.
    threads : int
        Among which they are spread.

    Returns
    -------
    size : int
        A multiple of `BATCH_SIZE`.
    """
    if method != "ml":
        return BATCH_SIZE
    fitting = min(_REFINED_TOGETHER * 64**2 // side**2, -(-count // threads))
    return BATCH_SIZE * max(1, -(-fitting // BATCH_SIZE))


def measure_stamps(stamps, network, options):
    """Measure stamps.

    Parameters
    ----------
    stamps : Stamps
        Any number of one size; see `measured_together`.
    network : AmortizedPosterior
        The live network.
    options : Options
        What to do.

    Returns
    -------
    measurement : Measurement
        One row per stamp; rows without data are NaN and flagged.
    """
    # Any unit of flux is in reach of single precision when the noise is near one.
    units = stamps.noise_unit
    alike = [np.arange(len(stamps))]
    if options.method == "posterior" or options.training_prior is not None:
        # a prior on flux knows one unit at a time
        alike = [np.flatnonzero(units == unit) for unit in np.unique(units)]
    parts = []
    for rows in alike:
        unit = units[rows]
        measured = _measure_rows(stamps[rows].in_units_of(unit), network, options.in_units_of(unit))
        parts.append((rows, measured.in_units_of(1 / unit)))
    return Measurement.scatter(len(stamps), parts)


def model_images(stamps, params):
    """Light of measured galaxies, without sky.

    Parameters
    ----------
    stamps : Stamps
        Batch of N.
    params : (N, 8) ndarray
        Parameters; a row that is not finite gives no light.

    Returns
    -------
    images : (N, size, size) ndarray
        In the unit of the stamps.
    """
    grid = grid_for(stamps.data.shape[-1], stamps.psf_oversampling)
    transfer = np.asarray(
        transfer_functions(np.asarray(stamps.psf, np.float32), grid, stamps.psf_oversampling)
    )
    known = np.isfinite(params).all(1)
    params = np.where(known[:, None], params, [1, 1, 1, 0, 0, 0, 0, 0])
    unit = np.where(known, params[:, 0], 0)
    likelihood = StampLikelihood.from_stamps(stamps.data, stamps.ivar, transfer, grid)
    shapes = np.concatenate([np.ones((len(params), 1)), params[:, 1:7], np.zeros((len(params), 1))], 1)
    return likelihood.images(shapes) * unit[:, None, None]


@dataclass(frozen=True)
class _Batch:
    """A full batch: the first ``count`` stamps have data, the others repeat the first.

    ``params`` (B, 8), ``covariance`` (B, 5, 5) and ``flags`` (B,) are what the network says.
    """

    stamps: Stamps
    count: int
    transfer: np.ndarray
    grid: FourierGrid
    options: Options
    proposal: object
    params: np.ndarray
    covariance: np.ndarray
    flags: np.ndarray


def _measure_rows(stamps, network, options):
    """Measure the rows that have data, in full batches."""
    n = len(stamps)
    has_data = (stamps.ivar > 0).any((1, 2))
    rows = np.flatnonzero(has_data)
    parts = [rows[start : start + BATCH_SIZE] for start in range(0, len(rows), BATCH_SIZE)]
    batches = [_looked_at(stamps, part, network, options) for part in parts]
    if options.method == "ml":
        estimates = _refined(batches, options)
    else:
        estimates = [_estimate(batch) for batch in batches]
    measured = [
        _judged(batch, *estimate)[: batch.count] for batch, estimate in zip(batches, estimates, strict=True)
    ]
    out = Measurement.scatter(n, list(zip(parts, measured, strict=True))) if parts else Measurement.empty(n)
    return out if has_data.all() else _with_flags(out, np.where(has_data, 0, Flag.NO_DATA))


def _with_flags(measurement, flags):
    parts = {name: getattr(measurement, name) for name in measurement.__dataclass_fields__}
    return Measurement(**parts | {"flags": measurement.flags | flags})


def _looked_at(stamps, rows, network, options):
    """Rows of the stamps, all with data, filled up to a batch and shown to the network."""
    padded = np.concatenate([rows, np.full(BATCH_SIZE - len(rows), rows[0])])
    stamps, options = stamps[padded], options.for_rows(padded)
    grid = grid_for(stamps.data.shape[-1], stamps.psf_oversampling)
    psf = np.asarray(stamps.psf, np.float32)
    transfer = np.asarray(transfer_functions(psf, grid, stamps.psf_oversampling))
    if len(transfer) == 1 and transfer.nbytes * len(stamps) < _SMALL:
        transfer = np.repeat(transfer, len(stamps), 0)
    proposal, strangeness, sky = sky_free_posterior(stamps, transfer, grid, network, options)
    mean, covariance = posterior_moments(proposal)
    params = np.concatenate([mean, sky[:, None]], 1)
    strange = strangeness > options.domain.get("context", np.inf)
    flags = np.where(strange, Flag.UNLIKE_TRAINING, 0).astype(np.int64)
    covariance = covariance[:, :5, :5]
    return _Batch(stamps, len(rows), transfer, grid, options, proposal, params, covariance, flags)


def _estimate(batch):
    """Parameters, covariance, flags, effective sample size and samples, by network or sampling."""
    if batch.options.method == "posterior":
        return _sampled(batch)
    params, covariance, flags = batch.params.copy(), batch.covariance, batch.flags
    if batch.options.training_prior is not None:
        params[:, :7], covariance, few = _reweighted(batch)
        flags = flags | few
    return params, covariance, flags, np.full(len(params), np.nan), None


def _reweighted(batch):
    """Moments under the user's prior, and flags; the network's own where the priors do not meet."""
    other = reweighted_moments(batch.proposal, batch.options.prior, batch.options.training_prior)
    known = other[2] >= 2
    mean = np.where(known[:, None], other[0], batch.params[:, :7])
    covariance = np.where(known[:, None, None], other[1][:, :5, :5], batch.covariance)
    return mean, covariance, np.where(other[2] < _FEW_DRAWS, Flag.LOW_ESS, 0)


def _possible_start(batch):
    """Starts of the search, where the network gave none for a galaxy far outside its training."""
    params, middle = batch.params, np.array([1.0, 1.5, 3.0, 0.0, 0.0])
    other = np.column_stack([np.tile(middle, (len(params), 1)), batch.stamps.center, np.zeros(len(params))])
    return np.where(np.isfinite(params).all(1)[:, None], params, other)[: batch.count]


def _first(batch):
    """Data, weights, transfer functions and gain of the stamps that are no repetitions."""
    count, transfer, gain = batch.count, batch.transfer, batch.options.gain
    transfer = transfer if len(transfer) == 1 else transfer[:count]
    gain = None if gain is None else gain[:count]
    return batch.stamps.data[:count], batch.stamps.ivar[:count], transfer, gain


def _repeated(count, size):
    """Index that fills a batch up with its first row."""
    return np.concatenate([np.arange(count), np.zeros(size - count, int)])


def _refined(batches, options):
    """Maximum-likelihood estimates of batches that are searched together: as `_estimate`, of each."""
    if not batches:
        return []
    data, ivar, transfer, gain = zip(*map(_first, batches), strict=True)
    shared = len(transfer[0]) == 1 and sum(map(len, data)) > 1
    arrays = np.concatenate(data), np.concatenate(ivar), transfer[0] if shared else np.concatenate(transfer)
    start = np.concatenate([_possible_start(batch) for batch in batches])
    gain = None if gain[0] is None else np.concatenate(gain)
    result = maximize_likelihood(*arrays, batches[0].grid, start, fit_sky=options.fit_sky, gain=gain)
    estimates, first = [], 0
    for batch in batches:
        rows = first + _repeated(batch.count, len(batch.stamps))
        nan = np.full((len(rows), 5, 5), np.nan)
        estimates.append((result.params[rows], nan, batch.flags | result.flags[rows], nan[:, 0, 0], None))
        first += batch.count
    return estimates


def _sampled(batch):
    from galshape_cnn.infer.posterior.importance_sampling import sample_posterior

    stamps, count, options = batch.stamps, batch.count, batch.options
    nuisance = None if stamps.nuisance is None else stamps.nuisance[:count]
    data, ivar, transfer, gain = _first(batch)
    if options.correlation is not None:
        # a power of a Gaussian likelihood is one with all variances multiplied
        matrices = information(stamps[:count], batch.params[:count], gain, options.correlation)
        power = tempering(*matrices, options.fit_sky)
        ivar, gain = ivar * power[:, None, None], None if gain is None else gain * power
    result = sample_posterior(
        data, ivar, transfer, batch.grid, batch.proposal[:count], options.prior,
        fit_sky=options.fit_sky, gain=gain, seed=options.seed, nuisance=nuisance,
    )  # fmt: skip
    params = batch.params[:count].copy()
    good = np.isfinite(result.mean).all(1)
    params[good, :5], params[good, 5:7] = result.mean[good], result.center[good]
    if options.correlation is not None:
        result = _stretched(result, batch, params, power)
    fill = _repeated(count, len(stamps))
    flags = batch.flags | result.flags[fill]
    return params[fill], result.covariance[fill], flags, result.ess[fill], result.samples[fill]


def _stretched(result, batch, params, power):
    """Tempered posteriors with the width of each parameter mended, see `stretching`.

    A draw that would leave the prior's limits stays where it is.
    """
    count, options = batch.count, batch.options
    matrices = information(batch.stamps[:count], params, _first(batch)[3], options.correlation)
    supposed = bound(matrices[0], options.fit_sky)[0] / power[:, None, None]
    stretch = stretching(result.covariance, supposed, sandwich(*matrices, options.fit_sky)[0])
    mean = result.mean[:, None]
    moved = mean + np.einsum("nij,nsj->nsi", stretch, result.samples - mean)
    possible = np.isfinite(options.prior.log_density(*np.moveaxis(moved, -1, 0)))
    samples = np.where(possible[..., None], moved, result.samples)
    covariance = stretch @ result.covariance @ np.swapaxes(stretch, 1, 2)
    return replace(result, covariance=covariance, samples=samples.astype(np.float32))


def _judged(batch, params, covariance, flags, ess, samples):
    """Add bound, S/N, chi-square and flags."""
    stamps, options, grid, transfer = batch.stamps, batch.options, batch.grid, batch.transfer
    found = examine(params, stamps.data, stamps.ivar, transfer, grid, options.fit_sky, options.gain)
    snr = np.abs(params[:, 0]) * np.sqrt(found.fisher[:, 0, 0])
    chi2 = found.chi2
    if options.fit_sky:  # the sky that is best for these parameters
        step = found.score[:, 7] / np.maximum(found.fisher[:, 7, 7], 1e-30)
        chi2 = chi2 - step * found.score[:, 7]
        params[:, 7] += step
    crb, singular = bound(found.fisher.astype(np.float32), fit_sky=options.fit_sky)
    structure = _structure(batch, params, found)
    covariance = widened(covariance, crb, crb + structure) if structure.any() else covariance
    freedom = np.maximum((stamps.ivar > 0).sum((1, 2)) - (8 if options.fit_sky else 7), 1)
    measured = Measured(params, covariance, crb + structure, snr, chi2 / freedom, freedom, found)
    width = psf_width(stamps.psf, stamps.psf_oversampling)
    point = _point_chi2(stamps, transfer, grid, params, small_rows(measured, width), options)
    flags = flags | np.where(singular, Flag.SINGULAR, 0) | row_flags(stamps, measured, width, point, options)
    return Measurement(
        params, covariance, crb, snr, chi2 / freedom, ess, flags, samples, structure=structure, rff=found.rff
    )


def _structure(batch, params, found):
    """Covariance due to structure, of the rows in which there is some; zero for the others."""
    options, out = batch.options, np.zeros((len(params), 5, 5))
    alike = 1.0 if options.correlation is None else (options.correlation**2).sum()
    excess = (found.inner - found.inner_number) / np.sqrt(2 * alike * np.maximum(found.inner_number, 1e-6))
    rows = np.flatnonzero(
        (excess > _STRUCTURED - 1)[: batch.count] & np.isfinite(params[: batch.count]).all(1)
    )
    for first in range(0, len(rows), BLOCK):
        part = rows[first : first + BLOCK]
        some = part[_repeated(len(part), BLOCK)]
        psf = batch.transfer if len(batch.transfer) == 1 else batch.transfer[some]
        arrays = params[some], batch.stamps.data[some], batch.stamps.ivar[some], psf
        gain = options.for_rows(some).gain
        found = estimate_structure(*arrays, batch.grid, options.fit_sky, gain)
        seen = np.isfinite(found.covariance).all((1, 2)) & (found.significance > _STRUCTURED * np.sqrt(alike))
        out[part] = np.where(seen[:, None, None], found.covariance[:, :5, :5], 0)[: len(part)]
    return out


def _point_chi2(stamps, transfer, grid, params, small, options):
    """Chi-square of a point source for some rows, NaN for the others."""
    out, rows = np.full(len(params), np.nan), np.flatnonzero(small)
    for first in range(0, len(rows), _POINTS):
        part = rows[first : first + _POINTS]
        some = part[_repeated(len(part), _POINTS)]
        psf = transfer if len(transfer) == 1 else transfer[some]
        arrays = (params[some], stamps.data[some], stamps.ivar[some], psf)
        chi2 = point_source_chi2(*arrays, grid, options.fit_sky, options.for_rows(some).gain)
        out[part] = chi2[: len(part)]
    return out
