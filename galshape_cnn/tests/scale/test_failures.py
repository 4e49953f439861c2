# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""What one bad galaxy, file or process costs a run: its own row."""

import os
import sys

import numpy as np
import pytest
from astropy.table import QTable, Table

from galshape_cnn import ShapeEstimator
from galshape_cnn.cli import main
from galshape_cnn.errors import FileError, InputError
from galshape_cnn.flags import Flag
from galshape_cnn.scale import dataset, measure_stream, read_blocks
from galshape_cnn.scale import run as run_module
from galshape_cnn.tests.standin import StandInEstimator
from galshape_cnn.tests.stream_scene import N, assert_same, moments, write_cube


@pytest.fixture
def cube(tmp_path):
    return write_cube(tmp_path / "cube.fits", *moments())


@pytest.fixture(scope="module")
def expected(tmp_path_factory):
    """Rows of the same galaxies where nothing is wrong."""
    folder = tmp_path_factory.mktemp("expected")
    measure_stream(StandInEstimator(), write_cube(folder / "cube.fits", *moments()), folder / "out")
    return read_blocks(folder / "out")


class Sick(StandInEstimator):
    """Fails for batches that hold a galaxy with a pixel above a thousand."""

    def __call__(self, data, **keywords):
        if np.max(getattr(data, "data", data)) > 1000:
            raise np.linalg.LinAlgError("matrix is odd")
        return super().__call__(data, **keywords)


class Deadly(StandInEstimator):
    """Takes its process with it for the same galaxies."""

    def __call__(self, data, **keywords):
        if np.max(getattr(data, "data", data)) > 1000:
            os._exit(3)
        return super().__call__(data, **keywords)


def test_a_galaxy_that_raises_costs_its_own_row(expected, tmp_path, monkeypatch):
    monkeypatch.setattr(run_module, "CHUNK_ROWS", 4)
    data, psf = moments()
    data[[5, 6, 30], 3, 3] = 1e4
    path = write_cube(tmp_path / "cube.fits", data, psf)
    summary = measure_stream(Sick(), path, tmp_path / "out", block_rows=10)
    assert (summary["rows"], summary["errors"], summary["flags"]["NOT_MEASURED"]) == (N, 3, 3)
    table = read_blocks(tmp_path / "out")
    good = np.setdiff1d(np.arange(N), [5, 6, 30])
    assert_same(table[good], expected[good])
    assert np.isnan(table["flux"][5])
    assert table["flags"][5] == Flag.NOT_MEASURED
    errors = Table.read(tmp_path / "out" / "_errors.ecsv")
    assert list(errors["row"]) == [5, 6, 30]
    assert errors["error"][0] == "LinAlgError: matrix is odd"


def test_a_galaxy_that_kills_its_process_costs_its_own_row(expected, tmp_path, monkeypatch):
    monkeypatch.setattr(run_module, "CHUNK_ROWS", 8)
    data, psf = moments()
    data[12, 3, 3] = 1e4
    path = write_cube(tmp_path / "cube.fits", data, psf)
    summary = measure_stream(Deadly(), path, tmp_path / "out", workers=2, block_rows=20)
    assert summary["errors"] == 1
    table = read_blocks(tmp_path / "out")
    good = np.arange(N) != 12
    assert_same(table[good], expected[good])
    assert "process that measured it died" in Table.read(tmp_path / "out" / "_errors.ecsv")["error"][0]


def test_a_bad_file_costs_its_own_row(tmp_path, monkeypatch, capsys):
    from galshape_cnn.cli import measure

    data, psf = moments(6)
    paths = []
    for row in range(6):
        write_cube(tmp_path / f"{row}.fits", data[row], psf[row])
        paths.append(str(tmp_path / f"{row}.fits"))
    (tmp_path / "0.fits").write_bytes(b"no FITS at all")
    (tmp_path / "3.fits").unlink()
    summary = measure_stream(StandInEstimator(), paths, tmp_path / "out")
    assert (summary["rows"], summary["errors"]) == (6, 2)
    errors = Table.read(tmp_path / "out" / "_errors.ecsv")
    assert list(errors["row"]) == [0, 3]
    assert "does not exist" in errors["error"][1]
    out = tmp_path / "table.fits"
    assert np.isfinite(read_blocks(tmp_path / "out")["flux"]).sum() == 4
    monkeypatch.setattr(measure, "load_estimator", lambda bundle: StandInEstimator())
    assert main(["measure", *paths, "-o", str(out)]) == 0
    assert list(np.flatnonzero(QTable.read(out)["flags"])) == [0, 3]
    said = capsys.readouterr()
    assert "4 of quality 0, NOT_MEASURED 2, 2 with an error" in said.out
    assert "galshape: warning: row 3: FileError: " in said.err


def test_an_input_that_is_all_wrong_raises(cube, tmp_path):
    with pytest.raises(InputError, match="stamp_size=3"):
        measure_stream(StandInEstimator(), cube, tmp_path / "out", stamp_size=3)
    with pytest.raises(InputError, match="workers=0; allowed: a whole number, at least 1"):
        measure_stream(StandInEstimator(), cube, tmp_path / "other", workers=0)


def test_no_scheduler_at_the_address(monkeypatch):
    pytest.importorskip("distributed")
    from galshape_cnn.scale import dask

    with pytest.raises(InputError, match="scheduler='nowhere"), dask.connected("nowhere:no"):
        pass


def test_a_block_that_cannot_be_written_is_missing_and_not_half_there(cube, tmp_path, monkeypatch):
    def full(beside, path, settle=dataset._settle):
        if path.suffix == ".parquet":
            raise OSError("No space left on device")
        settle(beside, path)

    monkeypatch.setattr(dataset, "_settle", full)
    with pytest.raises(FileError, match="cannot write block 0 of .*No space left"):
        measure_stream(StandInEstimator(), cube, tmp_path / "out")
    assert not list((tmp_path / "out").glob("*.parquet*"))
    assert not list((tmp_path / "out").glob(".*"))
    with pytest.raises(FileError, match="1 of 1 blocks are missing"):
        read_blocks(tmp_path / "out")


def test_a_damaged_manifest_is_named(tmp_path):
    (tmp_path / "_manifest.json").write_text("{")
    with pytest.raises(FileError, match="_manifest.json' is damaged"):
        read_blocks(tmp_path)


def test_dask_is_an_extra(monkeypatch):
    from galshape_cnn.scale import dask

    monkeypatch.setitem(sys.modules, "distributed", None)
    with pytest.raises(InputError, match=r"pip install 'galshape-cnn\[dask\]'"), dask.connected():
        pass


def test_a_call_that_fails_at_once_leaves_its_folder_free(tmp_path):
    """Repeated rightly it would otherwise be a run of another configuration."""
    estimator, cutouts = ShapeEstimator(), np.random.default_rng(1).normal(size=(2, 64, 64))
    output, rest = tmp_path / "run", {"error": 1.0, "psf": np.ones((3, 3))}
    for wrong in ({"method": "guess"}, {"workers": 0}, {"psf": np.ones((4, 4))}):
        with pytest.raises(InputError):
            measure_stream(estimator, cutouts, output, **rest | wrong)
        assert not output.exists()
    output.mkdir()  # the user's own
    with pytest.raises(InputError):
        measure_stream(estimator, cutouts, output, method="guess", **rest)
    assert not list(output.iterdir())
    with pytest.raises(InputError, match="estimator is a str; allowed: a ShapeEstimator"):
        measure_stream("network", cutouts, output, **rest)
    assert measure_stream(estimator, cutouts, output, **rest)["rows"] == len(cutouts)
    with pytest.raises(InputError, match="another configuration"):
        measure_stream(estimator, cutouts, output, method="guess", **rest)
    assert len(read_blocks(output)) == len(cutouts)
