# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""``galshape inject``: its options reach the injection, and its mistakes their exit codes."""

import numpy as np
import pytest
from astropy.io import fits
from astropy.table import QTable

from galshape_cnn.cli import inject as command
from galshape_cnn.cli import main
from galshape_cnn.tests.study.inject.scene import PSF, Estimator, image


@pytest.fixture
def files(tmp_path, monkeypatch):
    """Image and PSF, and an estimator without a network."""
    data = image()
    hdus = [
        fits.PrimaryHDU(),
        fits.ImageHDU(data.data, name="SCI"),
        fits.ImageHDU(np.ones_like(data.data), name="ERR"),
    ]
    fits.HDUList(hdus).writeto(tmp_path / "image.fits")
    fits.PrimaryHDU(PSF).writeto(tmp_path / "psf.fits")
    monkeypatch.setattr(command, "load_estimator", lambda bundle: Estimator())
    return [str(tmp_path / "image.fits"), "--psf", str(tmp_path / "psf.fits")]


def test_a_run_writes_its_page_and_says_its_verdict(files, tmp_path, capsys):
    out = tmp_path / "out"
    arguments = [
        *files,
        "-n",
        "8",
        "-o",
        str(out),
        "--snr",
        "40",
        "60",
        "--kinds",
        "sersic=1,spiral=1",
        "--find",
    ]
    assert main(["inject", *arguments]) == 0  # a failed verdict is a result
    said = capsys.readouterr().out
    assert "injected 8 galaxies (network), 8 measured: FAILED in" in said
    table = QTable.read(out / "injected.ecsv")
    assert ((table["true_snr"] > 39) & (table["true_snr"] < 61)).all()
    assert set(table["kind"]) <= {"sersic", "spiral"}
    assert (out / "index.html").exists()


def test_a_prior_and_a_catalogue_are_read(files, tmp_path):
    (tmp_path / "prior.toml").write_text('[n]\nkind = "uniform"\nlow = 0.99\nhigh = 1.01\n')
    assert (
        main(
            ["inject", *files, "-n", "3", "-o", str(tmp_path / "a"), "--prior", str(tmp_path / "prior.toml")]
        )
        == 0
    )
    np.testing.assert_allclose(QTable.read(tmp_path / "a" / "injected.ecsv")["true_n"], 1, atol=0.05)
    QTable({"flux": [2e3], "n": [2.0], "hlr": [2.5], "g1": [0.1], "g2": [0.0]}).write(tmp_path / "c.ecsv")
    assert (
        main(
            ["inject", *files, "-n", "3", "-o", str(tmp_path / "b"), "--catalogue", str(tmp_path / "c.ecsv")]
        )
        == 0
    )
    np.testing.assert_allclose(QTable.read(tmp_path / "b" / "injected.ecsv")["true_flux"], 2e3)


@pytest.mark.parametrize(
    ("arguments", "status", "message"),
    [
        ([], 2, "-n"),
        (["-n", "0"], 2, "not a whole number above 0"),
        (["-n", "3", "--avoid", "stars"], 2, "invalid choice"),
        (["-n", "3", "--kinds", "galaxy"], 1, "--kinds galaxy"),
        (["-n", "3", "--kinds", "sersic=x"], 1, "--kinds sersic=x"),
        (["-n", "3", "--prior", "missing.toml"], 1, "--prior missing.toml"),
        (["-n", "3", "--catalogue", "missing.ecsv"], 1, "--catalogue missing.ecsv"),
        (["-n", "3", "--gain-in-map"], 1, "--gain-in-map is given without --gain"),
    ],
)
def test_mistakes_have_their_exit_codes(files, tmp_path, capsys, arguments, status, message):
    assert main(["inject", *files, "-o", str(tmp_path / "out"), *arguments]) == status
    assert message in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("command", [["inject", "none.fits", "-n", "3"], ["validate", "none.asdf"]])
def test_a_missing_input_leaves_no_folder(tmp_path, capsys, command):
    assert main([*command, "-o", str(tmp_path / "out")]) == 1
    assert "none." in capsys.readouterr().err
    assert not list(tmp_path.iterdir())
