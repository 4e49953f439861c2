# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""Galaxies a second from a FITS cube to a folder of Parquet files, where the time goes, and what bounds it.

Stamps are tiles of a small set of mocks with a pixel-sampled PSF for each.  Each section writes CSV
tables, which the documentation shows; rows of an older table with another first columns are kept::

    python benchmarks/bench_throughput.py -o docs/performance throughput --workers 0 2
    python benchmarks/bench_throughput.py -o docs/performance stages roofline dask memory

``throughput``: steady rate and processor time (between the first and the last file written, so without the
start), whole time and memory, by method, ``--size`` of the stamps, ``--workers`` (0: threads) and ``-n``;
``stages``: processor time of one thread by stage, and its ratio to that of the arithmetic needed;
``roofline``: the network beside the machine's matrix rate;
``dask``: one and two workers of one thread; ``memory``: peak memory against the number of galaxies;
``start``: the whole time of the command for a few galaxies;
``psfs``: processor time with PSFs that are shared or each galaxy's own, wide or finely sampled;
``growth``: processor time by the side of the stamps, 32 to 512 pixels, and the number of exposures, 1 to 8.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from contextlib import suppress
from pathlib import Path

import numpy as np
from csv_tables import write
from throughput_mocks import tiles, write_cube
from throughput_stages import growth, psfs, roofline, stages

COUNTS = {"network": 24576, "ml": 8192, "posterior": 2048}
#: Files that a run is divided into: the rate is that of all but the first.
BLOCKS = 8


RUN = """
import json, os, sys, time
from galshape_cnn import ShapeEstimator
from galshape_cnn.cli.compile_cache import compile_cache
from galshape_cnn.scale import measure_stream
from galshape_cnn.scale.dataset import BlockFolder

if __name__ == "__main__":
    path, out, method, workers, rows = sys.argv[1:]
    write, written = BlockFolder.write, []

    def noted(self, number, table, errors):
        written.append((time.perf_counter(), sum(os.times()[:2]), len(table)))
        write(self, number, table, errors)

    BlockFolder.write = noted
    how = {"method": method, "workers": int(workers) or None, "block_rows": int(rows)}
    with compile_cache():
        done = measure_stream(ShapeEstimator(), path, out, **how)
    print(json.dumps([written, done["rows"], done["errors"]]))
"""


def timed(path, method, workers, block_rows):
    """One run in a process of its own: steady rate and CPU seconds of this process, seconds, MB, rows."""
    with tempfile.TemporaryDirectory() as folder:
        script, out = Path(folder) / "run.py", Path(folder) / "blocks"
        script.write_text(RUN)
        command = [sys.executable, script, path, out, method, str(workers), str(block_rows)]
        start = time.perf_counter()
        with subprocess.Popen(list(map(str, command)), stdout=subprocess.PIPE, text=True) as process:
            memory = peak_memory(process)
            printed = process.stdout.read()
        wall = time.perf_counter() - start
    written, rows, errors = json.loads(printed.splitlines()[-1])
    assert not errors
    gained = sum(one[2] for one in written[1:])
    out = {"wall": wall, "memory": memory, "rows": rows}
    if not gained:
        return out
    seconds, cpu = (written[-1][k] - written[0][k] for k in (0, 1))
    return out | {"rate": gained / seconds, "cpu": cpu / gained}


def peak_memory(process):
    """Largest memory, in MB, of a process and its children until it ends; pages they share count once."""
    import psutil

    peak = 0
    while process.poll() is None:
        with suppress(psutil.Error):
            whole = psutil.Process(process.pid)
            peak = max(peak, sum(_proportional(one) for one in [whole, *whole.children(recursive=True)]))
        time.sleep(2)  # reading it stops the processes for some milliseconds
    return peak / 2**20


def _proportional(process):
    import psutil

    try:
        return process.memory_full_info().pss
    except psutil.Error:  # it has just ended
        return 0


def throughput(folder, arguments):
    """Rates by method, size of the stamps and workers."""
    with tempfile.TemporaryDirectory() as work:
        for size in arguments.size:
            arrays = tiles(size=size)
            for method in arguments.method:
                n = arguments.n or COUNTS[method]
                write_cube(f"{work}/cube.fits", n, arrays)
                for workers in arguments.workers:
                    run = timed(f"{work}/cube.fits", method, workers, max(64, n // BLOCKS))
                    who = f"{workers} process{'es' * (workers > 1)}" if workers else f"{_cores()} threads"
                    cpu = "" if workers else f"{1e3 * run['cpu']:.2f}"  # of others it is not known
                    row = [method, size, who, n, f"{run['rate']:.0f}", cpu]
                    row += [f"{run['wall']:.1f}", f"{run['memory'] / 1024:.1f}"]
                    header = ["method", "pixels", "by", "N", "galaxies/s", "CPU ms each", "all told s", "GB"]
                    write(folder, "throughput", header, [row], keys=4)


def start(folder, arguments):
    """Seconds of the command for a few galaxies: without kept programs, and with them."""
    n, seconds = arguments.n or 16, []
    with tempfile.TemporaryDirectory() as work:
        write_cube(f"{work}/cube.fits", n, tiles(n))
        command = [Path(sys.executable).with_name("galshape"), "measure", f"{work}/cube.fits"]
        command += ["--output", f"{work}/shapes.ecsv", "--overwrite"]
        kept = os.environ | {"GALSHAPE_COMPILE_CACHE": f"{work}/programs"}
        for _ in range(1 + arguments.repeat):
            begin = time.perf_counter()
            subprocess.run(command, env=kept, check=True, stdout=subprocess.DEVNULL)
            seconds.append(time.perf_counter() - begin)
    first, later = seconds[0], seconds[1:]
    row = [n, f"{first:.1f}", f"{np.median(later):.2f}", f"{min(later):.2f}", f"{max(later):.2f}", len(later)]
    header = ["galaxies", "first run, s", "later, median, s", "least", "most", "later runs"]
    write(folder, "start", header, [row])


def memory(folder, arguments):
    """Peak memory of method "network" on threads against the number of galaxies."""
    with tempfile.TemporaryDirectory() as work:
        arrays = tiles()
        for n in arguments.memory_n:
            write_cube(f"{work}/cube.fits", n, arrays)
            run = timed(f"{work}/cube.fits", "network", 0, 8192)
            row = [n, f"{run['memory']:.0f}", f"{run['wall']:.0f}"]
            write(folder, "memory", ["N", "peak memory, MB", "seconds"], [row], keys=1)


def dask(folder, arguments):
    """One and two workers of one thread on a cluster of this machine."""
    from distributed import Client, LocalCluster

    from galshape_cnn import ShapeEstimator
    from galshape_cnn.scale import measure_dask

    n, rates, estimator = arguments.n or 16384, {}, ShapeEstimator()
    with tempfile.TemporaryDirectory() as work:
        write_cube(f"{work}/cube.fits", n, tiles())
        for count in (2, 1):
            alone = {"n_workers": count, "threads_per_worker": 1, "dashboard_address": None}
            with LocalCluster(**alone) as cluster, Client(cluster) as client:
                for run in ("warm", "timed"):  # the first loads and compiles
                    out = Path(work) / f"{run}{count}"
                    measure_dask(estimator, f"{work}/cube.fits", out, client, block_rows=n // BLOCKS)
                written = sorted(part.stat().st_mtime for part in out.glob("part-*"))
                rates[count] = (n - n // BLOCKS) / (written[-1] - written[0])
    gain = rates[2] / rates[1]
    rows = [[1, n, f"{rates[1]:.0f}", "1"], [2, n, f"{rates[2]:.0f}", f"{gain:.2f}"]]
    write(folder, "dask", ["workers of one thread", "N", "galaxies/s", "times one worker"], rows)


def _cores():
    return len(os.sched_getaffinity(0))


SECTIONS = {one.__name__: one for one in (throughput, stages, roofline, dask, memory, start, psfs, growth)}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("sections", nargs="+", choices=list(SECTIONS))
    parser.add_argument("-o", "--output", type=Path, default=Path())
    parser.add_argument("--method", nargs="+", default=["network", "ml", "posterior"])
    parser.add_argument("--workers", nargs="+", type=int, default=[0], help="processes; 0: threads")
    parser.add_argument("--size", nargs="+", type=int, default=[64], help="side of the stamps")
    parser.add_argument("-n", type=int, default=None, help="galaxies of a run")
    parser.add_argument("--repeat", type=int, default=7, help="later runs of section start")
    parser.add_argument("--memory-n", nargs="+", type=int, default=[20_000, 100_000, 300_000])
    arguments = parser.parse_args()
    arguments.output.mkdir(parents=True, exist_ok=True)
    for section in arguments.sections:
        SECTIONS[section](arguments.output, arguments)


if __name__ == "__main__":
    main()
