#!/usr/bin/env python
# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""Rows of fixed scenes, stored and compared to the last bit: does a change of structure move a number?

    python reference_sets.py store FILE.npz      # with the code as it was
    python reference_sets.py compare FILE.npz    # with the code as it is, on the same machine

Sets differ in method, treatment of neighbours, noise (white, correlated), PSF (shared, one for each galaxy,
twice oversampled), input (image, cutouts) and stamp (odd, large).  The exit status of ``compare`` is the
number of sets in which a column differs, appears or is missing (``--common``: only columns both have).
"""

import argparse
import sys
import warnings

import numpy as np
from astropy.nddata import NDData, StdDevUncertainty
from astropy.table import Table
from astropy.wcs import WCS

from galshape_cnn import PSFConvolvedSersic2D, ShapeEstimator

SIDE, NOISE = 360, 0.8


def moffat(side, fwhm, beta=2.5, step=1.0):
    """Round Moffat profile, sampled; unit sum."""
    y, x = (np.mgrid[:side, :side] - side // 2) * step
    alpha = fwhm / (2 * np.sqrt(2 ** (1 / beta) - 1))
    psf = (1 + (x**2 + y**2) / alpha**2) ** -beta
    return psf / psf.sum()


def scene():
    """Image with 20 galaxies, five of which have a close neighbour, and their positions."""
    rng = np.random.default_rng(20)
    yy, xx = np.mgrid[:SIDE, :SIDE]
    image, table = np.zeros((SIDE, SIDE)), []
    psf = moffat(31, 3.0)
    grid = [(40 + 70 * (k % 5), 40 + 70 * (k // 5)) for k in range(20)]
    for k, (x, y) in enumerate(grid):
        x, y = x + rng.uniform(-1, 1), y + rng.uniform(-1, 1)
        flux, n, hlr = np.exp(rng.uniform(6.5, 9)), rng.uniform(0.6, 4.5), rng.uniform(1.2, 5)
        g1, g2 = rng.uniform(-0.35, 0.35, 2)
        image += PSFConvolvedSersic2D(flux, n, hlr, g1, g2, x, y, psf=psf)(xx, yy)
        table.append((x, y))
        if k % 4 == 0:
            angle = rng.uniform(0, 2 * np.pi)
            x, y = x + 13 * np.cos(angle), y + 13 * np.sin(angle)
            image += PSFConvolvedSersic2D(0.6 * flux, 1.2, 2.0, 0.1, 0.0, x, y, psf=psf)(xx, yy)
    noise = rng.normal(size=image.shape)
    kernel = np.outer([1, 2, 1], [1, 2, 1]) / 16
    smooth = sum(
        kernel[i, j] * np.roll(noise, (i - 1, j - 1), (0, 1)) for i in range(3) for j in range(3)
    ) / np.sqrt((kernel**2).sum())
    mask = np.zeros(image.shape, bool)
    mask[:, 113] = True
    return image, NOISE * noise, NOISE * smooth, mask, np.array(table), psf


def sets():
    """Name and call of every set."""
    image, white, smooth, mask, xy, psf = scene()
    wcs = WCS(naxis=2)
    wcs.wcs.ctype = ["RA---TAN", "DEC--TAN"]
    wcs.wcs.crval, wcs.wcs.crpix = [150.1, 2.2], [180, 180]
    wcs.wcs.cd = np.array([[-0.9, 0.25], [0.2, 0.95]]) * 0.2 / 3600
    data = NDData(
        image + white, uncertainty=StdDevUncertainty(np.full(image.shape, NOISE)), mask=mask, wcs=wcs
    )
    positions = Table({"x": xy[:, 0], "y": xy[:, 1]})
    own = np.stack([moffat(31, 2.7 + 0.03 * k) for k in range(len(xy))])
    fine = moffat(61, 6.0)
    cut = np.rint(xy).astype(int)
    cubes = {s: np.stack([(image + white)[y - s // 2 : y + (s + 1) // 2, x - s // 2 : x + (s + 1) // 2]
                          for x, y in cut if s // 2 <= min(x, y) and max(x, y) < SIDE - s // 2])
             for s in (47, 64, 80)}  # fmt: skip
    for method in ("network", "ml", "posterior"):
        for neighbours in ("ignore", "mask", "fit"):
            yield (
                f"{method} {neighbours}",
                data,
                dict(positions=positions, psf=psf, method=method, neighbours=neighbours),
            )
    correlated = NDData(image + smooth, uncertainty=StdDevUncertainty(np.full(image.shape, NOISE)), wcs=wcs)
    for method, neighbours in (("network", "mask"), ("ml", "mask"), ("posterior", "mask"), ("ml", "fit")):
        options = dict(positions=positions, psf=psf, method=method, neighbours=neighbours)
        yield f"correlated {method} {neighbours}", correlated, options | dict(noise_correlation="estimate")
    yield "scale ml mask", data, dict(positions=positions, psf=psf, method="ml", noise_scale="estimate")
    yield "own psf network", data, dict(positions=positions, psf=own)
    yield "own psf ml", data, dict(positions=positions, psf=own, method="ml", gain=3.0)
    yield "fine psf ml", data, dict(positions=positions, psf=fine, psf_oversampling=2, method="ml")
    yield "fine psf network", data, dict(positions=positions, psf=fine, psf_oversampling=2, gain=3.0)
    yield "large stamps ml", data, dict(positions=positions[:6], psf=psf, stamp_size=128, method="ml")
    yield "large stamps network", data, dict(positions=positions[:6], psf=psf, stamp_size=200)
    for side, method in ((47, "ml"), (47, "network"), (64, "posterior"), (80, "network")):
        yield f"cutouts {side} {method}", cubes[side], dict(psf=psf, error=NOISE, method=method)
    yield "no sky ml", data, dict(positions=positions, psf=psf, method="ml", fit_sky=False, recenter=False)


def measured(name, data, options):
    """Every number of one set, by column."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        # what is done by default may change; what is asked for may not
        options = {"noise_correlation": None, "noise_scale": None} | options
        catalog = ShapeEstimator()(data, **options)
        table = catalog.to_table()
    out = {}
    for column in table.colnames:
        value = table[column]
        if column == "sky_centroid":
            out[column] = np.stack([value.ra.deg, value.dec.deg])
        else:
            out[column] = np.asarray(getattr(value, "value", value))
    return out | {"covariance": catalog.covariance, "crb_covariance": catalog.crb_covariance}


def main(args=None):
    """Store or compare."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("what", choices=["store", "compare"])
    parser.add_argument("file")
    parser.add_argument("--common", action="store_true", help="compare only the columns that both have")
    parser.add_argument("--only", default="", help="sets whose name contains this")
    options = parser.parse_args(args)
    found = {}
    for name, data, how in sets():
        if options.only in name:
            found |= {f"{name}/{key}": value for key, value in measured(name, data, how).items()}
            print("measured", name, flush=True)
    if options.what == "store":
        np.savez_compressed(options.file, **found)
        return 0
    stored = {key: value for key, value in np.load(options.file).items() if options.only in key.split("/")[0]}
    wrong = set()
    for key in sorted(stored.keys() | found.keys()):
        if key not in stored or key not in found:
            if not options.common:
                print(f"{key}: only in {'the new' if key in found else 'the stored'} rows")
                wrong.add(key.split("/")[0])
        elif not np.array_equal(stored[key], found[key], equal_nan=stored[key].dtype.kind == "f"):
            rows = np.count_nonzero(
                (stored[key] != found[key]).reshape(len(stored[key]), -1).any(1)
                & ~((stored[key] != stored[key]) & (found[key] != found[key]))
                .reshape(len(stored[key]), -1)
                .all(1)
            )
            print(f"{key}: {rows} rows differ, e.g. {stored[key].flat[0]} -> {found[key].flat[0]}")
            wrong.add(key.split("/")[0])
    print(f"{len({key.split('/')[0] for key in stored})} sets, {len(wrong)} differ")
    return len(wrong)


if __name__ == "__main__":
    sys.exit(main())
