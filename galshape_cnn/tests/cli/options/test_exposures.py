# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""``galshape measure --exposures LIST``: what the list may say, and what comes out."""

import numpy as np
import pytest
from astropy.io import fits
from astropy.table import QTable, Table

from galshape_cnn.cli import main
from galshape_cnn.cli.options.exposures import read_exposures
from galshape_cnn.errors import FileError
from galshape_cnn.observe.exposure import opened
from galshape_cnn.observe.io import fits as fits_images
from galshape_cnn.scale import read_blocks
from galshape_cnn.tests.exposure_scene import SETUP, TRUTH, exposure, galaxies
from galshape_cnn.tests.stream_scene import assert_same


@pytest.fixture(scope="module")
def truth():
    return galaxies(np.random.default_rng(2), side=2)


@pytest.fixture(scope="module")
def folder(tmp_path_factory, truth):
    """Two exposures of four galaxies, in files with their noise and a PSF, and lists of them."""
    folder, rng = tmp_path_factory.mktemp("exposures"), np.random.default_rng(3)
    for setup in SETUP[:2]:
        band, scale = setup[:2]
        one = exposure(rng, *truth, setup, side=2)
        errors = fits.ImageHDU(np.full(one.data.shape, one.error), name="ERR")
        fits.HDUList([fits.PrimaryHDU(one.data, one.wcs.to_header()), errors]).writeto(
            folder / f"{band}.fits"
        )
        psf = one.psf.drawImage(nx=45, ny=45, scale=scale).array  # round, so the orientation does not matter
        fits.writeto(folder / f"psf_{band}.fits", psf)
    Table({"ra": truth[0].ra.deg, "dec": truth[0].dec.deg}).write(folder / "places.csv")
    profile = f"moffat:fwhm={SETUP[1][1] * SETUP[1][2]},beta=3.5"
    table = {"image": ["g.fits", "r.fits"], "band": ["g", "r"], "psf": ["psf_g.fits", profile]}
    Table(table | {"zeropoint": [25.0, 26.0], "gain": ["", "1e9"]}).write(folder / "list.csv")
    return folder


def test_list_is_read(folder):
    first, second = read_exposures(folder / "list.csv")
    assert (first.band, first.zeropoint, first.gain) == ("g", 25.0, None)
    assert (second.band, second.zeropoint, second.gain) == ("r", 26.0, 1e9)
    assert opened(first).data.psf.shape == (45, 45)
    assert opened(second).data.psf is None
    assert second.psf.fwhm == pytest.approx(0.78)


@pytest.mark.parametrize(("error", "level"), [("background", 1.0), ("1.0", 1.0)])
def test_error_may_be_measured_or_a_number(folder, truth, error, level):
    table = {"image": ["g.fits"], "band": ["g"], "error": [error], "psf_error": ["size=0.01"]}
    Table(table | {"psf": ["psf_g.fits"]}).write(folder / "plain.csv", overwrite=True)
    only = read_exposures(folder / "plain.csv")[0]
    assert only.error == pytest.approx(level, rel=0.05)  # 0.3 % of noise; wings of the galaxies add to it
    assert only.psf_error == {"size": "0.01"}
    assert opened(only).data.uncertainty is None
    out, command = folder / "found.ecsv", ["measure", "--exposures", str(folder / "plain.csv")]
    assert main([*command, "--method", "ml", "-o", str(out), "--overwrite"]) == 0  # galaxies are found, too
    found = QTable.read(out)
    assert len(found) == len(truth[0])
    assert (found["g1_err"] > found["g1_crb"]).all()


def test_the_list_opens_each_file_once(tmp_path, monkeypatch):
    cube = np.random.default_rng(4).normal(size=(3, 33, 33))
    fits.writeto(tmp_path / "cube.fits", cube)
    Table({"image": ["cube.fits"], "band": ["r"], "error": ["background"]}).write(tmp_path / "list.csv")
    opened_files = []
    read_image = fits_images.read_image
    monkeypatch.setattr(
        fits_images,
        "read_image",
        lambda path, **names: opened_files.append(path) or read_image(path, **names),
    )
    (one,) = read_exposures(tmp_path / "list.csv")
    assert one.error == pytest.approx(1, abs=0.1)
    assert opened_files == [str(tmp_path / "cube.fits")]


def test_an_image_without_psf_takes_it_from_stars(folder):
    Table({"image": ["g.fits"], "band": ["g"]}).write(folder / "stars.csv")
    assert read_exposures(folder / "stars.csv")[0].psf == "stars"


def test_command_writes_a_column_for_each_band(folder, truth, capsys):
    out = folder / "out.ecsv"
    command = ["measure", "--exposures", str(folder / "list.csv"), "--positions", str(folder / "places.csv")]
    assert main([*command, "--method", "ml", "-o", str(out)]) == 0
    assert "measured 4 galaxies (ml)" in capsys.readouterr().out
    table = QTable.read(out)
    assert {"flux_g", "flux_r_err", "mag_g", "mag_r", "n_exposures"} <= set(table.colnames)
    assert table["n_exposures"].tolist() == [2] * 4
    for name in TRUTH:
        pull = (np.asarray(table[name]) - truth[1][name]) / np.asarray(table[f"{name}_err"])
        assert np.abs(pull).max() < 4
    assert table["mag_g"].unit == "mag"


@pytest.mark.parametrize(
    ("options", "status", "message"),
    [
        (["--psf", "x.fits"], 1, "--psf is given beside --exposures"),
        (
            ["--shear-response"],
            1,
            "--shear-response with several exposures and --method ml",
        ),
        (["--psf-error", "size=2"], 1, "--psf-error size=2; allowed: size=FRACTION"),
        (["--zeropoint", "25"], 1, "--zeropoint is given beside --exposures"),
    ],
)
def test_options_of_one_image_are_refused(folder, capsys, options, status, message):
    command = [
        "measure",
        "--exposures",
        str(folder / "list.csv"),
        "--method",
        "ml",
        "-o",
        str(folder / "no.ecsv"),
    ]
    assert main([*command, "--positions", str(folder / "places.csv"), *options]) == status
    assert message in capsys.readouterr().err
    assert not (folder / "no.ecsv").exists()


def test_default_method_takes_a_list(folder):
    out = folder / "network.ecsv"
    command = ["measure", "--exposures", folder / "list.csv", "--positions", folder / "places.csv", "-o", out]
    assert main([str(one) for one in command]) == 0
    table = QTable.read(out)
    assert np.isfinite(table["hlr_std"]).all()
    assert {"hlr_gradient", "flux_g_std"} <= set(table.colnames)


def test_a_folder_holds_the_same_rows_and_goes_on(folder, capsys):
    command = ["measure", "--exposures", folder / "list.csv", "--positions", folder / "places.csv"]
    command = [str(one) for one in (*command, "--method", "ml", "-o")]
    assert main([*command, str(folder / "one.fits")]) == 0
    blocks = folder / "blocks"
    assert main([*command, str(blocks), "--block-rows", "3"]) == 0
    (blocks / "part-000001.parquet").unlink()
    assert main([*command, str(blocks), "--block-rows", "3"]) == 0
    assert "measured 4 galaxies (ml)" in capsys.readouterr().out
    table = read_blocks(blocks)
    whole = QTable.read(folder / "one.fits")
    for name in ("flux_g", "flux_r", "n", "hlr", "mag_r", "flags"):
        np.testing.assert_array_equal(table[name], whole[name])
    assert table.meta["command"]["exposures"] == str(folder / "list.csv")


def test_the_shear_response_is_in_tables_and_blocks(folder):
    command = ["measure", "--exposures", folder / "list.csv", "--positions", folder / "places.csv"]
    command = [str(one) for one in (*command, "--shear-response", "-o")]
    assert main([*command, str(folder / "sheared.fits")]) == 0
    assert main([*command, str(folder / "sheared"), "--block-rows", "3"]) == 0
    table, whole = read_blocks(folder / "sheared"), QTable.read(folder / "sheared.fits")
    assert np.isfinite(whole["shear_copies"]).all()
    for name in ("g1", "g2", "response_12", "shear_copies"):
        np.testing.assert_array_equal(table[name], whole[name])


def test_shapes_that_vary_with_wavelength(folder, capsys):
    table = Table.read(folder / "list.csv")
    command = ["measure", "--positions", folder / "places.csv", "--method", "ml", "--vary", "hlr=1,n=0", "-o"]
    command = [str(one) for one in (*command, folder / "vary.fits", "--exposures")]
    assert main([*command, str(folder / "list.csv")]) == 1
    assert "exposure 'g1' of band 'g' has no wavelength" in capsys.readouterr().err
    table["wavelength"] = [480.0, 640.0]
    table.write(folder / "colours.csv")
    assert main([*command, str(folder / "colours.csv")]) == 0
    found = QTable.read(folder / "vary.fits")
    assert {"hlr_g", "hlr_r_err", "r_eff_g", "n", "g1"} <= set(found.colnames)
    assert "hlr" not in found.colnames
    capsys.readouterr()
    for orders, message in (("hlr", "names and whole numbers"), ("size=1", "allowed: 'n', 'hlr', 'g'")):
        assert main([*command, str(folder / "colours.csv"), "--overwrite", "--vary", orders]) == 1
        assert message in capsys.readouterr().err
    assert main(["measure", str(folder / "g.fits"), "-o", str(folder / "o.fits"), "--vary", "hlr=1"]) == 1
    assert "--vary is of use with --exposures only" in capsys.readouterr().err


@pytest.mark.slow
def test_processes_give_the_same(folder):
    command = ["measure", "--exposures", folder / "list.csv", "--positions", folder / "places.csv"]
    command = [str(one) for one in (*command, "--method", "ml", "-o")]
    assert main([*command, str(folder / "threads.fits")]) == 0
    assert main([*command, str(folder / "processes.fits"), "--workers", "2"]) == 0
    assert_same(QTable.read(folder / "processes.fits"), QTable.read(folder / "threads.fits"))


def test_images_or_a_list_and_not_both(folder, capsys):
    assert main(["measure", "-o", "out.ecsv"]) == 2
    assert main(["measure", "a.fits", "--exposures", "b.csv", "-o", "out.ecsv"]) == 2
    capsys.readouterr()


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({"image": ["g.fits"]}, "lacks the column 'band'; allowed: 'image', .* 'noise_scale', "),
        ({"image": ["g.fits"], "band": ["g"], "filter": ["x"]}, "unknown column 'filter'"),
        ({"image": ["g.fits"], "band": [""]}, "row 0: image and band are needed"),
        ({"image": ["g.fits"], "band": ["g"], "gain": ["high"]}, "'gain' = 'high' is no number"),
        ({"image": ["g.fits"], "band": ["g"], "error": ["-0.5"]}, "error = '-0.5'; allowed"),
        ({"image": ["none.fits"], "band": ["g"]}, "none.fits"),
    ],
)
def test_faults_of_a_list_are_named(folder, columns, message):
    path = folder / "bad.csv"
    Table(columns).write(path, overwrite=True)
    with pytest.raises(FileError, match=message):
        read_exposures(path)
