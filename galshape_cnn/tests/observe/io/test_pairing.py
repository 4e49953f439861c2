# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""Patterns of noise, masks and PSFs for many cutouts: each gets its own, or the call is refused at once."""

import numpy as np
import pytest
from astropy.io import fits
from astropy.table import QTable, Table

from galshape_cnn.cli import main, measure
from galshape_cnn.errors import FileError, InputError, PSFError
from galshape_cnn.observe.io.fits import read_image
from galshape_cnn.observe.io.pairing import names_of_each
from galshape_cnn.observe.observation import prepare
from galshape_cnn.scale import open_source
from galshape_cnn.tests.observe.io.psf.test_files import gaussian
from galshape_cnn.tests.standin import StandInEstimator

N = 5
#: Numbers of the files: sorted as text, the last come first.
NUMBERS = range(8, 8 + N)
WIDTHS = np.linspace(1.2, 2.3, N)
PSFS = np.array([gaussian(21, width) for width in WIDTHS])
CUTOUTS = np.random.default_rng(1).normal(size=(N, 40, 40)) + np.arange(N)[:, None, None]


class Recorder(StandInEstimator):
    """Remembers the stamps."""

    def __init__(self):
        super().__init__()
        self.seen = {}

    def measure(self, stamps):
        psfs = np.broadcast_to(stamps.psf, (len(stamps), *stamps.psf.shape[1:]))
        for psf, data, ivar in zip(psfs, stamps.data, stamps.ivar, strict=True):
            self.seen[round(float(data[16:48, 16:48].mean()))] = psf, ivar
        return super().measure(stamps)


@pytest.fixture
def run(tmp_path, monkeypatch):
    """Run ``measure``: status, and what was seen of each cutout by its number."""

    def command(*options, inputs=("cut/*.fits",)):
        recorder = Recorder()
        monkeypatch.setattr(measure, "load_estimator", lambda bundle: recorder)
        monkeypatch.chdir(tmp_path)
        args = [*inputs, "-o", "out.ecsv", "--overwrite", "--neighbours", "ignore", *options]
        status = main(["measure", *args])
        return status, recorder.seen

    return command


@pytest.fixture
def folders(tmp_path):
    """Folders cut, psf, err, mask with files of one galaxy each, numbered without zeros in front."""
    for name in ("cut", "psf", "err", "mask"):
        (tmp_path / name).mkdir()
    for i, number in enumerate(NUMBERS):
        fits.PrimaryHDU(CUTOUTS[i]).writeto(tmp_path / f"cut/gal_{number}.fits")
        fits.PrimaryHDU(PSFS[i]).writeto(tmp_path / f"psf/p{number}_x.fits")
        fits.PrimaryHDU(np.full((40, 40), 1.0 + i)).writeto(tmp_path / f"err/gal_{number}_err.fits")
        mask = np.zeros((40, 40), "i2")
        mask[i, i] = 1
        fits.PrimaryHDU(mask).writeto(tmp_path / f"mask/m{number}.fits")
    return tmp_path


def assert_own(seen):
    assert sorted(seen) == list(range(N))
    for i, (psf, ivar) in seen.items():
        np.testing.assert_allclose(psf, PSFS[i] / PSFS[i].sum(), atol=1e-12)
        assert ivar.max() == pytest.approx((1.0 + i) ** -2, rel=1e-6)


def test_each_cutout_has_its_own_files(folders, run):
    status, seen = run("--psf", "psf/*.fits", "--err", "err/*.fits", "--mask", "mask/*.fits")
    assert status == 0
    assert_own(seen)
    for i, (_, ivar) in seen.items():
        bad = np.argwhere(ivar[12:52, 12:52] == 0)
        np.testing.assert_array_equal(bad, [[i, i]])
    named = [f"cut/gal_{i}.fits" for i in (10, 8, 12)]  # in an order of one's own, with as many PSFs
    for i in (9, 11):
        (folders / f"psf/p{i}_x.fits").unlink()
    status, seen = run("--psf", "psf/*.fits[0]", "--error", "1", inputs=named)
    assert status == 0
    assert sorted(seen) == [0, 2, 4]
    for i, (psf, _) in seen.items():
        np.testing.assert_allclose(psf, PSFS[i] / PSFS[i].sum(), atol=1e-12)


def test_python(folders):
    pattern = {"psf": str(folders / "psf/*.fits"), "err": str(folders / "err/*.fits")}
    paths = [str(folders / f"cut/gal_{number}.fits") for number in NUMBERS]
    data, keywords = open_source(paths, names=pattern).read(2, 4)
    stamps = prepare(data, **keywords, recenter=False).groups[0][1]
    np.testing.assert_allclose(stamps.psf, PSFS[2:4] / PSFS[2:4].sum((1, 2))[:, None, None])


def test_a_cube_of_psfs_for_many_files(folders, run):
    paths = [f"cut/gal_{number}.fits" for number in NUMBERS]
    fits.PrimaryHDU(PSFS).writeto(folders / "psfs.fits")
    Table({"psf": PSFS}).write(folders / "table.fits")
    for file in ("psfs.fits", "table.fits"):
        status, seen = run("--psf", file, "--err", "err/*.fits", inputs=paths)
        assert status == 0
        assert_own(seen)


@pytest.mark.parametrize(
    ("options", "match"),
    [
        (["--psf", "psf/*.fits"], "--psf psf/*.fits matches 4 files, but there are 5 images; one file for"),
        (["--psf", "moffat:fwhm=3", "--err", "err/*.fits"], "--err err/*.fits matches 4 files"),
        (["--psf", "cube.fits", "--error", "1", "--mask", "no/*"], "--mask no/* matches no file"),
        (["--psf", "cube.fits", "--error", "1"], "psf holds 4 PSFs for the 5 galaxies of 5 files"),
    ],
)
def test_numbers_that_do_not_fit_are_refused_at_once(folders, run, capsys, options, match):
    (folders / "psf/p9_x.fits").unlink()
    (folders / "err/gal_9_err.fits").unlink()
    fits.PrimaryHDU(PSFS[1:]).writeto(folders / "cube.fits")
    status, seen = run(*options)
    assert (status, seen) == (1, {})
    assert match in capsys.readouterr().err


def test_an_order_that_is_not_clear(folders):
    (folders / "psf/p9_x.fits").rename(folders / "psf/p90_x.fits")
    paths = sorted((folders / "cut").iterdir())
    with pytest.raises(InputError, match="not clear which belongs to which image"):
        names_of_each(paths, {"psf": str(folders / "psf/*.fits")})
    for i, old in enumerate(sorted((folders / "psf").iterdir())):
        old.rename(folders / f"psf/{'abcde'[i]}.fits")
    each = names_of_each(paths, {"psf": str(folders / "psf/*.fits")})  # other names: by order
    assert [one["psf"][-6] for one in each] == list("abcde")
    with pytest.raises(InputError, match="not clear"):
        names_of_each(paths[::-1], {"psf": str(folders / "psf/*.fits")})
    with pytest.raises(FileError, match="matches no file"):
        names_of_each(paths, {"psf": str(folders / "nothing/*.fits")})
    assert names_of_each(paths[:1], {"psf": None, "sci": 1}) == [{"psf": None, "sci": 1}]


def test_one_image_with_a_psf_for_each_position(folders, run):
    """In parts of any size, from a pattern, a cube or Python."""
    image = np.zeros((40, 40 * N))
    for i in range(N):
        image[:, 40 * i : 40 * i + 40] = CUTOUTS[i]
    fits.PrimaryHDU(image).writeto(folders / "image.fits")
    fits.PrimaryHDU(PSFS).writeto(folders / "psfs.fits")
    xy = Table({"x": 40 * np.arange(N) + 19.5, "y": np.full(N, 19.5)})
    names = {"psf": str(folders / "psfs.fits")}
    source = open_source(str(folders / "image.fits"), positions=xy, names=names, error=1.0)
    given = open_source(read_image(folders / "image.fits"), positions=xy, psf=PSFS, error=1.0)
    for one in (source, given):
        data, keywords = one.read(2, 5)
        stamps = prepare(data, **keywords, recenter=False).groups[0][1]
        np.testing.assert_allclose(stamps.psf, PSFS[2:5] / PSFS[2:5].sum((1, 2))[:, None, None])
    with pytest.raises(PSFError, match="psf holds 4 PSFs for the 5 galaxies of the list of positions"):
        open_source(read_image(folders / "image.fits"), positions=xy, psf=PSFS[1:], error=1.0)
    xy.write(folders / "xy.ecsv")
    assert run("--psf", "psfs.fits", "--error", "1", "--positions", "xy.ecsv", inputs=["image.fits"])[0] == 0
    assert len(QTable.read(folders / "out.ecsv")) == N


def test_planes_of_a_cube(folders):
    fits.PrimaryHDU(CUTOUTS).writeto(folders / "cube.fits")
    names = {"psf": str(folders / "psf/*.fits")}
    with pytest.raises(FileError, match=r"not in the order of their names .p10_x.fits is the first"):
        open_source(str(folders / "cube.fits"), names=names, error=1.0)
    for number in (8, 9):
        (folders / f"psf/p{number}_x.fits").rename(folders / f"psf/p0{number}_x.fits")
    data, keywords = open_source(str(folders / "cube.fits"), names=names, error=1.0).read(2, 4)
    stamps = prepare(data, **keywords, recenter=False).groups[0][1]
    np.testing.assert_allclose(stamps.psf, PSFS[2:4] / PSFS[2:4].sum((1, 2))[:, None, None])
    fits.PrimaryHDU(PSFS[1:]).writeto(folders / "psfs.fits")
    with pytest.raises(PSFError, match="psf holds 4 PSFs for the 5 galaxies of"):
        open_source(str(folders / "cube.fits"), names={"psf": str(folders / "psfs.fits")}, error=1.0)
