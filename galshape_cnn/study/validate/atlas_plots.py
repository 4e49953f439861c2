# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""Figures of the failure atlas."""

import numpy as np
from matplotlib.colors import Normalize, SymLogNorm
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from galshape_cnn.flags import quality_of
from galshape_cnn.infer.catalog.columns import SHAPE_PARAMETERS
from galshape_cnn.study.validate.atlas_cases import FAMILIES
from galshape_cnn.study.validate.plots import AXIS_LABELS, ERROR_LABELS

__all__ = ["plot_atlas", "plot_flags", "plot_neighbours", "plot_prior_maps", "plot_strengths", "plot_trust"]

_LINES = dict(zip(SHAPE_PARAMETERS, (("#000000", "o"), ("#E69F00", "s"), ("#0072B2", "D"), ("#009E73", "^"),
                                     ("#CC79A7", "v")), strict=True))  # fmt: skip
_BIAS_LEVEL = 60  # S/N of which the bias is drawn
_MAPS = (("snr", (5, 10, 20, 50, 100, 300, 1000)), ("n", (0.3, 0.7, 1.2, 2.0, 3.5, 5.0, 6.2)))
_LEVEL_COLORS = ("#56B4E9", "#0072B2", "#000000", "#D55E00", "#CC79A7")
_SIZES = (0.0, 0.25, 0.5, 1.0, 2.0, 10.0)
_COLUMNS = 3  # families beside each other
_FEWEST = 5  # galaxies in a cell that is drawn
#: Kind of map: title, colours, range, format, colour bar.
_KINDS = {
    "bias": ("worst bias / σ", "PuOr_r", SymLogNorm(0.5, vmin=-30, vmax=30), "{:+.1f}"),
    "within": ("within 1 σ", "cividis", Normalize(0, 1), "{:.0%}"),
    "flagged": ("flagged", "cividis", Normalize(0, 1), "{:.0%}"),
}


def plot_atlas(atlas):
    """Maps of every failure over its strength and S/N: bias, coverage, and the fraction flagged."""
    families = list(dict.fromkeys(atlas["family"]))
    lines = -(-len(families) // _COLUMNS)
    figure = Figure(figsize=(19, 1.9 * lines + 0.8), layout="constrained")
    blocks = np.atleast_1d(figure.subfigures(lines, _COLUMNS, squeeze=False, wspace=0.02)).ravel()
    for block, family in zip(blocks, families, strict=False):
        here, kind = atlas[atlas["family"] == family], FAMILIES[family]
        block.suptitle(kind.title, fontsize=11, fontweight="bold")
        values, levels = (list(dict.fromkeys(here[key])) for key in ("value", "snr"))
        axes = block.subplots(1, 3, sharey=True)
        for axis, quantity in zip(axes, _KINDS, strict=True):
            grid = np.full((len(levels), len(values)), np.nan)
            for row in here:
                place = levels.index(row["snr"]), values.index(row["value"])
                grid[place] = _map_value(row, quantity)
            _draw_map(axis, grid, quantity)
            axis.set_xticks(np.arange(len(values)) + 0.5, [f"{value:g}" for value in values], fontsize=8)
            axis.set_yticks(np.arange(len(levels)) + 0.5, [f"{level:g}" for level in levels], fontsize=8)
        axes[0].set_ylabel("S/N", fontsize=9)
        axes[1].set_xlabel(kind.label, fontsize=9)
    return figure


def plot_strengths(atlas, families):
    """Bias of each parameter at an S/N, and coverage at all, against the strength of some failures."""
    figure = Figure(figsize=(4.6 * len(families), 5.6), layout="constrained")
    axes = figure.subplots(2, len(families), squeeze=False, sharex="col", sharey="row")
    for (top, bottom), family in zip(axes.T, families, strict=True):
        here = atlas[atlas["family"] == family]
        mine = here[here["snr"] == _BIAS_LEVEL]
        x = np.arange(len(mine))
        for name, (color, marker) in _LINES.items():
            style = {"fmt": f"{marker}-", "color": color, "ms": 4.5, "lw": 1.2, "label": ERROR_LABELS[name]}
            top.errorbar(x, mine[f"bias_{name}"], mine[f"bias_se_{name}"], **style)
        top.axhline(0, color="black", lw=0.6)
        top.set_title(FAMILIES[family].title, fontsize=11)
        for level, color, marker in zip(dict.fromkeys(here["snr"]), _LEVEL_COLORS, "osD^v", strict=False):
            values = [_map_value(row, "within") for row in here[here["snr"] == level]]
            bottom.plot(x, values, f"{marker}-", color=color, ms=4.5, label=f"S/N {level:g}")
        bottom.axhline(0.68, color="black", ls=":")
        bottom.set(ylim=(0, 1), xlabel=FAMILIES[family].label)
        bottom.set_xticks(x, [f"{value:g}" for value in mine["value"]])
    axes[0, 0].set_ylabel(f"bias / bound, S/N {_BIAS_LEVEL}")
    axes[1, 0].set_ylabel("fraction within 1 σ")
    axes[0, 0].set_yscale("symlog", linthresh=1)
    axes[0, 0].yaxis.set_major_formatter("{x:g}")
    axes[0, -1].legend(fontsize=8, ncols=2)
    axes[1, -1].legend(fontsize=8)
    return figure


def plot_neighbours(atlas):
    """Maps of neighbours over distance and flux ratio, one line for each S/N."""
    names = {f: float(f.split("_")[1]) for f in dict.fromkeys(atlas["family"]) if f.startswith("neighbour_")}
    here = atlas[np.isin(atlas["family"], list(names))]
    levels, values, ratios = list(dict.fromkeys(here["snr"])), list(dict.fromkeys(here["value"])), list(names)
    figure = Figure(figsize=(13, 2.5 * max(len(levels), 1) + 0.4), layout="constrained")
    axes = figure.subplots(max(len(levels), 1), 3, squeeze=False)
    for line, level in zip(axes, levels, strict=False):
        for axis, quantity in zip(line, _KINDS, strict=True):
            grid = np.full((len(ratios), len(values)), np.nan)
            for row in here[here["snr"] == level]:
                grid[ratios.index(row["family"]), values.index(row["value"])] = _map_value(row, quantity)
            _draw_map(axis, grid, quantity)
            axis.set_xticks(np.arange(len(values)) + 0.5, [f"{value:g}" for value in values])
            axis.set_yticks(np.arange(len(ratios)) + 0.5, [f"{names[name]:g}" for name in ratios])
            axis.set_xlabel("distance (px)")
        line[0].set_ylabel(f"S/N {level:g}\nflux ratio")
    return figure


def _map_value(row, quantity):
    """One number of a cell: the worst bias, the mean coverage, the flagged fraction."""
    if quantity == "flagged":
        return row["flagged"]
    values = np.array([row[f"{quantity}_{name}"] for name in SHAPE_PARAMETERS], float)
    if not np.isfinite(values).any():
        return np.nan
    return values[np.nanargmax(np.abs(values))] if quantity == "bias" else np.nanmean(values)


def _draw_map(axis, grid, quantity, fontsize=8):
    """A map with its numbers."""
    title, colors, norm, text = _KINDS[quantity]
    shown = axis.pcolormesh(grid, cmap=colors, norm=norm, edgecolors="white", lw=0.5)
    axis.set_title(title, fontsize=9)
    for (i, j), value in np.ndenumerate(grid):
        if np.isfinite(value):
            ink = _contrast(shown.cmap(norm(value)))
            label = text.format(value) if abs(value) < 100 else f"{value:+.0f}"
            axis.text(j + 0.5, i + 0.5, label, ha="center", va="center", fontsize=fontsize, color=ink)
    return shown


def _contrast(color):
    """Black or white, whichever can be read on a colour."""
    return "black" if np.dot(color[:3], (0.3, 0.59, 0.11)) > 0.5 else "white"


def plot_trust(table):
    """Cells of each method: the worst bias in stated sigmas; hatched where it is not trusted."""
    methods, edges = list(dict.fromkeys(table["method"])), list(dict.fromkeys(table["n"]))
    figure = Figure(figsize=(5.4 * len(methods), 3.4 * len(edges)), layout="constrained")
    axes = figure.subplots(len(edges), len(methods), squeeze=False)
    for (i, j), axis in np.ndenumerate(axes):
        here = table[(table["method"] == methods[j]) & (table["n"] == edges[i])]
        levels, sizes = list(dict.fromkeys(here["snr"])), list(dict.fromkeys(here["hlr_over_fwhm"]))
        bias, trusted = (
            np.asarray(here[name], float).reshape(len(levels), len(sizes)).T for name in ("bias", "trusted")
        )
        norm = Normalize(-1, 1)
        shown = axis.pcolormesh(bias, cmap="PuOr_r", norm=norm, edgecolors="white", lw=0.5)
        for row, column in zip(*np.nonzero(trusted == 0), strict=True):
            style = {"fill": False, "hatch": "///", "edgecolor": "0.45", "lw": 0}
            axis.add_patch(Rectangle((column, row), 1, 1, **style))
        for (row, column), value in np.ndenumerate(bias):
            if np.isfinite(value):
                ink = _contrast(shown.cmap(norm(value)))
                style = {"ha": "center", "va": "center", "fontsize": 8, "color": ink}
                axis.text(column + 0.5, row + 0.5, f"{value:+.2f}", **style)
        axis.set_xticks(range(len(levels)), [f"{value:g}" for value in levels])
        axis.set_yticks(range(len(sizes)), [f"{value:g}" for value in sizes])
        axis.set(xlabel="measured S/N from", ylabel="measured hlr / PSF width from")
        axis.set_title(f"{methods[j]}, n from {edges[i]:g}")
    bar = figure.colorbar(shown, ax=axes, pad=0.01)
    bar.set_label("mean error / stated σ of the worst parameter; hatched: not trusted")
    return figure


def plot_flags(scores):
    """Completeness and false alarms of the flags."""
    figure = Figure(figsize=(12, 0.36 * len(scores) + 1.6), layout="constrained")
    left, right = figure.subplots(1, 2, sharey=True)
    y = np.arange(len(scores))[::-1]
    titles = [FAMILIES[name].title if name in FAMILIES else "all together" for name in scores["family"]]
    for axis, key, place, height, color, label in (
        (left, "completeness", y + 0.18, 0.36, "#0072B2", "all that are wrong"),
        (left, "of_visible", y - 0.18, 0.36, "#56B4E9", "those that the pixels contradict"),
        (right, "false_alarms", y, 0.7, "#D55E00", None),
    ):
        values, errors = (np.nan_to_num(scores[name]) for name in (key, f"{key}_se"))
        axis.barh(place, values, height, xerr=errors, color=color, label=label, error_kw={"lw": 0.8})
    for axis, key, many in ((left, "completeness", "n_wrong"), (right, "false_alarms", "n_good")):
        for place, value, count in zip(y, scores[key], scores[many], strict=True):
            text = f"{value:.0%} of {count}" if np.isfinite(value) else "no such rows"
            style = {"va": "center", "ha": "right", "fontsize": 8}
            axis.text(0.98, place, text, transform=axis.get_yaxis_transform(), **style)
    figure.legend(*left.get_legend_handles_labels(), loc="outside upper center", ncols=2, fontsize=9)
    left.set_yticks(y, titles)
    left.axvline(0.9, color="black", ls=":")
    right.axvline(0.02, color="black", ls=":")
    left.set(xlim=(0, 1.35), xlabel="quality 1 or 2 among rows wrong by 5 sigma (goal: above dots)")
    limit = max(0.1, 1.6 * np.nanmax(np.nan_to_num(scores["false_alarms"])))
    right.set(xlim=(0, limit), xlabel="quality 1 or 2 among good rows (goal: below dots)")
    return figure


def plot_prior_maps(galaxies):
    """Maps of galaxies of the prior over two parameters: RMSE over bound, bias, coverage, flags."""
    figure = Figure(figsize=(19, 6.4), layout="constrained")
    axes = figure.subplots(2, 8)
    for line, (key, edges) in zip(axes, _MAPS, strict=True):
        for axis, name in zip(line, SHAPE_PARAMETERS, strict=False):
            ratio = np.asarray(galaxies[f"error_{name}"]) / np.asarray(galaxies[f"crb_{name}"])
            shown = _ratio_map(axis, _cells(galaxies, key, edges, ratio**2) ** 0.5)
            axis.set_title(ERROR_LABELS[name], fontsize=10)
        for axis, quantity in zip(line[5:], _KINDS, strict=True):
            grid = _quantity_map(galaxies, key, edges, quantity)
            _draw_map(axis, grid.T, quantity, fontsize=7)
        for axis in line:
            axis.set_xticks(range(len(edges)), [f"{edge:g}" for edge in edges], fontsize=7, rotation=45)
            axis.set_yticks(range(len(_SIZES)), [f"{edge:g}" for edge in _SIZES], fontsize=7)
            axis.set_xlabel(AXIS_LABELS[key], fontsize=9)
        line[0].set_ylabel("hlr / PSF FWHM")
    bar = figure.colorbar(shown, ax=axes[:, :5], pad=0.01, ticks=[-2, -1, 0, 1, 2], location="left")
    bar.ax.set_yticklabels(["1/4", "1/2", "1", "2", "4"])
    bar.set_label("RMS of error / bound; below 1 is shrinkage")
    return figure


def _ratio_map(axis, values):
    """Map of a ratio, on a scale that is symmetric about one."""
    norm = SymLogNorm(0.5, vmin=-3, vmax=3)
    shown = axis.pcolormesh(np.log2(values.T), cmap="PuOr_r", norm=norm, edgecolors="white", lw=0.5)
    for (i, j), value in np.ndenumerate(values):
        if np.isfinite(value):
            ink = _contrast(shown.cmap(norm(np.log2(value))))
            axis.text(i + 0.5, j + 0.5, f"{value:.2g}", ha="center", va="center", fontsize=7, color=ink)
    return shown


def _quantity_map(galaxies, key, edges, quantity):
    """Worst mean pull, mean coverage or flagged fraction in cells."""
    if quantity == "flagged":
        return _cells(galaxies, key, edges, (quality_of(galaxies["flags"]) > 0).astype(float))
    maps = []
    for name in SHAPE_PARAMETERS:
        pull = np.asarray(galaxies[f"error_{name}"]) / np.asarray(galaxies[f"std_{name}"])
        values = pull if quantity == "bias" else np.where(np.isfinite(pull), np.abs(pull) < 1, np.nan)
        maps.append(_cells(galaxies, key, edges, values))
    maps = np.array(maps)
    if quantity == "within":
        return maps.mean(0)
    worst = np.nan_to_num(np.abs(maps)).argmax(0)
    return np.take_along_axis(maps, worst[None], 0)[0]


def _cells(galaxies, key, edges, values):
    """Means in cells; NaN where fewer than five galaxies fell."""
    x = np.digitize(galaxies[key], edges) - 1
    y = np.digitize(galaxies["hlr_over_fwhm"], _SIZES) - 1
    out = np.full((len(edges) - 1, len(_SIZES) - 1), np.nan)
    for i, j in np.ndindex(out.shape):
        here = values[(x == i) & (y == j) & np.isfinite(values)]
        if len(here) >= _FEWEST:
            out[i, j] = here.mean()
    return out
