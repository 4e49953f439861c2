# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""What the commands were asked for stands in the metadata of their tables."""

import argparse

import numpy as np
import pytest
from astropy.io import fits
from astropy.table import QTable

from galshape_cnn.cli import inject, main, measure
from galshape_cnn.cli.options.common import WITHOUT_RECORD, asked_options
from galshape_cnn.scale import measure_stream, read_blocks
from galshape_cnn.tests.standin import StandInEstimator

#: Options that say where, by whom and of what; a number that depends on one must not be added here.
NO_NUMBER = {
    "help",
    "input",
    "output",
    "overwrite",
    "workers",
    "scheduler",
    "block_rows",
    "progress",
    "bundle",
}


@pytest.fixture
def estimator(monkeypatch):
    standin = StandInEstimator()
    monkeypatch.setattr(measure, "load_estimator", lambda bundle: standin)
    return standin


@pytest.fixture
def files(tmp_path):
    """Three cutouts, blank sky around a galaxy."""
    rng, (y, x) = np.random.default_rng(2), np.mgrid[:64, :64] - 31.5
    paths = []
    for name in "cab":
        image = 300 * np.exp(-np.hypot(x, y) / 2) + rng.normal(size=(64, 64))
        hdus = [fits.PrimaryHDU(), fits.ImageHDU(image, name="SCI")]
        hdus.append(fits.ImageHDU(np.exp(-np.sum(np.mgrid[-5:6, -5:6] ** 2, axis=0) / 5), name="PSF"))
        fits.HDUList(hdus).writeto(tmp_path / f"{name}.fits")
        paths.append(str(tmp_path / f"{name}.fits"))
    return paths


def parsers():
    """The parsers of the two commands, each with a name."""
    commands = argparse.ArgumentParser().add_subparsers()
    return [measure.add_parser(commands), inject.add_parser(commands)]


def test_only_what_changes_no_number_is_left_out():
    assert WITHOUT_RECORD == NO_NUMBER


@pytest.mark.parametrize("number", [0, 1], ids=["measure", "inject"])
def test_every_option_is_recorded(number):
    """Also one that is added later."""
    parser = parsers()[number]
    known = parser.get_default("defaults")
    dests = {action.dest for action in parser._actions}
    assert dests - {"help"} == set(known)
    for dest in dests - NO_NUMBER:
        args = argparse.Namespace(**known | {dest: "something else"}, defaults=known)
        assert asked_options(args) == {dest: "something else"}
    assert asked_options(argparse.Namespace(**known, defaults=known)) == {}


@pytest.mark.parametrize("output", ["out.ecsv", "out.fits", "folder"])
def test_measured_noise_is_recorded_and_rows_name_their_file(files, tmp_path, estimator, output):
    out = str(tmp_path / output)
    assert main(["measure", *files, "--error", "background", "--block-rows", "2", "-o", out]) == 0
    table = QTable.read(out) if "." in output else read_blocks(out)
    assert table["file"].tolist() == files
    assert table["id"].tolist() == [1, 2, 3]
    if output == "out.fits":
        assert "command.error = background" in table.meta["comments"]
    else:
        assert table.meta["command"] == {"error": "background"}


def test_one_file_needs_no_column(files, tmp_path, estimator):
    assert main(["measure", files[0], "--error", "1", "-o", str(tmp_path / "a.ecsv")]) == 0
    table = QTable.read(tmp_path / "a.ecsv")
    assert "file" not in table.colnames
    assert table.meta["command"] == {"error": 1.0}


def test_a_file_that_cannot_be_read_is_named_by_its_row(files, tmp_path, estimator, capsys):
    (tmp_path / "a.fits").write_bytes(b"nothing")
    assert main(["measure", *files, "--error", "1", "-o", str(tmp_path / "o.ecsv")]) == 0
    table = QTable.read(tmp_path / "o.ecsv")
    assert table["file"].tolist() == files
    assert np.isnan(table["flux"].value).tolist() == [False, True, False]


def test_files_beside_columns_of_the_positions(files, tmp_path, estimator):
    """A column ``file`` of the user's own keeps its values under another name."""
    QTable({"x": [31.5] * 3, "y": [31.5] * 3, "file": ["p", "q", "r"], "z": [1, 2, 3]}).write(
        tmp_path / "p.ecsv"
    )
    given = ["--error", "1", "--positions", str(tmp_path / "p.ecsv"), "-o", str(tmp_path / "o.ecsv")]
    assert main(["measure", *files, *given]) == 0
    table = QTable.read(tmp_path / "o.ecsv")
    assert table["file"].tolist() == files
    assert table["input_file"].tolist() == ["p", "q", "r"]
    assert table["z"].tolist() == [1, 2, 3]


def test_a_stream_records_how_files_were_read(files, tmp_path):
    measure_stream(StandInEstimator(), files, tmp_path / "out", names={"blank_noise": True, "mask": None})
    table = read_blocks(tmp_path / "out")
    assert table.meta["options"]["names"] == {"blank_noise": True}
    assert table["file"].tolist() == files
