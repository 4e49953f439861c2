# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""Measure one batch of equal-sized stamps: network, then what the method adds.

Batches are padded to one size (`BATCH_SIZE`).  Compiled functions are then reused whatever the
number of galaxies, and the numbers of a galaxy are the same, bit for bit, whatever it shares its
batch with: a matrix product rounds differently in another shape, but not in another row.
"""

from dataclasses import dataclass, field, replace

import numpy as np

from galshape_cnn.flags import Flag
from galshape_cnn.forward.profile import N_RANGE
from galshape_cnn.forward.transfer import grid_for, transfer_functions
from galshape_cnn.infer.amortized import posterior_moments
from galshape_cnn.infer.fisher import bound, score_and_fisher
from galshape_cnn.infer.head import to_parameters
from galshape_cnn.infer.likelihood import StampLikelihood
from galshape_cnn.infer.measurement import Measurement
from galshape_cnn.infer.prior import Prior
from galshape_cnn.infer.refine import maximize_likelihood
from galshape_cnn.infer.reweighting import reweighted_moments

__all__ = ["BATCH_SIZE", "Options", "measure_stamps", "model_images", "network_posterior"]

#: Batch size the network and the bounds are compiled for: the arrays of one stay in cache.
BATCH_SIZE = 64

_N_MARGIN = 0.02  # from a limit of n at which an estimate counts as sitting on it
_FEW_DRAWS = 40  # effective draws of a reweighted answer below which it is flagged
_LARGEST_MOVE = 3.0  # pixels, or half the radius, beyond which a fit has gone to another galaxy
_FIT_SIGMAS = 6.0  # of reduced chi-square beyond which a fit is called poor
_HALF_LEVEL = np.linspace(0.02, 3.2, 160)  # wave numbers at which a PSF's width is sought


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
    neighbours : {'ignore', 'mask', 'fit'}
        What is done about other sources, see `galshape_cnn.infer.blends`.
    """

    method: str = "network"
    fit_sky: bool = True
    gain: float | np.ndarray | None = None
    prior: Prior | None = None
    training_prior: Prior | None = None
    seed: int = 0
    domain: dict = field(default_factory=dict)
    neighbours: str = "ignore"

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

    result = sample_posterior(
        *_first(stamps, count, transfer), grid, proposal[:count], options.prior,
        fit_sky=options.fit_sky, gain=_gain(options, count), seed=options.seed,
    )  # fmt: skip
    params = params[:count].copy()
    good = np.isfinite(result.mean).all(1)
    params[good, :5], params[good, 5:7] = result.mean[good], result.center[good]
    fill = _repeated(count, len(stamps))
    return params[fill], result.covariance[fill], result.ess[fill], result.samples[fill], result.flags[fill]


def _judged(stamps, transfer, grid, params, covariance, ess, samples, flags, options):
    """Add bound, S/N, chi-square and flags."""
    arrays = params.astype(np.float32), stamps.data, stamps.ivar, transfer, grid
    chi2, score, fisher = (np.asarray(one) for one in score_and_fisher(*arrays, gain=options.gain))
    snr = np.abs(params[:, 0]) * np.sqrt(fisher[:, 0, 0].astype(float))
    if options.fit_sky:  # which enters linearly: one Newton step is its best value
        step = score[:, 7] / np.maximum(fisher[:, 7, 7].astype(float), 1e-30)
        chi2, params[:, 7] = chi2 - step * score[:, 7], params[:, 7] + step
    crb, singular = bound(fisher, fit_sky=options.fit_sky)
    n_free = 8 if options.fit_sky else 7
    freedom = np.maximum((stamps.ivar > 0).sum((1, 2)) - n_free, 1)
    flags = flags | np.where(singular, Flag.SINGULAR, 0)
    flags |= _domain_flags(stamps, params, snr, options.domain)
    sigma_hlr = np.fmin(_sigma(crb, 2), _sigma(covariance, 2))
    flags |= _shape_flags(stamps, params, sigma_hlr, chi2 / freedom, freedom)
    return Measurement(params, covariance, crb, snr, chi2 / freedom, ess, flags, samples)


def psf_width(psf, oversampling):
    """FWHM of the Gaussian whose transfer function falls to one half where the PSF's does.

    Parameters
    ----------
    psf : (N, py, px) ndarray
        Effective PSFs.
    oversampling : int
        Samples per pixel.

    Returns
    -------
    fwhm : (N,) ndarray
        In pixels; works for undersampled PSFs too.
    """
    level = 0.0
    for axis in (1, 2):
        profile = psf.sum(axis, dtype=float)
        offset = (np.arange(profile.shape[1]) - profile.shape[1] // 2) / oversampling
        level = level + np.abs(profile @ np.exp(-1j * np.outer(offset, _HALF_LEVEL)))
    level = level / (2 * np.maximum(psf.sum((1, 2)), 1e-30)[:, None])
    below = level < 0.5
    first = np.where(below.any(1), below.argmax(1), len(_HALF_LEVEL) - 1)
    return 2.354820045 * np.sqrt(2 * np.log(2)) / _HALF_LEVEL[first]


def _outside(values, limits):
    return (values < limits[0]) | (values > limits[1])


def _domain_flags(stamps, params, snr, domain):
    """Flags of rows outside the ranges of training."""
    flags = np.zeros(len(params), np.int64)
    if "snr" in domain:
        flags |= np.where(snr < domain["snr"][0], Flag.LOW_SNR, 0)
        flags |= np.where(snr > domain["snr"][1], Flag.HIGH_SNR, 0)
    if "psf_fwhm" in domain:
        width = psf_width(stamps.psf, stamps.psf_oversampling)
        flags |= np.where(_outside(width, domain["psf_fwhm"]), Flag.PSF_OUT_OF_DOMAIN, 0)
    if "hlr" in domain:
        flags |= np.where(_outside(params[:, 2], domain["hlr"]), Flag.SIZE_OUT_OF_DOMAIN, 0)
    return flags


def _sigma(covariance, k):
    """Standard deviation of one parameter, NaN where there is none."""
    with np.errstate(invalid="ignore"):
        return np.sqrt(covariance[:, k, k])


def _shape_flags(stamps, params, sigma_hlr, chi2, freedom):
    """Flags of rows whose numbers speak against themselves."""
    n, hlr = params[:, 1], params[:, 2]
    g = np.hypot(params[:, 3], params[:, 4])
    at_bound = _outside(n, (N_RANGE[0] + _N_MARGIN, N_RANGE[1] - _N_MARGIN))
    spread = _FIT_SIGMAS * np.sqrt(2 / freedom)
    with np.errstate(invalid="ignore"):
        unresolved = hlr < 2 * sigma_hlr
        moved = np.hypot(*(params[:, 5:7] - stamps.center).T) > np.maximum(_LARGEST_MOVE, hlr / 2)
    reach = np.sqrt((stamps.ivar > 0).sum((1, 2))) / 2
    too_large = hlr * np.sqrt((1 + g) / np.maximum(1 - g, 1e-3)) > reach
    return (
        np.where(at_bound, Flag.N_AT_BOUND, 0)
        | np.where((chi2 > 1 + spread) | (chi2 < 1 - spread), Flag.POOR_FIT, 0)
        | np.where(unresolved, Flag.UNRESOLVED, 0)
        | np.where(too_large, Flag.STAMP_SMALL, 0)
        | np.where(moved, Flag.FAR_CENTROID, 0)
    )
