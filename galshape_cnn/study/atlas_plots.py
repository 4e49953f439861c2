# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""Figures of the failure atlas."""

import numpy as np
from matplotlib.colors import SymLogNorm
from matplotlib.figure import Figure

from galshape_cnn.infer.columns import SHAPE_PARAMETERS
from galshape_cnn.study.atlas_cases import FAMILIES
from galshape_cnn.study.validation_plots import AXIS_LABELS, ERROR_LABELS

__all__ = ["plot_atlas", "plot_flags", "plot_maps"]

_LINES = dict(zip(SHAPE_PARAMETERS, (("#000000", "o"), ("#E69F00", "s"), ("#0072B2", "D"), ("#009E73", "^"),
                                     ("#CC79A7", "v")), strict=True))  # fmt: skip
_MAPS = (("snr", (5, 10, 20, 50, 100, 300, 1000)), ("n", (0.3, 0.7, 1.2, 2.0, 3.5, 5.0, 6.2)))
_SIZES = (0.0, 0.25, 0.5, 1.0, 2.0, 10.0)


def plot_atlas(atlas, snr):
    """Bias over bound against the strength of each failure, and the flagged fraction.

    Parameters
    ----------
    atlas : `~astropy.table.Table`
        From `galshape_cnn.study.atlas.run_atlas`.
    snr : int
        One of its levels.
    """
    families = list(dict.fromkeys(atlas["family"]))
    lines = -(-len(families) // 5)
    figure = Figure(figsize=(17, 3.2 * lines + 0.6), layout="constrained")
    axes = figure.subplots(lines, 5, squeeze=False)
    for axis in axes.flat[len(families) :]:
        axis.set_axis_off()
    for k, (axis, family) in enumerate(zip(axes.flat, families, strict=False)):
        here = atlas[(atlas["family"] == family) & (atlas["snr"] == snr)]
        twin = _draw_family(axis, here, FAMILIES[family])
        if k % 5 == 0:
            axis.set_ylabel("bias / bound")
        if k % 5 == 4 or k == len(families) - 1:
            twin.set_ylabel("flagged fraction")
    handles, labels = axes[0, 0].get_legend_handles_labels()
    bars = axes[0, 0].bar([np.nan], [0], color="0.85")
    figure.legend(
        [*handles, bars], [*labels, "flagged fraction (right scale)"], loc="outside lower center", ncols=6
    )
    figure.suptitle(f"S/N {snr}: mean error in units of the Cramér–Rao bound (symmetric logarithmic scale)")
    return figure


def _draw_family(axis, here, family):
    """Lines of one family; returns the axis of the flagged fraction."""
    x = np.arange(len(here))
    twin = axis.twinx()
    twin.bar(x, here["flagged"], color="0.85", width=0.7)
    twin.set_ylim(0, 1)
    axis.set_zorder(twin.get_zorder() + 1)
    axis.patch.set_visible(False)
    for name, (color, marker) in _LINES.items():
        style = {"fmt": f"{marker}-", "color": color, "ms": 4, "lw": 1.2}
        axis.errorbar(x, here[f"bias_{name}"], here[f"bias_se_{name}"], label=ERROR_LABELS[name], **style)
    axis.axhline(0, color="black", lw=0.6)
    axis.set_yscale("symlog", linthresh=1)
    axis.yaxis.set_major_formatter("{x:g}")
    limit = max(np.nan_to_num(np.abs(here[f"bias_{name}"])).max(initial=1) for name in _LINES)
    axis.set_ylim(-3 * limit, 3 * limit)
    axis.set_xticks(x, [f"{value:g}" for value in here["value"]])
    axis.set_title(family.title, fontsize=10)
    axis.set_xlabel(family.label, fontsize=9)
    return twin


def plot_flags(scores):
    """Completeness and false alarms of the flags."""
    figure = Figure(figsize=(12, 0.36 * len(scores) + 1.6), layout="constrained")
    left, right = figure.subplots(1, 2, sharey=True)
    y = np.arange(len(scores))[::-1]
    titles = [FAMILIES[name].title if name in FAMILIES else "all together" for name in scores["family"]]
    left.barh(
        y,
        np.nan_to_num(scores["completeness"]),
        xerr=np.nan_to_num(scores["completeness_se"]),
        color="#0072B2",
    )
    right.barh(
        y,
        np.nan_to_num(scores["false_alarms"]),
        xerr=np.nan_to_num(scores["false_alarms_se"]),
        color="#D55E00",
    )
    for axis, key, many in ((left, "completeness", "n_wrong"), (right, "false_alarms", "n_good")):
        for place, value, count in zip(y, scores[key], scores[many], strict=True):
            text = f"{value:.0%} of {count}" if np.isfinite(value) else "no such rows"
            axis.text(
                0.98, place, text, transform=axis.get_yaxis_transform(), va="center", ha="right", fontsize=8
            )
    left.set_yticks(y, titles)
    left.axvline(0.9, color="black", ls=":")
    right.axvline(0.02, color="black", ls=":")
    left.set(xlim=(0, 1.35), xlabel="flagged fraction of rows wrong by 5 sigma (goal: above dots)")
    limit = max(0.1, 1.6 * np.nanmax(np.nan_to_num(scores["false_alarms"])))
    right.set(xlim=(0, limit), xlabel="flagged fraction of good rows (goal: below dots)")
    return figure


def plot_maps(galaxies):
    """RMSE over bound in planes of two parameters; white where fewer than five galaxies fell."""
    figure = Figure(figsize=(17, 6.4), layout="constrained")
    axes = figure.subplots(2, 5)
    for line, (key, edges) in zip(axes, _MAPS, strict=True):
        for axis, name in zip(line, SHAPE_PARAMETERS, strict=True):
            values = _map_values(galaxies, key, edges, name)
            norm = SymLogNorm(0.5, vmin=-3, vmax=3)
            shown = axis.pcolormesh(np.log2(values.T), cmap="PuOr_r", norm=norm, edgecolors="white", lw=0.5)
            for (i, j), value in np.ndenumerate(values):
                if np.isfinite(value):
                    axis.text(
                        i + 0.5,
                        j + 0.5,
                        f"{value:.2g}",
                        ha="center",
                        va="center",
                        fontsize=8,
                        color=_ink(value),
                    )
            axis.set_xticks(range(len(edges)), [f"{edge:g}" for edge in edges], fontsize=8)
            axis.set_yticks(range(len(_SIZES)), [f"{edge:g}" for edge in _SIZES], fontsize=8)
            axis.set(xlabel=AXIS_LABELS[key], title=ERROR_LABELS[name])
        line[0].set_ylabel("hlr / PSF FWHM")
    bar = figure.colorbar(shown, ax=axes, pad=0.01, ticks=[-2, -1, 0, 1, 2])
    bar.ax.set_yticklabels(["1/4", "1/2", "1", "2", "4"])
    bar.set_label("root mean square of error / bound; below 1 is shrinkage to the prior")
    return figure


def _ink(value):
    """Colour that can be read on the map."""
    return "white" if abs(np.log2(value)) > 1 else "black"


def _map_values(galaxies, key, edges, name):
    ratio = (np.asarray(galaxies[f"error_{name}"]) / np.asarray(galaxies[f"crb_{name}"])) ** 2
    x = np.digitize(galaxies[key], edges) - 1
    y = np.digitize(galaxies["hlr_over_fwhm"], _SIZES) - 1
    out = np.full((len(edges) - 1, len(_SIZES) - 1), np.nan)
    for i, j in np.ndindex(out.shape):
        here = ratio[(x == i) & (y == j) & np.isfinite(ratio)]
        if len(here) >= 5:
            out[i, j] = np.sqrt(here.mean())
    return out
