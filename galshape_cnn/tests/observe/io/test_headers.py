# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""Keywords of the primary header, asinh pixels, logarithms."""

import astropy.units as u
import numpy as np
import pytest
from astropy.io import fits
from astropy.nddata import NDData
from astropy.table import QTable

from galshape_cnn.cli import main, measure
from galshape_cnn.errors import FileError, InputError
from galshape_cnn.observe.io import hdu_pixels
from galshape_cnn.observe.io.fits import read_image
from galshape_cnn.observe.io.lazy import AsinhPixels
from galshape_cnn.observe.io.photometry import header_zeropoint
from galshape_cnn.observe.io.psf.files import read_psf
from galshape_cnn.observe.observation import prepare
from galshape_cnn.tests.standin import StandInEstimator
from galshape_cnn.tests.survey_scene import SIDE, SIGMA, WCS_CARDS, pixel_psf, positions, scene

IMAGE = scene().astype("f4")
PRIMARY = {
    "GAIN": 2.5, "RDNOISE": 5.0, "MAGZERO": 25.0, "EXPTIME": 90.0, "FILTER": "r", "TELESCOP": "None",
    "SATURATE": 60000.0, "CRVAL1": 10.0, "CTYPE1": "RA---TAN", "OBJECT": "field",
}  # fmt: skip


def multi_extension(path, primary=None, extension=None, data=None, compress=False):
    hdus = [fits.PrimaryHDU(data, fits.Header(PRIMARY if primary is None else primary))]
    kind = fits.CompImageHDU if compress else fits.ImageHDU
    for name, array in (("SCI", IMAGE), ("ERR", np.full(IMAGE.shape, SIGMA, "f4"))):
        hdus.append(kind(array, fits.Header(extension or {}) if name == "SCI" else None, name=name))
    fits.HDUList(hdus).writeto(path)
    return path


@pytest.mark.parametrize("compress", [False, True])
def test_keywords_of_the_primary_header(tmp_path, compress):
    own = {"GAIN": 3.0, "EXTVER": 2, **WCS_CARDS}
    image = read_image(multi_extension(tmp_path / "a.fits", extension=own, compress=compress))
    assert [image.meta[key] for key in ("GAIN", "EXPTIME", "FILTER", "MAGZERO")] == [3.0, 90.0, "r", 25.0]
    assert image.meta["EXTNAME"] == "SCI"
    assert image.meta["CRVAL1"] == 150.0
    assert header_zeropoint(image.meta, image.unit).magnitude == 25.0
    assert image.wcs.wcs.crval[0] == 150.0


def test_structure_and_wcs_are_those_of_the_extension(tmp_path):
    primary = {**PRIMARY, "CD1_1": 1.0, "A_ORDER": 3, "BSCALE": 2.0, "DP1": "x", "HISTORY": "made"}
    image = read_image(multi_extension(tmp_path / "a.fits", primary))
    assert image.wcs is None
    for key in ("CTYPE1", "CRVAL1", "CD1_1", "A_ORDER", "BSCALE", "SIMPLE", "EXTEND", "DP1", "HISTORY"):
        assert key not in image.meta, key
    assert image.meta["NAXIS"] == 2
    assert image.meta["OBJECT"] == "field"


@pytest.mark.parametrize(
    ("data", "inherit", "seen"),
    [(None, None, True), (None, True, True), (None, False, False), (np.ones((9, 9)), None, False),
     (np.ones((9, 9)), True, True)],
)  # fmt: skip
def test_the_convention_inherit(tmp_path, data, inherit, seen):
    extension = {} if inherit is None else {"INHERIT": inherit}
    image = read_image(multi_extension(tmp_path / "a.fits", extension=extension, data=data))
    assert ("GAIN" in image.meta) is seen


def test_photometry_of_hst_files(tmp_path):
    """PHOTFLAM beside the pixels, EXPTIME in the primary header, or all there."""
    photometry = {"PHOTFLAM": 7.0723e-20, "PHOTPLAM": 8045.0}
    unit, exposure = {"BUNIT": "ELECTRONS"}, {"EXPTIME": 2028.0}
    for number, (primary, own) in enumerate(
        [(exposure, photometry | unit), (exposure | photometry, unit), (exposure | photometry | unit, {})]
    ):
        image = read_image(multi_extension(tmp_path / f"{number}.fits", primary, own))
        found = header_zeropoint(image.meta, image.unit)
        assert found.magnitude == pytest.approx(25.94 + 2.5 * np.log10(2028), abs=0.01)
        assert image.unit == u.electron


def test_band_of_the_primary_header(tmp_path):
    assert read_image(multi_extension(tmp_path / "a.fits"), band="r").meta["FILTER"] == "r"
    with pytest.raises(FileError, match="has no image of band 'g'; it has r"):
        read_image(tmp_path / "a.fits", band="g")


def test_oversampling_of_a_psf_in_the_primary_header(tmp_path):
    hdus = [fits.PrimaryHDU(header=fits.Header({"OVERSAMP": 3})), fits.ImageHDU(pixel_psf(), name="PSF")]
    fits.HDUList(hdus).writeto(tmp_path / "psf.fits")
    assert read_psf(tmp_path / "psf.fits").oversampling == 3


@pytest.fixture
def command(tmp_path, monkeypatch):
    """Run the command on an image: (status, keywords of the estimator, table)."""
    positions().write(tmp_path / "xy.ecsv")

    def run(path, *options):
        standin = StandInEstimator()
        monkeypatch.setattr(measure, "load_estimator", lambda bundle: standin)
        out = tmp_path / "out.ecsv"
        args = ["measure", str(path), "--psf", "moffat:fwhm=3px", "--positions", str(tmp_path / "xy.ecsv")]
        status = main([*args, "-o", str(out), "--overwrite", *options])
        return status, standin.calls[-1] if standin.calls else {}, QTable.read(out) if status == 0 else None

    return run


def test_command_uses_them(tmp_path, command, capsys):
    path = multi_extension(tmp_path / "a.fits", extension={"BUNIT": "adu"})
    status, how, table = command(path, "--gain", "header", "--zeropoint", "header")
    assert status == 0
    assert how["gain"] == 2.5
    np.testing.assert_allclose(table["mag"].value, 25.0 - 2.5 * np.log10(table["flux"].value))
    assert command(path, "--gain", "EXPTIME")[1]["gain"] == 90


@pytest.mark.parametrize(("unit", "gain"), [("electron/s", 2.0), ("adu/s", 2.0), ("electron", 2.0)])
def test_gain_of_a_header_is_per_count(tmp_path, command, capsys, unit, gain):
    path = multi_extension(tmp_path / "a.fits", {"CCDGAIN": gain}, {"BUNIT": unit})
    assert command(path, "--gain", "header")[0] == 1
    assert "--gain header: the header's gain, 2.0, is per count, but pixels are in" in capsys.readouterr().err
    assert command(path, "--gain", "90")[1]["gain"] == 90
    electrons = multi_extension(tmp_path / "b.fits", {"GAIN": 1.0}, {"BUNIT": "electron"})
    assert command(electrons, "--gain", "header")[1]["gain"] == 1


POGSON = 2.5 * np.log10(np.e)
CARDS = {"BOFFSET": 0.3, "BSOFTEN": 25.0}


def asinh(linear, offset=0.3, softening=25.0):
    return POGSON * np.arcsinh((linear - offset) / (2 * softening))


@pytest.mark.parametrize("compress", [False, True])
def test_asinh_pixels_are_made_linear(tmp_path, compress):
    """As Pan-STARRS packs stacks: 16 bits of asinh, BSCALE and BZERO on top, image and variance."""
    image, variance = scene(), np.full((SIDE, SIDE), SIGMA**2)
    stored = asinh(np.stack([image, variance]))
    step = np.ptp(stored) / 60000
    middle = (stored.min() + stored.max()) / 2
    hdus = [fits.PrimaryHDU()]
    for name, plane in zip(("SCI", "VAR"), stored, strict=True):
        if compress:
            hdu = fits.CompImageHDU(plane, name=name, quantize_level=-step)
        else:
            hdu = fits.ImageHDU(plane, name=name)
            hdu.scale("int16", bscale=step, bzero=middle)
        hdu.header.update(CARDS)
        hdus.append(hdu)
    fits.HDUList(hdus).writeto(tmp_path / "a.fits")
    found = read_image(tmp_path / "a.fits")
    tolerance = step * np.hypot(image.max(), 2 * CARDS["BSOFTEN"]) / POGSON
    np.testing.assert_allclose(found.data, image, atol=tolerance)
    np.testing.assert_allclose(found.uncertainty.array, variance, atol=tolerance)


def test_asinh_pixels_that_cannot_be_undone(tmp_path):
    wrong = ({"BSOFTEN": 1.0}, {"BOFFSET": 0.0, "BSOFTEN": 0.0}, {"BOFFSET": "x", "BSOFTEN": 1.0})
    for number, cards in enumerate(wrong):
        with pytest.raises(FileError, match="asinh pixels, BOFFSET = .*BSOFTEN = .*above 0"):
            read_image(multi_extension(tmp_path / f"{number}.fits", extension=cards))


def test_large_asinh_images_stay_in_their_file(tmp_path, monkeypatch):
    monkeypatch.setattr(hdu_pixels, "LARGE", 1000)
    fits.PrimaryHDU(asinh(scene()), fits.Header(CARDS)).writeto(tmp_path / "a.fits")
    data = read_image(tmp_path / "a.fits").data
    assert isinstance(data, AsinhPixels)
    np.testing.assert_allclose(data[40:60, 3:9], scene()[40:60, 3:9], atol=1e-9)
    stamps, expected = (
        prepare(one, positions=positions(), psf=pixel_psf(), error=SIGMA).groups[0][1]
        for one in (read_image(tmp_path / "a.fits"), scene())
    )
    np.testing.assert_allclose(stamps.data, expected.data, atol=1e-4)


@pytest.mark.parametrize("unit", ["mag", "mag/arcsec2", "mag(AB)", "dex(Jy)", "dB"])
def test_logarithms_are_refused(tmp_path, unit):
    path = multi_extension(tmp_path / "a.fits", extension={"BUNIT": unit})
    with pytest.raises(FileError, match="which are logarithms; linear fluxes are needed"):
        read_image(path)
    with pytest.raises(InputError, match="data has unit .*logarithm"):
        prepare(NDData(IMAGE, unit=u.Unit(unit)), psf=pixel_psf(), error=1.0)
