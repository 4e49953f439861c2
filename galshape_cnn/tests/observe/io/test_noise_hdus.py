# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""Noise of files: its kind (UTYPE) and its unit (BUNIT) are those that the HDU states."""

import astropy.units as u
import numpy as np
import pytest
from astropy.io import fits
from astropy.nddata import CCDData, InverseVariance, StdDevUncertainty, VarianceUncertainty

from galshape_cnn.errors import FileError, GalshapeWarning
from galshape_cnn.observe.detect.sources import find_galaxies, pixels_and_noise
from galshape_cnn.observe.io.fits import read_image
from galshape_cnn.observe.observation import prepare
from galshape_cnn.scale import open_source
from galshape_cnn.tests.survey_scene import SIDE, SIGMA, pixel_psf, positions, scene

PSF = pixel_psf()
IMAGE = scene()
SIGMAS = SIGMA * np.linspace(1, 1.5, SIDE) * np.ones((SIDE, 1))
KINDS = {"err": StdDevUncertainty, "var": VarianceUncertainty, "ivar": InverseVariance}
POWERS = {"err": 1, "var": 2, "ivar": -2}


def snr(image, **keywords):
    """S/N of the first galaxy, summed over pixels of its stamp with the noise that the image has."""
    observation = prepare(image, positions=positions(), psf=PSF, recenter=False, stamp_size=32, **keywords)
    stamps = observation.groups[0][1]
    return np.sqrt((stamps.data[0] ** 2 * stamps.ivar[0]).sum())


EXPECTED = snr(IMAGE, error=SIGMAS)


def ccd_file(path, kind):
    data = CCDData(IMAGE, uncertainty=KINDS[kind](SIGMAS ** POWERS[kind]), unit="adu", psf=PSF)
    data.mask = np.zeros(IMAGE.shape, bool)
    data.mask[45, 40] = True
    data.write(path)
    return path


@pytest.mark.parametrize("kind", KINDS)
def test_ccddata_files(tmp_path, kind):
    path = ccd_file(tmp_path / "a.fits", kind)
    image, by_astropy = read_image(path), CCDData.read(path)
    assert type(image.uncertainty) is KINDS[kind]
    np.testing.assert_array_equal(image.uncertainty.array, by_astropy.uncertainty.array)
    np.testing.assert_array_equal(image.psf, PSF)
    assert image.unit == u.adu
    image.psf = None
    assert snr(image) == pytest.approx(snr(IMAGE, error=SIGMAS, mask=by_astropy.mask), rel=1e-6)


@pytest.mark.parametrize("form", ["{}", "{}[UNCERT]", "{}[2]"])
@pytest.mark.parametrize("kind", KINDS)
def test_ccddata_file_as_the_noise_of_another(tmp_path, kind, form):
    fits.PrimaryHDU(IMAGE, fits.Header({"BUNIT": "adu"})).writeto(tmp_path / "image.fits")
    noise = form.format(ccd_file(tmp_path / "noise.fits", kind))
    if kind != "err":  # what the file says is not what the user says
        what = f"UTYPE is {KINDS[kind].__name__}" if "[" in form else f"has no err but {kind} in HDU 2"
        with pytest.raises(FileError, match=rf"{what}; name it with {kind} \(--{kind}\)"):
            read_image(tmp_path / "image.fits", err=noise)
    assert snr(read_image(tmp_path / "image.fits", **{kind: noise})) == pytest.approx(EXPECTED, rel=1e-6)


@pytest.mark.parametrize(
    ("utype", "match"),
    [("UnknownUncertainty", "its UTYPE is UnknownUncertainty; StdDev"), ("PoissonVariance", "its UTYPE")],
)
def test_types_that_are_not_understood(tmp_path, utype, match):
    path = ccd_file(tmp_path / "a.fits", "var")
    with fits.open(path, mode="update") as hdus:
        hdus["UNCERT"].header["UTYPE"] = utype
    with pytest.raises(FileError, match=match):
        read_image(path)


def test_utype_of_another_standard_says_nothing(tmp_path):
    noise = fits.ImageHDU(SIGMAS, fits.Header({"UTYPE": "obs:Image.Error"}), name="ERR")
    fits.HDUList([fits.PrimaryHDU(IMAGE), noise]).writeto(tmp_path / "a.fits")
    assert snr(read_image(tmp_path / "a.fits")) == pytest.approx(EXPECTED, rel=1e-6)


def with_noise(path, unit, noise_unit, kind, factor, *, separate=False, **keywords):
    """Image and noise with BUNIT, the noise in numbers ``factor`` as large."""
    name = {"err": "ERR", "var": "VAR", "ivar": "IVAR"}[kind]
    noise = fits.ImageHDU((SIGMAS * factor) ** POWERS[kind], name=name)
    noise.header["BUNIT"] = noise_unit
    image = [fits.PrimaryHDU(), fits.ImageHDU(IMAGE, fits.Header({"BUNIT": unit}), name="SCI")]
    if separate:
        fits.HDUList(image).writeto(path)
        fits.HDUList([fits.PrimaryHDU(), noise]).writeto(path.with_name("noise.fits"))
        return read_image(path, **{kind: str(path.with_name("noise.fits"))}, **keywords)
    fits.HDUList([*image, noise]).writeto(path)
    return read_image(path, **keywords)


UNITS = [
    ("uJy", "nJy", "err", 1e3), ("uJy", "nJy2", "var", 1e3), ("uJy", "1/nJy2", "ivar", 1e3),
    ("uJy", "nJy**-2", "ivar", 1e3), ("nJy", "uJy**2", "var", 1e-3),
    ("uJy/arcsec2", "MJy/sr", "err", 1 / (u.MJy / u.sr).to(u.uJy / u.arcsec**2)),
    ("MJy/sr", "(MJy/sr)2", "var", 1.0), ("electrons/s", "ELECTRONS/S", "err", 1.0), ("adu", "", "err", 1.0),
]  # fmt: skip


@pytest.mark.parametrize("separate", [False, True])
@pytest.mark.parametrize(("unit", "noise_unit", "kind", "factor"), UNITS)
def test_units_of_noise(tmp_path, unit, noise_unit, kind, factor, separate):
    image = with_noise(tmp_path / "a.fits", unit, noise_unit, kind, factor, separate=separate)
    assert snr(image) == pytest.approx(EXPECTED, rel=1e-6)
    np.testing.assert_allclose(pixels_and_noise(image, None)[1], SIGMAS, rtol=1e-6)
    assert len(find_galaxies(image)) >= 3


@pytest.mark.parametrize(
    ("unit", "noise_unit", "kind"),
    [("uJy", "s", "err"), ("uJy", "nJy", "var"), ("uJy", "nJy", "ivar"), ("adu", "electron", "err"),
     ("nJy", "nJy2", "err"), ("nJy", "nJy2", "ivar"), ("MJy/sr", "MJy", "err"), ("nJy", "nJy", "var")],
)  # fmt: skip
def test_units_that_do_not_fit(tmp_path, unit, noise_unit, kind):
    with pytest.raises(FileError, match=r"which does not fit an image in .*; .* is needed"):
        with_noise(tmp_path / "a.fits", unit, noise_unit, kind, 1.0)


def test_a_header_that_was_copied_from_the_image(tmp_path):
    """What is found by name is refused; what the user names is taken, and said."""
    with pytest.raises(FileError, match=r"copy of the image's, name the HDU with var \(--var\)"):
        with_noise(tmp_path / "a.fits", "nJy", "nJy", "var", 1.0)
    with pytest.warns(GalshapeWarning, match="is said to hold variances.*nJy2 is meant"):
        image = read_image(tmp_path / "a.fits", var="VAR")
    assert snr(image) == pytest.approx(EXPECTED, rel=1e-6)


def test_cube_of_cutouts_keeps_the_unit_of_its_noise(tmp_path):
    cube, noise = np.stack([IMAGE[:64, :64]] * 3), np.stack([SIGMAS[:64, :64] * 1e3] * 3)
    hdus = [fits.PrimaryHDU(), fits.ImageHDU(cube, fits.Header({"BUNIT": "uJy"}), name="SCI")]
    hdus += [fits.ImageHDU(noise**2, fits.Header({"BUNIT": "nJy2"}), name="VAR")]
    fits.HDUList(hdus).writeto(tmp_path / "a.fits")
    for data, keywords in (
        (read_image(tmp_path / "a.fits"), {}),
        open_source(str(tmp_path / "a.fits"), psf=PSF).read(1, 3),
    ):
        stamps = prepare(data, **{"psf": PSF, **keywords}, recenter=False).groups[0][1]
        np.testing.assert_allclose(stamps.ivar[0], SIGMAS[:64, :64] ** -2.0, rtol=1e-6)
