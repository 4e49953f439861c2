# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""PSFs as surveys and tools write them, and what follows ``--psf``."""

import pickle
import sys
from types import SimpleNamespace

import galsim
import numpy as np
import pytest
from astropy.io import fits
from astropy.nddata import NDData
from astropy.table import QTable, Table
from photutils.psf import GriddedPSFModel, ImagePSF

from galshape_cnn.cli import main, measure
from galshape_cnn.cli.options.psf import parse_psf
from galshape_cnn.errors import FileError, GalshapeWarning, InputError, PSFError
from galshape_cnn.flags import Flag
from galshape_cnn.forward.psf.arrays import trim_even
from galshape_cnn.forward.psf.convert import PSFArrays, psf_arrays
from galshape_cnn.observe.io.psf.files import read_psf, read_psfs
from galshape_cnn.observe.observation import prepare
from galshape_cnn.tests.standin import StandInEstimator


def gaussian(side, sigma, dx=0.0, dy=0.0):
    y, x = np.mgrid[:side, :side] - (side - 1) / 2
    return np.exp(-((x - dx) ** 2 + (y - dy) ** 2) / (2 * sigma**2))


def image(path, array, name="", **cards):
    hdu = fits.PrimaryHDU(array) if not name else fits.ImageHDU(array, name=name)
    hdu.header.update(cards)
    hdu.writeto(path)
    return path


def test_oversampling_of_the_header_is_used(tmp_path):
    path = image(tmp_path / "a.fits", 7 * gaussian(41, 6), OVERSAMP=4)
    found = read_psf(path)
    assert isinstance(found, PSFArrays)
    assert found.oversampling == 4
    assert found.array.sum() == pytest.approx(1)
    stamps = prepare(np.zeros((64, 64)), psf=found, error=1.0).groups[0][1]
    assert stamps.psf_oversampling == 4
    with pytest.raises(PSFError, match="psf_oversampling=3, but psf says 4 itself"):
        prepare(np.zeros((64, 64)), psf=found, error=1.0, psf_oversampling=3)
    without = prepare(np.zeros((64, 64)), psf=found, error=1.0, psf_includes_pixel=False).groups[0][1]
    assert without.psf.max() < stamps.psf.max()
    with pytest.raises(FileError, match=r"b.fits: OVERSAMP=2.5; a whole number >= 1"):
        read_psf(image(tmp_path / "b.fits", gaussian(41, 6), OVERSAMP=2.5))


def test_table_that_is_no_psfex_model(tmp_path):
    table = Table({"PSF_MASK": np.ones((1, 1, 5, 5))})
    table.write(tmp_path / "b.fits")
    with pytest.raises(FileError, match="b.fits has no POLNAXIS: it is no PsfEx model"):
        read_psf(tmp_path / "b.fits")


def test_stpsf_file_gives_the_array_that_includes_the_pixel(tmp_path):
    names = ("OVERSAMP", "DET_SAMP", "OVERDIST", "DET_DIST")
    hdus = [fits.ImageHDU(gaussian(21, 1 + i), name=name) for i, name in enumerate(names)]
    fits.HDUList([fits.PrimaryHDU(), *hdus]).writeto(tmp_path / "stpsf.fits")
    np.testing.assert_array_equal(read_psf(tmp_path / "stpsf.fits"), gaussian(21, 4))


def grid_file(path):
    """A library of PSFs that widen with x, as STScI publishes them."""
    sigmas = [4, 5, 6, 4, 5, 6]
    hdu = fits.PrimaryHDU(np.array([gaussian(61, one) / (2 * np.pi * one**2) * 16 for one in sigmas]))
    places = {f"IPSFX{i + 1:02d}": x for i, x in enumerate((0, 500, 1000))}
    places |= {f"JPSFY{i + 1:02d}": y for i, y in enumerate((0, 1000))}
    hdu.header.update({"NXPSFS": 3, "NYPSFS": 2, **places})
    hdu.writeto(path)
    return path


def test_grid_of_psfs(tmp_path):
    model = read_psf(grid_file(tmp_path / "STDPSF_WFC3IR_F105W.fits"))
    assert isinstance(model, GriddedPSFModel)
    stamps = prepare(
        np.zeros((1000, 1000)), psf=model, error=1.0, positions=[[10, 500], [980, 500]], recenter=False
    ).groups[0][1]
    assert stamps.psf_oversampling == 4
    width = 1 / np.sqrt(stamps.psf.max((1, 2)))
    assert width[1] / width[0] == pytest.approx(1.5, abs=0.05)
    broken = fits.open(tmp_path / "STDPSF_WFC3IR_F105W.fits")
    del broken[0].header["IPSFX01"]
    broken.writeto(tmp_path / "STDPSF_broken.fits")
    broken.close()
    with pytest.raises(FileError, match=r"STDPSF_broken.fits cannot be read as a grid of PSFs \(stdpsf\)"):
        read_psf(tmp_path / "STDPSF_broken.fits")


def test_photutils_model_in_python():
    epsf = ImagePSF(gaussian(45, 6), oversampling=4)
    assert prepare(np.zeros((64, 64)), psf=epsf, error=1.0).groups[0][1].psf_oversampling == 4


def test_column_of_a_table(tmp_path):
    stamps = np.array([gaussian(11, sigma) for sigma in (1.0, 1.5, 2.0)])
    Table({"id": [1, 2, 3], "psf": stamps}).write(tmp_path / "a.fits")
    np.testing.assert_array_equal(read_psf(tmp_path / "a.fits"), stamps)
    Table({"id": [1, 2], "psf": np.ones((2, 5))}).write(tmp_path / "b.fits")
    with pytest.raises(FileError, match=r"column psf has shape \(2, 5\); an image \(py, px\) in each row"):
        read_psf(tmp_path / "b.fits")


def test_column_of_the_positions():
    stamps = np.array([gaussian(11, sigma) for sigma in (1.0, 2.0)])
    positions = Table({"x": [50.0, 100.0], "y": [60.0, 60.0], "psf": stamps, "z": [0.1, 0.2]})
    observation = prepare(np.zeros((200, 200)), error=1.0, positions=positions)
    assert observation.table.colnames == ["z"]
    assert np.ptp(observation.groups[0][1].psf.max((1, 2))) > 0.01
    assert positions.colnames == ["x", "y", "psf", "z"]
    with pytest.raises(InputError, match="psf is given beside the column psf of positions"):
        prepare(np.zeros((200, 200)), error=1.0, positions=positions, psf=gaussian(11, 1))


def test_one_file_for_each_galaxy(tmp_path):
    for i, sigma in enumerate((1.0, 2.0)):
        image(tmp_path / f"psf{i}.fits", gaussian(11 + 2 * i, sigma))
    psfs = read_psfs(str(tmp_path / "psf*.fits"))
    stamps = prepare(np.zeros((2, 64, 64)), psf=psfs, error=1.0).groups[0][1]
    assert stamps.psf.shape == (2, 13, 13)
    with pytest.raises(FileError, match="matches no file"):
        read_psfs(str(tmp_path / "none*.fits"))


@pytest.mark.parametrize(
    ("dx", "mend"), [(0.5, r"psf\[..., 1:, 1:\] does it"), (-0.5, r"psf\[..., :-1, :-1\] does it"),
                     (0.0, "psf has its peak between the pixels")],
)  # fmt: skip
def test_even_size_is_refused_with_the_mend(dx, mend):
    psf = gaussian(20, 2.0, dx, dx)
    with pytest.raises(PSFError, match=rf"even-sized \(20x20\).*: here {mend}"):
        psf_arrays(psf)
    if dx:
        cut = psf[1:, 1:] if dx > 0 else psf[:-1, :-1]
        array = psf_arrays(cut).array[0]
        np.testing.assert_allclose(array, array[::-1, ::-1], atol=1e-12)


def test_even_psf_is_trimmed_on_request(tmp_path, estimator, capsys):
    image(tmp_path / "psf.fits", gaussian(20, 2.0, 0.5, 0.5))
    image(tmp_path / "a.fits", np.random.default_rng(0).normal(size=(40, 40)))
    command = ["measure", str(tmp_path / "a.fits"), "--error", "background", "-o", str(tmp_path / "a.ecsv")]
    assert main([*command, "--psf", str(tmp_path / "psf.fits")]) == 1
    assert "(--trim-psf on the command line)" in capsys.readouterr().err
    assert main([*command, "--psf", str(tmp_path / "psf.fits"), "--trim-psf"]) == 0
    np.testing.assert_array_equal(trim_even(np.ones((2, 5, 5))), np.ones((2, 5, 5)))
    with pytest.raises(PSFError, match="with its peak between the pixels: it cannot be trimmed"):
        trim_even(gaussian(20, 2.0))


def piff_file(path):
    """What a file of Piff looks like from outside."""
    table = fits.BinTableHDU.from_columns([fits.Column("type", "6A", array=["Simple"])], name="psf")
    stars = fits.BinTableHDU.from_columns([fits.Column("x", "D", array=[1.0])], name="psf_stars")
    fits.HDUList([fits.PrimaryHDU(), table, stars]).writeto(path)
    return path


class FakePiff:
    """Stands in for the package: a PSF whose width grows with x, in pixels that count from one."""

    wcs = {0: None, 1: None}

    @classmethod
    def read(cls, path):
        return cls()

    def draw(self, x, y, chipnum, stamp_size, center):
        if y < 0:
            raise TypeError("color is required")
        return SimpleNamespace(array=gaussian(stamp_size, 1 + x / 1000))


def test_piff_is_optional(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "piff", None)
    path = piff_file(tmp_path / "a.piff")
    with pytest.raises(FileError, match="needs the package piff; install it with: pip install piff"):
        read_psf(path, 1)


def test_piff_model(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "piff", SimpleNamespace(PSF=FakePiff))
    path = piff_file(tmp_path / "a.piff")
    model = read_psf(path, "1")
    np.testing.assert_array_equal(model(999, 5), gaussian(51, 2.0))
    np.testing.assert_array_equal(pickle.loads(pickle.dumps(model))(999, 5), gaussian(51, 2.0))
    with pytest.raises(FileError, match=r"has PSFs of the chips \[0, 1\]; name one as .*a.piff\[CHIP\]"):
        read_psf(path)
    with pytest.raises(FileError, match=r"has no chip 7; it has \[0, 1\]"):
        read_psf(path, 7)
    with pytest.raises(PSFError, match="cannot be drawn by Piff: color is required"):
        model(10, -20)


def test_profiles_of_the_command_line():
    assert parse_psf("stars") == "stars"
    airy = parse_psf("airy:fwhm=0.1,obscuration=0.3")
    assert isinstance(airy, galsim.Airy)
    assert airy.xValue(0.05, 0) == pytest.approx(0.5 * airy.xValue(0, 0))
    assert parse_psf("airy:fwhm=0.1").fwhm == pytest.approx(0.1, rel=1e-3)
    drawn = parse_psf("moffat:fwhm=2.5px,beta=2.5,g1=0.1")
    expected = psf_arrays(galsim.Moffat(fwhm=2.5, beta=2.5).shear(g1=0.1), stamp_size=96)
    np.testing.assert_array_equal(drawn.array, expected.array)
    for text in ("airy:fwhm=1,obscuration=2", "gaussian:fwhm=px"):
        with pytest.raises(PSFError, match=f"--psf {text}"):
            parse_psf(text)


@pytest.fixture
def estimator(monkeypatch):
    standin = StandInEstimator()
    monkeypatch.setattr(measure, "load_estimator", lambda bundle: standin)
    return standin


def starfield(path):
    """An image with stars and one galaxy, without a PSF."""
    from galshape_cnn.tests.observe.detect.test_star_psf import moffat, scene

    data, xy = scene(moffat(3.0), 20, 10)
    error = fits.ImageHDU(data.uncertainty.array, name="ERR")
    fits.HDUList([fits.PrimaryHDU(), fits.ImageHDU(data.data, name="SCI"), error]).writeto(path)
    Table(xy[20:], names=["x", "y"]).write(path.with_suffix(".csv"))
    return [str(path), "--positions", str(path.with_suffix(".csv"))]


@pytest.mark.filterwarnings("default::galshape_cnn.errors.GalshapeWarning")
def test_stars_are_used_without_a_psf(tmp_path, estimator, capsys):
    arguments = starfield(tmp_path / "a.fits")
    assert main(["measure", *arguments, "-o", str(tmp_path / "a.ecsv")]) == 0
    assert "no PSF is given; it is estimated from 20 stars of the image" in capsys.readouterr().err
    assert main(["measure", *arguments, "-o", str(tmp_path / "b.ecsv"), "--psf", "stars"]) == 0
    assert capsys.readouterr().err == ""
    for name in ("a.ecsv", "b.ecsv"):
        assert (QTable.read(tmp_path / name)["flags"] & Flag.PSF_ESTIMATED).all()


def test_cutouts_need_a_psf(tmp_path, estimator, capsys):
    image(tmp_path / "a.fits", np.ones((40, 40)))
    command = ["measure", str(tmp_path / "a.fits"), "--error", "1", "-o", str(tmp_path / "a.ecsv")]
    assert main(command) == 1
    assert "psf is missing" in capsys.readouterr().err
    Table({"x": [20.0], "y": [20.0]}).write(tmp_path / "p.csv")
    assert main([*command, "--positions", str(tmp_path / "p.csv")]) == 1
    assert "0 isolated stars" in capsys.readouterr().err


def test_patterns_that_the_shell_left_alone(tmp_path, estimator):
    for i in range(3):
        image(tmp_path / f"galaxy{i}.fits", np.ones((40, 40)))
        image(tmp_path / f"psf{i}.fits", gaussian(11, 1 + i))
    command = ["measure", str(tmp_path / "galaxy*.fits"), "--error", "1", "-o", str(tmp_path / "a.ecsv")]
    assert main([*command, "--psf", "gaussian:fwhm=3"]) == 0
    assert len(QTable.read(tmp_path / "a.ecsv")) == 3


def test_drizzled_weight_is_not_taken_for_noise(tmp_path):
    from galshape_cnn.observe.io.fits import read_image

    primary = fits.PrimaryHDU(header=fits.Header({"NDRIZIM": 4}))
    hdus = [fits.ImageHDU(np.ones((40, 40)), name=name) for name in ("SCI", "WHT")]
    fits.HDUList([primary, *hdus]).writeto(tmp_path / "drz.fits")
    with pytest.warns(GalshapeWarning, match="WHT of AstroDrizzle holds exposure times unless"):
        assert read_image(tmp_path / "drz.fits").uncertainty is None
    assert isinstance(read_image(tmp_path / "drz.fits", ivar="WHT"), NDData)
    hdus.append(fits.ImageHDU(np.full((40, 40), 3.0), name="ERR"))
    fits.HDUList([primary, *hdus]).writeto(tmp_path / "i2d.fits")
    assert read_image(tmp_path / "i2d.fits").uncertainty.array.max() == 3
