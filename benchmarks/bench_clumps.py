# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""Clumpy discs drawn by GalSim: is the size that of the smooth disc, and does quality say where it is not?

Exponential discs (half-light radius 3 to 16 px, |g| to 0.4, S/N 30 to 1000, both log-uniform) with 0 to 60 %
of their light in 5 to 40 knots that follow the disc (`galsim.RandomKnots`), a Moffat PSF of FWHM 3 px, white
noise, stamps of 64, 128 or 192 px.  A size is right if it is within 10 % or three stated errors.

    python benchmarks/bench_clumps.py -n 200 --tables .
"""

import argparse
import os
from pathlib import Path

import galsim
import numpy as np
from csv_tables import write

from galshape_cnn import ShapeEstimator

PSF = galsim.Moffat(beta=2.5, fwhm=3.0)
TREATMENTS, METHODS = ("ignore", "mask", "fit"), ("ml", "network")
SIDES = ((6.0, 64), (12.0, 128), (np.inf, 192))  # of the stamps, up to which half-light radius
SHARES = (0.0, 0.2, 0.4)


def galaxy(rng, seed):
    """Image of one galaxy in noise of one, its true half-light radius, and the share of the knots."""
    hlr, snr = (np.exp(rng.uniform(*np.log(limits))) for limits in ((3, 16), (30, 1000)))
    share, knots = rng.uniform(0, 0.6), int(rng.integers(5, 41))
    g, phase = rng.uniform(0, 0.4), rng.uniform(0, 2 * np.pi)
    disc = galsim.Exponential(half_light_radius=hlr)
    clumps = galsim.RandomKnots(knots, profile=disc, rng=galsim.BaseDeviate(seed))
    profile = ((1 - share) * disc + share * clumps).shear(g1=g * np.cos(phase), g2=g * np.sin(phase))
    side = next(size for limit, size in SIDES if hlr < limit)
    shift = rng.uniform(-0.5, 0.5, 2)
    drawn = galsim.Convolve(profile.shift(*shift), PSF).drawImage(nx=side, ny=side, scale=1.0)
    light = drawn.array.astype(float)
    light *= snr / np.sqrt((light**2).sum())
    return light + rng.normal(size=light.shape), hlr, share


def sample(number):
    """Galaxies by the side of their stamps: images, sizes and shares of knots."""
    rng, groups = np.random.default_rng(17), {}
    for k in range(number):
        image, hlr, share = galaxy(rng, k + 1)
        groups.setdefault(len(image), []).append((image, hlr, share))
    return groups


def measure(estimator, groups, method, treatment):
    """Sizes over the true ones, whether they are right, their quality, and the shares of knots."""
    parts = []
    for rows in groups.values():
        images, hlr, share = (np.array(column) for column in zip(*rows, strict=True))
        catalog = estimator(images, psf=PSF, error=1.0, method=method, neighbours=treatment)
        size = catalog.hlr.value
        error = (catalog.hlr_err if method == "ml" else catalog.hlr_std).value
        off = np.abs(size - hlr)
        with np.errstate(invalid="ignore"):
            right = (off < 0.1 * hlr) | (off < 3 * error)
        parts.append((size / hlr, right, catalog.quality, share))
    return [np.concatenate(column) for column in zip(*parts, strict=True)]


def share_of(selected):
    """Per cent with its standard error."""
    p, n = selected.mean(), max(len(selected), 1)
    return f"{100 * p:.1f} ± {100 * np.sqrt(max(p * (1 - p), 0.25 / n) / n):.1f}"


def line(method, treatment, found):
    """One line of the table."""
    ratio, right, quality, share = found
    row = [method, treatment, len(right), share_of(right)]
    row += [share_of(right[(share >= low) & (share < low + 0.2)]) for low in SHARES]
    wrong = quality[~right]
    row.append(f"{np.median(ratio):.3f}")
    row.append(share_of(quality[right] == 0))
    return row + [len(wrong), int((wrong == 1).sum()), int((wrong == 2).sum())]


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("-n", type=int, default=200, help="galaxies")
    parser.add_argument("--tables", type=Path, metavar="DIR", help="folder for CSV tables")
    args = parser.parse_args()
    header = ["method", "neighbours", "galaxies", "size right, %"]
    header += [f"{100 * low:.0f}–{100 * low + 20:.0f} % knots" for low in SHARES]
    header += ["median ratio", "right with quality 0, %", "wrong", "of quality 1", "of quality 2"]
    print(os.cpu_count(), "cores;", " | ".join(header))
    estimator, groups, rows = ShapeEstimator(), sample(args.n), []
    for method in METHODS:
        for treatment in TREATMENTS:
            rows.append(line(method, treatment, measure(estimator, groups, method, treatment)))
            print(" | ".join(map(str, rows[-1])), flush=True)
    if args.tables:
        write(args.tables, "clumps", header, rows, keys=2)


if __name__ == "__main__":
    main()
