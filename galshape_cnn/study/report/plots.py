# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""Pictures of measurements: against the truth, and galaxy by galaxy.

Colours are from the palette of Okabe & Ito, which the colour-blind can tell
apart.  Figures are made without pyplot, so that nothing stays open.
"""

import matplotlib as mpl
import numpy as np
from astropy import units as u
from matplotlib.colors import Normalize
from matplotlib.figure import Figure

from galshape_cnn.files import written_whole
from galshape_cnn.flags import decode_flags, quality_of
from galshape_cnn.forward.galaxy_model import SINGLE
from galshape_cnn.infer.catalog.columns import ERROR_NAMES
from galshape_cnn.infer.catalog.display import with_error
from galshape_cnn.infer.catalog.plotting import plain_ticks
from galshape_cnn.study.report.compare import error_columns, pulls
from galshape_cnn.study.report.thumbnails import thumbnails

__all__ = ["choose_rows", "plot_comparison", "plot_galaxies", "pull_histogram", "save_figure"]

BLUE, ORANGE, PINK = "#0072B2", "#D55E00", "#CC79A7"
LABELS = {"flux": "flux", "n": "Sérsic index n", "hlr": "half-light radius", "g1": "$g_1$", "g2": "$g_2$"}
LOGARITHMIC = ("flux", "hlr")
_SHOWN = 48  # pixels around a galaxy


def plot_comparison(table, truth):
    """Measured against true parameters, and the distribution of the pulls; a column for each."""
    figure = Figure(figsize=(17, 7), layout="constrained")
    axes = figure.subplots(2, 5)
    clean = quality_of(table["flags"]) == 0
    suffix = error_columns(table)
    for k, (name, pull) in enumerate(pulls(table, truth).items()):
        _measured_against_true(axes[0, k], table, truth, name, suffix, clean)
        pull = pull_histogram(axes[1, k], {"measured": (pull[clean], {"color": BLUE, "alpha": 0.75})}, 4)
        _pull_numbers(axes[1, k], pull)
    kind, method = ERROR_NAMES[suffix], table.meta.get("method", "")
    figure.suptitle(
        f"{len(table)} simulated galaxies, method “{method}”; error bars and pulls: {kind}", fontsize=13
    )
    axes[0, 0].legend(loc="upper left", fontsize=9, framealpha=0.9)
    axes[1, 0].set_ylabel("galaxies of quality 0")
    axes[1, 0].legend(loc="upper left", fontsize=9)
    return figure


def _measured_against_true(axis, table, truth, name, suffix, clean):
    """Scatter plot with error bars of one parameter."""
    unit = getattr(table[name], "unit", None) or u.dimensionless_unscaled
    measured, sigma, true = (
        u.Quantity(column, unit).value for column in (table[name], table[f"{name}_{suffix}"], truth[name])
    )
    kinds = (~clean, ORANGE, "none", "quality 1, 2"), (clean, BLUE, BLUE, "quality 0")
    for rows, color, face, label in kinds:
        style = {"fmt": "o", "ms": 4, "mfc": face, "color": color, "elinewidth": 0.8, "alpha": 0.75}
        axis.errorbar(true[rows], measured[rows], sigma[rows], label=f"{label} ({rows.sum()})", **style)
    low, high = (0.2, 6.4) if name == "n" else _limits(true, name in LOGARITHMIC)
    axis.plot([low, high], [low, high], color="black", lw=1, zorder=0)
    scale = "log" if name in LOGARITHMIC else "linear"
    axis.set(xscale=scale, yscale=scale, xlim=(low, high), ylim=(low, high))
    if name in LOGARITHMIC:
        plain_ticks(axis.xaxis, axis.yaxis)
    suffix = "" if unit == u.dimensionless_unscaled else f" ({unit.to_string()})"
    axis.set_title(LABELS[name])
    axis.set_xlabel(f"true{suffix}")
    axis.set_ylabel(f"measured{suffix}")


def _limits(values, logarithmic):
    """Range of the true values with a margin."""
    values = values[np.isfinite(values)]
    if logarithmic:
        return values.min() / 1.6, values.max() * 1.6
    margin = 0.15 * max(np.ptp(values), 0.1)
    return values.min() - margin, values.max() + margin


def pull_histogram(axis, groups, reach):
    """Histograms of pulls, and the normal distribution that the last of them should follow.

    Parameters
    ----------
    axis : `~matplotlib.axes.Axes`
        What to draw on.
    groups : dict of str to (ndarray, dict)
        Pulls, those that are not finite left out, and style of each, by its label.
    reach : int
        Pulls of either sign beyond it count in the outermost bins.

    Returns
    -------
    pull : ndarray
        The finite ones of the last group.
    """
    edges = np.linspace(-reach, reach, 6 * reach + 1)
    for label, (pull, style) in groups.items():
        pull = pull[np.isfinite(pull)]
        axis.hist(np.clip(pull, -reach, reach), edges, label=label, **style)
    x = np.linspace(-reach, reach, 200)
    normal = len(pull) * (edges[1] - edges[0]) * np.exp(-(x**2) / 2) / np.sqrt(2 * np.pi)
    axis.plot(x, normal, color="black", lw=1.2, label="normal")
    axis.set(xlim=(-reach, reach), xlabel=f"(measured − true) / σ\nbeyond {reach}: last bin")
    return pull


def _pull_numbers(axis, pull):
    """Mean and spread of pulls, above their histogram."""
    axis.set_ylim(0, 1.35 * axis.get_ylim()[1])
    if len(pull):
        inside = 100 * np.mean(np.abs(pull) < 1)
        text = f"mean {pull.mean():+.2f}\nstd {pull.std():.2f}\n|pull|<1: {inside:.0f} %"
        axis.text(0.97, 0.96, text, transform=axis.transAxes, ha="right", va="top", fontsize=9)


def choose_rows(catalog, number=8):
    """Rows worth a look: most of quality 0, spread over the S/N, and some others, flagged ones last."""
    order = np.argsort(-np.nan_to_num(catalog.snr))
    usable = order[np.isfinite(catalog.snr[order])]
    clean, flagged = (usable[(catalog.quality[usable] == 0) == good] for good in (True, False))
    some_flagged = _spread(flagged, max(number // 4, number - len(clean)))
    return [*_spread(clean, number - len(some_flagged)), *some_flagged]


def _spread(rows, number):
    """Evenly chosen elements."""
    if len(rows) <= number:
        return [int(row) for row in rows]
    return [int(rows[k]) for k in np.linspace(0, len(rows) - 1, number).round().astype(int)]


def plot_galaxies(catalog, rows=None):
    """Data, model and residual of several galaxies, by default those of `choose_rows`."""
    rows = choose_rows(catalog) if rows is None else [range(len(catalog))[row] for row in rows]
    lines = max(1, -(-len(rows) // 2))
    height = 2.75 * lines + 0.6
    figure = Figure(figsize=(14, height), layout="constrained")
    figure.get_layout_engine().set(hspace=0.22, rect=(0, 0, 1, 1 - 0.4 / height))  # room for the captions
    axes = figure.subplots(lines, 6, squeeze=False)
    for axis in axes.flat:
        axis.set_axis_off()
    images = {int(row): None for row in rows}
    for position, found in thumbnails(catalog[rows]):
        images[rows[position]] = found
    for k, row in enumerate(rows):
        panels = axes[k // 2, 3 * (k % 2) : 3 * (k % 2) + 3]
        shown = _draw_galaxy(panels, images[row], catalog.measurement.params[row, SINGLE.centre])
        _write_above(panels[0], _caption(catalog, row))
    figure.supxlabel(
        "data, model (same asinh scale) and residual in units of the noise; pink: bad pixels", fontsize=12
    )
    if rows:
        bar = figure.colorbar(shown, ax=axes, shrink=0.5, pad=0.01)
        bar.set_label("(data − model) / σ")
    return figure


def _write_above(axis, text):
    """Text over all three panels; a title would push them apart, layout or not."""
    note = axis.annotate(
        text, (0, 1), (0, 3), xycoords="axes fraction", textcoords="offset points",
        va="bottom", fontsize=9, annotation_clip=False,
    )  # fmt: skip
    note.set_in_layout(False)


def _draw_galaxy(panels, images, center):
    """Three panels of one galaxy."""
    window = _window(images.data.shape, center)
    data, model = images.stretched()
    scales = ((data, "cividis", Normalize(0, 1)), (model, "cividis", Normalize(0, 1)))
    scales += ((images.residual, "RdBu_r", Normalize(-5, 5)),)
    for panel, (image, cmap, norm) in zip(panels, scales, strict=True):
        cmap = mpl.colormaps[cmap].with_extremes(bad=PINK)
        shown = panel.imshow(image[window], origin="lower", cmap=cmap, norm=norm, interpolation="nearest")
    return shown


def _window(shape, center):
    """Slices of the pixels shown around a galaxy."""
    center = np.where(np.isfinite(center), center, (np.array(shape[::-1]) - 1) / 2)
    out = []
    for size, middle in zip(shape, center[::-1], strict=True):
        start = int(np.clip(round(float(middle)) - _SHOWN // 2, 0, max(0, size - _SHOWN)))
        out.append(slice(start, min(start + _SHOWN, size)))
    return tuple(out)


def _caption(catalog, row):
    """Two lines of numbers."""
    unit = "″" if u.Quantity(catalog.hlr).unit == u.arcsec else " px"
    parts = [f"#{catalog.id[row]}", f"S/N {catalog.snr[row]:.0f}"]
    parts += [f"n {_stated(catalog, 'n', row)}", f"hlr {_stated(catalog, 'hlr', row)}{unit}"]
    parts += [f"q {catalog.q[row]:.2f}", rf"$\chi^2$ {catalog.chi2[row]:.2f}"]
    names = decode_flags(catalog.flags[row])
    more = f" and {len(names) - 3} more" if len(names) > 3 else ""
    return f"{'   '.join(parts)}\n{', '.join(names[:3]) or 'no flags'}{more}"


def _stated(catalog, name, row):
    """A number with the width of its posterior where it is the mean of one, else with its standard error."""
    value, width, error = (
        u.Quantity(getattr(catalog, name + end))[row].value for end in ("", "_std", "_err")
    )
    return with_error(value, width if np.isfinite(width) else error)


def save_figure(figure, path):
    """Write a figure as PNG, replacing an existing file; ``FileError`` if that fails."""
    with written_whole(path) as beside:
        figure.savefig(beside, dpi=110)
