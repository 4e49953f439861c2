# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""Pictures of sources of survey images, ten of each quality, with what their flags say.

Run as ``python benchmarks/quality_pictures.py DATA_DIR OUT.png [METHOD]``.  From DECaLS r, HSC i and a part
of KiDS r, by turns, in the order in which the sources are found; each as it was measured, masked pixels
white, and below it less its model.
"""

import sys
import warnings
from itertools import zip_longest
from pathlib import Path

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np
from bench_quality import images

from galshape_cnn import ShapeEstimator
from galshape_cnn.errors import GalshapeWarning
from galshape_cnn.flags import FLAG_DEFINITIONS
from galshape_cnn.observe.detect.sources import find_galaxies

FIELDS, EACH, HALF, DPI = ("DECaLS r", "HSC i", "KiDS r, 1000x1000"), 10, 16, 75
SHARP = 3.0  # standard deviations, above which a picture is logarithmic


def cut(image, x, y):
    """Pixels about a place."""
    ny, nx = image.shape
    left, low = (int(np.clip(round(c) - HALF, 0, side - 2 * HALF)) for c, side in ((x, nx), (y, ny)))
    return image[low : low + 2 * HALF, left : left + 2 * HALF]


def rows_of(name, image, estimator, method):
    """For each quality, pictures and texts of the rows of a field."""
    catalog = estimator(image, positions=find_galaxies(image), method=method)
    levels = [[], [], []]
    for row, quality in enumerate(catalog.quality):
        stamp = catalog.stamp(row)
        data, ivar = stamp.data[0], stamp.ivar[0]
        parameters = catalog.measurement.params[row]
        sigma = 1 / np.sqrt(np.median(ivar[ivar > 0])) if (ivar > 0).any() else 1.0
        shown = np.where(ivar > 0, data / sigma, np.nan)
        x, y = stamp.center[0] if not np.isfinite(parameters).all() else parameters[5:7]
        picture = cut(shown, x, y)
        residual = np.full_like(picture, np.nan)
        if np.isfinite(parameters).all():
            model = catalog.model(row)
            oy, ox = stamp.origin[0][::-1]
            yy, xx = np.mgrid[oy : oy + len(data), ox : ox + data.shape[1]]
            residual = cut((data - model(xx, yy)) / sigma, x, y)
            residual = np.where(np.isnan(picture), np.nan, residual)
        bits = int(catalog.flags[row])
        told = [one.name for one in FLAG_DEFINITIONS if bits & one.value and one.level != "note"]
        text = f"{name.split()[0]} {row}, S/N {catalog.snr[row]:.0f}\n" + "\n".join(told[:3])
        levels[quality].append((picture, residual, text))
    return levels


def main(data, out, method="network"):
    """The picture."""
    warnings.simplefilter("ignore", GalshapeWarning)
    estimator = ShapeEstimator()
    found = [rows_of(name, image, estimator, method) for name, image in images(Path(data)) if name in FIELDS]
    heights = {"height_ratios": [0.45, 1, 1] * 3, "hspace": 0.04, "wspace": 0.04}
    edges = {"left": 0.005, "right": 0.995, "bottom": 0.005, "top": 0.995}
    figure, axes = plt.subplots(9, EACH, figsize=(1.5 * EACH, 11.2), gridspec_kw=heights | edges)
    for axis in axes.ravel():
        axis.axis("off")
    for quality in range(3):
        turns = [one for turn in zip_longest(*(field[quality] for field in found)) for one in turn if one]
        for column, (picture, residual, text) in enumerate(turns[:EACH]):
            head, top, low = axes[3 * quality : 3 * quality + 3, column]
            top.imshow(np.arcsinh(picture / SHARP), origin="lower", cmap="gray_r")
            low.imshow(residual, origin="lower", cmap="RdBu_r", vmin=-5, vmax=5)
            head.text(0.5, 0.02, f"quality {quality}\n{text}", fontsize=6.5, ha="center", va="bottom")
    figure.savefig(out, dpi=DPI)


if __name__ == "__main__":
    main(*sys.argv[1:])
