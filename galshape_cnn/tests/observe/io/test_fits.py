# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""FITS in: what is found by itself, what can be named, and what is refused."""

import pickle

import astropy.units as u
import numpy as np
import pytest
from astropy.coordinates import SkyCoord
from astropy.io import fits
from astropy.nddata import InverseVariance, StdDevUncertainty, VarianceUncertainty
from astropy.table import Table
from astropy.wcs import WCS

from galshape_cnn.errors import FileError, PSFError
from galshape_cnn.observe.io.fits import read_image
from galshape_cnn.observe.io.psf.files import read_psf
from galshape_cnn.observe.io.psf.psfex import PsfExModel
from galshape_cnn.observe.io.tables.position_files import read_positions
from galshape_cnn.observe.observation import prepare

SHAPE = (70, 80)
RNG = np.random.default_rng(0)
DATA = RNG.normal(size=SHAPE).astype(np.float32)
PSF = np.exp(-np.sum(np.mgrid[-5:6, -5:6] ** 2, axis=0) / 5)


def header():
    wcs = WCS(naxis=2)
    wcs.wcs.ctype, wcs.wcs.crval = ["RA---TAN", "DEC--TAN"], [150.0, 2.0]
    wcs.wcs.crpix, wcs.wcs.cdelt = [40, 35], [-5e-5, 5e-5]
    return wcs.to_header()


def write(path, *hdus):
    """Write images as extensions: (name, array) or (name, array, header)."""
    made = [fits.PrimaryHDU()]
    for name, array, *rest in hdus:
        made.append(fits.ImageHDU(array, rest[0] if rest else None, name=name))
    fits.HDUList(made).writeto(path)
    return path


def test_everything_by_name(tmp_path):
    mask = np.zeros(SHAPE, np.int16)
    mask[33, 44] = 8
    sci = header()
    sci["BUNIT"] = "nJy"
    path = write(
        tmp_path / "a.fits", ("SCI", DATA, sci), ("ERR", np.full(SHAPE, 2.0)), ("DQ", mask), ("PSF", PSF)
    )
    image = read_image(path)
    np.testing.assert_array_equal(image.data, DATA)
    assert isinstance(image.uncertainty, StdDevUncertainty)
    assert image.unit == u.nJy
    assert image.wcs.has_celestial
    assert image.meta["EXTNAME"] == "SCI"
    np.testing.assert_array_equal(image.psf, PSF)
    stamps = prepare(image, positions=[[40, 35]], recenter=False).groups[0][1]
    assert (stamps.ivar == 0).sum() == 1
    assert stamps.ivar.max() == 0.25


@pytest.mark.parametrize(
    ("name", "kind"),
    [("ERROR", StdDevUncertainty), ("SIGMA", StdDevUncertainty), ("VARIANCE", VarianceUncertainty),
     ("VAR", VarianceUncertainty), ("IVAR", InverseVariance), ("INVVAR", InverseVariance),
     ("WEIGHT", InverseVariance), ("WHT", InverseVariance)],
)  # fmt: skip
def test_names_of_noise(tmp_path, name, kind):
    image = read_image(write(tmp_path / "a.fits", ("IMAGE", DATA), (name, np.ones(SHAPE))))
    assert type(image.uncertainty) is kind
    assert image.mask is None
    assert image.wcs is None
    assert image.psf is None


def test_image_in_the_primary_hdu(tmp_path):
    fits.HDUList([fits.PrimaryHDU(DATA), fits.ImageHDU(np.ones(SHAPE), name="VAR")]).writeto(
        tmp_path / "a.fits"
    )
    image = read_image(tmp_path / "a.fits")
    np.testing.assert_array_equal(image.data, DATA)
    assert isinstance(image.uncertainty, VarianceUncertainty)


@pytest.mark.parametrize(("sci", "err"), [(2, 4), ("2", "4"), ("B", "NOISE_B"), ("b", "noise_b")])
def test_named_hdus(tmp_path, sci, err):
    ones = np.ones(SHAPE)
    path = write(tmp_path / "a.fits", ("A", DATA), ("B", DATA + 1), ("NOISE_A", ones), ("NOISE_B", 2 * ones))
    image = read_image(path, sci=sci, err=err)
    np.testing.assert_array_equal(image.data, DATA + 1)
    assert image.uncertainty.array.max() == 2


def test_versions(tmp_path):
    hdus = [fits.PrimaryHDU()]
    for version in (1, 2):
        for name in ("SCI", "ERR"):
            hdus.append(fits.ImageHDU(np.full(SHAPE, float(version)), name=name, ver=version))
    fits.HDUList(hdus).writeto(tmp_path / "a.fits")
    image = read_image(tmp_path / "a.fits", sci="SCI,2")
    assert image.data.max() == image.uncertainty.array.max() == 2
    with pytest.raises(FileError, match="several images; say which HDU is meant with sci="):
        read_image(tmp_path / "a.fits")


@pytest.mark.parametrize("form", ["{}", "{}[1]", "{}[CCD3]"])
def test_separate_files(tmp_path, form):
    image = write(tmp_path / "image.fits", ("CCD3", DATA))
    weight = write(tmp_path / "weight.fits", ("CCD3", np.full(SHAPE, 0.5)), ("CCD4", np.full(SHAPE, 0.1)))
    mask = write(tmp_path / "dq.fits", ("CCD3", np.eye(*SHAPE).astype(np.uint8)))
    psf = write(tmp_path / "psf.fits", ("ANY", PSF))
    found = read_image(image, weight=form.format(weight), mask=form.format(mask), psf=str(psf))
    assert isinstance(found.uncertainty, InverseVariance)
    assert found.uncertainty.array.max() == 0.5
    assert np.count_nonzero(found.mask) == 70
    np.testing.assert_array_equal(found.psf, PSF)


def test_mask_planes_that_mean_detected_are_no_mask(tmp_path):
    planes = fits.Header({"MP_BAD": 0, "MP_SAT": 1, "HIERARCH MP_DETECTED": 5})
    mask = np.zeros(SHAPE, np.int32)
    mask[0, 0], mask[0, 1], mask[0, 2], mask[0, 3] = 1, 2, 32, 33
    image = read_image(write(tmp_path / "a.fits", ("IMAGE", DATA), ("MASK", mask, planes)))
    np.testing.assert_array_equal(image.mask[0, :5], [True, True, False, True, False])


def test_cube_and_one_galaxy_files(tmp_path):
    cube = RNG.normal(size=(3, 40, 40))
    path = write(tmp_path / "cube.fits", ("SCI", cube, header()), ("ERR", np.ones((3, 40, 40))), ("PSF", PSF))
    assert prepare(read_image(path)).n == 3
    for i, side in enumerate((40, 70)):
        ones = np.ones((side, side))
        write(tmp_path / f"one{i}.fits", ("SCI", RNG.normal(size=(side, side))), ("VAR", ones), ("PSF", PSF))
    cutouts = [read_image(tmp_path / f"one{i}.fits") for i in range(2)]
    assert [one.data.shape for one in cutouts] == [(40, 40), (70, 70)]
    assert prepare(cutouts).n == 2


@pytest.mark.parametrize(
    ("text", "unit"),
    [("nanomaggy", u.nmgy), ("ADU", u.adu), ("ELECTRONS/S", u.electron / u.s), ("MJy/sr", u.MJy / u.sr),
     ("nanomaggies", u.nmgy), ("", None), ("who knows", None), ("erg/s/cm2", u.erg / u.s / u.cm**2)],
)  # fmt: skip
def test_units(tmp_path, text, unit):
    found = read_image(write(tmp_path / "a.fits", ("SCI", DATA, fits.Header({"BUNIT": text})))).unit
    assert found == unit if unit is not None else found is None


def test_pixels_stay_on_disk(tmp_path):
    image = read_image(write(tmp_path / "a.fits", ("SCI", DATA), ("IVAR", np.ones(SHAPE))))
    for array in (image.data, image.uncertainty.array):
        base = array
        while getattr(base, "base", None) is not None and not isinstance(base, np.memmap):
            base = base.base
        assert isinstance(base, np.memmap) or type(base).__name__ == "mmap"


def test_compressed(tmp_path):
    path = write(tmp_path / "a.fits.gz", ("SCI", DATA))
    np.testing.assert_array_equal(read_image(path).data, DATA)
    counts = np.round(100 * DATA).astype(np.int32)
    fits.HDUList([fits.PrimaryHDU(), fits.CompImageHDU(counts, name="SCI")]).writeto(tmp_path / "b.fits.fz")
    np.testing.assert_array_equal(read_image(tmp_path / "b.fits.fz").data, counts)


def test_missing_padding_is_no_truncation(tmp_path):
    path = write(tmp_path / "a.fits", ("SCI", DATA))
    end = 2880 * 2 + DATA.nbytes
    path.write_bytes(path.read_bytes()[: end + (end - 5760) % 4])
    np.testing.assert_array_equal(read_image(path).data, DATA)


def broken_files(folder):
    """Path and what is wrong with it."""
    good = write(folder / "good.fits", ("SCI", DATA), ("ERR", np.ones(SHAPE)))
    content = good.read_bytes()
    cases = {
        "truncated.fits": content[:15000],
        "header.fits": content[:1000],
        "empty.fits": b"",
        "text.fits": b"these are no pixels\n" * 500,
    }
    for name, part in cases.items():
        (folder / name).write_bytes(part)
    import gzip

    (folder / "cut.fits.gz").write_bytes(gzip.compress(content)[:2000])
    Table({"x": [1]}).write(folder / "table.fits")


@pytest.mark.parametrize(
    ("name", "options", "match"),
    [
        ("missing.fits", {}, "missing.fits does not exist"),
        ("", {}, "is a folder"),
        ("truncated.fits", {}, "truncated.fits is truncated: HDU 1 ends at byte 28160, the file at 15000"),
        ("header.fits", {}, "header.fits (cannot be read as FITS|has no image)"),
        ("empty.fits", {}, r"empty.fits is empty \(0 bytes\)"),
        ("text.fits", {}, "text.fits cannot be read as FITS"),
        ("cut.fits.gz", {}, "cut.fits.gz (is truncated|cannot be read as FITS)"),
        ("table.fits", {}, "has no image; say which HDU.*1 .*table"),
        ("table.fits", {"sci": 1}, "HDU 1 holds no image"),
        (
            "good.fits",
            {"sci": "SCIENCE"},
            "has no HDU 'SCIENCE' for sci; it holds 0 PRIMARY .*; 1 SCI .*; 2 ERR",
        ),
        ("good.fits", {"sci": 7}, "has no HDU 7 for sci"),
        ("good.fits", {"err": "NOISE"}, "has no HDU 'NOISE' for err"),
        ("good.fits", {"err": "other.fits"}, "other.fits does not exist"),
        ("good.fits", {"psf": "psf.fits[2]"}, "psf.fits does not exist"),
        ("good.fits", {"err": 2, "ivar": 2}, "err and ivar are given; name one"),
    ],
)
def test_broken_files(tmp_path, name, options, match):
    broken_files(tmp_path)
    with pytest.raises(FileError, match=match):
        read_image(tmp_path / name, **options)


def test_sizes_must_agree(tmp_path):
    path = write(tmp_path / "a.fits", ("SCI", DATA), ("ERR", np.ones((5, 5))))
    with pytest.raises(FileError, match=r"noise has shape \(5, 5\), the image \(70, 80\)"):
        read_image(path)


def test_psf_files(tmp_path):
    path = write(tmp_path / "a.fits", ("A", PSF), ("B", PSF * 2))
    np.testing.assert_array_equal(read_psf(path, "B"), PSF * 2)
    np.testing.assert_array_equal(read_psf(path, "1"), PSF)
    with pytest.raises(FileError, match="has 2 HDUs that may be the PSF; name one of"):
        read_psf(path)
    with pytest.raises(FileError, match="has no HDU 'C' for psf"):
        read_psf(path, "C")


def psfex_file(path, sampling=0.6, **changes):
    """A file as PsfEx writes it, of a PSF that widens with x and shears with y."""
    y, x = np.mgrid[-15:16, -15:16] * sampling
    core = np.exp(-(x**2 + y**2) / 4)
    basis = np.array(
        [core, core * (x**2 + y**2 - 4) / 40, core * 0, core * (x**2 - y**2) / 40, core * 0, core * 0]
    )
    table = fits.BinTableHDU.from_columns(
        [fits.Column("PSF_MASK", f"{basis.size}E", dim="(31,31,6)", array=basis[None])], name="PSF_DATA"
    )
    cards = {
        "POLNAXIS": 2, "POLGRP1": 1, "POLNAME1": "X_IMAGE", "POLZERO1": 1000.0, "POLSCAL1": 1500.0,
        "POLGRP2": 1, "POLNAME2": "Y_IMAGE", "POLZERO2": 900.0, "POLSCAL2": 1400.0,
        "POLNGRP": 1, "POLDEG1": 2, "PSF_SAMP": sampling,
        "PSFNAXIS": 3, "PSFAXIS1": 31, "PSFAXIS2": 31, "PSFAXIS3": 6,
    }  # fmt: skip
    table.header.update({**cards, **changes})
    fits.HDUList([fits.PrimaryHDU(), table]).writeto(path)
    return path


@pytest.mark.parametrize("sampling", [0.6, 1.0])
def test_psfex_against_galsim(tmp_path, sampling):
    import galsim.des

    path = psfex_file(tmp_path / "psfex.fits", sampling)
    model, reference = read_psf(path), galsim.des.DES_PSFEx(str(path))
    for x, y in ((10.0, 20.0), (999.0, 899.0), (2040.3, 150.8)):
        place = galsim.PositionD(x + 1, y + 1)  # GalSim follows PsfEx and counts pixels from one
        samples = reference.getPSFArray(place)
        np.testing.assert_allclose(model.samples(x, y), samples / samples.sum(), atol=1e-7)
        array = model(x, y)
        side = len(array)
        assert side % 2 == 1
        profile = reference.getPSF(place)
        expected = profile.drawImage(nx=side, ny=side, scale=1, method="no_pixel", dtype=float).array
        np.testing.assert_allclose(array, expected, atol=2e-3 * expected.max())
        assert array.sum() == pytest.approx(1, abs=3e-3)
    assert "basis" not in repr(model)
    np.testing.assert_array_equal(pickle.loads(pickle.dumps(model))(3, 4), model(3, 4))


def test_psfex_of_a_constant_psf(tmp_path):
    model = read_psf(psfex_file(tmp_path / "psfex.fits", POLNAXIS=0))
    np.testing.assert_array_equal(model(1, 2), model(500, 600))


@pytest.mark.parametrize(
    ("changes", "match"),
    [
        ({"POLNAME2": "MAG_AUTO"}, "PSF depends on X_IMAGE, MAG_AUTO"),
        ({"POLDEG1": 3}, "degree 3 needs 10 terms"),
    ],
)
def test_psfex_that_is_not_understood(tmp_path, changes, match):
    with pytest.raises(FileError, match=match):
        read_psf(psfex_file(tmp_path / "psfex.fits", **changes))


@pytest.mark.parametrize("name", ["p.ecsv", "p.csv", "p.fits", "p.txt", "p.vot"])
def test_positions(tmp_path, name):
    table = Table({"id": [1, 2], "x": [3.5, 4.5], "y": [5.0, 6.0]})
    formats = {"p.txt": "ascii.commented_header", "p.vot": "votable"}
    table.write(tmp_path / name, format=formats.get(name))
    found = read_positions(tmp_path / name)
    assert found.colnames == ["id", "x", "y"]
    np.testing.assert_array_equal(found["x"], [3.5, 4.5])


def test_bad_positions(tmp_path):
    (tmp_path / "empty.csv").write_bytes(b"")
    (tmp_path / "noise.fits").write_bytes(b"\x00\x01" * 4000)
    for name, match in (
        ("none.csv", "does not exist"),
        ("empty.csv", "is empty"),
        ("noise.fits", "cannot be read"),
    ):
        with pytest.raises(FileError, match=match):
            read_positions(tmp_path / name)


def folder(real_data, name):
    path = real_data / name
    if not path.is_dir():
        pytest.skip(f"{name} is not in the folder of real data")
    return path


@pytest.mark.parametrize(("band", "sci", "ivar"), [("g", 1, 2), ("r", 3, 4), ("z", 5, 6)])
def test_decals_cutout(real_data, band, sci, ivar):
    path = folder(real_data, "legacysurvey_dr9_cutout")
    cutout, psf = path / "cutout_59.1067_-30.4848.fits", path / "copsf_59.1067_-30.4848.fits"
    image = read_image(cutout, sci=sci, ivar=ivar, psf=psf)
    assert image.meta["BAND"] == band
    by_itself = read_image(cutout, sci=sci, psf=f"{psf}[{(sci - 1) // 2}]")
    np.testing.assert_array_equal(by_itself.uncertainty.array, image.uncertainty.array)
    np.testing.assert_array_equal(by_itself.psf, image.psf)
    stamps = prepare(image, positions=[[127.5, 127.5]]).groups[0][1]
    assert np.hypot(*(stamps.origin[0] + stamps.center[0] - [126.4, 130.4])) < 0.5
    scale = np.sqrt(np.abs(np.linalg.det(stamps.jacobian[0])))
    assert scale == pytest.approx(0.262, abs=1e-4)
    assert stamps.jacobian[0, 0, 0] > 0
    assert stamps.jacobian[0, 1, 1] > 0
    with pytest.raises(FileError, match="several images.*5 .256x256, image z"):
        read_image(cutout)


@pytest.mark.parametrize(
    "stem", ["141029_043225_{}_g_ls9", "141029_043420_{}_r_ls9", "131122_030338_{}_z_ls9"]
)
def test_decam_exposure(real_data, stem):
    import galsim

    path = folder(real_data, "decam_legacypipe_tc9")
    ccd = "S21" if "z_ls9" in stem else "N26"
    image, weight, mask = (path / f"c4d_{stem.format(kind)}.{ccd}.fits" for kind in ("ooi", "oow", "ood"))
    psf = path / f"c4d_{stem.format('ooi')}-{ccd}-psfex.fits"
    data = read_image(image, weight=str(weight), mask=str(mask), psf=str(psf))
    assert isinstance(data.psf, PsfExModel)
    center = SkyCoord(9.1228, 3.3975, unit="deg")
    stamps = prepare(data, positions=center, recenter=False).groups[0][1]
    x, y = stamps.origin[0] + stamps.center[0]
    here = SkyCoord(*stamps.skycoord[0], unit="deg")
    assert here.separation(center).arcsec < 1e-3
    local = galsim.FitsWCS(str(image), hdu=1).jacobian(galsim.PositionD(x + 1, y + 1))
    np.testing.assert_allclose(stamps.jacobian[0], local.getMatrix(), atol=1e-7)
    assert stamps.psf.shape == (1, 63, 63)
    bad = np.asarray(data.mask)[stamps.origin[0, 1] :, stamps.origin[0, 0] :][:64, :64] != 0
    assert (stamps.ivar[0][: bad.shape[0], : bad.shape[1]][bad] == 0).all()


@pytest.mark.filterwarnings("default::galshape_cnn.errors.GalshapeWarning")  # of real noise
def test_hsc_cube_and_even_psf(real_data):
    path = folder(real_data, "hsc_hst_cosmos_scarlet")
    image = read_image(path / "Cut_HSC.fits", psf=path / "PSF_HSC.fits")
    assert image.data.shape == (5, 50, 50)
    observation = prepare(image, error=0.1)
    assert observation.n == 5
    assert observation.has_sky
    models = folder(real_data, "galfit_models_petrofit")
    galfit = read_image(models / "galfit_n4_psf1.fits.gz")
    assert galfit.wcs is None
    with pytest.raises(PSFError, match=r"even-sized \(50x50\)"):
        prepare(galfit, psf=read_psf(models / "f105w_psf.fits.gz"), error=1.0)
