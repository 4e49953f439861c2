# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""Galaxies of the throughput benchmarks: tiles of a small set of mocks, and FITS cubes of any number."""

import numpy as np
from astropy.io import fits


def tiles(count=256, size=64):
    """Stamps, inverse variances and PSFs of the seed's prior, pixel-sampled."""
    from galshape_cnn.study.simulate.mock_sets import draw_mocks

    stamps, _ = draw_mocks("seed", count, engine="fast")
    middle = stamps.psf.shape[-1] // 2
    psf = stamps.psf[:, middle % 2 :: 2, middle % 2 :: 2] * 4
    half = psf.shape[-1] // 2
    psf = psf[:, half - 20 : half + 21, half - 20 : half + 21]  # nothing is cut off that counts
    data, ivar = _resized(stamps.data, stamps.ivar, size)
    return data, ivar, psf / psf.sum((1, 2), keepdims=True)


def _resized(data, ivar, size):
    """Stamps cut, or continued with noise."""
    margin = (data.shape[-1] - size) // 2
    if margin >= 0:
        inside = slice(margin, margin + size)
        return data[:, inside, inside], ivar[:, inside, inside]
    rng = np.random.default_rng(1)
    more = [(0, 0), (-margin, -margin), (-margin, -margin)]
    ivar = np.pad(ivar, more, mode="edge")
    noise = rng.standard_normal(ivar.shape) / np.sqrt(ivar)
    inside = np.pad(np.ones_like(data), more)
    return np.where(inside > 0, np.pad(data, more), noise).astype("f4"), ivar


def write_cube(path, n, arrays):
    """A FITS cube of any size, written a tile at a time."""
    with open(path, "wb") as file:
        file.write(fits.PrimaryHDU().header.tostring().encode())
        for name, array in zip(("SCI", "IVAR", "PSF"), arrays, strict=True):
            array = array.astype(">f4")
            header = fits.ImageHDU(array[:1], name=name).header
            header["NAXIS3"] = n
            file.write(header.tostring().encode())
            written = 0
            while written < n:
                file.write(array[: n - written].tobytes())
                written += min(len(array), n - written)
            file.write(b"\0" * (-(n * array[0].nbytes) % 2880))
