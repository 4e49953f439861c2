# Licensed under a 3-clause BSD style license - see LICENSE.rst
import subprocess
import sys
import warnings
from types import SimpleNamespace

import astropy.units as u
import numpy as np
import pytest
from astropy.io import fits
from astropy.nddata import NDData
from astropy.table import QTable, Table

import galshape_cnn
from galshape_cnn.cli import COMMANDS, demo, main, measure
from galshape_cnn.cli.options.detection import is_cutout
from galshape_cnn.cli.options.psf import parse_psf
from galshape_cnn.errors import GalshapeWarning, PSFError
from galshape_cnn.flags import Flag
from galshape_cnn.study.simulate.field import simulate_field
from galshape_cnn.tests.standin import StandInEstimator


@pytest.fixture(scope="module")
def field():
    return simulate_field(seed=3, n_galaxies=6, size=320, snr=(60, 300))


@pytest.fixture(scope="module")
def image(field, tmp_path_factory):
    path = tmp_path_factory.mktemp("field") / "field.fits"
    field.write(path)
    return str(path)


@pytest.fixture
def estimator(monkeypatch):
    standin = StandInEstimator()
    for module in (measure, demo):
        monkeypatch.setattr(module, "load_estimator", lambda bundle: standin)
    return standin


@pytest.fixture
def positions(field, tmp_path):
    path = tmp_path / "positions.ecsv"
    table = field.positions.copy()
    table["band"] = "r"
    table.write(path)
    return str(path)


def cutout(path, shape=(40, 40), **extensions):
    y, x = np.indices(shape[-2:])
    galaxy = 50 * np.exp(-((x - shape[-1] / 2) ** 2 + (y - shape[-2] / 2) ** 2) / 18)
    data = np.broadcast_to(galaxy, shape) + np.random.default_rng(1).normal(size=shape)
    hdus = [fits.PrimaryHDU(), fits.ImageHDU(data.astype("f4"), name="SCI")]
    hdus += [fits.ImageHDU(array, name=name) for name, array in extensions.items()]
    fits.HDUList(hdus).writeto(path)
    return str(path)


def test_version_is_quick_and_imports_nothing_heavy():
    code = (
        "import sys; from galshape_cnn.cli import main; status = main(['--version']); "
        "print(sorted({'keras', 'jax', 'galsim', 'matplotlib', 'photutils', 'astropy'} & set(sys.modules))); "
        "sys.exit(status)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines() == [f"galshape {galshape_cnn.__version__}", "[]"]


@pytest.mark.parametrize("command", [module.__name__.rpartition(".")[2] for module in COMMANDS])
def test_each_command_has_help(command, capsys):
    assert main([command, "--help"]) == 0
    assert f"usage: galshape {command}" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("args", "match"),
    [
        ([], "arguments are required: COMMAND"),
        (["paint"], "invalid choice: 'paint'"),
        (["measure"], "arguments are required: -o/--output"),
        (["measure", "a.fits", "-o", "b.ecsv", "--method", "magic"], "invalid choice: 'magic'"),
        (["measure", "a.fits", "-o", "b.ecsv", "--err", "1", "--ivar", "2"], "not allowed with argument"),
        (["measure", "a.fits", "-o", "b.ecsv", "--error", "-3"], "-3 is not a number above 0"),
        (["demo", "-n", "0"], "0 is not a whole number above 0"),
    ],
)
def test_usage_errors(args, match, capsys):
    assert main(args) == 2
    assert match in capsys.readouterr().err


def test_measure_with_positions(estimator, image, field, positions, tmp_path, capsys):
    out = tmp_path / "shapes.ecsv"
    assert main(["measure", image, "--positions", positions, "-o", str(out), "--method", "ml"]) == 0
    table = QTable.read(out)
    assert list(table["id"]) == list(field.positions["id"])
    assert table["flux"].unit == u.nJy
    assert table["hlr"].unit == u.arcsec
    assert list(table["band"]) == ["r"] * 6
    assert table.meta["method"] == "ml"
    distance = table["sky_centroid"].separation(field.truth["sky_centroid"])
    assert (distance < 0.5 * u.arcsec).all()
    line = capsys.readouterr().out.strip()
    assert line.startswith("measured 6 galaxies (ml): ")
    assert line.endswith(f"-> {out}")


def test_measure_finds_the_galaxies_itself(estimator, image, field, tmp_path):
    out = tmp_path / "shapes.fits"
    assert main(["measure", image, "-o", str(out)]) == 0
    found = QTable.read(out)["sky_centroid"]
    _, distance, _ = field.truth["sky_centroid"].match_to_catalog_sky(found)
    assert (distance < 0.4 * u.arcsec).sum() >= 5


def test_options_reach_the_estimator(estimator, image, positions, tmp_path, capsys):
    args = ["--positions", positions, "-o", str(tmp_path / "a.ecsv"), "--no-fit-sky", "--stamp-size", "48"]
    psf = ["--psf", "moffat:fwhm=0.7,beta=2.5", "--error", "2.5", "--neighbours", "ignore"]
    with warnings.catch_warnings():
        warnings.simplefilter("default")
        assert main(["measure", image, *args, *psf, "--method", "posterior"]) == 0
    assert "blank pixels of the image scatter" in capsys.readouterr().err  # the error is not quite right
    call = estimator.calls[0]
    assert call["fit_sky"] is False
    assert call["stamp_size"] == 48
    assert call["error"] == 2.5
    assert call["method"] == "posterior"
    assert call["neighbours"] == "ignore"
    assert call["psf"].beta == 2.5


def test_one_small_image_is_one_galaxy(estimator, tmp_path, capsys):
    path = cutout(tmp_path / "one.fits")
    out = tmp_path / "one.ecsv"
    assert main(["measure", path, "--error", "1", "--psf", "gaussian:fwhm=3", "-o", str(out)]) == 0
    table = QTable.read(out)
    assert len(table) == 1
    assert table["hlr"].unit == u.pix
    assert "sky_centroid" not in table.colnames
    assert table["x_centroid"][0].value == pytest.approx(20, abs=0.5)
    assert "measured 1 galaxy (network)" in capsys.readouterr().out


def test_cube_and_many_files(estimator, tmp_path):
    cube = cutout(tmp_path / "cube.fits", (3, 40, 40), ERR=np.ones((3, 40, 40), "f4"))
    psf = ["--psf", "gaussian:fwhm=3"]
    assert main(["measure", cube, *psf, "-o", str(tmp_path / "cube.ecsv")]) == 0
    assert len(QTable.read(tmp_path / "cube.ecsv")) == 3
    files = [cutout(tmp_path / f"{n}.fits", (n, n), IVAR=np.ones((n, n), "f4")) for n in (32, 40)]
    assert main(["measure", *files, *psf, "-o", str(tmp_path / "two.ecsv")]) == 0
    assert len(QTable.read(tmp_path / "two.ecsv")) == 2


def test_hdus_can_be_named(estimator, tmp_path):
    weight, psf = np.full((40, 40), 4.0, "f4"), np.zeros((9, 9), "f4")
    psf[4, 4] = 1
    path = cutout(tmp_path / "one.fits", WEIRD=weight, KERNEL=psf)
    args = ["--sci", "1", "--weight", "WEIRD", "--psf-ext", "3", "-o", str(tmp_path / "one.ecsv")]
    assert main(["measure", path, *args]) == 0
    fits.PrimaryHDU(psf).writeto(tmp_path / "psf.fits")
    args = ["--sci", "SCI", "--ivar", "2", "--psf", str(tmp_path / "psf.fits"), "--psf-ext", "0"]
    assert main(["measure", path, *args, "-o", str(tmp_path / "two.ecsv")]) == 0
    first, second = (QTable.read(tmp_path / name) for name in ("one.ecsv", "two.ecsv"))
    assert first["snr"][0] == second["snr"][0]


def test_magnitudes(estimator, image, positions, tmp_path):
    out = str(tmp_path / "a.fits")
    assert main(["measure", image, "--positions", positions, "-o", out, "--zeropoint", "31.4"]) == 0
    table = QTable.read(out)
    np.testing.assert_allclose(table["mag"].value, table["flux"].to_value(u.ABmag), atol=1e-3)
    np.testing.assert_allclose(table["mag_err"].value, 1.0857 * table["flux_err"] / table["flux"], rtol=1e-3)


@pytest.mark.parametrize(
    ("args", "match"),
    [
        (["none.fits", "-o", "a.ecsv"], "none.fits does not exist"),
        (["{image}", "-o", "a.txt"], "suffix '.txt'; allowed: .ecsv, .fits"),
        (["{image}", "-o", "missing/a.ecsv"], "no folder"),
        (["{image}", "-o", "a.ecsv", "--sci", "NOPE"], "NOPE"),
        (["{image}", "-o", "a.ecsv", "--positions", "none.csv"], "none.csv does not exist"),
        (["{image}", "-o", "a.ecsv", "--psf", "moffat:beta=3"], "needs fwhm="),
    ],
)
def test_input_errors_are_one_line(estimator, image, tmp_path, monkeypatch, capsys, args, match):
    monkeypatch.chdir(tmp_path)
    assert main(["measure", *[word.format(image=image) for word in args]]) == 1
    error = capsys.readouterr().err
    assert error.startswith("galshape measure: ")
    assert match in error
    assert "Traceback" not in error
    assert list(tmp_path.iterdir()) == []


def test_existing_output_is_refused_before_any_work(estimator, image, tmp_path, capsys):
    out = tmp_path / "a.ecsv"
    out.write_text("precious")
    assert main(["measure", image, "-o", str(out)]) == 1
    assert "it exists" in capsys.readouterr().err
    assert estimator.calls == []
    assert out.read_text() == "precious"


def test_missing_noise_is_explained(estimator, tmp_path, capsys):
    path = cutout(tmp_path / "large.fits", (200, 200))
    assert main(["measure", path, "-o", str(tmp_path / "a.ecsv")]) == 1
    assert "--error SIGMA" in capsys.readouterr().err


def test_flagged_rows_are_no_failure(estimator, image, field, tmp_path, capsys):
    places = Table({"x": [10.0, 1e5], "y": [10.0, 5.0]})
    places.write(tmp_path / "places.csv")
    out = tmp_path / "a.ecsv"
    assert main(["measure", image, "--positions", str(tmp_path / "places.csv"), "-o", str(out)]) == 0
    assert QTable.read(out)["flags"][1] & Flag.OFF_IMAGE
    assert "OFF_IMAGE 1" in capsys.readouterr().out


def test_warnings_are_one_line(monkeypatch, image, tmp_path, capsys):
    def estimator(*args, **kwargs):
        warnings.warn("three galaxies are odd", GalshapeWarning, stacklevel=1)
        return StandInEstimator()(*args, **kwargs)

    monkeypatch.setattr(measure, "load_estimator", lambda bundle: estimator)
    with warnings.catch_warnings():
        warnings.simplefilter("default")
        assert main(["measure", image, "-o", str(tmp_path / "a.ecsv")]) == 0
    found, said = capsys.readouterr().err.splitlines()
    assert found.startswith("galshape: positions: found by segmentation")
    assert said == "galshape: warning: three galaxies are odd"


def test_report(estimator, image, positions, tmp_path, capsys):
    out, page = str(tmp_path / "a.fits"), tmp_path / "report.html"
    assert main(["measure", image, "--positions", positions, "-o", out]) == 0
    assert main(["report", out, image, "-o", str(page)]) == 0
    assert "wrote 6 galaxies" in capsys.readouterr().out
    assert "<title>a.fits</title>" in page.read_text(encoding="utf-8")
    assert main(["report", out, image, "-o", str(page)]) == 1
    assert main(["report", image, image, "-o", str(tmp_path / "b.html")]) == 1


def test_demo_with_a_stand_in(estimator, tmp_path, capsys):
    folder = tmp_path / "made" / "demo"
    assert main(["demo", "-o", str(folder), "-n", "5"]) == 0
    expected = ["comparison.png", "field.fits", "galaxies.png", "report.html", "shapes.ecsv"]
    assert sorted(path.name for path in folder.iterdir()) == expected
    text = capsys.readouterr().out
    assert "simulated 5 galaxies with GalSim" in text
    assert "pull = (measured - true) / posterior standard deviation" in text
    assert main(["demo", "-o", str(folder), "-n", "5"]) == 0


def test_demo_folder_that_cannot_be_made(estimator, tmp_path, capsys):
    (tmp_path / "file").write_text("")
    assert main(["demo", "-o", str(tmp_path / "file" / "demo")]) == 1
    assert "cannot make the folder" in capsys.readouterr().err


@pytest.mark.slow
def test_demo_with_the_network_that_ships(tmp_path, capsys):
    assert main(["demo", "-o", str(tmp_path), "-n", "60", "--method", "ml"]) == 0
    truth = QTable.read(tmp_path / "field.fits", hdu="TRUTH")
    table = QTable.read(tmp_path / "shapes.ecsv")
    clean = table["flags"] == 0
    assert clean.sum() > 15
    pull = ((table["g1"] - truth["g1"]) / table["g1_err"])[clean]
    assert abs(np.mean(pull)) < 5 / np.sqrt(clean.sum())
    assert 0.6 < np.std(pull) < 1.5


def test_psf_profiles():
    import galsim

    assert parse_psf("psf.fits") is None
    assert parse_psf("/data/moffat.fits") is None
    assert isinstance(parse_psf("kolmogorov:fwhm=0.8"), galsim.Kolmogorov)
    assert parse_psf("gaussian:fwhm=0.8").fwhm == pytest.approx(0.8)
    assert parse_psf("moffat:fwhm=0.7,beta=2.5,g1=0.1") != parse_psf("moffat:fwhm=0.7,beta=2.5")


@pytest.mark.parametrize(
    ("text", "match"),
    [
        ("moffat:beta=2", "needs fwhm= above 0"),
        ("gaussian:fwhm=-1", "needs fwhm= above 0"),
        ("gaussian:fwhm=wide", "fwhm='wide' is not a number"),
        ("gaussian:fwhm=1,beta=2", "unknown parameter 'beta'; allowed: fwhm, g1, g2"),
        ("moffat:fwhm=1,g1=2", "--psf moffat:fwhm=1,g1=2: "),
        ("moffat:fwhm=1,beta=0.5", "--psf moffat:fwhm=1,beta=0.5: "),
    ],
)
def test_impossible_psf(text, match):
    with pytest.raises(PSFError, match=match):
        parse_psf(text)


def test_what_is_a_cutout():
    assert is_cutout(NDData(np.zeros((128, 100))))
    assert not is_cutout(NDData(np.zeros((129, 100))))
    assert is_cutout(NDData(np.zeros((5, 200, 200))))
    assert is_cutout([NDData(np.zeros((200, 200)))])


def test_progress_is_shown_only_when_wanted(monkeypatch):
    from galshape_cnn.cli.options.common import progress_wanted

    monkeypatch.setattr(sys, "stdout", SimpleNamespace(isatty=lambda: False))
    assert not progress_wanted(SimpleNamespace(progress=False))
    assert progress_wanted(SimpleNamespace(progress=True))
    monkeypatch.setattr(sys, "stdout", SimpleNamespace(isatty=lambda: True))
    assert progress_wanted(SimpleNamespace(progress=False))
