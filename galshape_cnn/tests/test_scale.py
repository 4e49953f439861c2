# Licensed under a 3-clause BSD style license - see LICENSE.rst
import json
import os
import random
import signal
import subprocess
import sys
import time
from functools import partial

import numpy as np
import pandas as pd
import pytest
from astropy.io import fits
from astropy.table import QTable, Table

from galshape_cnn import ShapeEstimator, Stamps
from galshape_cnn.cli import main
from galshape_cnn.errors import FileError, InputError, PositionError
from galshape_cnn.flags import Flag
from galshape_cnn.scale import measure_dask, measure_stream, open_source, read_blocks
from galshape_cnn.scale import run as run_module
from galshape_cnn.scale.identity import fingerprint
from galshape_cnn.tests.standin import StandInEstimator

SIDE, N = 32, 37


def moments(n=N, seed=1):
    """Cutouts of round galaxies, and a PSF of each."""
    rng = np.random.default_rng(seed)
    y, x = np.indices((SIDE, SIDE)) - (SIDE - 1) / 2
    galaxy = 60 * np.exp(-(x**2 + y**2) / 18)
    data = galaxy + rng.normal(size=(n, SIDE, SIDE))
    y, x = np.indices((9, 9)) - 4
    width = rng.uniform(1.2, 1.8, n)[:, None, None]
    psf = np.exp(-(x**2 + y**2) / (2 * width**2))
    return data.astype("f4"), (psf / psf.sum((1, 2), keepdims=True)).astype("f4")


def write_cube(path, data, psf):
    hdus = [fits.PrimaryHDU(), fits.ImageHDU(data, name="SCI")]
    hdus += [fits.ImageHDU(np.ones_like(data), name="ERR"), fits.ImageHDU(psf, name="PSF")]
    fits.HDUList(hdus).writeto(path)
    return str(path)


@pytest.fixture(scope="module")
def cube(tmp_path_factory):
    return write_cube(tmp_path_factory.mktemp("cube") / "cube.fits", *moments())


@pytest.fixture
def small_chunks(monkeypatch):
    monkeypatch.setattr(run_module, "CHUNK_ROWS", 4)


def assert_same(one, other):
    """Every column equal to the last bit."""
    assert one.colnames == other.colnames
    for name in one.colnames:
        np.testing.assert_array_equal(np.asarray(one[name]), np.asarray(other[name]), err_msg=name)


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


@pytest.fixture(scope="module")
def expected(cube, tmp_path_factory):
    out = tmp_path_factory.mktemp("expected") / "out"
    assert measure_stream(StandInEstimator(), cube, out)["rows"] == N
    return read_blocks(out)


def test_folder_is_a_table_of_all_rows(cube, expected, tmp_path):
    summary = measure_stream(StandInEstimator(), cube, tmp_path / "out", block_rows=10)
    names = sorted(path.name for path in (tmp_path / "out").iterdir())
    parts = [f"part-{k:06d}.parquet" for k in range(4)]
    assert names == ["_errors.ecsv", "_manifest.json", "_summary.json", *parts]
    assert summary == {"rows": N, "clean": N, "errors": 0, "flags": {}}
    assert list(expected["id"]) == list(range(1, N + 1))
    assert_same(read_blocks(tmp_path / "out"), expected)
    frame = pd.read_parquet(tmp_path / "out")
    np.testing.assert_array_equal(frame["flux"], expected["flux"])


@pytest.mark.parametrize("block_rows", [1, 7, 1000])
def test_blocks_and_chunks_do_not_matter(cube, expected, tmp_path, small_chunks, block_rows):
    measure_stream(StandInEstimator(), cube, tmp_path / "out", block_rows=block_rows)
    assert_same(read_blocks(tmp_path / "out"), expected)


@pytest.mark.parametrize("kind", ["processes", "distributed"])
def test_processes_and_clusters_give_the_same(cube, expected, tmp_path, small_chunks, kind):
    if kind == "processes":
        measure_stream(StandInEstimator(), cube, tmp_path / "out", workers=2, block_rows=10)
    else:
        distributed = pytest.importorskip("distributed")
        keywords = {"processes": False, "n_workers": 2, "threads_per_worker": 1, "dashboard_address": None}
        with distributed.Client(**keywords) as client:
            measure_dask(StandInEstimator(), cube, tmp_path / "out", client, block_rows=10)
    assert_same(read_blocks(tmp_path / "out"), expected)


def test_a_run_goes_on_where_it_stopped(cube, expected, tmp_path):
    out = tmp_path / "out"
    measure_stream(StandInEstimator(), cube, out, block_rows=10)
    kept = (out / "part-000000.parquet").stat().st_mtime_ns
    (out / "part-000002.parquet").unlink()
    (out / ".part-000003.parquet.7.part").write_text("half")
    with pytest.raises(FileError, match="1 of 4 blocks are missing"):
        read_blocks(out)
    estimator = StandInEstimator()
    measure_stream(estimator, cube, out, block_rows=10)
    assert_same(read_blocks(out), expected)
    assert (out / "part-000000.parquet").stat().st_mtime_ns == kept
    assert not list(out.glob(".*"))
    estimator.calls.clear()
    measure_stream(estimator, cube, out, block_rows=10)
    assert estimator.calls == []


@pytest.mark.parametrize(
    ("change", "match"),
    [
        ({"method": "ml"}, "another configuration .method: 'network' there, 'ml' here"),
        ({"seed": 3}, "another configuration .seed"),
        ({"block_rows": 11}, "block_rows: 10 there, 11 here"),
        ({"stamp_size": 24}, "another configuration .input"),
        ({"settings": {"zeropoint": 25.0}}, "another configuration .zeropoint"),
    ],
)
def test_another_configuration_is_refused(cube, tmp_path, change, match):
    options = {"method": "network", "block_rows": 10}
    measure_stream(StandInEstimator(), cube, tmp_path / "out", **options)
    with pytest.raises(InputError, match=match):
        measure_stream(StandInEstimator(), cube, tmp_path / "out", **options | change)


def test_another_input_is_refused(tmp_path):
    data, psf = moments(5)
    path = write_cube(tmp_path / "cube.fits", data, psf)
    measure_stream(StandInEstimator(), path, tmp_path / "out")
    os.utime(path, ns=(1, 1))
    with pytest.raises(InputError, match="another configuration .input"):
        measure_stream(StandInEstimator(), path, tmp_path / "out")


def test_a_folder_with_something_else_is_refused(cube, tmp_path):
    (tmp_path / "thesis.tex").write_text("")
    with pytest.raises(FileError, match="is not empty and holds no run"):
        measure_stream(StandInEstimator(), cube, tmp_path)
    with pytest.raises(FileError, match="holds no run"):
        read_blocks(tmp_path)


def test_a_galaxy_that_raises_costs_its_own_row(expected, tmp_path, small_chunks):
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
    assert "4 without flags, NOT_MEASURED 2, 2 with an error" in said.out
    assert "galshape: warning: row 3: FileError: " in said.err


def test_an_input_that_is_all_wrong_raises(cube, tmp_path):
    with pytest.raises(InputError, match="stamp_size=3"):
        measure_stream(StandInEstimator(), cube, tmp_path / "out", stamp_size=3)
    with pytest.raises(InputError, match="workers=0; at least one"):
        measure_stream(StandInEstimator(), cube, tmp_path / "other", workers=0)


def test_sources_agree(cube, tmp_path):
    data, psf = moments()
    stamps = Stamps(data, np.ones_like(data), psf)
    h5py = pytest.importorskip("h5py")
    with h5py.File(tmp_path / "set.h5", "w") as file:
        file["data"], file["ivar"], file["psf"] = data, np.ones_like(data), psf
    sources = [
        open_source(stamps),
        open_source(data, error=1.0, psf=psf),
        open_source(cube),
        open_source(tmp_path / "set.h5"),
    ]
    for source in sources:
        assert len(source) == N
        part, keywords = source.read(30, 34)
        pixels = getattr(part, "data", part)
        np.testing.assert_array_equal(pixels, data[30:34])
        assert len(part) if part is stamps else len(np.asarray(pixels)) == 4
        assert len(keywords.get("psf", np.zeros(4))) == 4
    assert len({source.identity for source in sources}) == len(sources)


@pytest.mark.parametrize("suffix", [".fits", ".asdf"])
def test_sets_of_simulate_are_read_as_they_are(tmp_path, suffix):
    from galshape_cnn.study.mock_files import write_set

    data, psf = moments(6)
    truth = Table({"id": np.arange(6), "flux": np.ones(6)})
    path = str(tmp_path / f"mocks{suffix}")
    stamps = Stamps(data, np.full_like(data, 4.0), psf, psf_oversampling=2)
    write_set(path, stamps, truth, {"config": {}, "seed": 1, "engine": "fast"})
    part, keywords = open_source(path).read(2, 5)
    np.testing.assert_array_equal(part, data[2:5])
    np.testing.assert_array_equal(keywords["error"].array, 4.0)
    assert keywords["psf"].shape == (3, 9, 9)
    assert keywords["psf_oversampling"] == 2


def image_and_positions():
    data, psf = moments(9)
    image = np.concatenate([np.concatenate(data[k : k + 3], axis=1) for k in (0, 3, 6)])
    x, y = np.meshgrid(np.arange(3) * SIDE + 15.5, np.arange(3) * SIDE + 15.5)
    places = Table({"x": x.ravel(), "y": y.ravel(), "id": 100 + np.arange(9), "band": ["r"] * 9})
    places["x"][4] = 1e5
    return image, psf[0], places


def test_part_of_a_list_of_positions_is_like_the_whole(tmp_path, monkeypatch):
    from astropy.nddata import NDData

    image, psf, places = image_and_positions()
    tables = []
    for size in (1, 2, 9):
        monkeypatch.setattr(run_module, "CHUNK_ROWS", size)
        out = tmp_path / str(size)
        keywords = {"positions": places, "error": 1.0, "psf": psf, "stamp_size": 32}
        measure_stream(StandInEstimator(), NDData(image), out, **keywords)
        tables.append(read_blocks(out))
    for table in tables:
        assert_same(table, tables[0])
        assert list(table["id"]) == list(places["id"])
        assert table["flags"][4] & Flag.OFF_IMAGE
        assert list(table["band"]) == ["r"] * 9
    places["x"] = 1e5
    with pytest.raises(PositionError, match="none of the 9 lies inside"):
        open_source(NDData(image), positions=places, error=1.0, psf=psf)


def test_listed_galaxies_outside_the_part_are_known(tmp_path):
    from astropy.nddata import NDData

    image, psf, places = image_and_positions()
    source = open_source(NDData(image), positions=places, error=1.0, psf=psf)
    _, keywords = source.read(3, 5)
    everything, first = keywords["listed"]
    assert (len(everything), first) == (9, 3)


def test_unknown_data_are_refused():
    with pytest.raises(InputError, match="data is a int; Stamps, an"):
        open_source(5)
    with pytest.raises(InputError, match="paths is empty"):
        open_source([])


def test_fingerprint_follows_the_contents(tmp_path):
    path = tmp_path / "a"
    path.write_text("x")
    values = [None, 1, 1.5, "a", [1, 2], {"a": 1}, np.arange(3), np.arange(3.0), Table({"x": [1]}), path]
    texts = [fingerprint(value) for value in values]
    assert len(set(texts)) == len(values)
    assert texts == [fingerprint(value) for value in values]
    path.write_text("xy")
    assert fingerprint(path) != texts[-1]


def test_command_line_folder(cube, tmp_path, monkeypatch, capsys):
    from galshape_cnn.cli import measure

    monkeypatch.setattr(measure, "load_estimator", lambda bundle: StandInEstimator())
    out = tmp_path / "run"
    args = ["measure", cube, "-o", str(out), "--block-rows", "10"]
    assert main(args) == 0
    assert f"measured {N} galaxies (network): {N} without flags" in capsys.readouterr().out
    manifest = json.loads((out / "_manifest.json").read_text())
    assert manifest["blocks"] == 4
    assert main([*args, "--method", "ml"]) == 1
    assert "another configuration (method" in capsys.readouterr().err
    assert main([*args, "--method", "ml", "--overwrite"]) == 0
    assert read_blocks(out).meta["method"] == "ml"
    assert main([*args, "--method", "ml", "--zeropoint", "25"]) == 1
    table = tmp_path / "all.fits"
    assert main(["measure", cube, "-o", str(table), "--zeropoint", "25"]) == 0
    assert "mag" in QTable.read(table).colnames
    assert main(["measure", cube, "-o", str(table), "--workers", "2", "--scheduler", "x"]) == 2


def test_no_scheduler_at_the_address(monkeypatch):
    pytest.importorskip("distributed")
    from galshape_cnn.scale import dask

    with pytest.raises(InputError, match="scheduler='nowhere"), dask.connected("nowhere:no"):
        pass


def test_compiled_functions_are_kept_in_the_users_cache(monkeypatch, tmp_path):
    from galshape_cnn.cli.compile_cache import compile_cache

    monkeypatch.delenv("JAX_COMPILATION_CACHE_DIR", raising=False)
    monkeypatch.delitem(sys.modules, "jax", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    with compile_cache():
        folder = os.environ["JAX_COMPILATION_CACHE_DIR"]
    if sys.platform == "linux":
        assert folder == str(tmp_path / "galshape_cnn" / "jax")
    assert "JAX_COMPILATION_CACHE_DIR" not in os.environ
    monkeypatch.setenv("GALSHAPE_COMPILE_CACHE", "off")
    with compile_cache():
        assert "JAX_COMPILATION_CACHE_DIR" not in os.environ


KILLED = """
import sys
from functools import partial
from galshape_cnn.scale import measure_stream, run
from galshape_cnn.tests.standin import StandInEstimator
import time
run.CHUNK_ROWS = 8

class Slow(StandInEstimator):
    def __call__(self, data, **keywords):
        time.sleep(float(sys.argv[3]))
        return super().__call__(data, **keywords)

print("begins", flush=True)
measure_stream(Slow(), sys.argv[1], sys.argv[2], block_rows=16, settings={"estimator": "slow"})
"""


def killed_runs(path, out, kills, pause, seed):
    """Kill a run at random moments until it has been killed so often, then let it finish."""
    rng, code, alive = random.Random(seed), [sys.executable, "-c", KILLED, path, str(out), str(pause)], 0
    for _ in range(kills):
        process = subprocess.Popen(code, stdout=subprocess.PIPE)
        process.stdout.readline()
        time.sleep(rng.uniform(0.05, 1.2))
        alive += process.poll() is None
        process.send_signal(signal.SIGKILL)
        process.wait()
        process.stdout.close()
    subprocess.run(code, check=True, timeout=200)
    return alive


@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="needs SIGKILL")
@pytest.mark.parametrize(
    ("n", "kills", "pause"), [(96, 3, 0.05), pytest.param(480, 20, 0.3, marks=pytest.mark.slow)]
)
def test_killed_at_random_moments(tmp_path, n, kills, pause):
    path = write_cube(tmp_path / "cube.fits", *moments(n))
    reference = tmp_path / "reference"
    measure_stream(StandInEstimator(), path, reference, block_rows=16)
    assert killed_runs(path, tmp_path / "out", kills, pause, seed=kills) >= 1
    assert_same(read_blocks(tmp_path / "out"), read_blocks(reference))
    assert not list((tmp_path / "out").glob(".*"))


@pytest.fixture(scope="module")
def real():
    return ShapeEstimator()


def real_run(estimator, path, out, **options):
    measure_stream(estimator, path, out, **options)
    return read_blocks(out)


@pytest.mark.slow
@pytest.mark.parametrize("method", ["network", "ml", "posterior"])
def test_the_network_gives_equal_rows_everywhere(real, tmp_path, monkeypatch, method):
    distributed = pytest.importorskip("distributed")
    n = 150 if method == "network" else 40
    path = write_cube(tmp_path / "cube.fits", *moments(n))
    run = partial(real_run, real, path, method=method)
    tables = [run(tmp_path / "threads")]
    monkeypatch.setattr(run_module, "CHUNK_ROWS", 17)
    tables += [run(tmp_path / "chunks", block_rows=50), run(tmp_path / "processes", workers=2)]
    with distributed.Client(n_workers=2, threads_per_worker=1, dashboard_address=None) as client:
        measure_dask(real, path, tmp_path / "dask", client, method=method)
    for table in [*tables, read_blocks(tmp_path / "dask")]:
        assert_same(table, tables[0])


MEMORY = """
import resource, sys
import numpy as np
from galshape_cnn.scale import measure_stream
from galshape_cnn.tests.standin import StandInEstimator

measure_stream(StandInEstimator(), sys.argv[1], sys.argv[2])
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024)
"""


@pytest.mark.slow
def test_memory_is_flat(tmp_path):
    used = []
    for n in (2_000, 40_000):
        path = write_cube(tmp_path / f"{n}.fits", *(np.resize(a, (n, *a.shape[1:])) for a in moments()))
        code = [sys.executable, "-c", MEMORY, path, str(tmp_path / str(n))]
        used.append(int(subprocess.run(code, capture_output=True, text=True, check=True).stdout))
    assert used[1] < used[0] + 150  # MB; the second cube alone is 340
