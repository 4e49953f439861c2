# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""Figures of an injection.

Colours are from the palette of Okabe & Ito, and every line has its own marker.
"""

import numpy as np
from matplotlib.colors import LogNorm
from matplotlib.figure import Figure

from galshape_cnn.infer.catalog.columns import SHAPE_PARAMETERS
from galshape_cnn.infer.catalog.plotting import plain_ticks
from galshape_cnn.study.inject.summary import kept_selection, reference_of, selections
from galshape_cnn.study.report.compare import error_columns, pulls
from galshape_cnn.study.report.plots import pull_histogram
from galshape_cnn.study.validate.plots import ERROR_LABELS

__all__ = [
    "plot_bias",
    "plot_completeness",
    "plot_coverage",
    "plot_examples",
    "plot_flags",
    "plot_places",
    "plot_predictions",
    "plot_pulls",
]

BLUE, ORANGE, GREEN, PINK, GREY = "#0072B2", "#D55E00", "#009E73", "#CC79A7", "0.55"
AXES = {
    "snr": "true S/N",
    "hlr_over_fwhm": "half-light radius / PSF FWHM",
    "n_near": "sources within half a stamp",
    "contamination": "|other light| / galaxy’s light",
}
_STYLES = ((GREY, "s"), (BLUE, "o"), (GREEN, "^"))


def _places(here):
    """Where the bins of an axis are drawn, and their labels."""
    labels = []
    for low, high in zip(here["low"], here["high"], strict=True):
        if high == np.inf:
            labels.append(f"≥ {low:g}")
        elif here["axis"][0] == "n_near" and high - low == 1:
            labels.append(f"{low:g}")
        else:
            labels.append(f"{low:g}–{high:g}")
    return np.arange(len(labels)), labels


def _bins(axis, bins, key):
    """The bins of an axis with their places; sets the ticks."""
    here = bins[(bins["axis"] == key) & (bins["parameter"] == SHAPE_PARAMETERS[0])]
    first = here[here["selection"] == here["selection"][0]]
    x, labels = _places(first)
    axis.set_xticks(x, labels, fontsize=8)
    axis.set_xlabel(AXES[key])
    axis.set_xlim(-0.5, len(x) - 0.5)
    return dict(zip(zip(first["low"], first["high"], strict=True), x, strict=True))


def _lines(axis, bins, key, parameter, columns):
    """One line for each selection."""
    place = _bins(axis, bins, key)
    here = bins[(bins["axis"] == key) & (bins["parameter"] == parameter)]
    names = list(dict.fromkeys(here["selection"]))
    for k, (name, (color, marker)) in enumerate(zip(names, _STYLES, strict=False)):
        mine = here[here["selection"] == name]
        x = np.array([place[row["low"], row["high"]] for row in mine]) + 0.08 * (k - 1)
        value, error = (np.asarray(mine[column], float) for column in columns)
        axis.errorbar(x, value, error, fmt=f"{marker}-", color=color, ms=5, lw=1.2, capsize=2, label=name)


def plot_completeness(bins):
    """Share of the injected galaxies that are measured, and that are kept, along each axis."""
    figure = Figure(figsize=(15, 3.7), layout="constrained")
    for axis, key in zip(figure.subplots(1, len(AXES), sharey=True), AXES, strict=True):
        _lines(axis, bins, key, SHAPE_PARAMETERS[0], ("complete", "complete_se"))
        axis.set_ylim(-0.02, 1.04)
    figure.axes[0].set_ylabel("share of the injected galaxies")
    figure.axes[0].legend(fontsize=9, loc="lower right")
    return figure


def plot_bias(bins, kept):
    """Median error of each parameter along each axis, beside the scatter that is stated."""
    figure = Figure(figsize=(16, 11), layout="constrained")
    axes = figure.subplots(len(AXES), 5)
    for line, key in zip(axes, AXES, strict=True):
        for axis, name in zip(line, SHAPE_PARAMETERS, strict=True):
            _stated(axis, bins, key, name, kept)
            _lines(axis, bins, key, name, ("bias", "bias_se"))
            axis.axhline(0, color="black", lw=0.8)
            axis.tick_params(axis="x", labelsize=7)
    for axis, name in zip(axes[0], SHAPE_PARAMETERS, strict=True):
        axis.set_title(f"median error of {ERROR_LABELS[name]}")
    handles, labels = axes[0, 0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=4)
    return figure


def _stated(axis, bins, key, name, kept):
    """Band of the median stated standard deviation."""
    here = bins[(bins["axis"] == key) & (bins["parameter"] == name) & (bins["selection"] == kept)]
    sigma = np.asarray(here["sigma"], float)
    place = _bins(axis, bins, key)
    x = np.array([place[row["low"], row["high"]] for row in here], float)
    axis.fill_between(x, -sigma, sigma, color="0.9", label=f"± median stated sigma ({kept})")
    known = sigma[np.isfinite(sigma)]
    if len(known):
        axis.set_ylim(-1.6 * known.max(), 1.6 * known.max())


def plot_coverage(bins):
    """How often the stated 68 and 95 % intervals hold the truth, along each axis."""
    figure = Figure(figsize=(16, 11), layout="constrained")
    axes = figure.subplots(len(AXES), 5, sharey=True)
    for line, key in zip(axes, AXES, strict=True):
        for axis, name in zip(line, SHAPE_PARAMETERS, strict=True):
            for percent in (68, 95):
                axis.axhline(percent / 100, color="black", lw=0.8, ls=":")
                _lines(axis, bins, key, name, (f"cover{percent}", f"cover{percent}_se"))
            axis.set_ylim(0, 1.03)
            axis.tick_params(axis="x", labelsize=7)
    for axis, name in zip(axes[0], SHAPE_PARAMETERS, strict=True):
        axis.set_title(ERROR_LABELS[name])
    for axis in axes[:, 0]:
        axis.set_ylabel("truth inside 68, 95 %")
    handles, labels = axes[0, 0].get_legend_handles_labels()
    some = dict(zip(labels, handles, strict=True))
    figure.legend(some.values(), some.keys(), loc="outside lower center", ncols=4)
    return figure


def plot_pulls(table):
    """Errors over stated standard deviations, of all rows and of those that are kept."""
    figure = Figure(figsize=(16, 3.6), layout="constrained")
    chosen, kept = selections(table), kept_selection(table)
    for axis, (name, pull) in zip(
        figure.subplots(1, 5), pulls(table, reference_of(table)).items(), strict=True
    ):
        known, groups = np.isfinite(pull), {}
        for label, style in {"measured": {"color": "0.75"}, kept: {"color": BLUE, "alpha": 0.8}}.items():
            some = pull[chosen[label] & known]
            groups[f"{label} ({len(some)})"] = some, style
        pull_histogram(axis, groups, 6)
        axis.set_title(ERROR_LABELS[name].replace("ln ", ""))
    figure.axes[0].set_ylabel("galaxies")
    figure.axes[0].legend(fontsize=8)
    return figure


def plot_predictions(table):
    """Measured against true parameters, coloured by S/N."""
    figure = Figure(figsize=(16, 3.9), layout="constrained")
    truth, measured = reference_of(table), selections(table)["measured"]
    snr = np.asarray(table["true_snr"])
    norm = LogNorm(max(snr.min(), 1e-3), snr.max())
    for axis, name in zip(figure.subplots(1, 5), SHAPE_PARAMETERS, strict=True):
        unit = getattr(table[name], "unit", None)
        true, found = (
            np.asarray(getattr(t[name], "value", t[name]), float)[measured] for t in (truth, table)
        )
        dots = axis.scatter(true, found, s=10, linewidths=0, c=snr[measured], cmap="viridis", norm=norm)
        low, high = np.nanmin(true), np.nanmax(true)
        axis.plot([low, high], [low, high], color="black", lw=1)
        margin = 0.6 * (high - low) or 0.1 * abs(low) or 0.1  # one number for all of them
        if name in ("flux", "hlr"):
            axis.set(xscale="log", yscale="log", ylim=(low / 2.5, high * 2.5))
            if name == "hlr":
                plain_ticks(axis.xaxis, axis.yaxis)
        else:
            axis.set_ylim(low - margin, high + margin)
        suffix = "" if unit is None else f" ({unit.to_string()})"
        axis.set(xlabel=f"true{suffix}", title={"g1": "$g_1$", "g2": "$g_2$"}.get(name, name))
    what = {"std": "posterior mean", "err": "estimate"}[error_columns(table)]
    figure.axes[0].set_ylabel(f"{what}, all measured")
    figure.colorbar(dots, ax=figure.axes, label="true S/N", pad=0.01)
    return figure


def plot_flags(costs, levels):
    """What flags and levels of quality cost on right rows, and catch of wrong ones."""
    parts = [("flag", costs)] + ([("level", levels)] if len(levels) else [])
    widths = [max(len(part), 3) for _, part in parts]
    figure = Figure(figsize=(13, 4.4), layout="constrained")
    axes = np.atleast_1d(figure.subplots(1, len(parts), width_ratios=widths, sharey=True))
    for axis, (key, part) in zip(axes, parts, strict=True):
        x = np.arange(len(part))
        for shift, name, color, text in (
            (-0.2, "of_right", BLUE, f"right rows ({part['n_right'][0]}): cost"),
            (0.2, "of_wrong", ORANGE, f"wrong rows ({part['n_wrong'][0]}): catch"),
        ):
            axis.bar(x + shift, part[name], 0.38, yerr=part[f"{name}_se"], color=color, label=text, capsize=2)
        names = [f"quality {one}" if key == "level" else str(one) for one in part[key]]
        axis.set_xticks(x, names, rotation=35, ha="right", fontsize=8)
        axis.set_ylim(0, 1.05)
    axes[0].set_ylabel("share of the rows that have it")
    axes[0].legend(fontsize=9)
    return figure


def plot_places(job, table):
    """The image, and where galaxies were injected into its copies."""
    figure = Figure(figsize=(9, 8), layout="constrained")
    axis = figure.subplots()
    field = job.field
    flat = np.where(field.bad, np.nan, field.light / field.sigma)
    step = max(1, max(flat.shape) // 1000)
    ny, nx = flat.shape
    extent = (-0.5, nx - 0.5, -0.5, ny - 0.5)
    axis.imshow(
        np.arcsinh(flat[::step, ::step]), origin="lower", cmap="gray_r", vmin=-1, vmax=5, extent=extent
    )
    x, y = (np.asarray(table[f"true_{name}"].value) for name in "xy")
    found = np.asarray(table["found"], bool)
    size = np.clip(3000 / max(len(x), 60), 6, 40)
    axis.scatter(x[found], y[found], s=size, facecolors="none", edgecolors=BLUE, lw=0.8, label="injected")
    if not found.all():
        axis.scatter(x[~found], y[~found], s=size, marker="x", c=ORANGE, lw=0.9, label="injected, not found")
    axis.set(xlabel="x (pixels)", ylabel="y (pixels)", xlim=extent[:2], ylim=extent[2:])
    axis.legend(loc="upper right")
    count = job.record()["realisations"]
    axis.set_title(f"{len(table)} galaxies in {count} copies of the image", fontsize=11)
    return figure


def plot_examples(stamps):
    """Stamps with injected galaxies in the image.

    Parameters
    ----------
    stamps : sequence of (dict, (k, k) ndarray, (k, k) ndarray)
        Truth, pixels in units of the noise, and those before the injection.
    """
    figure = Figure(figsize=(1.7 * len(stamps), 3.9), layout="constrained")
    axes = figure.subplots(2, len(stamps), squeeze=False)
    for (above, below), (truth, after, before) in zip(axes.T, stamps, strict=True):
        for axis, image in ((above, after), (below, before)):
            axis.imshow(np.arcsinh(image), origin="lower", cmap="gray_r", vmin=-1, vmax=4)
            axis.set_xticks([])
            axis.set_yticks([])
        shape = "" if not np.isfinite(truth["n"]) else f"\nn {truth['n']:.1f}"
        above.set_title(f"{truth['kind']}\nS/N {truth['snr']:.0f}{shape}", fontsize=8)
    axes[0, 0].set_ylabel("with the galaxy", fontsize=9)
    axes[1, 0].set_ylabel("before", fontsize=9)
    return figure
