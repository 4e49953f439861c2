# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""Bands of real fields measured together and one by one: quality, errors and colours.

Sources are found in the first band, as by ``galshape measure --exposures`` without ``--positions``, with
default options.  The error ratio is that of the best single band to all together, the median over the
sources that are resolved and of quality 0 or 1 in r; colours are the median of those of quality 0.

    python benchmarks/bench_real_exposures.py DATA -o docs/user_guide/tables/real_exposures.csv
"""

import argparse
import csv
import warnings
from pathlib import Path

import numpy as np

from galshape_cnn import Exposure, ShapeEstimator, read_image
from galshape_cnn.flags import Flag
from galshape_cnn.observe.detect.sources import find_galaxies

HEADER = ("field", "method", "sources", "quality 0", "resolved in r", "n", "hlr", "g1", "g2", "g - r")


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


def row_of(field, exposures, method):
    """One line of the table."""
    estimator, places = ShapeEstimator(), find_galaxies(exposures[0].data)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        joint = estimator(exposures, positions=places, method=method)
        singles = [estimator([one], positions=places, method=method) for one in exposures]
    red = singles[1]
    chosen = (red.flags & Flag.UNRESOLVED == 0) & (red.quality < 2) & (joint.quality < 2)
    ratios = []
    for name in ("n", "hlr", "g1", "g2"):
        best = np.fmin.reduce([errors(one, name) for one in singles])
        ratios.append(f"{np.nanmedian((best / errors(joint, name))[chosen]):.2f}")
    colour, _ = joint.color("g", "r")
    colour = f"{np.nanmedian(colour.value[joint.quality == 0]):.2f}"
    return field, method, len(joint), int((joint.quality == 0).sum()), int(chosen.sum()), *ratios, colour


def main():
    """Entry point."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data", type=Path)
    parser.add_argument("-o", "--output", type=Path, required=True)
    parser.add_argument("--methods", nargs="+", default=["network", "ml"])
    args = parser.parse_args()
    fields = (("DECaLS g, r, z", decals), ("HSC g, r, i", hsc))
    rows = [row_of(name, list(read(args.data)), method) for name, read in fields for method in args.methods]
    with args.output.open("w", newline="") as file:
        csv.writer(file, lineterminator="\n").writerows([HEADER, *rows])
    for row in rows:
        print(*row, sep="  ")


if __name__ == "__main__":
    main()
