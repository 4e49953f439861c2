# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""What a user is told when the input cannot be used, from Python and from the command line.

Modules test their own messages; here each mistake goes through the front door, where it
must arrive as an error of the package, before any work, and as one line on a terminal.
"""

import os

import asdf
import numpy as np
import pytest
from astropy.io import fits
from astropy.nddata import NDData, StdDevUncertainty
from astropy.table import QTable

from galshape_cnn import ShapeEstimator
from galshape_cnn.cli import main
from galshape_cnn.errors import (
    BundleError,
    FileError,
    GalshapeWarning,
    InputError,
    KeywordError,
    NoiseError,
    PositionError,
    PSFError,
)
from galshape_cnn.flags import Flag
from galshape_cnn.infer.network.bundle import Bundle

SIDE = 48


def gaussian(side, sigma=1.4):
    y, x = np.mgrid[:side, :side] - (side - 1) / 2
    image = np.exp(-(x**2 + y**2) / (2 * sigma**2))
    return image / image.sum()


PSF = gaussian(15)
IMAGE = 800 * gaussian(SIDE, 3.5) + np.random.default_rng(1).normal(size=(SIDE, SIDE))


@pytest.fixture(scope="module")
def estimator():
    return ShapeEstimator()


def full(value):
    return np.full(IMAGE.shape, value)


MISTAKES = {
    "no noise": (IMAGE, {"psf": PSF}, NoiseError, "no noise information: give error="),
    "no noise in NDData": (NDData(IMAGE), {"psf": PSF}, NoiseError, "no noise information: give error="),
    "negative noise": (IMAGE, {"psf": PSF, "error": full(-1)}, NoiseError, "error has 2304 negative pixels"),
    "one negative number": (IMAGE, {"psf": PSF, "error": -1.0}, NoiseError, "error=-1.0.*must be finite"),
    "zero noise": (IMAGE, {"psf": PSF, "error": full(0.0)}, NoiseError, "error is zero, NaN or infinite"),
    "NaN noise": (IMAGE, {"psf": PSF, "error": full(np.nan)}, NoiseError, "error is .*NaN.* in every pixel"),
    "shape of the noise": (
        IMAGE, {"psf": PSF, "error": np.ones((9, 9))}, InputError, r"error has shape \(9, 9\).*\(48, 48\)"),
    "shape of the mask": (
        IMAGE, {"psf": PSF, "error": 1.0, "mask": np.zeros((9, 9), bool)}, InputError,
        r"mask has shape \(9, 9\).*\(48, 48\)"),
    "no PSF": (IMAGE, {"error": 1.0}, PSFError, "psf is missing; give an odd-sized array"),
    "even-sized PSF": (
        IMAGE, {"psf": np.ones((8, 8)), "error": 1.0}, PSFError, r"even-sized \(8x8\).*Crop, pad or"),
    "negative PSF": (IMAGE, {"psf": -PSF, "error": 1.0}, PSFError, "psf has a sum of -1.*positive sum"),
    "PSF of NaN": (IMAGE, {"psf": PSF * np.nan, "error": 1.0}, PSFError, "psf holds only NaN"),
    "3x3 pixels": (np.ones((3, 3)), {"psf": PSF, "error": 1.0}, InputError, "3x3.*8x8"),
    "no pixels": (np.ones((0, 0)), {"psf": PSF, "error": 1.0}, InputError, "data has 0x0 pixels"),
    "text": ("galaxy.fits", {"psf": PSF, "error": 1.0}, InputError, "data is a str.*read files first"),
    "complex pixels": (IMAGE * 1j, {"psf": PSF, "error": 1.0}, InputError, "complex.*real numbers"),
    "position outside": (
        IMAGE, {"psf": PSF, "error": 1.0, "positions": [[400, 7]]}, PositionError,
        "none of the 1 lies inside the image.*400, 7.*48x48"),
    "sky position without WCS": (
        IMAGE, {"psf": PSF, "error": 1.0, "positions": QTable({"ra": [1.0], "dec": [2.0]})}, PositionError,
        "on the sky, but the image has no WCS"),
    "table without positions": (
        IMAGE, {"psf": PSF, "error": 1.0, "positions": QTable({"a": [1.0]})}, PositionError, "x.*y.*ra.*dec"),
    "unknown method": (IMAGE, {"psf": PSF, "error": 1.0, "method": "magic"}, InputError, "method='magic'"),
    "contradiction": (
        NDData(IMAGE, uncertainty=StdDevUncertainty(full(1.0))), {"psf": PSF, "error": 2.0}, InputError,
        "error contradicts data.uncertainty; give one"),
}  # fmt: skip


@pytest.mark.parametrize("name", MISTAKES)
def test_estimator_says_what_is_wrong(estimator, name):
    data, keywords, kind, match = MISTAKES[name]
    with pytest.raises(kind, match=match):
        estimator(data, **keywords)


def test_masked_stamp_is_a_flagged_row(estimator):
    masks = [np.zeros(IMAGE.shape, bool), np.ones(IMAGE.shape, bool)]
    with pytest.warns(GalshapeWarning, match="1 of 2 galaxies could not be measured"):
        catalog = estimator(np.array([IMAGE, IMAGE]), psf=PSF, error=1.0, mask=np.array(masks), method="ml")
    assert catalog.flags[1] & Flag.NO_DATA
    assert catalog.flags[1] & Flag.NOT_MEASURED
    assert np.isnan(catalog.flux[1])
    assert np.isnan(catalog.n_err[1])
    assert np.isfinite(catalog.flux[0])
    assert not catalog.flags[0] & Flag.NO_DATA


@pytest.mark.parametrize("method", ["network", "ml", "posterior"])
def test_only_masked_stamps(estimator, method):
    with pytest.warns(GalshapeWarning, match="1 of 1 galaxies could not be measured"):
        catalog = estimator(IMAGE, psf=PSF, error=1.0, mask=np.ones(IMAGE.shape, bool), method=method)
    assert catalog.flags[0] & Flag.NO_DATA


def test_one_position_outside_is_a_flagged_row(estimator):
    positions = [[23.5, 23.5], [400, 7], [np.nan, 3.0]]
    with pytest.warns(GalshapeWarning, match="2 of 3 galaxies"):
        catalog = estimator(IMAGE, psf=PSF, error=1.0, positions=positions, method="ml")
    assert [bool(f & Flag.OFF_IMAGE) for f in catalog.flags] == [False, True, True]


@pytest.mark.parametrize("scale", [1e-30, 1.0, 1e6])
def test_nothing_but_noise_or_absurd_light_never_raises(estimator, scale):
    """A bad galaxy is a row: noise, and S/N of a million, far from all training."""
    noise = np.random.default_rng(2).normal(size=IMAGE.shape)
    catalog = estimator(noise + scale * IMAGE, psf=PSF, error=1.0, method="ml")
    assert len(catalog) == 1


@pytest.fixture
def galaxy(tmp_path):
    hdus = [fits.PrimaryHDU(), fits.ImageHDU(IMAGE.astype("f4"), name="SCI")]
    hdus += [fits.ImageHDU(np.ones_like(IMAGE, "f4"), name="ERR"), fits.ImageHDU(PSF, name="PSF")]
    path = tmp_path / "galaxy.fits"
    fits.HDUList(hdus).writeto(path)
    return path


def shapes(path, *options, out=None):
    """Run the command on a file."""
    out = out or path.parent / "out.ecsv"
    return main(["measure", str(path), "--method", "ml", "-o", str(out), *options])


def refused(capsys, match):
    """The message was one line, without a traceback, and says ``match``."""
    printed = capsys.readouterr()
    lines = printed.err.strip().splitlines()
    assert len(lines) == 1, printed.err
    assert lines[0].startswith("galshape measure: ")
    assert "Traceback" not in printed.err
    assert match in lines[0]
    return True


def rewrite(path, name, array):
    """Replace or drop an HDU."""
    with fits.open(path) as hdus:
        kept = [hdu.copy() for hdu in hdus if hdu.name != name]
    if array is not None:
        kept.append(fits.ImageHDU(array, name=name))
    fits.HDUList(kept).writeto(path, overwrite=True)


def test_good_file_is_measured(galaxy, capsys):
    assert shapes(galaxy) == 0
    assert "1 of quality 0" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("hdu", "array", "match"),
    [
        ("ERR", None, "no noise"),
        ("ERR", -np.ones_like(IMAGE), "negative pixels"),
        ("ERR", np.zeros_like(IMAGE), "zero, NaN or infinite"),
        ("ERR", np.full_like(IMAGE, np.nan), "NaN"),
        ("ERR", np.ones((7, 7)), "noise has shape (7, 7), the image (48, 48)"),
        ("MASK", np.zeros((7, 7), "i2"), "mask has shape (7, 7), the image (48, 48)"),
        ("PSF", None, "psf is missing"),
        ("PSF", np.ones((8, 8)), "even-sized (8x8)"),
        ("PSF", -PSF, "positive sum"),
        ("SCI", np.ones((3, 3), "f4"), "(3, 3)"),
        ("SCI", None, "has no image; say which HDU is meant with --sci"),
    ],
)
def test_command_says_what_is_wrong_with_the_file(galaxy, capsys, hdu, array, match):
    rewrite(galaxy, hdu, array)
    assert shapes(galaxy) == 1
    assert refused(capsys, match)
    assert not (galaxy.parent / "out.ecsv").exists()


def test_small_cutout(galaxy, capsys):
    for name in ("SCI", "ERR"):
        rewrite(galaxy, name, np.ones((3, 3), "f4"))
    assert shapes(galaxy) == 1
    assert refused(capsys, "8x8")


@pytest.mark.parametrize(
    ("options", "match"),
    [
        (["--sci", "NOPE"], "no HDU 'NOPE' for sci; it holds"),
        (["--err", "7"], "no HDU 7"),
        (["--psf", "nowhere.fits"], "nowhere.fits does not exist"),
        (["--mask", "PSF"], "mask has shape (15, 15)"),
        (["--bundle", "nowhere.asdf"], "bundle 'nowhere.asdf' does not exist"),
    ],
)
def test_wrong_names(galaxy, capsys, options, match):
    assert shapes(galaxy, *options) == 1
    assert refused(capsys, match)


def test_positions_outside(galaxy, capsys):
    places = galaxy.parent / "places.csv"
    places.write_text("x,y\n400,7\n")
    assert shapes(galaxy, "--positions", str(places)) == 1
    assert refused(capsys, "none of the 1 lies inside the image")


@pytest.mark.parametrize("keep", [100, 5000, 9000, 13000, 18000, 25000])
def test_truncated_file(galaxy, capsys, keep):
    galaxy.write_bytes(galaxy.read_bytes()[:keep])
    assert shapes(galaxy) == 1
    assert refused(capsys, "galaxy.fits")


@pytest.mark.parametrize("content", [b"", b"hello", bytes(6000)])
def test_no_fits_at_all(galaxy, capsys, content):
    galaxy.write_bytes(content)
    assert shapes(galaxy) == 1
    assert refused(capsys, "galaxy.fits")


@pytest.fixture(scope="module")
def bundle_bytes():
    from importlib import resources

    return (resources.files("galshape_cnn") / "data" / "universal.asdf").read_bytes()


@pytest.mark.parametrize("where", [10, 300, 0.3, 0.6, 0.99])
def test_damaged_bundle(galaxy, capsys, bundle_bytes, where):
    damaged = bytearray(bundle_bytes)
    start = where if where > 1 else int(where * len(damaged))
    damaged[start : start + 40] = bytes(255 - b for b in damaged[start : start + 40])
    path = galaxy.parent / "damaged.asdf"
    path.write_bytes(damaged)
    with pytest.raises(BundleError, match="damaged|not a bundle|not ASDF|format version|lacks"):
        ShapeEstimator.load(path)
    assert shapes(galaxy, "--bundle", str(path)) == 1
    assert refused(capsys, "damaged.asdf")


@pytest.mark.parametrize("share", [0.0, 0.001, 0.5, 0.999])
def test_truncated_bundle(galaxy, capsys, bundle_bytes, share):
    path = galaxy.parent / "short.asdf"
    path.write_bytes(bundle_bytes[: int(share * len(bundle_bytes))])
    with pytest.raises(BundleError, match="short.asdf"):
        ShapeEstimator.load(path)
    assert shapes(galaxy, "--bundle", str(path)) == 1
    assert refused(capsys, "short.asdf")


def test_bundle_of_a_future_format(galaxy, capsys, tmp_path):
    path = tmp_path / "future.asdf"
    Bundle.shipped().write(path)
    with asdf.open(path, memmap=False, lazy_load=False) as file:
        tree = dict(file.tree)
    asdf.AsdfFile(tree | {"format_version": 99}).write_to(path)
    with pytest.raises(BundleError, match="format version 99; this package reads 1 to 2"):
        ShapeEstimator.load(path)
    assert shapes(galaxy, "--bundle", str(path)) == 1
    assert refused(capsys, "format version 99")


def test_file_that_is_no_bundle(galaxy, capsys, tmp_path):
    asdf.AsdfFile({"a": 1}).write_to(tmp_path / "other.asdf")
    with pytest.raises(BundleError, match="not a bundle of galshape_cnn"):
        ShapeEstimator.load(tmp_path / "other.asdf")
    assert shapes(galaxy, "--bundle", str(galaxy)) == 1
    assert refused(capsys, "damaged or not ASDF")


def test_output_that_cannot_be_written(galaxy, capsys):
    assert shapes(galaxy, out=galaxy.parent / "missing" / "out.ecsv") == 1
    assert refused(capsys, "no folder")
    assert shapes(galaxy, out=galaxy.parent / "out.txt") == 1
    assert refused(capsys, "suffix '.txt'")
    (galaxy.parent / "folder.ecsv").mkdir()
    assert shapes(galaxy, "--overwrite", out=galaxy.parent / "folder.ecsv") == 1
    assert refused(capsys, "folder.ecsv")


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root may write anywhere")
def test_folder_without_permission(galaxy, capsys):
    folder = galaxy.parent / "closed"
    folder.mkdir(mode=0o500)
    assert shapes(galaxy, out=folder / "out.ecsv") == 1
    assert refused(capsys, "closed")


def test_full_disk(galaxy, monkeypatch, capsys):
    """The table is written beside its target, so that a full disk leaves no half of one."""

    def no_space(*args, **keywords):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "replace", no_space)
    assert shapes(galaxy) == 1
    assert refused(capsys, "No space left on device")
    assert sorted(path.name for path in galaxy.parent.iterdir()) == ["galaxy.fits"]


@pytest.mark.parametrize(
    "arguments",
    [["measure"], ["measure", "a.fits"], ["measure", "a.fits", "-o", "b.ecsv", "--error", "0"],
     ["measure", "a.fits", "-o", "b.ecsv", "--stamp-size", "x"]],
)  # fmt: skip
def test_usage_errors(arguments, capsys):
    assert main(arguments) == 2
    assert "Traceback" not in capsys.readouterr().err


def test_errors_can_be_caught_together():
    for kind in (BundleError, FileError, NoiseError, PSFError, PositionError):
        assert issubclass(kind, ValueError) or issubclass(kind, OSError)


def test_misspelt_keyword(estimator):
    with pytest.raises(KeywordError, match=r"^neighbors is no keyword .* call; did you mean neighbours\?"):
        estimator(IMAGE, psf=PSF, error=1.0, neighbors="fit")
    with pytest.raises(TypeError, match="^colour is no keyword"):
        estimator(IMAGE, psf=PSF, error=1.0, colour="g")
