# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""Large images stay in their files: cutting a stamp reads a stamp."""

import pickle
import subprocess
import sys
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
from astropy.io import fits

from galshape_cnn.observe.io import bitmask, hdu_pixels
from galshape_cnn.observe.io.fits import read_image
from galshape_cnn.observe.io.lazy import BadBits, LazyPixels, is_lazy
from galshape_cnn.observe.observation import prepare

SHAPE = (300, 400)
COUNTS = np.random.default_rng(0).integers(0, 60000, SHAPE).astype(np.uint16)
PSF = np.exp(-np.sum(np.mgrid[-5:6, -5:6] ** 2, axis=0) / 5)


@pytest.fixture
def small_is_large(monkeypatch):
    for module in (hdu_pixels, bitmask):
        monkeypatch.setattr(module, "LARGE", 1000)


def written(path, kind):
    """The counts as a compressed image, as one scaled by BZERO, or with an axis of length one."""
    if kind == "compressed":
        hdu = fits.CompImageHDU(COUNTS.astype(np.int32), name="SCI", tile_shape=(10, 400))
    else:
        hdu = fits.ImageHDU(COUNTS[None] if kind == "one plane" else COUNTS, name="SCI")
    bits = fits.ImageHDU((COUNTS % 16).astype(np.int16), name="DQ")
    fits.HDUList([fits.PrimaryHDU(), hdu, bits]).writeto(path)
    return path


@pytest.mark.parametrize("kind", ["compressed", "scaled", "one plane"])
def test_parts_equal_those_of_the_whole(tmp_path, small_is_large, kind):
    image = read_image(written(tmp_path / "a.fits", kind), bad_bits=8)
    assert isinstance(image.data, LazyPixels)
    assert image.data.shape == SHAPE
    assert image.data.ndim == 2
    assert len(image.data) == SHAPE[0]
    np.testing.assert_array_equal(image.data[20:30, 5:9], COUNTS[20:30, 5:9])
    np.testing.assert_array_equal(image.data[7], COUNTS[7])
    np.testing.assert_array_equal(np.asarray(image.data), COUNTS)
    again = pickle.loads(pickle.dumps(image.data))
    np.testing.assert_array_equal(again[20:30, 5:9], COUNTS[20:30, 5:9])
    assert isinstance(image.mask, BadBits)
    np.testing.assert_array_equal(np.asarray(image.mask), (COUNTS % 16) >= 8)
    assert "SCI" not in repr(image.data)
    assert str(tmp_path) in repr(image.data)
    assert "bits 8" in repr(image.mask)
    lazy, whole = (
        prepare(data, psf=PSF, error=1.0, mask=mask, positions=[[100, 200]], recenter=False).groups[0][1]
        for data, mask in ((image.data, image.mask), (COUNTS, (COUNTS & 8) > 0))
    )
    np.testing.assert_array_equal(lazy.data, whole.data)
    np.testing.assert_array_equal(lazy.ivar, whole.ivar)


def test_small_images_are_plain_arrays(tmp_path):
    image = read_image(written(tmp_path / "a.fits", "scaled"), bad_bits=8)
    assert isinstance(image.data, np.ndarray)
    assert isinstance(image.mask, np.ndarray)
    assert not is_lazy(image.data)


def test_a_compressed_image_is_decompressed_in_part(tmp_path, small_is_large):
    data = np.random.default_rng(1).integers(0, 9, (3000, 3000)).astype(np.int32)
    hdu = fits.CompImageHDU(data, name="SCI", tile_shape=(1, 3000))
    fits.HDUList([fits.PrimaryHDU(), hdu]).writeto(tmp_path / "a.fits.fz")
    image = read_image(tmp_path / "a.fits.fz")
    tracemalloc.start()
    prepare(image, psf=PSF, error=1.0, positions=[[1500, 1500]])
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < data.nbytes / 4


CUT = """
import resource, sys
from galshape_cnn.observe.observation import prepare
from galshape_cnn.observe.io.fits import read_image
import galshape_cnn.observe.detect.centroids, numpy as np
psf = np.zeros((5, 5)); psf[2, 2] = 1
small = np.zeros((80, 80))
prepare(small, psf=psf, error=1.0, positions=[[40, 40]])  # what is imported and cached anyway
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
image = read_image(sys.argv[1])
stamps = prepare(image, psf=psf, positions=[[20000, 15000], [39000, 29000]]).groups[0][1]
assert stamps.data.shape == (2, 64, 64)
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="ru_maxrss is in KiB on Linux only; sparse files")
def test_four_gigabytes_are_not_loaded(tmp_path):
    """An image of 4.8 GB with errors and bits: two stamps take less than 40 MB."""
    path = tmp_path / "large.fits"
    with open(path, "wb") as stream:
        stream.write(fits.PrimaryHDU().header.tostring().encode())
        for name, bitpix in (("SCI", -32), ("ERR", -32), ("DQ", 16)):
            cards = {"XTENSION": "IMAGE", "BITPIX": bitpix, "NAXIS": 2, "NAXIS1": 40000, "NAXIS2": 30000}
            header = fits.Header({**cards, "PCOUNT": 0, "GCOUNT": 1, "EXTNAME": name})
            stream.write(header.tostring().encode())
            size = 40000 * 30000 * abs(bitpix) // 8
            stream.truncate(stream.tell() + -(-size // 2880) * 2880)  # a hole: nothing is written
            stream.seek(0, 2)
        if Path(path).stat().st_blocks > 10_000:
            pytest.skip("the file system has no sparse files")
    # zeros are errors without information under the galaxies, so that the whole map is looked at: give some
    with open(path, "r+b") as stream:
        for row, column in ((15000, 20000), (29000, 39000)):
            offset = 2880 * 2 + -(-40000 * 30000 * 4 // 2880) * 2880 + 2880
            stream.seek(offset + 4 * (row * 40000 + column))
            stream.write(np.array([1.0], ">f4").tobytes())
    done = subprocess.run(
        [sys.executable, "-c", CUT, str(path)], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) < 40_000
