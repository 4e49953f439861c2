# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""Bands of real fields measured together and one by one: quality, errors and colours.

Sources are found in the first band, as by ``galshape measure --exposures`` without ``--positions``, with
default options.  The error ratio is that of the best single band to all together, the median over the
sources that are resolved in r and of quality 0 or 1; over those of them where one shape holds, which have
neither SHAPE_VARIES nor NEIGHBOR_LIGHT; and over these by the bound of noise alone, all at the joint shape.
Errors depend on the size and index that are measured, so the smallest of three is that of the band whose
estimate happens to be small: the last is free of that.  Colours are the median of rows of quality 0.

    python benchmarks/bench_real_exposures.py DATA -o docs/user_guide/tables/real_exposures.csv
"""

import argparse
import csv
import warnings
from pathlib import Path

import numpy as np

from galshape_cnn import Exposure, ShapeEstimator, cramer_rao_bound, read_image
from galshape_cnn.flags import Flag
from galshape_cnn.observe.detect.sources import find_galaxies

HEADER = ("field", "method", "sources", "quality 0", "g - r", "rows", "N", "n", "hlr", "g1", "g2")
NAMES = "n", "hlr", "g1", "g2"


def decals(data):
    """Legacy Survey, g, r, z."""
    folder = data / "legacysurvey_dr9_cutout"
    cutout, psf = (str(folder / f"{name}_59.1067_-30.4848.fits") for name in ("cutout", "copsf"))
    for k, band in enumerate("grz"):
        image = read_image(cutout, sci=1 + 2 * k, weight=2 + 2 * k, psf=f"{psf}[{k}]")
        yield Exposure(image, band=band, zeropoint=22.5)


def hsc(data):
    """Hyper Suprime-Cam, g, r, i, zero points of the survey."""
    folder = data / "hsc_gri_300"
    for band in "gri":
        image = read_image(folder / f"hsc_{band}.fits", sci=1, mask=2, var=3, psf=folder / f"psf_{band}.fits")
        yield Exposure(image, band=band, zeropoint=27.0)


def errors(catalog, name):
    """Errors of one parameter, as stated by the method."""
    column = getattr(catalog, f"{name}_{'err' if catalog.method == 'ml' else 'std'}")
    return np.asarray(getattr(column, "value", column))


def bound_ratios(joint, exposures, rows):
    """Bounds (M, 4) of noise of the best band over those of all together, both at the joint shape."""
    out, bands = [], [one.band for one in exposures]
    psfs = [one.data.psf for one in exposures]
    for row in rows:
        own = joint.by_exposure.params[row]
        with np.errstate(divide="ignore"):
            error = [1 / np.sqrt(joint.stamp(row, k).ivar[0]) for k in range(len(bands))]
        middle, shape = own[:, 5:7].tolist(), dict(zip(NAMES, own[0, 1:5], strict=True))
        fluxes = {f"flux_{band}": flux for band, flux in zip(bands, own[:, 0], strict=True)}
        together = cramer_rao_bound(fluxes | shape, psfs, error, center=middle, bands=bands)
        alone = [
            cramer_rao_bound({"flux": flux, **shape}, psf, one, center=centre)
            for flux, psf, one, centre in zip(own[:, 0], psfs, error, middle, strict=True)
        ]
        out.append([min(getattr(one, name) for one in alone) / getattr(together, name) for name in NAMES])
    return np.array(out)


def rows_of(field, exposures, method):
    """Lines of the table."""
    estimator, places = ShapeEstimator(), find_galaxies(exposures[0].data)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        joint = estimator(exposures, positions=places, method=method)
        singles = [estimator([one], positions=places, method=method) for one in exposures]
    red = singles[1]
    resolved = (red.flags & Flag.UNRESOLVED == 0) & (red.quality < 2) & (joint.quality < 2)
    alike = resolved & (joint.flags & (Flag.SHAPE_VARIES | Flag.NEIGHBOR_LIGHT) == 0)
    best = [np.fmin.reduce([errors(one, name) for one in singles]) / errors(joint, name) for name in NAMES]
    best = np.column_stack(best)
    lit = (np.nan_to_num(joint.by_exposure.params[..., 0]) > 0).all(1)  # a model without light has no bound
    colour, _ = joint.color("g", "r")
    head = field, method, len(joint), int((joint.quality == 0).sum())
    head += (f"{np.nanmedian(colour.value[joint.quality == 0]):.2f}",)
    parts = (
        ("resolved in r", best[resolved]),
        ("one shape", best[alike]),
        ("the same, bound", bound_ratios(joint, exposures, np.flatnonzero(alike & lit))),
    )
    for name, ratios in parts:
        yield *head, name, len(ratios), *(f"{value:.2f}" for value in np.nanmedian(ratios, 0))


def main():
    """Entry point."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data", type=Path)
    parser.add_argument("-o", "--output", type=Path, required=True)
    parser.add_argument("--methods", nargs="+", default=["network", "ml"])
    args = parser.parse_args()
    fields = (("DECaLS g, r, z", decals), ("HSC g, r, i", hsc))
    rows = [
        row for name, read in fields for method in args.methods
        for row in rows_of(name, list(read(args.data)), method)
    ]  # fmt: skip
    with args.output.open("w", newline="") as file:
        csv.writer(file, lineterminator="\n").writerows([HEADER, *rows])
    for row in rows:
        print(*row, sep="  ")


if __name__ == "__main__":
    main()
