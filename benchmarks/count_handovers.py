#!/usr/bin/env python
# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""Hand-overs of one galaxy between modules, from the call of a `ShapeEstimator` to its table.

    python count_handovers.py [--method ml] [--neighbours fit]

Counts calls whose caller and callee lie in different modules of the package, in a second measurement of the
same galaxy, when all is compiled.
"""

import argparse
import sys
from collections import Counter

import numpy as np

import galshape_cnn
from galshape_cnn import PSFConvolvedSersic2D, ShapeEstimator

ROOT = galshape_cnn.__file__.rpartition("/")[0] + "/"


def scene():
    """A galaxy with a neighbour, and its PSF."""
    y, x = np.mgrid[-15:16, -15:16]
    psf = np.exp(-(x**2 + y**2) / (2 * 1.3**2))
    y, x = np.mgrid[:64, :64]
    image = PSFConvolvedSersic2D(3000, 1.5, 3.0, 0.2, 0.0, 31.5, 31.5, psf=psf)(x, y)
    image += PSFConvolvedSersic2D(1500, 1.0, 2.0, 0.0, 0.1, 44.0, 36.0, psf=psf)(x, y)
    return image + np.random.default_rng(1).normal(size=image.shape), psf


def main(args=None):
    """Count and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--method", default="network")
    parser.add_argument("--neighbours", default="fit")
    options = vars(parser.parse_args(args))
    image, psf = scene()
    estimator, counts = ShapeEstimator(), Counter()

    def measure():
        return estimator(image, psf=psf, error=1.0, threads=1, **options).to_table()

    def profile(frame, event, _):
        if event != "call" or frame.f_back is None:
            return
        ends = frame.f_back.f_code.co_filename, frame.f_code.co_filename
        if all(end.startswith(ROOT) for end in ends) and ends[0] != ends[1]:
            counts[tuple(end.removeprefix(ROOT) for end in ends)] += 1

    measure()
    sys.setprofile(profile)
    measure()
    sys.setprofile(None)
    modules = {end for ends in counts for end in ends}
    print(*(f"{n:4d} {a} -> {b}" for (a, b), n in sorted(counts.items())), sep="\n")
    print(f"{sum(counts.values())} hand-overs along {len(counts)} paths between {len(modules)} modules")


if __name__ == "__main__":
    main()
