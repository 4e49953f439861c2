# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""Images in ASDF files."""

import asdf
import astropy.units as u
import numpy as np
import pytest
from astropy.io import fits
from astropy.nddata import StdDevUncertainty
from astropy.wcs import WCS

from galshape_cnn.errors import FileError, GalshapeWarning
from galshape_cnn.observe.io.fits import read_image
from galshape_cnn.observe.io.photometry import header_zeropoint
from galshape_cnn.observe.observation import prepare

SHAPE = (90, 100)
DATA = np.random.default_rng(0).normal(size=SHAPE).astype(np.float32)
BITS = np.arange(9000).reshape(SHAPE).astype(np.uint32) % 8
PSF = np.exp(-np.sum(np.mgrid[-5:6, -5:6] ** 2, axis=0) / 5)


def sky():
    return WCS(
        fits.Header(
            {"CTYPE1": "RA---TAN", "CTYPE2": "DEC--TAN", "CRVAL1": 150.0, "CRVAL2": 2.0, "CRPIX1": 50.0,
             "CRPIX2": 45.0, "CDELT1": -3e-5, "CDELT2": 3e-5}
        )
    )  # fmt: skip


def roman(**changes):
    """The parts of a Roman image that are used."""
    meta = {"telescope": "ROMAN", "wcs": sky(), "photometry": {"pixel_area": 2.8e-13}}
    image = {"data": DATA, "err": np.full(SHAPE, 0.5, np.float32), "dq": BITS, "meta": meta, "unit": "MJy/sr"}
    return {"roman": image | changes}


def write(path, tree):
    asdf.AsdfFile(tree).write_to(path)
    return path


def test_roman_style(tmp_path):
    image = read_image(write(tmp_path / "a.asdf", roman(psf=PSF)))
    np.testing.assert_array_equal(image.data, DATA)
    np.testing.assert_array_equal(image.mask, (BITS & 1) != 0)  # DO_NOT_USE alone
    assert isinstance(image.uncertainty, StdDevUncertainty)
    assert image.unit == u.MJy / u.sr
    assert header_zeropoint(image.meta, image.unit).magnitude == pytest.approx(
        -2.5 * np.log10(2.8e-13 * 1e6 / 3631), abs=1e-3
    )
    observation = prepare(image, positions=[[50, 45]], recenter=False)
    stamps = observation.groups[0][1]
    assert observation.has_sky
    assert stamps.jacobian[0, 0, 0] == pytest.approx(0.108, abs=1e-4)
    assert stamps.ivar.max() == 4
    np.testing.assert_array_equal(read_image(tmp_path / "a.asdf", bad_bits="2,4").mask, (BITS & 6) != 0)


def test_pixels_stay_on_disk(tmp_path):
    image = read_image(write(tmp_path / "a.asdf", roman()))
    base = image.data
    while not isinstance(base, np.memmap) and getattr(base, "base", None) is not None:
        base = base.base
    assert isinstance(base, np.memmap) or type(base).__name__ == "mmap"


def test_units_and_quantities(tmp_path):
    tree = {"data": DATA * u.nJy, "var": np.ones(SHAPE) * u.nJy**2, "mask": BITS > 3}
    image = read_image(write(tmp_path / "a.asdf", tree))
    assert image.unit == u.nJy
    assert image.uncertainty.uncertainty_type == "var"
    np.testing.assert_array_equal(image.mask, BITS > 3)


def test_keys_can_be_named(tmp_path):
    tree = {
        "deep": {"first": {"data": DATA}, "second": {"data": 2 * DATA, "rms": np.ones(SHAPE), "kernel": PSF}}
    }
    path = write(tmp_path / "a.asdf", tree)
    np.testing.assert_array_equal(read_image(path).data, DATA)
    image = read_image(path, sci="deep.second", err="rms", psf="kernel")
    np.testing.assert_array_equal(image.data, 2 * DATA)
    np.testing.assert_array_equal(image.psf, PSF)
    for option, match in (
        ({"sci": "third"}, "has no 'third' for sci; it holds deep"),
        ({"sci": "deep"}, "deep has no data; it holds first, second"),
        ({"err": "rms"}, "has no 'rms' for err; it holds data"),
        ({"psf": "kernel"}, "has no 'kernel' for psf"),
        ({"mask": "bad"}, "has no 'bad' for mask"),
    ):
        with pytest.raises(FileError, match=match):
            read_image(path, **option)


def test_wcs_of_a_package_that_is_missing(tmp_path):
    path = write(tmp_path / "a.asdf", roman(wcs={"name": "what gwcs would make a WCS of"}))
    with pytest.warns(GalshapeWarning, match="cannot be read without the package gwcs"):
        assert read_image(path).wcs is None


@pytest.mark.parametrize(
    ("content", "match"),
    [
        (b"", "cannot be read as an ASDF image"),
        (b"#ASDF 1.0.0\n", "cannot be read as an ASDF image|has no image"),
        (b"nothing of the kind" * 100, "cannot be read as an ASDF image"),
    ],
)
def test_damaged(tmp_path, content, match):
    (tmp_path / "a.asdf").write_bytes(content)
    with pytest.raises(FileError, match=match):
        read_image(tmp_path / "a.asdf")


def test_truncated_and_without_image(tmp_path):
    path = write(tmp_path / "a.asdf", roman())
    path.write_bytes(path.read_bytes()[:20000])
    with pytest.raises(FileError, match="cannot be read as an ASDF image"):
        np.asarray(read_image(path).data)
    with pytest.raises(FileError, match="has no image .*; it holds a"):
        read_image(write(tmp_path / "b.asdf", {"a": {"data": np.ones(3)}}))
    with pytest.raises(FileError, match="does not exist"):
        read_image(tmp_path / "none.asdf")
