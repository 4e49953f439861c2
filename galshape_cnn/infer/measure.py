# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""Measure one batch of equal-sized stamps: network, then what the method adds.

Batches are padded to one size (`BATCH_SIZE`).  Compiled functions are then reused whatever the
number of galaxies, and the numbers of a galaxy are the same, bit for bit, whatever it shares its
batch with: a matrix product rounds differently in another shape, but not in another row.
"""

from dataclasses import dataclass, field, replace

import numpy as np

from galshape_cnn.flags import Flag
from galshape_cnn.forward.psf_width import psf_width
from galshape_cnn.forward.render import BLOCK
from galshape_cnn.forward.transfer import grid_for, transfer_functions
from galshape_cnn.infer.amortized import posterior_moments
from galshape_cnn.infer.fisher import bound, score_and_fisher
from galshape_cnn.infer.head import to_parameters
from galshape_cnn.infer.information import information, tempering
from galshape_cnn.infer.judgement import Measured, row_flags, small_rows
from galshape_cnn.infer.likelihood import StampLikelihood
from galshape_cnn.infer.measurement import Measurement
from galshape_cnn.infer.prior import Prior
from galshape_cnn.infer.refine import maximize_likelihood
from galshape_cnn.infer.residuals import examine, point_source_chi2
from galshape_cnn.infer.reweighting import reweighted_moments

__all__ = ["BATCH_SIZE", "Options", "measure_stamps", "model_images", "network_posterior"]

#: Batch size the network and the bounds are compiled for: the arrays of one stay in cache.
BATCH_SIZE = 64
#: Transfer functions up to this size, in bytes, are repeated for each stamp, so that a PSF for all and a
#: PSF for each need one program and give the same numbers.
_SMALL = 2**26

_FEW_DRAWS = 40  # effective draws of a reweighted answer below which it is flagged


@dataclass(frozen=True)
class Options:
    """How to measure.

    Attributes
    ----------
    method : {'network', 'ml', 'posterior'}
        Estimator.
    fit_sky : bool
        False when the sky is known to be zero.
    gain : float, (N,) ndarray or None
        Electrons per unit of flux, when ``ivar`` lacks the source's photon noise.
    prior : Prior or None
        For ``'posterior'``, and for ``'network'`` if there is a ``training_prior``.
    training_prior : Prior or None
        What the network's answer is to be reweighted from; None leaves it as it is.
    seed : int
        Of the posterior's draws.
    domain : dict
        Ranges of training.
    correlation : (ky, kx) ndarray or None
        Autocorrelation of the noise, if pixels are not independent.
    neighbours : {'ignore', 'mask', 'fit'}
        What is done about other sources, see `galshape_cnn.infer.blends`.
    trust : dict
        Region in which the network was found trustworthy, see `galshape_cnn.infer.trust`.
    """

    method: str = "network"
    fit_sky: bool = True
    gain: float | np.ndarray | None = None
    prior: Prior | None = None
    training_prior: Prior | None = None
    seed: int = 0
    domain: dict = field(default_factory=dict)
    neighbours: str = "ignore"
    trust: dict = field(default_factory=dict)
    correlation: np.ndarray | None = None

    def in_units_of(self, unit):
        """The same options for pixel values of each row counted in a number of their unit.

        The prior counts in the first row's.
        """
        gain = None if self.gain is None else self.gain * unit
        priors = {
            name: None if prior is None else _PriorInUnits(prior, unit[0])
            for name, prior in (("prior", self.prior), ("training_prior", self.training_prior))
        }
        return replace(self, gain=gain, **priors)

    def for_rows(self, rows):
        """The same options for some of the rows."""
        return self if self.gain is None else replace(self, gain=self.gain[rows])


@dataclass(frozen=True)
class _PriorInUnits:
    """A prior for fluxes counted in a number of their unit."""

    prior: Prior
    unit: float

    def log_density(self, flux, *shape):
        return self.prior.log_density(flux * self.unit, *shape)


def measure_stamps(stamps, network, options):
    """Measure a batch.

    Parameters
    ----------
    stamps : Stamps
        Up to `BATCH_SIZE` stamps.
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


def _measure_rows(stamps, network, options):
    """Measure the rows that have data, in a full batch."""
    n = len(stamps)
    has_data = (stamps.ivar > 0).any((1, 2))
    rows = np.flatnonzero(has_data)
    if not len(rows):
        return _without_data(n, has_data)
    padded = np.concatenate([rows, np.full(BATCH_SIZE - len(rows), rows[0])])
    full = _measure_full(stamps[padded], len(rows), network, options.for_rows(padded))
    out = Measurement.scatter(n, [(rows, full[: len(rows)])])
    if has_data.all():
        return out
    return _with_flags(out, np.where(has_data, 0, Flag.NO_DATA))


def _without_data(n, has_data):
    return _with_flags(Measurement.empty(n), np.where(has_data, 0, Flag.NO_DATA))


def _with_flags(measurement, flags):
    parts = {name: getattr(measurement, name) for name in measurement.__dataclass_fields__}
    return Measurement(**parts | {"flags": measurement.flags | flags})


def _measure_full(stamps, count, network, options):
    """Measure a batch in which every stamp has data, and those from ``count`` on repeat the first."""
    grid = grid_for(stamps.data.shape[-1], stamps.psf_oversampling)
    psf = np.asarray(stamps.psf, np.float32)
    transfer = np.asarray(transfer_functions(psf, grid, stamps.psf_oversampling))
    if len(transfer) == 1 and transfer.nbytes * len(stamps) < _SMALL:
        transfer = np.repeat(transfer, len(stamps), 0)
    proposal, strangeness = network_posterior(stamps, transfer, grid, network, options)
    mean, covariance = posterior_moments(proposal)
    params = np.concatenate([mean, np.zeros((len(mean), 1))], 1)
    flags, ess, samples = np.zeros(len(mean), np.int64), np.full(len(mean), np.nan), None
    strange = strangeness > options.domain.get("context", np.inf)
    covariance = covariance[:, :5, :5]
    if options.method == "ml":
        params, covariance, flags = _refined(stamps, count, transfer, grid, params, options)
    elif options.method == "network" and options.training_prior is not None:
        params[:, :7], covariance, flags = _reweighted(proposal, mean, covariance, options)
    elif options.method == "posterior":
        params, covariance, ess, samples, flags = _sampled(
            stamps, count, transfer, grid, proposal, params, options
        )
    flags = flags | np.where(strange, Flag.UNLIKE_TRAINING, 0)
    return _judged(stamps, transfer, grid, params, covariance, ess, samples, flags, options)


def network_posterior(stamps, transfer, grid, network, options):
    """The networks' posterior, and how unlike training the stamps are.

    Parameters
    ----------
    stamps : Stamps
        Batch of N, counted in units of their noise.
    transfer : (N or 1, Ky, Kx) complex array
        Transfer functions of their PSFs on ``grid``.
    grid : FourierGrid
        Of the stamps' size.
    network : AmortizedPosterior
        The live networks.
    options : Options
        ``fit_sky`` and ``gain`` are used.

    Returns
    -------
    posterior : MixturePosterior
    strangeness : (N,) ndarray
        Largest entry of the network's context, in standard deviations of training.
    """
    first = network.look(stamps, options.fit_sky, _source_noise(stamps, options.gain))
    if not network.has_update:
        return first.posterior, first.strangeness

    def derivatives(u):
        with np.errstate(over="ignore", invalid="ignore"):  # such rows keep the first answer
            params = np.concatenate([to_parameters(u), np.zeros((len(u), 1))], 1).astype(np.float32)
        return score_and_fisher(params, stamps.data, stamps.ivar, transfer, grid, gain=options.gain)[1:]

    return network.update(first, derivatives, options.fit_sky), first.strangeness


def _reweighted(posterior, mean, covariance, options):
    """Moments under the user's prior, and flags; the network's own where the priors do not meet."""
    other = reweighted_moments(posterior, options.prior, options.training_prior)
    known = other[2] >= 2
    mean = np.where(known[:, None], other[0], mean)
    covariance = np.where(known[:, None, None], other[1][:, :5, :5], covariance)
    return mean, covariance, np.where(other[2] < _FEW_DRAWS, Flag.LOW_ESS, 0)


def _source_noise(stamps, gain):
    """Variance a signal of one sigma adds, in units of the background's."""
    if gain is None:
        return np.zeros(len(stamps))
    used = stamps.ivar > 0
    mean_ivar = stamps.ivar.sum((1, 2), dtype=float) / np.maximum(used.sum((1, 2)), 1)
    return np.sqrt(mean_ivar) / gain


def _gain(options, count):
    """Gain of the rows that are no repetitions."""
    return None if options.gain is None else options.gain[:count]


def _possible_start(stamps, params):
    """Start of the search, where the network gave none for a galaxy far outside its training."""
    middle = np.array([1.0, 1.5, 3.0, 0.0, 0.0])
    other = np.column_stack([np.tile(middle, (len(params), 1)), stamps.center, np.zeros(len(params))])
    return np.where(np.isfinite(params).all(1)[:, None], params, other)


def _first(stamps, count, transfer):
    """Data, weights and transfer functions of the stamps that are no repetitions."""
    return stamps.data[:count], stamps.ivar[:count], transfer if len(transfer) == 1 else transfer[:count]


def _repeated(count, size):
    """Index that fills a batch up with its first row."""
    return np.concatenate([np.arange(count), np.zeros(size - count, int)])


def _refined(stamps, count, transfer, grid, start, options):
    start = _possible_start(stamps, start)[:count]
    arrays = _first(stamps, count, transfer)
    result = maximize_likelihood(*arrays, grid, start, fit_sky=options.fit_sky, gain=_gain(options, count))
    fill = _repeated(count, len(stamps))
    return result.params[fill], np.full((len(fill), 5, 5), np.nan), result.flags[fill]


def _sampled(stamps, count, transfer, grid, proposal, params, options):
    from galshape_cnn.infer.posterior import sample_posterior

    nuisance = None if stamps.nuisance is None else stamps.nuisance[:count]
    data, ivar, transfer = _first(stamps, count, transfer)
    gain = _gain(options, count)
    if options.correlation is not None:
        # a power of a Gaussian likelihood is one with all variances multiplied
        matrices = information(stamps[:count], params[:count], gain, options.correlation)
        power = tempering(*matrices, options.fit_sky)
        ivar, gain = ivar * power[:, None, None], None if gain is None else gain * power
    result = sample_posterior(
        data, ivar, transfer, grid, proposal[:count], options.prior,
        fit_sky=options.fit_sky, gain=gain, seed=options.seed, nuisance=nuisance,
    )  # fmt: skip
    params = params[:count].copy()
    good = np.isfinite(result.mean).all(1)
    params[good, :5], params[good, 5:7] = result.mean[good], result.center[good]
    fill = _repeated(count, len(stamps))
    return params[fill], result.covariance[fill], result.ess[fill], result.samples[fill], result.flags[fill]


def _judged(stamps, transfer, grid, params, covariance, ess, samples, flags, options):
    """Add bound, S/N, chi-square and flags."""
    found = examine(params, stamps.data, stamps.ivar, transfer, grid, options.fit_sky, options.gain)
    snr = np.abs(params[:, 0]) * np.sqrt(found.fisher[:, 0, 0])
    chi2 = found.chi2
    if options.fit_sky:  # the sky that is best for these parameters
        step = found.score[:, 7] / np.maximum(found.fisher[:, 7, 7], 1e-30)
        chi2 = chi2 - step * found.score[:, 7]
        params[:, 7] += step
    crb, singular = bound(found.fisher.astype(np.float32), fit_sky=options.fit_sky)
    freedom = np.maximum((stamps.ivar > 0).sum((1, 2)) - (8 if options.fit_sky else 7), 1)
    measured = Measured(params, covariance, crb, snr, chi2 / freedom, freedom, found)
    width = psf_width(stamps.psf, stamps.psf_oversampling)
    point = _point_chi2(stamps, transfer, grid, params, small_rows(measured, width), options)
    flags = flags | np.where(singular, Flag.SINGULAR, 0) | row_flags(stamps, measured, width, point, options)
    return Measurement(params, covariance, crb, snr, chi2 / freedom, ess, flags, samples)


def _point_chi2(stamps, transfer, grid, params, small, options):
    """Chi-square of a point source for some rows, NaN for the others."""
    out, rows = np.full(len(params), np.nan), np.flatnonzero(small)
    if len(rows):
        size = min(2 ** int(np.ceil(np.log2(max(len(rows), BLOCK)))), len(params))  # few programs
        some = rows[_repeated(len(rows), size)]
        psf = transfer if len(transfer) == 1 else transfer[some]
        arrays = (params[some], stamps.data[some], stamps.ivar[some], psf)
        chi2 = point_source_chi2(*arrays, grid, options.fit_sky, options.for_rows(some).gain)
        out[rows] = chi2[: len(rows)]
    return out
