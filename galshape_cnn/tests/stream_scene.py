# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""A cube of small galaxies for the tests of streaming."""

import numpy as np
from astropy.io import fits

SIDE, N = 32, 37


def moments(n=N, seed=1):
    """Cutouts of round galaxies, and a PSF of each."""
    rng = np.random.default_rng(seed)
    y, x = np.indices((SIDE, SIDE)) - (SIDE - 1) / 2
    galaxy = 60 * np.exp(-(x**2 + y**2) / 18)
    data = galaxy + rng.normal(size=(n, SIDE, SIDE))
    y, x = np.indices((17, 17)) - 8  # large enough for the widest of them
    width = rng.uniform(1.2, 1.8, n)[:, None, None]
    psf = np.exp(-(x**2 + y**2) / (2 * width**2))
    return data.astype("f4"), (psf / psf.sum((1, 2), keepdims=True)).astype("f4")


def write_cube(path, data, psf):
    hdus = [fits.PrimaryHDU(), fits.ImageHDU(data, name="SCI")]
    hdus += [fits.ImageHDU(np.ones_like(data), name="ERR"), fits.ImageHDU(psf, name="PSF")]
    fits.HDUList(hdus).writeto(path)
    return str(path)


def assert_same(one, other):
    """Every column equal to the last bit."""
    assert one.colnames == other.colnames
    for name in one.colnames:
        for first, second in zip(_numbers(one[name]), _numbers(other[name]), strict=True):
            np.testing.assert_array_equal(first, second, err_msg=name)


def _numbers(column):
    """Arrays of a column; of sky positions two, whose gaps are NaN."""
    return (column.ra.deg, column.dec.deg) if hasattr(column, "icrs") else (np.asarray(column),)
