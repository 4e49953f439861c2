# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""Accuracy and calibration on held-out galaxies drawn by GalSim from the training prior."""

import numpy as np
from astropy.table import Table

from galshape_cnn.flags import Flag
from galshape_cnn.forward.galaxy_model import SINGLE
from galshape_cnn.forward.psf.shape import psf_width
from galshape_cnn.infer.catalog.columns import SHAPE_PARAMETERS
from galshape_cnn.infer.network.trust import AXES
from galshape_cnn.study.validate.estimates import true_bounds
from galshape_cnn.study.validate.statistics import (
    bias_and_scatter,
    coverage,
    errors_of,
    ranks,
    rmse,
    rmse_ratio,
    scatter_over,
    to_errors,
)
from galshape_cnn.study.validate.van_trees import information, van_trees_table

__all__ = ["BINS", "PREFIXES", "bin_galaxies", "measure_galaxies", "van_trees"]

#: Before the names of the columns of each method.
PREFIXES = {"network": "", "ml": "ml_", "posterior": "exact_"}

#: Bins in which everything is averaged; ``all`` is the whole set.
BINS = {
    "all": (-np.inf, np.inf),
    "snr": (5, 10, 20, 50, 100, 300, 1000),
    "n": (0.3, 0.7, 1.2, 2.0, 3.5, 5.0, 6.2),
    "hlr_over_fwhm": (0.0, 0.25, 0.5, 1.0, 2.0, 10.0),
    "g": (0.0, 0.15, 0.3, 0.45, 0.7),
}
_TRUTH = ("flux", "n", "hlr", "g1", "g2", "x", "y", "sky")


def measure_galaxies(network, stamps, truth, *, with_posterior, seed, report=None):
    """Errors, bounds and ranks of every galaxy.

    Parameters
    ----------
    network : ValidatedNetwork
        The network.
    stamps : Stamps
        From `galshape_cnn.study.simulate.mock_sets.draw_mocks`.
    truth : `~astropy.table.Table`
        Their truth.
    with_posterior : int
        How many of them are measured by ``ml`` and ``posterior`` too, the first ones.
    seed : int
        Of posterior draws.
    report : callable, optional
        Called as ``report(what, done, total)``.

    Returns
    -------
    galaxies : `~astropy.table.Table`
        One row each: the truth; ``crb_*`` at the truth; ``information`` (15,) and ``gradient`` (5,)
        for the van Trees bound; ``rank_*`` of the truth among draws of the network.  For each method,
        with the prefixes of `PREFIXES`: ``error_*``, stated ``std_*`` (the bound at the estimate for
        ``ml``), measured ``m_snr``, ``m_hlr_over_fwhm`` and ``m_n``, and ``flags``.  Errors and widths
        are of ln flux, n, ln hlr, g1, g2.
    """
    say = report or (lambda what, done, total: None)
    params = np.stack([np.asarray(truth[name], float) for name in _TRUTH], 1)
    fit_sky = np.asarray(truth["fit_sky"])
    columns = {name: truth[name] for name in (*_TRUTH, "snr", "fit_sky", "psf_fwhm")}
    width = np.broadcast_to(psf_width(stamps.psf, stamps.psf_oversampling), len(stamps))
    columns |= {"hlr_over_fwhm": truth["hlr"] / truth["psf_fwhm"], "psf_width": width}
    columns["g"] = np.hypot(truth["g1"], truth["g2"])
    for method, prefix in PREFIXES.items():
        number = len(stamps) if method == "network" else with_posterior
        progress = lambda done, name=method, total=number: say(name, done, total)  # noqa: E731
        found = network.measure(stamps[:number], fit_sky[:number], method, seed, progress) if number else None
        columns |= _of_method(prefix, found, params, width)
    rank = ranks(network.draws(stamps, fit_sky, seed=seed), params[:, SINGLE.reported])
    covariance, fisher = true_bounds(stamps, params, fit_sky)
    matrices, gradient = information(fisher, params)
    columns |= _by_parameter("crb_", to_errors(covariance, params)) | _by_parameter("rank_", rank)
    columns |= {"information": matrices[:, *np.tril_indices(5)], "gradient": gradient}
    return Table(columns)


def _by_parameter(prefix, values):
    return {f"{prefix}{name}": values[:, k] for k, name in enumerate(SHAPE_PARAMETERS)}


def _of_method(prefix, found, params, width):
    """Columns of one method; NaN for galaxies that it did not measure."""
    error, std, measured = (np.full((len(params), k), np.nan) for k in (5, 5, 3))
    flags = np.full(len(params), Flag.NOT_MEASURED)
    if found is not None:
        some = slice(0, len(found))
        stated = found.crb + found.structure if prefix == PREFIXES["ml"] else found.covariance
        error[some] = errors_of(found.params[:, SINGLE.reported], params[some, SINGLE.reported])
        std[some] = to_errors(stated, found.params)
        measured[some] = np.column_stack(
            [found.snr, found.params[:, SINGLE.hlr] / width[some], found.params[:, SINGLE.n]]
        )
        flags[some] = found.flags
    out = _by_parameter(f"{prefix}error_", error) | _by_parameter(f"{prefix}std_", std)
    out |= {f"{prefix}m_{axis}": measured[:, k] for k, axis in enumerate(AXES)}
    return out | {f"{prefix}flags": flags}


def bin_galaxies(galaxies):
    """Averages in the bins of `BINS`.

    Parameters
    ----------
    galaxies : `~astropy.table.Table`
        From `measure_galaxies`.

    Returns
    -------
    table : `~astropy.table.Table`
        One row for each bin and parameter: bias, scatter and RMSE of each method; ``efficiency``, the
        bound over the variance, from the central 68 % of error over bound, galaxy by galaxy
        (above one is shrinkage and no success); coverage of the network's 68 and 95 % intervals,
        mean and standard deviation of its pulls, ``rmse_ratio`` to the exact posterior mean, and
        ``slope`` of the estimate against the truth (1 is unbiased, less is shrinkage); with
        standard errors.
    """
    rows = []
    for axis, edges in BINS.items():
        values = np.zeros(len(galaxies)) if axis == "all" else np.asarray(galaxies[axis])
        for low, high in zip(edges[:-1], edges[1:], strict=True):
            inside = galaxies[(values >= low) & (values < high)]
            for name in SHAPE_PARAMETERS if len(inside) > 1 else ():
                rows.append(
                    {"axis": axis, "low": low, "high": high, "parameter": name} | _averages(inside, name)
                )
    return Table(rows=rows)


def _averages(inside, name):
    error, exact, ml, std, crb, rank = (
        np.asarray(inside[f"{prefix}_{name}"])
        for prefix in ("error", "exact_error", "ml_error", "std", "crb", "rank")
    )
    out = {"number": len(inside)}
    out["bias"], out["bias_se"], out["scatter"], out["scatter_se"] = bias_and_scatter(error)
    out["rmse"], out["rmse_se"] = rmse(error)
    out["crb"] = np.nanmedian(crb) if np.isfinite(crb).any() else np.nan
    for percent in (68, 95):
        fraction, fraction_se = coverage(rank, percent / 100)
        out[f"cover{percent}"], out[f"cover{percent}_se"] = fraction, fraction_se
    out["pull"], out["pull_se"], out["pull_std"], out["pull_std_se"] = bias_and_scatter(error / std)
    out["rmse_ratio"], out["rmse_ratio_se"] = rmse_ratio(error, exact)
    for prefix, values in (("exact_", exact), ("ml_", ml)):
        out[f"{prefix}bias"], out[f"{prefix}bias_se"], out[f"{prefix}scatter"], _ = bias_and_scatter(values)
        out[f"{prefix}rmse"], out[f"{prefix}rmse_se"] = rmse(values)
    for prefix, values in (("", error), ("exact_", exact), ("ml_", ml)):  # galaxy by galaxy
        ratio, ratio_se = scatter_over(values, crb)
        out[f"{prefix}efficiency"] = ratio**-2
        out[f"{prefix}efficiency_se"] = 2 * ratio**-3 * ratio_se
    out["slope"] = _slope(error, inside, name)
    return out


def _slope(error, inside, name):
    """Regression of the estimate on the truth."""
    truth = np.log(inside[name]) if name in ("flux", "hlr") else np.asarray(inside[name])
    good = np.isfinite(error)
    if good.sum() < 3 or truth[good].std() == 0:
        return np.nan
    return 1 + np.polyfit(truth[good], error[good], 1)[0]


def van_trees(galaxies, prior):
    """The van Trees bound in the bins of S/N; see `galshape_cnn.study.validate.van_trees.van_trees_table`."""
    lower = np.zeros((len(galaxies), 5, 5))
    lower[:, *np.tril_indices(5)] = galaxies["information"]
    matrices = lower + np.swapaxes(np.tril(lower, -1), 1, 2)
    return van_trees_table(matrices, np.asarray(galaxies["gradient"]), galaxies, prior, BINS["snr"])
