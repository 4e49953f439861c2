# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""Source Extractor's model fitting beside this package, on a grid of galaxies and on a crowded field.

Galaxies drawn by GalSim: Moffat PSF (beta 2.5, FWHM 3.04 pixels), S/N 15 to 150, n 0.5 to 5.5, hlr 0.9 to 3.5
pixels, modulus of the reduced shear below 0.5, white noise; in cells of 64 pixels, or strewn over a field, no
two nearer than 14 pixels.  Source Extractor (Bertin & Arnouts 1996; Debian's ``source-extractor``) finds and
fits ``SPHEROID`` models with a PSFEx model of the true PSF, at half a pixel, and this package measures what
it found, from its table and the same image::

    python benchmarks/bench_source_extractor.py -o docs/performance -n 400

Rates are galaxies per second of processor time in one thread; what finding alone takes is taken from Source
Extractor's.  Rows are matched to the truth within 2 pixels.  Errors of ln flux, n, ln r_eff and q: median,
1.4826 times the median absolute deviation from it, and root mean square; and how often the tool's own
standard error of n covers.
"""

import argparse
import os
import resource
import shutil
import subprocess
import tempfile
import time
from pathlib import Path

import galsim
import numpy as np
from astropy.io import fits
from astropy.stats import mad_std
from astropy.table import Table
from csv_tables import write
from peer_tools import elliptical
from scipy.spatial import cKDTree

CELL, FWHM, BETA, APART, SAMPLING = 64, 3.04, 2.5, 14.0, 0.5
PSF_SIDE, MODEL_SIDE = 81, 61  # of what this package gets; of the PSFEx model, as wide as they usually are
PARAMETERS = "NUMBER X_IMAGE Y_IMAGE FLAGS".split()  # nothing of a model
FITTED = (
    "FLUX_SPHEROID SPHEROID_REFF_IMAGE SPHEROID_ASPECT_IMAGE SPHEROID_SERSICN SPHEROID_SERSICNERR".split()
)
HEADER = [
    "field",
    "tool",
    "N",
    "galaxies/s of one core",
    "ln flux",
    "n",
    "ln r_eff",
    "q",
    "1 sigma of n covers %",
]
METHODS = ("network", "ml", "posterior")


def places(rng, count, crowded):
    """x, y of galaxies and the side of the image."""
    if not crowded:
        row = int(np.ceil(np.sqrt(count)))
        y, x = np.divmod(np.arange(count), row)
        return np.column_stack([x, y]) * CELL + (CELL - 1) / 2 + rng.uniform(
            -0.5, 0.5, (count, 2)
        ), row * CELL
    side, found = int(np.sqrt(count) * 2.2 * APART), np.zeros((0, 2))
    while len(found) < count:
        one = rng.uniform(CELL / 2, side + CELL / 2, 2)
        if not len(found) or np.hypot(*(found - one).T).min() > APART:
            found = np.vstack([found, one])
    return found, side + CELL


def field(rng, count, crowded):
    """Image with noise one, and true flux, n, hlr, g1, g2, x, y."""
    xy, side = places(rng, count, crowded)
    image = galsim.ImageD(side, side, xmin=0, ymin=0)
    psf, truth = galsim.Moffat(beta=BETA, fwhm=FWHM), []
    for x, y in xy:
        n = round(rng.uniform(0.5, 5.5) * 8) / 8  # GalSim tabulates each
        hlr, g, angle = rng.uniform(0.9, 3.5), rng.uniform(0, 0.5), rng.uniform(0, 2 * np.pi)
        g1, g2 = g * np.cos(angle), g * np.sin(angle)
        galaxy = galsim.Sersic(n, half_light_radius=hlr).shear(g1=g1, g2=g2)
        stamp = galsim.Convolve(galaxy, psf).drawImage(
            nx=2 * CELL, ny=2 * CELL, scale=1, center=galsim.PositionD(x, y), dtype=float
        )
        flux = np.exp(rng.uniform(np.log(15), np.log(150))) / np.sqrt((stamp.array**2).sum())
        both = stamp.bounds & image.bounds
        image[both] += flux * stamp[both]
        truth.append([flux, n, hlr, g1, g2, x, y])
    return (image.array + rng.normal(0, 1, image.array.shape)).astype(np.float32), np.array(truth)


def effective(step, side):
    """PSF with the pixel's response, sampled at steps."""
    psf = galsim.Convolve(galsim.Moffat(beta=BETA, fwhm=FWHM), galsim.Pixel(1.0))
    return psf.drawImage(nx=side, ny=side, scale=step, method="no_pixel").array.astype(np.float32)


def write_psfex(path):
    """A PSFEx file of the one PSF everywhere."""
    array = effective(SAMPLING, MODEL_SIDE)
    array /= array.sum()
    columns = [fits.Column("PSF_MASK", f"{array.size}E", dim=str((*array.shape, 1)), array=array[None, None])]
    hdu = fits.BinTableHDU.from_columns(columns, name="PSF_DATA")
    cards = {
        "LOADED": 1, "ACCEPTED": 1, "CHI2": 1.0, "POLNAXIS": 0, "PSF_FWHM": FWHM, "PSF_SAMP": SAMPLING,
        "PSFNAXIS": 3, "PSFAXIS1": array.shape[1], "PSFAXIS2": array.shape[0], "PSFAXIS3": 1,
    }  # fmt: skip
    hdu.header.update(cards)
    hdu.writeto(path)


def source_extractor(folder, parameters, background):
    """Its table, and the seconds of processor time that it took."""
    program = shutil.which("source-extractor") or shutil.which("sex")
    (folder / "wanted.param").write_text("\n".join(parameters) + "\n")
    (folder / "smooth.conv").write_text("CONV NORM\n1 2 1\n2 4 2\n1 2 1\n")
    (folder / "empty.sex").write_text("")
    options = {
        "PARAMETERS_NAME": "wanted.param", "FILTER_NAME": "smooth.conv", "CATALOG_TYPE": "FITS_1.0",
        "CATALOG_NAME": "found.fits", "DETECT_THRESH": "1.5", "ANALYSIS_THRESH": "1.5", "DETECT_MINAREA": "5",
        "BACK_TYPE": background, "BACK_VALUE": "0", "PSF_NAME": "model.psf", "GAIN": "0",
        "WEIGHT_TYPE": "MAP_RMS", "WEIGHT_IMAGE": "rms.fits", "NTHREADS": "1", "VERBOSE_TYPE": "QUIET",
    }  # fmt: skip
    command = [program, "image.fits", "-c", "empty.sex"]
    command += [word for key, value in options.items() for word in (f"-{key}", value)]
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run(command, cwd=folder, check=True, env={**os.environ, "OMP_NUM_THREADS": "1"})
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    spent = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return Table.read(folder / "found.fits"), spent


def statistics(found, truth, error):
    """Cells of the table, of flux, n, r_eff and q."""
    r_eff, q, _ = elliptical(truth.T)
    with np.errstate(all="ignore"):
        delta = [np.log(found[:, 0] / truth[:, 0]), found[:, 1] - truth[:, 1], np.log(found[:, 2] / r_eff),
                 found[:, 3] - q]  # fmt: skip
    cells = []
    for one in delta:
        one = one[np.isfinite(one)]
        cells.append(f"{np.median(one):+.3f} / {mad_std(one):.3f} / {np.sqrt(np.mean(one**2)):.3f}")
    covers = np.mean(np.abs(delta[1]) < error)
    return [*cells, f"{100 * covers:.0f}±{100 * np.sqrt(covers * (1 - covers) / len(error)):.0f}"]


def compare(name, rng, count, estimator):
    """Rows of a field."""
    data, truth = field(rng, count, name == "crowded")
    with tempfile.TemporaryDirectory() as path:
        folder = Path(path)
        fits.writeto(folder / "image.fits", data)
        fits.writeto(folder / "rms.fits", np.ones_like(data))
        write_psfex(folder / "model.psf")
        # on the grid its meshes would take the galaxies' wings for a background
        background = "AUTO" if name == "crowded" else "MANUAL"
        _, finding = source_extractor(folder, PARAMETERS, background)
        table, spent = source_extractor(folder, PARAMETERS + FITTED, background)
    positions = np.column_stack([table["X_IMAGE"], table["Y_IMAGE"]]) - 1.0  # the first pixel is 1 there
    distance, which = cKDTree(truth[:, 5:]).query(positions)
    kept = np.flatnonzero((distance < 2) & (distance == [distance[which == k].min() for k in which]))
    known = truth[which[kept]]
    ours = np.column_stack([table[column] for column in FITTED[:1] + [FITTED[3]] + FITTED[1:3]])[kept]
    rate = len(table) / (spent - finding)
    rows = [[name, "Source Extractor", len(kept), f"{rate:.0f}",
             *statistics(ours, known, np.asarray(table["SPHEROID_SERSICNERR"])[kept])]]  # fmt: skip
    for method in METHODS:
        options = {"psf": effective(1, PSF_SIDE), "error": 1.0, "method": method, "threads": 1}
        places = table["X_IMAGE", "Y_IMAGE"]
        estimator(data, positions=places[:64], **options)
        begin = time.process_time()
        out = estimator(data, positions=places, **options).to_table()
        rate = len(out) / (time.process_time() - begin)
        ours = np.column_stack([out[column] for column in ("flux", "n", "r_eff", "q")])[kept]
        error = np.asarray(out["n_err" if method == "ml" else "n_std"])[kept]
        rows.append([name, f"galshape {method}", len(kept), f"{rate:.0f}", *statistics(ours, known, error)])
    return rows


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("-o", "--output", type=Path, default=Path())
    parser.add_argument("-n", type=int, default=400, help="galaxies in a field")
    parser.add_argument("--seed", type=int, default=1)
    args = parser.parse_args()
    from galshape_cnn import ShapeEstimator

    estimator, rows = ShapeEstimator(), []
    for number, name in enumerate(("grid", "crowded")):
        rows += compare(name, np.random.default_rng([args.seed, number]), args.n, estimator)
    write(args.output, "source_extractor", HEADER, rows)


if __name__ == "__main__":
    main()
