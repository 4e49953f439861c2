# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""``galshape measure --exposures LIST``: what the list may say, and what comes out."""

import numpy as np
import pytest
from astropy.io import fits
from astropy.table import QTable, Table

from galshape_cnn.cli import main
from galshape_cnn.cli.options.exposures import read_exposures
from galshape_cnn.errors import FileError
from galshape_cnn.tests.exposure_scene import SETUP, TRUTH, exposure, galaxies


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
    assert first.data.psf.shape == (45, 45)
    assert second.data.psf is None
    assert second.psf.fwhm == pytest.approx(0.78)


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
        (["--workers", "2"], 1, "--workers is given beside --exposures, which it does not work with yet"),
        (["--zeropoint", "25"], 1, "--zeropoint is given beside --exposures"),
        (["--method", "network"], 1, "--method network does not take several exposures yet"),
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


def test_folders_are_refused(folder, capsys):
    assert main(["measure", "--exposures", str(folder / "list.csv"), "-o", str(folder / "blocks")]) == 1
    assert "folder of blocks" in capsys.readouterr().err


def test_images_or_a_list_and_not_both(folder, capsys):
    assert main(["measure", "-o", "out.ecsv"]) == 2
    assert main(["measure", "a.fits", "--exposures", "b.csv", "-o", "out.ecsv"]) == 2
    capsys.readouterr()


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({"image": ["g.fits"]}, "lacks the column band"),
        ({"image": ["g.fits"], "band": ["g"], "filter": ["x"]}, "unknown column filter"),
        ({"image": ["g.fits"], "band": [""]}, "row 0: image and band are needed"),
        ({"image": ["g.fits"], "band": ["g"], "gain": ["high"]}, "gain = 'high' is no number"),
        ({"image": ["none.fits"], "band": ["g"]}, "none.fits"),
    ],
)
def test_faults_of_a_list_are_named(folder, columns, message):
    path = folder / "bad.csv"
    Table(columns).write(path, overwrite=True)
    with pytest.raises(FileError, match=message):
        read_exposures(path)
