# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""Bands of real fields measured together and one by one: quality, errors and colours.

Sources are found in the first band, as by ``galshape measure --exposures`` without ``--positions``, with
default options.  The error ratio is that of the best single band to all together, the median over the
sources that are resolved in r and of quality 0 or 1; and over those of them where one shape holds, which have
neither SHAPE_VARIES nor NEIGHBOR_LIGHT.  Errors depend on the size and index that are measured, so the
smallest of three is that of the band whose estimate happens to be small.  The other lines are free of that:
errors of an unbiased estimate of each band and of all, at the joint shape, with structure; of noise alone;
and the first of these apart for rows in which structure widens an error by a tenth or not.  Colours are the
median of rows of quality 0.

    python benchmarks/bench_real_exposures.py DATA -o docs/user_guide/tables/real_exposures.csv
"""

import argparse
import csv
import warnings
from pathlib import Path

import numpy as np

from galshape_cnn import Exposure, ShapeEstimator, read_image
from galshape_cnn.flags import Flag
from galshape_cnn.infer.measure.estimates import Estimate
from galshape_cnn.infer.measure.exposures import pipeline
from galshape_cnn.infer.measure.exposures.quality import ExposureRows, judge
from galshape_cnn.infer.measure.options import Options
from galshape_cnn.observe.detect.sources import find_galaxies
from galshape_cnn.observe.exposures import prepare_exposures

HEADER = ("field", "method", "sources", "quality 0", "g - r", "rows", "N", "n", "hlr", "g1", "g2")
NAMES = "n", "hlr", "g1", "g2"
WIDENED = 1.1  # an error by structure, from which a row counts as one with structure


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


def errors_at(joint, exposures, places, chosen):
    """Errors (2, N, 4) from some exposures at the joint shape: of noise alone, and with structure."""
    network = ShapeEstimator().live_network()
    options = Options.checked(method="ml", fit_sky=True, neighbours="mask", prior=None, seed=0)
    noise = {"noise_correlation": "auto", "noise_scale": "auto"}
    stamps = prepare_exposures([exposures[k] for k in chosen], places, recenter=True, **noise)
    rows, model = np.arange(len(stamps)), stamps.model
    parts = [part for k in range(len(chosen)) for part in pipeline._parts(stamps, k, network, options, 1)]
    own = np.nan_to_num(joint.by_exposure.params[:, chosen])
    params, free = np.zeros((len(rows), model.size)), np.ones((len(rows), model.size), bool)
    params[:, model.fluxes], params[:, model.skies] = own[..., 0], own[..., 7]
    params[:, model.searched] = own[:, 0, 1:7]  # the images are aligned
    free[:, model.fluxes] = free[:, model.skies] = stamps.seen
    unknown = np.full((len(rows), *2 * [len(model.reported_names)]), np.nan)
    found = Estimate(params, unknown, np.zeros(len(rows), int), unknown[:, 0, 0])
    judged = judge(stamps, parts, rows, found, free, network, options, ExposureRows.blank(stamps))
    both = np.stack([judged.crb, judged.crb + judged.structure])
    return np.sqrt(np.diagonal(both, axis1=2, axis2=3))[..., model.shape]


def at_one_shape(joint, exposures, places, wanted):
    """(which rows, error ratios) of the best band over all together, at the joint shape, of wanted rows."""
    with np.errstate(all="ignore"):
        together = errors_at(joint, exposures, places, range(len(exposures)))
        alone = [errors_at(joint, exposures, places, [k]) for k in range(len(exposures))]
    known = np.isfinite(alone).all((0, 1, 3)) & (np.nan_to_num(joint.by_exposure.params[..., 0]) > 0).all(1)
    rows = np.flatnonzero(wanted & known)  # a model without light has no bound
    noise, stated = (np.min(alone, 0) / together)[:, rows]
    smooth = (together[1] < WIDENED * together[0]).all(1)[rows]
    yield "one shape, errors at the joint shape", stated
    yield "the same, of noise alone", noise
    yield "without structure", stated[smooth]
    yield "with structure", stated[~smooth]


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
    colour, _ = joint.color("g", "r")
    head = field, method, len(joint), int((joint.quality == 0).sum())
    head += (f"{np.nanmedian(colour.value[joint.quality == 0]):.2f}",)
    parts = (("resolved in r", best[resolved]), ("one shape", best[alike]))
    for name, ratios in (*parts, *at_one_shape(joint, exposures, places, alike)):
        middle = np.nanmedian(ratios, 0) if len(ratios) else []
        yield *head, name, len(ratios), *(f"{value:.2f}" for value in middle)


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
        lines = [[*row, *[""] * (len(HEADER) - len(row))] for row in rows]
        csv.writer(file, lineterminator="\n").writerows([HEADER, *lines])
    for row in rows:
        print(*row, sep="  ")


if __name__ == "__main__":
    main()
