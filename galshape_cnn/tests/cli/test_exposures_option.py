# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""``galshape measure --exposures LIST``: what the list may say, and what comes out."""

import numpy as np
import pytest
from astropy.io import fits
from astropy.table import QTable, Table

from galshape_cnn.cli import main
from galshape_cnn.cli.exposures_option import read_exposures
from galshape_cnn.errors import FileError
from galshape_cnn.tests.exposure_scene import tangent_wcs


def moffat(side, fwhm):
    y, x = np.mgrid[:side, :side] - side // 2
    psf = (1 + (x**2 + y**2) / (fwhm / 1.02) ** 2) ** -2.5
    return psf / psf.sum()


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Two exposures of two blobs, in files with their noise and PSF, and lists of them."""
    folder, rng = tmp_path_factory.mktemp("exposures"), np.random.default_rng(2)
    for name, scale, flux in (("g", 0.26, 300), ("r", 0.30, 800)):
        wcs = tangent_wcs(scale, 0.2 if name == "g" else -0.4, 160)
        x, y = wcs.wcs_world2pix([[30.0, -20.0], [29.997, -19.998]], 0).T
        image = rng.normal(size=(160, 160))
        for cx, cy in zip(x, y, strict=True):
            yy, xx = np.mgrid[:160, :160]
            image += flux * np.exp(-((xx - cx) ** 2 + (yy - cy) ** 2) / (2 * 2.5**2)) / (2 * np.pi * 2.5**2)
        hdu = fits.PrimaryHDU(image, wcs.to_header())
        fits.HDUList([hdu, fits.ImageHDU(np.ones((160, 160)), name="ERR")]).writeto(folder / f"{name}.fits")
        fits.writeto(folder / f"psf_{name}.fits", moffat(31, 3.0))
    Table({"ra": [30.0, 29.997], "dec": [-20.0, -19.998]}).write(folder / "places.csv")
    table = {
        "image": ["g.fits", "r.fits"],
        "band": ["g", "r"],
        "psf": ["psf_g.fits", "moffat:fwhm=0.9,beta=2.5"],
    }
    Table(table | {"zeropoint": [25.0, 26.0], "gain": ["", "100"]}).write(folder / "list.csv")
    return folder


def test_list_is_read(folder):
    first, second = read_exposures(folder / "list.csv")
    assert (first.band, first.zeropoint, first.gain) == ("g", 25.0, None)
    assert (second.band, second.zeropoint, second.gain) == ("r", 26.0, 100.0)
    assert first.data.psf.shape == (31, 31)
    assert second.data.psf is None
    assert second.psf.fwhm == pytest.approx(0.9)


def test_command_writes_a_column_for_each_band(folder, capsys):
    out = folder / "out.ecsv"
    command = ["measure", "--exposures", str(folder / "list.csv"), "--positions", str(folder / "places.csv")]
    assert main([*command, "--method", "ml", "-o", str(out)]) == 0
    assert "measured 2 galaxies (ml)" in capsys.readouterr().out
    table = QTable.read(out)
    assert {"flux_g", "flux_r_err", "mag_g", "mag_r", "n_exposures"} <= set(table.colnames)
    assert table["n_exposures"].tolist() == [2, 2]
    for band, flux in (("g", 300), ("r", 800)):
        pull = (table[f"flux_{band}"] - flux) / table[f"flux_{band}_err"]
        assert np.abs(pull).max() < 4.5
    assert table["mag_g"].unit == "mag"


@pytest.mark.parametrize(
    ("options", "status", "message"),
    [
        (["--psf", "x.fits"], 1, "--psf is given beside --exposures"),
        (["--workers", "2"], 1, "--workers is given beside --exposures, which it does not work with yet"),
        (["--zeropoint", "25"], 1, "--zeropoint is given beside --exposures"),
        (["--method", "posterior"], 1, "--method posterior does not take several exposures yet"),
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
