# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""Runs: any blocks, processes and clusters give the same rows, and a killed run goes on."""

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
from astropy.table import QTable

from galshape_cnn import ShapeEstimator, mean_shear
from galshape_cnn.cli import main
from galshape_cnn.errors import FileError, InputError
from galshape_cnn.scale import measure_dask, measure_stream, read_blocks
from galshape_cnn.scale import run as run_module
from galshape_cnn.tests.standin import StandInEstimator
from galshape_cnn.tests.stream_scene import N, assert_same, moments, write_cube


@pytest.fixture(scope="module")
def cube(tmp_path_factory):
    return write_cube(tmp_path_factory.mktemp("cube") / "cube.fits", *moments())


@pytest.fixture
def small_chunks(monkeypatch):
    monkeypatch.setattr(run_module, "CHUNK_ROWS", 4)


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


def test_command_line_folder(cube, tmp_path, monkeypatch, capsys):
    from galshape_cnn.cli import measure

    monkeypatch.setattr(measure, "load_estimator", lambda bundle: StandInEstimator())
    out = tmp_path / "run"
    args = ["measure", cube, "-o", str(out), "--block-rows", "10"]
    assert main(args) == 0
    assert f"measured {N} galaxies (network): {N} of quality 0" in capsys.readouterr().out
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


@pytest.mark.parametrize(
    ("options", "many", "cores", "pool"),
    [([], N, 3, None), ([], N - 1, 3, 3), ([], N - 1, 1, None), (["--workers", "2"], N, 3, 2)],
)
def test_command_line_measures_many_in_processes(cube, tmp_path, monkeypatch, options, many, cores, pool):
    from galshape_cnn import parallel as batches
    from galshape_cnn.cli import measure
    from galshape_cnn.scale import workers as scale_workers

    asked, threads = [], scale_workers.ThreadWorkers
    monkeypatch.setattr(measure, "load_estimator", lambda bundle: StandInEstimator())
    monkeypatch.setattr(measure, "_MANY", many)
    monkeypatch.setattr(batches, "usable_cores", lambda: cores)
    monkeypatch.setattr(
        scale_workers, "ThreadWorkers", lambda job, count: asked.append(None) or threads(job, 1)
    )
    monkeypatch.setattr(
        scale_workers, "ProcessWorkers", lambda job, count: asked.append(count) or threads(job, 1)
    )
    assert main(["measure", cube, "-o", str(tmp_path / "run"), *options]) == 0
    assert asked == [pool]


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
    n = 40 if method == "posterior" else 150
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
import sys
from galshape_cnn.scale import measure_stream
from galshape_cnn.tests.standin import StandInEstimator

measure_stream(StandInEstimator(), sys.argv[1], sys.argv[2])
# not ru_maxrss, which starts at the size of the process that started this one
status = dict(line.split(":", 1) for line in open("/proc/self/status"))
print(int(status["VmHWM"].split()[0]) // 1024)
"""


@pytest.mark.slow
@pytest.mark.skipif(not os.path.exists("/proc/self/status"), reason="peak memory is read from /proc")
def test_memory_is_flat(tmp_path):
    used = []
    for n in (2_000, 40_000):
        path = write_cube(tmp_path / f"{n}.fits", *(np.resize(a, (n, *a.shape[1:])) for a in moments()))
        code = [sys.executable, "-c", MEMORY, path, str(tmp_path / str(n))]
        used.append(int(subprocess.run(code, capture_output=True, text=True, check=True).stdout))
    assert used[1] < used[0] + 150  # MB; the second cube alone is 340


class Failing:
    """The estimator of the package, but for galaxies with a pixel above a thousand."""

    def __init__(self):
        self.estimator = ShapeEstimator()

    def __call__(self, data, **keywords):
        if np.max(getattr(data, "data", data)) > 1000:
            raise ValueError("no such galaxy")
        return self.estimator(data, **keywords)


def test_shear_response_is_in_the_blocks_and_in_tables(tmp_path):
    data, psf = moments(6)
    options = {"neighbours": "ignore", "shear_response": True}
    whole = ShapeEstimator()(data[:4], psf=psf[:4], error=1.0, **options)
    data[4:, 3, 3] = 1e4
    cube, out = write_cube(tmp_path / "cube.fits", data, psf), tmp_path / "out"
    first = measure_stream(Failing(), cube, out, block_rows=2, **options)
    (out / "part-000001.parquet").unlink()  # as if it had been stopped before
    assert measure_stream(Failing(), cube, out, block_rows=2, **options) == first
    table = read_blocks(out)
    assert first["errors"] == 2
    assert np.isnan(table["shear_copies"][4:]).all()
    assert np.isnan(table["response_12"][4:]).all()
    np.testing.assert_array_equal(table["shear_copies"][:4], whole.shear_copies)
    np.testing.assert_array_equal(table["response_21"][:4], whole.response[:, 1, 0])
    rows = mean_shear(table)[0], mean_shear(whole)[0]
    assert rows[0]["N"] == rows[1]["N"] > 0
    for name in ("g1", "g2", "R", "R_selection"):
        np.testing.assert_array_equal(rows[0][name], rows[1][name])
    text = [str(tmp_path / "table.fits"), "--shear-response", "--neighbours", "ignore"]
    assert main(["measure", write_cube(tmp_path / "good.fits", data[:4], psf[:4]), "-o", *text]) == 0
    read = QTable.read(text[0])
    np.testing.assert_array_equal(read["shear_copies"], whole.shear_copies)
    np.testing.assert_array_equal(mean_shear(read)[0]["R"], rows[1]["R"])


def test_other_estimators_refuse_the_shear_response_by_name(cube, tmp_path, capsys):
    out = str(tmp_path / "table.fits")
    assert main(["measure", cube, "-o", out, "--shear-response", "--method", "posterior"]) == 1
    assert "--shear-response with" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("options", "started"),
    [([], [2]), (["--cutout"], []), (["--positions", "few.csv"], []), (["--positions", "many.csv"], [2]),
     (["--workers", "1"], []), (["--positions", "none.csv"], [])],
)  # fmt: skip
def test_processes_begin_early_only_where_many_galaxies_may_be_found(tmp_path, monkeypatch, options, started):
    from galshape_cnn import cli, parallel
    from galshape_cnn.cli import measure
    from galshape_cnn.scale import workers

    class Recorded:
        def __init__(self, count, spared):
            assert spared == 1  # the command itself reads and searches the image
            begun.append(count)

        def close(self):
            pass

    begun = []
    fits.writeto(tmp_path / "image.fits", np.zeros((1001, 1001), np.float32))
    for name, rows in (("few.csv", 3), ("many.csv", 5000)):
        (tmp_path / name).write_text("x,y\n" + "500.0,500.0\n" * rows)
    monkeypatch.setattr(parallel, "usable_cores", lambda: 2)
    monkeypatch.setattr(workers, "Processes", Recorded)
    monkeypatch.chdir(tmp_path)
    with measure._processes(cli._parser().parse_args(["measure", "image.fits", "-o", "out.fits", *options])):
        pass
    assert begun == started
