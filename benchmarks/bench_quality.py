# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""Quality of the rows of survey images: how many a user may select, by folder and method.

Run as ``python benchmarks/bench_quality.py DATA_DIR OUT.csv``; with another version of the package on the
path it says what that gave.
"""

import sys
import warnings
from pathlib import Path

import numpy as np
from astropy.nddata import NDData, StdDevUncertainty
from astropy.table import Table

from galshape_cnn import ShapeEstimator
from galshape_cnn.errors import GalshapeWarning
from galshape_cnn.observe.detect.sources import background_noise, find_galaxies
from galshape_cnn.observe.detect.star_psf import psf_from_stars
from galshape_cnn.observe.io.fits import read_image

METHODS = ("ml", "network")
CORNER, SIDE = 800, 1000  # of the part of the KiDS image that is measured


def images(data):
    """Name and image of each field, with its PSF and its noise."""
    decals, hsc = data / "legacysurvey_dr9_cutout", data / "hsc_gri_300"
    cutout, psf = (decals / f"{name}_59.1067_-30.4848.fits" for name in ("cutout", "copsf"))
    for band in "grz":
        yield f"DECaLS {band}", read_image(cutout, band=band, psf=psf)
    for band in "gri":
        image = read_image(hsc / f"hsc_{band}.fits", sci=1, mask=2, var=3, psf=hsc / f"psf_{band}.fits")
        yield f"HSC {band}", image
    whole = read_image(data / "kids_viking_bands" / "r.fits")
    part = np.asarray(whole.data)[CORNER : CORNER + SIDE, CORNER : CORNER + SIDE]
    part = NDData(
        part, uncertainty=StdDevUncertainty(np.broadcast_to(background_noise(NDData(part)), part.shape))
    )
    part.psf = psf_from_stars(part)
    yield "KiDS r, 1000x1000", part


def cosmos(data):
    """Cutouts of faint HST galaxies with their PSFs and noise."""
    import galsim

    catalog = galsim.RealGalaxyCatalog("real_galaxy_catalog_26_extension_example.fits", dir=str(data))
    cutouts, psfs = [], []
    for k in range(len(catalog)):
        error = StdDevUncertainty(np.array(np.sqrt(catalog.variance[k])))
        cutouts.append(NDData(catalog.getGalImage(k).array, uncertainty=error))
        psf = catalog.getPSFImage(k).array
        psfs.append(
            psf[: psf.shape[0] // 2 * 2 - 1, : psf.shape[1] // 2 * 2 - 1] if psf.shape[0] % 2 == 0 else psf
        )
    return cutouts, psfs


def row(name, method, catalog):
    """One line of the table."""
    counts = np.bincount(catalog.quality, minlength=3)
    line = {"field": name, "method": method, "rows": len(catalog)}
    line |= {f"quality {k}": int(counts[k]) for k in range(3)}
    return line | {"without flags": int(np.count_nonzero(catalog.flags == 0))}


def main(data, out):
    """All fields."""
    estimator, rows, data = ShapeEstimator(), [], Path(data)
    warnings.simplefilter("ignore", GalshapeWarning)
    for name, image in images(data):
        sources = find_galaxies(image)
        for method in METHODS:
            rows.append(row(name, method, estimator(image, positions=sources, method=method)))
            Table(rows=rows).write(out, format="ascii.csv", overwrite=True)
    cutouts, psfs = cosmos(data / "cosmos_hst_faint")
    for method in METHODS:
        rows.append(row("COSMOS HST, faint", method, estimator(cutouts, psf=psfs, method=method)))
        Table(rows=rows).write(out, format="ascii.csv", overwrite=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
