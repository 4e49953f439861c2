"""Draw ``demo.png``, the picture of the README, from the field of ``galshape demo``."""

from pathlib import Path

import numpy as np
from matplotlib.figure import Figure
from PIL import Image

from galshape_cnn import ShapeEstimator
from galshape_cnn.study.report.compare import match_truth
from galshape_cnn.study.report.plots import choose_rows
from galshape_cnn.study.report.thumbnails import thumbnails
from galshape_cnn.study.simulate.field import simulate_field

OUTPUT = Path(__file__).with_name("demo.png")
BLUE, ORANGE = "#0072B2", "#D55E00"


def draw_galaxies(figure, catalog, rows, side=44):
    """Data, model and residual of some galaxies."""
    axes = figure.subplots(len(rows), 3)
    for (position, images), panels in zip(thumbnails(catalog[rows]), axes, strict=True):
        x, y = catalog.measurement.params[rows[position], 5:7].round().astype(int)
        data, model = images.stretched()
        shown = ((data, "cividis", 0, 1), (model, "cividis", 0, 1), (images.residual, "RdBu_r", -5, 5))
        for axis, (image, cmap, low, high) in zip(panels, shown, strict=True):
            window = image[y - side // 2 : y + side // 2, x - side // 2 : x + side // 2]
            axis.imshow(window, origin="lower", cmap=cmap, vmin=low, vmax=high, interpolation="nearest")
            axis.set(xticks=[], yticks=[])
        panels[0].set_ylabel(f"S/N {catalog.snr[rows[position]]:.0f}")
    for axis, title in zip(axes[0], ("data", "model", "residual / σ"), strict=True):
        axis.set_title(title)


def draw_comparison(figure, table, truth):
    """Measured against true."""
    clean = np.asarray(table["flags"]) == 0
    for axis, name in zip(figure.subplots(2, 1), ("hlr", "g1"), strict=True):
        for rows, color, label in ((~clean, ORANGE, "flagged"), (clean, BLUE, "no flags")):
            measured, true, error = (
                np.asarray(t[c][rows], float)
                for t, c in ((table, name), (truth, name), (table, f"{name}_err"))
            )
            axis.errorbar(
                true, measured, np.minimum(error, 3), fmt="o", ms=3, lw=0.7, color=color, label=label
            )
        low, high = (0, 1.4) if name == "hlr" else (-0.7, 0.7)
        axis.axline((low, low), slope=1, color="k", lw=0.8)
        axis.set(xlim=(low, high), ylim=(low, high), ylabel=f"measured {name}", xlabel=f"true {name}")
    figure.axes[0].legend(frameon=False, fontsize=8, loc="lower right")


def main():
    """Simulate, measure, draw."""
    field = simulate_field(seed=1, n_galaxies=120)
    catalog = ShapeEstimator()(field.to_nddata(), psf=field.psf, positions=field.positions, method="ml")
    table = catalog.to_table()
    figure = Figure(figsize=(9, 5.4), layout="constrained")
    left, right = figure.subfigures(1, 2, width_ratios=(1.55, 1))
    draw_galaxies(left, catalog, choose_rows(catalog, 8)[:3])
    draw_comparison(right, table, match_truth(table, field.truth))
    figure.savefig(OUTPUT, dpi=90)
    Image.open(OUTPUT).quantize(200).save(OUTPUT, optimize=True)


if __name__ == "__main__":
    main()
