# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""Held-out galaxies drawn by GalSim from the prior of the training: accuracy and calibration."""

import numpy as np
from astropy.table import Table

from galshape_cnn.infer.columns import SHAPE_PARAMETERS
from galshape_cnn.study.statistics import (
    bias_and_scatter,
    coverage,
    errors_of,
    ranks,
    rmse,
    rmse_ratio,
    to_errors,
)
from galshape_cnn.study.subject import true_bounds

__all__ = ["BINS", "bin_galaxies", "measure_galaxies"]

#: Bins in which everything is averaged; ``all`` is the whole set.
BINS = {
    "all": (-np.inf, np.inf),
    "snr": (5, 10, 20, 50, 100, 300, 1000),
    "n": (0.3, 0.7, 1.2, 2.0, 3.5, 5.0, 6.2),
    "hlr_over_fwhm": (0.0, 0.25, 0.5, 1.0, 2.0, 10.0),
    "g": (0.0, 0.15, 0.3, 0.45, 0.7),
}
_TRUTH = ("flux", "n", "hlr", "g1", "g2", "x", "y", "sky")


def measure_galaxies(subject, stamps, truth, *, with_posterior, seed, report=None):
    """Errors, bounds and ranks of every galaxy.

    Parameters
    ----------
    subject : Subject
        The network.
    stamps : Stamps
        From `galshape_cnn.study.simulate.draw_mocks`.
    truth : `~astropy.table.Table`
        Their truth.
    with_posterior : int
        How many of them are measured by ``posterior`` too, the first ones.
    seed : int
        Of posterior draws.
    report : callable, optional
        Receives lines of progress.

    Returns
    -------
    galaxies : `~astropy.table.Table`
        One row each.  ``error_*`` of the network's posterior mean, ``exact_error_*`` of
        ``posterior``'s, ``std_*`` stated, ``crb_*`` at the truth: all of ln flux, n,
        ln hlr, g1, g2; ``rank_*``; the truth; ``flags``.
    """
    say = report or (lambda line: None)
    params = np.stack([np.asarray(truth[name], float) for name in _TRUTH], 1)
    fit_sky = np.asarray(truth["fit_sky"])
    say(f"network, {len(stamps)} galaxies")
    found = subject.measure(stamps, fit_sky, seed=seed)
    rank = ranks(subject.draws(stamps, fit_sky, seed=seed), params[:, :5])
    exact = np.full((len(stamps), 5), np.nan)
    some = slice(0, with_posterior)
    if with_posterior:
        progress = lambda done: say(f"posterior, {done} of {with_posterior} galaxies")  # noqa: E731
        slow = subject.measure(stamps[some], fit_sky[some], "posterior", seed, progress)
        exact[some] = slow.params[:, :5]
    columns = {name: truth[name] for name in (*_TRUTH, "snr", "fit_sky", "psf_fwhm")}
    columns["hlr_over_fwhm"] = truth["hlr"] / truth["psf_fwhm"]
    columns |= {"g": np.hypot(truth["g1"], truth["g2"]), "flags": found.flags, "chi2": found.chi2}
    bounds = to_errors(true_bounds(stamps, params, fit_sky), params)
    blocks = {
        "error": errors_of(found.params[:, :5], params[:, :5]),
        "exact_error": errors_of(exact, params[:, :5]),
        "std": to_errors(found.covariance, found.params),
        "crb": bounds,
        "rank": rank,
    }
    for prefix, values in blocks.items():
        columns |= {f"{prefix}_{name}": values[:, k] for k, name in enumerate(SHAPE_PARAMETERS)}
    return Table(columns)


def bin_galaxies(galaxies):
    """Averages in the bins of `BINS`.

    Parameters
    ----------
    galaxies : `~astropy.table.Table`
        From `measure_galaxies`.

    Returns
    -------
    table : `~astropy.table.Table`
        One row for each bin and parameter: bias, scatter, RMSE, ``rmse_over_crb`` (root mean
        square of error over bound, galaxy by galaxy), coverage of the 68 and 95 % intervals, mean
        and standard deviation of the pulls, ``rmse_ratio`` to the exact posterior mean, and
        ``slope`` of the estimate against the truth (1 is unbiased, less is shrinkage), each with
        standard error.
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
    error, exact, std, crb, rank = (
        np.asarray(inside[f"{prefix}_{name}"]) for prefix in ("error", "exact_error", "std", "crb", "rank")
    )
    out = {"number": len(inside)}
    out["bias"], out["bias_se"], out["scatter"], out["scatter_se"] = bias_and_scatter(error)
    out["rmse"], out["rmse_se"] = rmse(error)
    out["crb"] = np.nanmedian(crb) if np.isfinite(crb).any() else np.nan
    out["rmse_over_crb"], out["rmse_over_crb_se"] = rmse(error / crb)
    for percent in (68, 95):
        fraction, fraction_se = coverage(rank, percent / 100)
        out[f"cover{percent}"], out[f"cover{percent}_se"] = fraction, fraction_se
    out["pull"], out["pull_se"], out["pull_std"], out["pull_std_se"] = bias_and_scatter(error / std)
    out["rmse_ratio"], out["rmse_ratio_se"] = rmse_ratio(error, exact)
    out["exact_rmse"], out["exact_rmse_se"] = rmse(exact)
    out["slope"] = _slope(error, inside, name)
    return out


def _slope(error, inside, name):
    """Regression of the estimate on the truth."""
    truth = np.log(inside[name]) if name in ("flux", "hlr") else np.asarray(inside[name])
    good = np.isfinite(error)
    if good.sum() < 3 or truth[good].std() == 0:
        return np.nan
    return 1 + np.polyfit(truth[good], error[good], 1)[0]
