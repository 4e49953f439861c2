# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""Which bits of a mask mean bad."""

import numpy as np
import pytest
from astropy.io import fits

from galshape_cnn.cli import main, measure
from galshape_cnn.errors import FileError
from galshape_cnn.observe.io.bitmask import bad_pixels
from galshape_cnn.observe.io.fits import read_image
from galshape_cnn.tests.standin import StandInEstimator

FIELD = np.arange(64, dtype=np.int32).reshape(8, 8)
PLANES = {"MP_BAD": 0, "MP_SAT": 1, "MP_DETECTED": 5}


@pytest.mark.parametrize(
    ("bits", "header", "expected"),
    [
        (None, {}, FIELD != 0),
        (4, {}, (FIELD & 4) != 0),
        ("4,8", {}, (FIELD & 12) != 0),
        ("4+8", {}, (FIELD & 12) != 0),
        ([4, 8], {}, (FIELD & 12) != 0),
        ("~4", {}, (FIELD & ~4) != 0),
        (None, PLANES, (FIELD & 3) != 0),
        ("SAT", PLANES, (FIELD & 2) != 0),
        ("sat,bad", PLANES, (FIELD & 3) != 0),
        ("~DETECTED", PLANES, (FIELD & ~32) != 0),
        ("32", PLANES, (FIELD & 32) != 0),
        (None, {"TELESCOP": "JWST"}, (FIELD & 1) != 0),
        (None, {"TELESCOP": "HST"}, FIELD != 0),
        ("4", {"TELESCOP": "JWST"}, (FIELD & 4) != 0),
    ],
)
def test_bits(bits, header, expected):
    np.testing.assert_array_equal(np.asarray(bad_pixels(FIELD, header, bits), bool), expected)


@pytest.mark.parametrize(
    ("field", "bits", "match"),
    [
        (FIELD, "SATURATED", r"bad_bits='SATURATED' .* planes are BAD, SAT, DETECTED"),
        (FIELD, "5,6", r"bad_bits='5,6' \(--bad-bits\) is not understood"),
        (FIELD, "4,SAT", "is not understood"),
        (FIELD, 2.5, "is not understood"),
        (FIELD.astype(float), 4, "mask holds float64 and no bits"),
        (FIELD.astype(np.uint8), 1024, r"mask has 8 bits; bad_bits=1024"),
    ],
)
def test_bits_that_cannot_be_meant(field, bits, match):
    with pytest.raises(FileError, match=match):
        bad_pixels(field, PLANES, bits)


def test_telescope_is_in_the_primary_header(tmp_path):
    primary = fits.PrimaryHDU(header=fits.Header({"TELESCOP": "JWST"}))
    hdus = [fits.ImageHDU(np.zeros((8, 8)), name="SCI"), fits.ImageHDU(FIELD, name="DQ")]
    fits.HDUList([primary, *hdus]).writeto(tmp_path / "a.fits")
    np.testing.assert_array_equal(read_image(tmp_path / "a.fits").mask, (FIELD & 1) != 0)


@pytest.mark.filterwarnings("default::galshape_cnn.errors.GalshapeWarning")
def test_command_line(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(measure, "load_estimator", lambda bundle: StandInEstimator())
    y, x = np.mgrid[:40, :40]
    data = 90 * np.exp(-((x - 20) ** 2 + (y - 20) ** 2) / 30) + np.random.default_rng(0).normal(size=(40, 40))
    path = tmp_path / "a.fits"
    hdus = [fits.PrimaryHDU(), fits.ImageHDU(data, name="SCI")]
    fits.HDUList([*hdus, fits.ImageHDU(np.full((40, 40), 4, np.int16), name="DQ")]).writeto(path)
    options = ["--error", "1", "--psf", "gaussian:fwhm=3px", "--overwrite"]
    assert main(["measure", str(path), *options, "-o", str(tmp_path / "a.ecsv")]) == 0
    assert "NO_DATA 1" in capsys.readouterr().out
    assert main(["measure", str(path), *options, "-o", str(tmp_path / "a.ecsv"), "--bad-bits", "~4"]) == 0
    assert "NO_DATA" not in capsys.readouterr().out
    assert main(["measure", str(path), *options, "-o", str(tmp_path / "a.ecsv"), "--bad-bits", "SAT"]) == 1
    assert "--bad-bits 'SAT' is not understood" in capsys.readouterr().err
    fits.HDUList(hdus).writeto(path, overwrite=True)
    assert main(["measure", str(path), *options, "-o", str(tmp_path / "a.ecsv"), "--bad-bits", "4"]) == 1
    assert "no mask for --bad-bits" in capsys.readouterr().err
