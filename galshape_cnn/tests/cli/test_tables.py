# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""Catalogues in, tables out: what the command says and what it keeps."""

import numpy as np
import pytest
from astropy.coordinates import SkyCoord
from astropy.io import fits
from astropy.table import MaskedColumn, QTable, Table

from galshape_cnn import read_blocks
from galshape_cnn.cli import main, measure
from galshape_cnn.errors import InputError
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
    monkeypatch.setattr(measure, "load_estimator", lambda bundle: standin)
    return standin


@pytest.fixture
def sources(field):
    """Pixels of the galaxies as Source Extractor counts them."""
    sky = SkyCoord(field.positions["ra"], field.positions["dec"])
    x, y = field.to_nddata().wcs.world_to_pixel(sky)
    return Table({"NUMBER": np.arange(6) + 40, "X_IMAGE": x + 1, "Y_IMAGE": y + 1})


def run(image, positions, output, *options):
    return main(["measure", image, "--positions", str(positions), "-o", str(output), *options])


def test_how_a_catalogue_was_read_is_said_once(image, sources, estimator, tmp_path, capsys):
    sources.write(tmp_path / "cat.csv")
    assert run(image, tmp_path / "cat.csv", tmp_path / "a.ecsv") == 0
    lines = [line for line in capsys.readouterr().err.splitlines() if "positions" in line]
    assert lines == ["galshape: positions: X_IMAGE, Y_IMAGE of Source Extractor, counted from 1"]
    table = QTable.read(tmp_path / "a.ecsv")
    assert list(table["id"]) == list(table["NUMBER"]) == list(range(40, 46))
    np.testing.assert_allclose(table["x_centroid"].value, sources["X_IMAGE"] - 1, atol=2)


def test_several_tables(image, sources, estimator, tmp_path, capsys):
    path = tmp_path / "cat.fits"
    hdus = [fits.BinTableHDU(sources, name="ALL"), fits.BinTableHDU(sources[:2], name="GOOD")]
    fits.HDUList([fits.PrimaryHDU(), *hdus]).writeto(path)
    assert run(image, path, tmp_path / "a.ecsv") == 1
    assert "[1] ALL, 6 rows; [2] GOOD, 2 rows" in capsys.readouterr().err
    assert not (tmp_path / "a.ecsv").exists()
    assert run(image, f"{path}[GOOD]", tmp_path / "a.ecsv") == 0
    assert len(QTable.read(tmp_path / "a.ecsv")) == 2


@pytest.mark.parametrize("output", ["a.ecsv", "a.fits", "a.parquet", "folder"])
def test_identifiers_and_names_survive(image, sources, estimator, tmp_path, output):
    sources["ID"] = MaskedColumn([7, 8, 999999, 10, 11, 12], mask=np.arange(6) == 1)
    sources["FLUX"], sources["mag"] = -1.0, 17.0
    sources.write(tmp_path / "cat.ecsv")  # in FITS, astropy takes 999999 for nothing
    options = ["--zeropoint", "25", "--block-rows", "4"]
    assert run(image, tmp_path / "cat.ecsv", tmp_path / output, *options) == 0
    table = read_blocks(tmp_path / output) if output == "folder" else QTable.read(tmp_path / output)
    assert list(np.ma.getmaskarray(table["id"])) == list(np.arange(6) == 1)
    assert [int(one) for one in table["id"][[0, 2, 5]]] == [7, 999999, 12]
    np.testing.assert_array_equal(table["input_FLUX"], -1)
    np.testing.assert_array_equal(table["input_mag"], 17)
    assert np.all(table["flux"].value > 0)
    assert np.all(table["mag"].value < 25)


@pytest.mark.filterwarnings("default:columns changed")
@pytest.mark.parametrize("output", ["a.fits", "folder"])
def test_what_the_output_cannot_hold_is_said_first(image, sources, monkeypatch, tmp_path, capsys, output):
    def refuse(bundle):
        raise InputError("measuring begins")

    sources["name"] = ["α", "b", "c", "d", "e", "f"]
    sources["cube"] = np.zeros((6, 2, 2))
    sources.write(tmp_path / "cat.ecsv")
    monkeypatch.setattr(measure, "load_estimator", refuse)
    assert run(image, tmp_path / "cat.ecsv", tmp_path / output) == 1
    lines = capsys.readouterr().err.splitlines()
    expected = "name (not ASCII, escaped)" if output == "a.fits" else "cube (flattened from (2, 2))"
    assert expected in lines[-2]
    assert lines[-1] == "galshape measure: measuring begins"


@pytest.mark.filterwarnings("default:columns changed")
def test_it_is_written_and_said_once(image, sources, estimator, tmp_path, capsys):
    sources["name"] = ["α", "b", "c", "d", "e", "f"]
    sources.write(tmp_path / "cat.ecsv")
    assert run(image, tmp_path / "cat.ecsv", tmp_path / "a.fits") == 0
    assert capsys.readouterr().err.count("columns changed for .fits: name") == 1
    assert str(QTable.read(tmp_path / "a.fits")["name"][0]).encode().decode("unicode_escape") == "α"


def test_the_report_finds_the_galaxies_of_the_table(image, sources, estimator, tmp_path):
    sources["band"] = "r"
    sources.write(tmp_path / "cat.fits")
    assert run(image, tmp_path / "cat.fits", tmp_path / "a.fits") == 0
    assert main(["report", str(tmp_path / "a.fits"), image, "-o", str(tmp_path / "a.html")]) == 0
    page = (tmp_path / "a.html").read_text(encoding="utf-8")
    assert '"id":[40,41,42,43,44,45]' in page
    assert '"band":["r","r","r","r","r","r"]' in page
