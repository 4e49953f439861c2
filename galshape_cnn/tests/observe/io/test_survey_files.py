# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""Files that surveys and tools hand out, read as they come: one scene in each, the same stamps out of it."""

import astropy.units as u
import numpy as np
import pytest
from astropy.io import fits
from astropy.nddata import CCDData, InverseVariance, NDData, VarianceUncertainty
from astropy.table import QTable, Table
from astropy.wcs import WCS

from galshape_cnn.cli import main, measure
from galshape_cnn.errors import FileError, GalshapeWarning
from galshape_cnn.observe.io.fits import read_image
from galshape_cnn.observe.io.photometry import header_zeropoint
from galshape_cnn.observe.observation import prepare
from galshape_cnn.tests.standin import StandInEstimator
from galshape_cnn.tests.survey_scene import SIDE, SIGMA, WCS_CARDS, pixel_psf, positions, scene

IMAGE, PSF = scene().astype("f4"), pixel_psf()
VARIANCE = np.full((SIDE, SIDE), SIGMA**2, "f4")
#: A saturated pixel, a cosmic ray, and pixels on which something was merely detected.
PLANES = {"BAD": 0, "SAT": 1, "INTRP": 2, "CR": 3, "EDGE": 4, "DETECTED": 5, "NO_DATA": 8}
BITS = np.zeros((SIDE, SIDE), "i4")
BITS[30:60, 30:60] = 1 << 5
BITS[45, 40] |= 1 << 1
BITS[61, 112] = 1 << 3
BAD = np.isin(BITS, (1 << 3, (1 << 5) | (1 << 1)))


def stamps_of(image, **keywords):
    keywords = {"psf": PSF} | keywords if image.psf is None else keywords
    return prepare(image, positions=positions(), recenter=False, **keywords).groups[0][1]


def assert_scene(stamps, bad=BAD):
    """Pixels, noise and mask are those of the scene."""
    whole = prepare(IMAGE, positions=positions(), psf=PSF, error=SIGMA, mask=bad, recenter=False)
    expected = whole.groups[0][1]
    np.testing.assert_allclose(stamps.data, expected.data, atol=1e-3)
    np.testing.assert_allclose(stamps.ivar, expected.ivar, rtol=1e-3)
    np.testing.assert_allclose(stamps.psf, expected.psf, atol=1e-6)


def celestial(cards=None):
    return fits.Header(WCS_CARDS | (cards or {}))


def calexp(path, *, compress=False, naming="EXTTYPE", primary=None):
    """Image, mask planes and variance, as the pipelines of Rubin and HSC write them."""
    primary = {"FILTER": "r", "FLUXMAG0": 63095734448.0194, "EXPTIME": 30.0} | (primary or {})
    hdus = [fits.PrimaryHDU(header=fits.Header(primary))]
    kind = fits.CompImageHDU if compress else fits.ImageHDU
    for name, array in (("IMAGE", IMAGE), ("MASK", BITS), ("VARIANCE", VARIANCE)):
        header = celestial({"INHERIT": True})
        if name == "MASK":
            for plane, bit in PLANES.items():
                header[f"HIERARCH MP_{plane}"] = bit
        if naming != "nothing":
            header[naming] = name
        quantized = {"quantize_level": -1e-4} if compress and array.dtype.kind == "f" else {}
        hdus.append(kind(array, header, **quantized))
    archive = fits.BinTableHDU(Table({"id": [1], "cat.archive": [2]}), name="ARCHIVE_INDEX")
    fits.HDUList([*hdus, archive]).writeto(path)
    return path


@pytest.mark.parametrize("compress", [False, True])
@pytest.mark.parametrize("naming", ["EXTNAME", "EXTTYPE"])
def test_calexp(tmp_path, naming, compress):
    image = read_image(calexp(tmp_path / "calexp.fits", naming=naming, compress=compress))
    assert_scene(stamps_of(image))
    found = header_zeropoint(image.meta, image.unit)
    assert (found.magnitude, found.source) == (pytest.approx(27.0), "FLUXMAG0")
    assert read_image(tmp_path / "calexp.fits", band="r").meta["EXPTIME"] == 30


def test_image_mask_and_variance_without_any_name(tmp_path):
    path = calexp(tmp_path / "a.fits", naming="nothing")
    with pytest.warns(GalshapeWarning, match="mask planes of one they are taken as sci 1, mask 2, var 3"):
        image = read_image(path)
    assert_scene(stamps_of(image))
    with pytest.warns(GalshapeWarning, match="taken as"):
        image = read_image(path, ivar=3)
    assert stamps_of(image).ivar.max() == pytest.approx(SIGMA**2)
    with fits.open(path, mode="update") as hdus:
        for plane in PLANES:
            del hdus[2].header[f"MP_{plane}"]
    with pytest.raises(FileError, match="has several images; say which HDU is meant with sci="):
        read_image(path)


def drizzled(path, weights=1 / VARIANCE):
    """SCI, WHT and CTX of AstroDrizzle."""
    primary = {"NDRIZIM": 4, "D001VER": "3.7.1", "EXPTIME": 2028.0, "TELESCOP": "HST", "FILTER1": "CLEAR1L"}
    photometry = {"BUNIT": "ELECTRONS/S", "PHOTFLAM": 7.0723e-20, "PHOTPLAM": 8045.0}
    hdus = [fits.PrimaryHDU(header=fits.Header(primary))]
    hdus += [fits.ImageHDU(IMAGE, celestial(photometry), name="SCI")]
    hdus += [fits.ImageHDU(weights, celestial({"BUNIT": "UNITLESS"}), name="WHT")]
    hdus += [fits.ImageHDU(np.full((SIDE, SIDE), 15, "i4"), celestial({"BUNIT": "UNITLESS"}), name="CTX")]
    fits.HDUList(hdus).writeto(path)
    return path


def test_drizzled_image(tmp_path):
    path = drizzled(tmp_path / "drz.fits")
    with pytest.warns(GalshapeWarning, match="WHT of AstroDrizzle holds exposure times"):
        image = read_image(path)
    assert image.uncertainty is None
    assert image.mask is None
    image = read_image(path, ivar="WHT")
    assert_scene(stamps_of(image), np.zeros_like(BAD))
    assert image.unit == u.electron / u.s
    assert header_zeropoint(image.meta, image.unit).magnitude == pytest.approx(25.94, abs=0.01)


def legacy(path):
    """Image and inverse variance of each band, told apart by IMAGETYP and BAND."""
    hdus = [fits.PrimaryHDU(header=fits.Header({"SURVEY": "DECaLS", "IMAGETYP": "image"}))]
    for number, band in enumerate("grz"):
        for kind, array in (("image", IMAGE * (1 + number)), ("invvar", 1 / (VARIANCE * (1 + number) ** 2))):
            cards = {"SURVEY": "DECaLS", "BRICK": "0591m305", "IMAGETYP": kind, "BAND": band}
            hdus.append(fits.ImageHDU(array, celestial(cards)))
    fits.HDUList(hdus).writeto(path)
    return path


def test_legacy_survey_cutout(tmp_path):
    path = legacy(tmp_path / "cutout.fits")
    for number, band in enumerate("grz"):
        image = read_image(path, band=band)
        noise = InverseVariance(image.uncertainty.array * (1 + number) ** 2)
        scaled = NDData(image.data / (1 + number), uncertainty=noise, wcs=image.wcs)
        assert_scene(stamps_of(scaled), np.zeros_like(BAD))
        assert header_zeropoint(image.meta, image.unit).magnitude == 22.5
    with pytest.raises(FileError, match="several images; say which HDU is meant with sci= or band="):
        read_image(path)


def test_fpacked_image_with_fpacked_noise_and_mask(tmp_path):
    """Of the same layout, each in its own file, compressed as fpack does."""
    for name, array in (("image", IMAGE), ("weight", 1 / VARIANCE), ("dq", BAD.astype("i4"))):
        options = {} if array.dtype.kind == "i" else {"quantize_level": -1e-4}
        hdu = fits.CompImageHDU(array, celestial(), name="S21", **options)
        primary = fits.PrimaryHDU(header=fits.Header({"GAIN": 4.0}))
        fits.HDUList([primary, hdu]).writeto(tmp_path / f"{name}.fits.fz")
    files = {key: str(tmp_path / f"{name}.fits.fz") for key, name in (("weight", "weight"), ("mask", "dq"))}
    image = read_image(tmp_path / "image.fits.fz", **files)
    assert_scene(stamps_of(image))
    assert image.meta["GAIN"] == 4.0


def test_ccddata_with_a_variance(tmp_path):
    noise, wcs = VarianceUncertainty(VARIANCE), WCS(celestial())
    data = CCDData(IMAGE, uncertainty=noise, mask=BAD, unit="nJy", wcs=wcs, psf=PSF)
    data.write(tmp_path / "a.fits")
    assert_scene(stamps_of(read_image(tmp_path / "a.fits")))
    assert_scene(stamps_of(CCDData.read(tmp_path / "a.fits")))


def decam(folder):
    """Image, weight and data quality of one CCD among others, in three files; the sky is in the image."""
    cards = {"EXPTIME": 90.0, "FILTER": "g DECam", "TELESCOP": "CTIO 4.0-m telescope", "MAGZERO": 30.1}
    primary, own = fits.Header(cards), celestial({"GAINA": 4.0, "INHERIT": True})
    for kind, array in (("ooi", IMAGE + 150), ("oow", 1 / VARIANCE), ("ood", BAD.astype("i4"))):
        ccds = [fits.ImageHDU(one, own.copy(), name=ccd) for ccd, one in (("N26", 0 * array), ("S21", array))]
        fits.HDUList([fits.PrimaryHDU(header=primary), *ccds]).writeto(folder / f"c4d_{kind}.fits")
    return [str(folder / f"c4d_{kind}.fits") for kind in ("ooi", "oow", "ood")]


def test_decam_exposure(tmp_path):
    image, weight, mask = decam(tmp_path)
    found = read_image(image, sci="S21", weight=weight, mask=mask)
    flat = NDData(found.data - 150, uncertainty=found.uncertainty, mask=found.mask, wcs=found.wcs)
    assert_scene(stamps_of(flat))
    assert [found.meta[key] for key in ("GAINA", "EXPTIME", "MAGZERO")] == [4.0, 90.0, 30.1]
    with pytest.raises(FileError, match="several images; say which HDU is meant with sci="):
        read_image(image, weight=weight)


@pytest.fixture
def command(tmp_path, monkeypatch, capsys):
    """Run ``measure``: (status, table or None, errors and notes printed, options of the estimator)."""
    positions().write(tmp_path / "xy.ecsv")
    fits.PrimaryHDU(PSF).writeto(tmp_path / "psf.fits")

    def run(path, *options):
        standin, out = StandInEstimator(), tmp_path / "out.ecsv"
        monkeypatch.setattr(measure, "load_estimator", lambda bundle: standin)
        args = [str(path), "--positions", str(tmp_path / "xy.ecsv"), "--psf", str(tmp_path / "psf.fits")]
        status = main(["measure", *args, "-o", str(out), "--overwrite", *options])
        table = QTable.read(out) if status == 0 else None
        return status, table, capsys.readouterr().err, standin.calls[-1] if standin.calls else {}

    return run


@pytest.mark.filterwarnings("default::galshape_cnn.errors.GalshapeWarning")
def test_the_command_with_each(tmp_path, command):
    """Works as it is, or says in one line which option is missing."""
    status, table, said, _ = command(calexp(tmp_path / "calexp.fits"))
    assert (status, said) == (0, "galshape: HDUs by their EXTTYPE: sci 1, mask 2, var 3\n")
    np.testing.assert_allclose(table["mag"].value, 27 - 2.5 * np.log10(table["flux"].value))
    status, _, said, _ = command(calexp(tmp_path / "bare.fits", naming="nothing"))
    assert (status, said.count("\n")) == (0, 1)
    assert "bare.fits names none of its HDUs; by the mask planes of one they are taken as sci 1, m" in said

    drz = drizzled(tmp_path / "drz.fits")
    status, _, said, _ = command(drz)
    assert status == 1
    assert "say so with --ivar WHT, otherwise give the noise" in said
    assert "no noise information: give --error SIGMA, or name the HDU or file that holds it with -" in said
    status, table, said, _ = command(drz, "--ivar", "WHT")
    assert (status, said) == (0, "")
    np.testing.assert_allclose(table["mag"].value, 25.94 - 2.5 * np.log10(table["flux"].value), atol=0.01)
    said = command(drz, "--ivar", "WHT", "--gain", "header")[2]
    assert "--gain header: the header has none of GAIN" in said

    cutout = legacy(tmp_path / "cutout.fits")
    status, _, said, _ = command(cutout)
    assert status == 1
    assert "has several images; say which HDU is meant with --sci or --band. It holds" in said
    status, table, said, _ = command(cutout, "--band", "r")
    assert (status, said) == (0, "galshape: HDUs by their IMAGETYP: sci 3, ivar 4\n")
    np.testing.assert_allclose(table["mag"].value, 22.5 - 2.5 * np.log10(table["flux"].value))

    image, weight, mask = decam(tmp_path)
    status, _, said, _ = command(image, "--weight", weight, "--mask", mask)
    assert status == 1
    assert "say which HDU is meant with --sci. It holds" in said
    options = ["--sci", "S21", "--weight", weight, "--mask", mask]
    options += ["--zeropoint", "header", "--gain", "header"]
    status, table, said, how = command(image, *options)
    assert (status, said, how["gain"]) == (0, "", 4.0)
    np.testing.assert_allclose(table["mag"].value, 30.1 - 2.5 * np.log10(table["flux"].value))


@pytest.mark.filterwarnings("default::galshape_cnn.errors.GalshapeWarning")  # of real noise
@pytest.mark.parametrize("band", ["g", "r", "i"])
def test_hsc_cutouts(real_data, command, band):
    """Unnamed HDUs as the cutout service of HSC gives them."""
    folder = real_data / "hsc_gri_300"
    if not folder.is_dir():
        pytest.skip("hsc_gri_300 is not in the folder of real data")
    path = folder / f"hsc_{band}.fits"
    image = read_image(path)
    with fits.open(path) as hdus:
        np.testing.assert_array_equal(image.data, hdus[1].data)
        np.testing.assert_array_equal(image.uncertainty.array, hdus[3].data)
        names = ["BAD", "SAT", "CR", "EDGE", "NO_DATA", "INTRP", "SUSPECT"]
        names += ["CROSSTALK", "REJECTED", "UNMASKEDNAN"]
        bad = sum(1 << hdus[2].header[f"MP_{name}"] for name in names)
        np.testing.assert_array_equal(image.mask, (hdus[2].data & bad) != 0)
    assert type(image.uncertainty) is VarianceUncertainty
    status, table, said, _ = command(path, "--psf", str(folder / f"psf_{band}.fits"), "--band", band)
    hdus_said, noise_said = said.splitlines()
    assert (status, hdus_said) == (0, "galshape: HDUs by their EXTTYPE: sci 1, mask 2, var 3")
    # the scale is one within its error, on the tiles where no wings of the spiral are
    assert noise_said.startswith("galshape: warning: blank pixels of the image are correlated")
    bright = table[table["flux"].value > 0]
    np.testing.assert_allclose(bright["mag"].value, 27 - 2.5 * np.log10(bright["flux"].value), atol=1e-6)
