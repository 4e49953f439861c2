# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""Zero points: those a header states, and the magnitudes made with them."""

import astropy.units as u
import numpy as np
import pytest
from astropy.io import fits
from astropy.table import QTable

from galshape_cnn.cli import main, measure
from galshape_cnn.infer.catalog.magnitudes import add_magnitudes
from galshape_cnn.observe.io.photometry import header_zeropoint, unit_of
from galshape_cnn.tests.standin import StandInEstimator

HST = {"PHOTFLAM": 7.0723e-20, "PHOTPLAM": 8045.0, "EXPTIME": 2028.0}  # ACS/WFC F814W


@pytest.mark.parametrize(
    ("header", "magnitude", "source", "exact"),
    [
        ({"BUNIT": "nJy"}, 31.4, "unit nJy", True),
        ({"BUNIT": "nanomaggies"}, 22.5, "unit n", True),
        ({"SURVEY": "DECaLS", "BRICK": "0591m305"}, 22.5, "nanomaggies", True),
        ({"BUNIT": "MJy/sr", "PIXAR_SR": 2.1e-14}, -2.5 * np.log10(2.1e-8 / 3631), "PIXAR_SR", True),
        ({"FLUXMAG0": 63095734448.0194}, 27.0, "FLUXMAG0", True),
        (HST | {"BUNIT": "ELECTRONS/S"}, 25.94, "PHOTFLAM", True),
        (HST | {"BUNIT": "ELECTRONS"}, 25.94 + 2.5 * np.log10(2028), "EXPTIME", True),
        ({"MAGZERO": 30.1, "BUNIT": "adu"}, 30.1, "MAGZERO", False),
        ({"MAGZPT": 26.563}, 26.563, "MAGZPT", False),
    ],
)
def test_headers(header, magnitude, source, exact):
    found = header_zeropoint(header, unit_of(header))
    assert found.magnitude == pytest.approx(magnitude, abs=0.01)
    assert source in found.source
    assert found.exact is exact


@pytest.mark.parametrize(
    "header",
    [{}, {"BUNIT": "adu"}, {"MAGZERO": "unknown"}, {"MAGZERO": True}, {"FLUXMAG0": -1}, {"BUNIT": "MJy/sr"},
     {"PHOTFLAM": 0.0, "PHOTPLAM": 8045.0}, {"MAGZERO": float("inf")}, HST],
)  # fmt: skip
def test_headers_without(header):
    assert header_zeropoint(header, unit_of(header)) is None


def test_magnitudes_and_their_errors():
    table = QTable({"flux": [100.0, -3.0, 0.0] * u.adu, "flux_err": [1.0, 1.0, 1.0] * u.adu})
    add_magnitudes(table, 25.0, "MAGZERO")
    np.testing.assert_allclose(table["mag"].value, [20, np.nan, np.nan])
    np.testing.assert_allclose(table["mag_err"].value, [0.010857, np.nan, np.nan], rtol=1e-4)
    assert table["mag"].info.description == "magnitude, zero point 25 (MAGZERO)"
    assert table["mag_err"].info.meta["ucd"] == "stat.error;phot.mag"


@pytest.mark.parametrize(
    ("cards", "options", "zeropoint"),
    [
        ({"BUNIT": "nJy"}, [], 31.4),
        ({"BUNIT": "nJy"}, ["--zeropoint", "none"], None),
        ({"BUNIT": "nJy"}, ["--zeropoint", "20"], 20.0),
        ({"MAGZERO": 30.1}, [], None),
        ({"MAGZERO": 30.1}, ["--zeropoint", "header"], 30.1),
    ],
)
def test_command_line(tmp_path, monkeypatch, cards, options, zeropoint):
    monkeypatch.setattr(measure, "load_estimator", lambda bundle: StandInEstimator())
    image = fits.ImageHDU(np.ones((40, 40)), fits.Header(cards), name="SCI")
    fits.HDUList([fits.PrimaryHDU(), image]).writeto(tmp_path / "a.fits")
    command = ["measure", str(tmp_path / "a.fits"), "--error", "1", "--psf", "gaussian:fwhm=3px"]
    assert main([*command, "-o", str(tmp_path / "a.ecsv"), *options]) == 0
    table = QTable.read(tmp_path / "a.ecsv")
    if zeropoint is None:
        assert "mag" not in table.colnames
    else:
        assert table["mag"][0].value == pytest.approx(zeropoint - 2.5 * np.log10(1600), abs=1e-3)


def test_command_line_mistakes(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(measure, "load_estimator", lambda bundle: StandInEstimator())
    fits.PrimaryHDU(np.ones((40, 40))).writeto(tmp_path / "a.fits")
    command = ["measure", str(tmp_path / "a.fits"), "--error", "1", "--psf", "gaussian:fwhm=3px"]
    command += ["-o", str(tmp_path / "a.ecsv"), "--zeropoint"]
    assert main([*command, "header"]) == 1
    assert "--zeropoint header: the header states no zero point" in capsys.readouterr().err
    assert main([*command, "AB"]) == 2
    assert "'AB' is no number, and not 'header' or 'none'" in capsys.readouterr().err
