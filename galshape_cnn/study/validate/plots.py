# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""Figures of a validation: benchmarks and calibration.

Colours are from the palette of Okabe & Ito, and every line has its own marker.
"""

import numpy as np
from matplotlib.colors import LogNorm
from matplotlib.figure import Figure

from galshape_cnn.infer.catalog.columns import SHAPE_PARAMETERS
from galshape_cnn.infer.catalog.plotting import plain_ticks
from galshape_cnn.study.report.plots import pull_histogram
from galshape_cnn.study.validate.benchmark_seed import UNITS

__all__ = ["plot_bins", "plot_calibration", "plot_predictions", "plot_seed"]

STYLES = {
    "network": ("#0072B2", "o"),
    "ml": ("#009E73", "s"),
    "posterior": ("#D55E00", "D"),
    "autoencoder CNN": ("#999999", "v"),
    "Xception CNN": ("#56B4E9", "^"),
    "L-BFGS-B fit": ("#CC79A7", "x"),
}
METHODS = {
    "network": "network",
    "ml": "maximum likelihood",
    "posterior": "exact posterior mean: the smallest possible RMSE",
}
ERROR_LABELS = {"flux": "ln flux", "n": "n", "hlr": "ln hlr", "g1": "$g_1$", "g2": "$g_2$"}
AXIS_LABELS = {"snr": "S/N", "n": "Sérsic index n", "hlr_over_fwhm": "hlr / PSF FWHM", "g": "|g|"}


def plot_seed(table):
    """Bias (marker) and scatter (bar) of each method beside the bound (band)."""
    figure = Figure(figsize=(16, 4.6), layout="constrained")
    levels = list(dict.fromkeys(table["snr"]))
    for axis, name in zip(figure.subplots(1, 5), SHAPE_PARAMETERS, strict=True):
        mine = table[table["parameter"] == name]
        for k, snr in enumerate(levels):
            here = mine[mine["snr"] == snr]
            bound = here["crb"][0]
            label = "± Cramér–Rao bound (unbiased estimators)" if k == 0 else None
            axis.fill_between([k - 0.45, k + 0.45], -bound, bound, color="0.88", label=label)
            for j, row in enumerate(here):
                color, marker = STYLES[row["method"]]
                x = k - 0.38 + 0.76 * (j + 0.5) / len(here)
                axis.errorbar(x, row["bias"], row["scatter"], fmt=marker, color=color, ms=5, capsize=2)
        axis.axhline(0, color="black", lw=0.8)
        axis.set_xticks(range(len(levels)), [f"{snr}" for snr in levels])
        unit = {"flux": " (10⁵)", "hlr": " (arcsec)"}.get(name, UNITS[name][1])
        axis.set(xlabel="S/N", title=f"{name.replace('1', '$_1$').replace('2', '$_2$')}{unit}")
    handles = [figure.axes[0].plot([], [], m, color=c, label=name)[0] for name, (c, m) in STYLES.items()]
    band = figure.axes[0].get_legend_handles_labels()
    handles += [h for h, text in zip(*band, strict=True) if "bound" in text]
    figure.axes[0].set_ylabel("bias ± scatter")
    figure.legend(handles=handles, loc="outside lower center", ncols=7, fontsize=9)
    return figure


_QUANTITIES = {
    "rmse": "RMSE of {}",
    "scatter": "scatter of {}",
    "bias": "mean error of {}",
    "efficiency": "efficiency in {}",
}
_PREFIXES = {"network": "", "posterior": "exact_", "ml": "ml_"}


def plot_bins(bins, quantity, van_trees=None):
    """RMSE, scatter, bias or efficiency of each parameter along each axis, for every method.

    Of bins of `galshape_cnn.study.validate.benchmark_prior.bin_galaxies`; the bounds of van Trees are drawn
    along the axis of S/N.
    """
    figure = Figure(figsize=(16, 11), layout="constrained")
    axes = figure.subplots(len(AXIS_LABELS), 5, squeeze=False)
    for line, (key, label) in zip(axes, AXIS_LABELS.items(), strict=True):
        for axis, name in zip(line, SHAPE_PARAMETERS, strict=True):
            _draw_bins(axis, bins[(bins["axis"] == key) & (bins["parameter"] == name)], quantity)
            if key == "snr" and van_trees is not None:
                _draw_van_trees(axis, van_trees[van_trees["parameter"] == name])
            axis.set_xlabel(label)
            if key == "snr":
                axis.set_xscale("log")
                axis.xaxis.set_major_formatter("{x:g}")
    for axis, name in zip(axes[0], SHAPE_PARAMETERS, strict=True):
        axis.set_title(_QUANTITIES[quantity].format(ERROR_LABELS[name]))
    handles, labels = axes[0, 0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=4)
    return figure


def _middles(here):
    high = np.minimum(here["high"], 3 * np.maximum(here["low"], 1e-9) + (here["low"] == 0) * here["high"])
    return 0.5 * (np.asarray(here["low"]) + np.asarray(high))


def _draw_bins(axis, here, quantity):
    """Lines of the methods along one axis, and what bounds them."""
    x = _middles(here)
    for method, prefix in _PREFIXES.items():
        values = np.asarray(here[f"{prefix}{quantity}"], float)
        if not np.isfinite(values).any():
            continue
        errors = f"{prefix}{quantity}_se"
        errors = np.asarray(here[errors], float) if errors in here.colnames else None
        color, marker = STYLES[method]
        style = {"ms": 4.5, "lw": 1.2, "mfc": color if method == "network" else "none"}
        axis.errorbar(x, values, errors, fmt=f"{marker}-", color=color, label=METHODS[method], **style)
    _draw_reference(axis, here, quantity, x)


def _draw_reference(axis, here, quantity, x):
    """Cramer-Rao bounds, and the scale."""
    bound = np.asarray(here["crb"])
    if quantity == "efficiency":
        axis.axhline(1, color="black", ls=":", label="Cramér–Rao bound (above: shrinkage to the prior)")
        axis.set_yscale("log")
        axis.set_ylim(0.08, 30)
    elif quantity == "bias":
        axis.axhline(0, color="black", lw=0.8)
        axis.fill_between(x, -0.2 * bound, 0.2 * bound, color="0.88", label="± 0.2 median Cramér–Rao bound")
        values = np.concatenate([here["bias"], here["exact_bias"]])
        limit = 1.6 * np.nanmax(np.abs(np.r_[values, 1e-3]))
        axis.set_ylim(-limit, limit)
    else:
        label = "median Cramér–Rao bound (unbiased estimators)"
        axis.plot(x, bound, color="black", ls=":", label=label)
        if quantity == "scatter":
            slope = np.asarray(here["slope"], float)
            label = "bound for the network’s bias, (1 + b′) × bound"
            axis.plot(x, np.abs(slope) * bound, color="0.45", ls="--", label=label)
        axis.set_yscale("log")
    if quantity != "bias":
        plain_ticks(axis.yaxis)


def _draw_van_trees(axis, here):
    label = "van Trees bound (any estimator, average over the prior)"
    axis.plot(_middles(here), here["bound"], color="#CC79A7", ls="-.", label=label)


def plot_calibration(galaxies, bins):
    """Rank histograms, pulls, and coverage against S/N."""
    figure = Figure(figsize=(16, 9.5), layout="constrained")
    axes = figure.subplots(3, 5)
    for k, name in enumerate(SHAPE_PARAMETERS):
        _rank_histogram(axes[0, k], np.asarray(galaxies[f"rank_{name}"]))
        pull = np.asarray(galaxies[f"error_{name}"]) / np.asarray(galaxies[f"std_{name}"])
        pull_histogram(axes[1, k], {"network": (pull, {"color": "#0072B2", "alpha": 0.75})}, 5)
        _coverage(axes[2, k], bins[(bins["axis"] == "snr") & (bins["parameter"] == name)])
        axes[0, k].set_title(ERROR_LABELS[name])
    axes[0, 0].set_ylabel("galaxies")
    axes[1, 0].set_ylabel("galaxies")
    axes[2, 0].set_ylabel("fraction inside the interval")
    axes[0, 0].legend(fontsize=8)
    axes[1, 0].legend(fontsize=8)
    axes[2, 0].legend(fontsize=8, loc="lower right")
    return figure


def _rank_histogram(axis, rank):
    rank = rank[np.isfinite(rank)]
    count = int(np.clip(len(rank) // 20, 5, 20))
    expected = len(rank) / count
    width = 2 * np.sqrt(expected)
    axis.axhspan(expected - width, expected + width, color="0.88", label="calibrated, ± 2 sigma")
    axis.hist(rank, np.linspace(0, 1, count + 1), histtype="step", color="#0072B2", lw=1.6, label="network")
    axis.set(xlabel="posterior probability below the truth", xlim=(0, 1), ylim=(0, None))


def _coverage(axis, here):
    x = np.sqrt(np.asarray(here["low"]) * np.asarray(here["high"]))
    for percent, (low, high), color, marker in (
        (68, (0.63, 0.73), "#0072B2", "o"),
        (95, (0.92, 0.98), "#D55E00", "s"),
    ):
        axis.axhspan(low, high, color=color, alpha=0.15, lw=0)
        values, errors = here[f"cover{percent}"], here[f"cover{percent}_se"]
        axis.errorbar(x, values, errors, fmt=f"{marker}-", color=color, ms=5, label=f"{percent} % interval")
    axis.set(xscale="log", xlabel="S/N", ylim=(0, 1.02))
    axis.xaxis.set_major_formatter("{x:g}")


def plot_predictions(galaxies):
    """Estimated against true parameters, coloured by S/N."""
    figure = Figure(figsize=(16, 3.9), layout="constrained")
    for axis, name in zip(figure.subplots(1, 5), SHAPE_PARAMETERS, strict=True):
        truth, error = np.asarray(galaxies[name]), np.asarray(galaxies[f"error_{name}"])
        logarithmic = name in ("flux", "hlr")
        estimate = truth * np.exp(error) if logarithmic else truth + error
        colors = {"c": np.asarray(galaxies["snr"]), "cmap": "viridis", "norm": LogNorm(5, 1000)}
        size = 12 if len(truth) < 1000 else 4
        shown = axis.scatter(truth, estimate, s=size, linewidths=0, **colors)
        low, high = np.nanmin(truth), np.nanmax(truth)
        axis.plot([low, high], [low, high], color="black", lw=1)
        if logarithmic:
            axis.set(xscale="log", yscale="log")
        if name == "hlr":
            plain_ticks(axis.xaxis, axis.yaxis)
        unit = {"flux": " (noise of a pixel)", "hlr": " (px)"}.get(name, "")
        axis.set(xlabel=f"true{unit}", title={"g1": "$g_1$", "g2": "$g_2$"}.get(name, name))
    figure.axes[0].set_ylabel("posterior mean of the network")
    figure.colorbar(shown, ax=figure.axes, label="S/N", pad=0.01)
    return figure
