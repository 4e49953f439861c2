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
``psfs``: processor time with PSFs that are shared or each galaxy's own, wide or finely sampled.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from contextlib import suppress
from functools import partial
from itertools import product
from pathlib import Path

import numpy as np
from astropy.io import fits
from csv_tables import write

COUNTS = {"network": 24576, "ml": 8192, "posterior": 2048}
#: Files that a run is divided into: the rate is that of all but the first.
BLOCKS = 8


def tiles(count=256, size=64):
    """Stamps, inverse variances and PSFs of the seed's prior, pixel-sampled."""
    from galshape_cnn.study.simulate.mock_sets import draw_mocks

    stamps, _ = draw_mocks("seed", count, engine="fast")
    middle = stamps.psf.shape[-1] // 2
    psf = stamps.psf[:, middle % 2 :: 2, middle % 2 :: 2] * 4
    half = psf.shape[-1] // 2
    psf = psf[:, half - 20 : half + 21, half - 20 : half + 21]  # nothing is cut off that counts
    data, ivar = _resized(stamps.data, stamps.ivar, size)
    return data, ivar, psf / psf.sum((1, 2), keepdims=True)


def _resized(data, ivar, size):
    """Stamps cut, or continued with noise."""
    margin = (data.shape[-1] - size) // 2
    if margin >= 0:
        inside = slice(margin, margin + size)
        return data[:, inside, inside], ivar[:, inside, inside]
    rng = np.random.default_rng(1)
    more = [(0, 0), (-margin, -margin), (-margin, -margin)]
    ivar = np.pad(ivar, more, mode="edge")
    noise = rng.standard_normal(ivar.shape) / np.sqrt(ivar)
    inside = np.pad(np.ones_like(data), more)
    return np.where(inside > 0, np.pad(data, more), noise).astype("f4"), ivar


def write_cube(path, n, arrays):
    """A FITS cube of any size, written a tile at a time."""
    with open(path, "wb") as file:
        file.write(fits.PrimaryHDU().header.tostring().encode())
        for name, array in zip(("SCI", "IVAR", "PSF"), arrays, strict=True):
            array = array.astype(">f4")
            header = fits.ImageHDU(array[:1], name=name).header
            header["NAXIS3"] = n
            file.write(header.tostring().encode())
            written = 0
            while written < n:
                file.write(array[: n - written].tobytes())
                written += min(len(array), n - written)
            file.write(b"\0" * (-(n * array[0].nbytes) % 2880))


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


def _as_worker():
    """Set this process up as a worker is; before JAX is imported."""
    from galshape_cnn.environment import keep_freed_memory
    from galshape_cnn.scale.workers import ONE_THREAD

    os.environ.update(ONE_THREAD)
    keep_freed_memory()


def stages(folder, arguments):
    """Processor time of the stages of method "network" in a process set up as a worker, seen from outside."""
    _as_worker()
    from galshape_cnn import ShapeEstimator
    from galshape_cnn.infer.likelihood import rendering
    from galshape_cnn.infer.measure import bounds, estimates, quality
    from galshape_cnn.observe import observation as cutout
    from galshape_cnn.scale import open_source

    spent = {}
    places = [
        ("reading the file", None, None),
        ("cutting", cutout, "cut_stamps"),
        ("recentring, neighbours", cutout, "find_centers"),
        ("transfer functions of the PSFs", rendering, "transfer_functions"),
        ("network and second look", estimates, "sky_free_posterior"),
        ("moments of its answer", estimates, "posterior_moments"),
        ("bounds, chi-square, residuals", bounds, "examine"),
        ("errors under misfit", bounds, "structure_of"),
        ("point sources", quality, "chi2_of_points"),
    ]
    for name, module, function in places[1:]:
        setattr(module, function, partial(_counted, spent, name, getattr(module, function)))
    n = arguments.n or 2048
    with tempfile.TemporaryDirectory() as work:
        write_cube(f"{work}/cube.fits", n, tiles())
        source, estimator = open_source(f"{work}/cube.fits"), ShapeEstimator()
        for first in (0, n // 2):  # the first half compiles
            spent.clear()
            begin = time.process_time()
            for start in range(first, first + n // 2, 512):
                data, keywords = _counted(spent, places[0][0], source.read, start, start + 512)
                estimator(data, threads=1, strict=False, **keywords)
            total = time.process_time() - begin
    spent["the rest: checks, flags, rows"] = total - sum(spent.values())
    rows = [[k, f"{1e3 * v / (n // 2):.2f}", f"{100 * v / total:.0f}"] for k, v in spent.items()]
    rows.append(["together", f"{1e3 * total / (n // 2):.2f}", "100"])
    write(folder, "stages", ["stage", "CPU ms each", "%"], rows)
    write(folder, "ratio", ["of one core", "value"], _ratio(estimator.live_network(), total / (n // 2)))


def needed_operations(network):
    """Operations that a galaxy of 64 x 64 needs: of the network, and of two renderings with derivatives."""
    pixels, context, *_ = network._inputs(_some_stamps(), 1, True, np.zeros(64))
    program = network._forward.function.jitted.lower([pixels, context]).compile()
    return program.cost_analysis()["flops"] / 64, 2 * rendering_operations(64)


def rendering_operations(size, bandwidth=1):
    """Operations of the matrix products of one rendering with derivatives, counted from their shapes."""
    from galshape_cnn.forward.grid import FourierGrid

    half, modes = size // 2, len(FourierGrid(size, bandwidth).kx)
    along_y, along_x = half * modes * modes, half * modes * half
    return 2 * 4 * (6 * along_y + 7 * along_x)  # multiply and add, four parities; x is free along y


def _some_stamps():
    from galshape_cnn import Stamps

    stamps = Stamps(*(array[:64] for array in tiles(64)))
    return stamps.in_units_of(stamps.noise_unit)


def _ratio(network, seconds):
    """Rows of the ratio of the time that a galaxy takes to that of its products at the rate of this core."""
    from threadpoolctl import threadpool_limits

    with threadpool_limits(1):
        peak = matrix_rate()
    parts = needed_operations(network)
    return [
        ["CPU time of a galaxy, ms", f"{1e3 * seconds:.2f}"],
        ["matrix product of 2048 x 2048, GFLOP/s", f"{peak / 1e9:.0f}"],
        ["operations of the network, million", f"{parts[0] / 1e6:.0f}"],
        ["operations of two renderings with derivatives, million", f"{parts[1] / 1e6:.0f}"],
        ["time x rate / operations", f"{seconds * peak / sum(parts):.1f}"],
    ]


def _counted(spent, name, function, *args, **keywords):
    """Call a function and add up its processor time; JAX is waited for."""
    import jax

    begin = time.process_time()
    result = jax.block_until_ready(function(*args, **keywords))
    spent[name] = spent.get(name, 0) + time.process_time() - begin
    return result


def roofline(folder, arguments):
    """Floating-point operations a second: matrix products, and the convolutional network, one thread."""
    from threadpoolctl import threadpool_limits

    from galshape_cnn import ShapeEstimator

    with threadpool_limits(1):
        peak = matrix_rate()
    network = ShapeEstimator().live_network()
    pixels, context, *_ = network._inputs(_some_stamps(), 1, True, np.zeros(64))
    operations, best = needed_operations(network)[0], np.inf
    for _ in range(20):
        begin = time.process_time()
        network._forward([pixels, context])  # by the kernel, as in every measurement
        best = min(best, time.process_time() - begin)
    rate = 64 * operations / best
    rows = [
        ["matrix product of 2048 x 2048, GFLOP/s", f"{peak / 1e9:.0f}"],
        ["operations of the network for a galaxy, million", f"{operations / 1e6:.0f}"],
        ["its time, ms", f"{1e3 * best / 64:.2f}"],
        ["its rate, GFLOP/s", f"{rate / 1e9:.0f}"],
        ["share of the matrix rate, %", f"{100 * rate / peak:.0f}"],
    ]
    write(folder, "roofline", ["of one core", "value"], rows)


def matrix_rate(n=2048):
    """Floating-point operations a second of a large matrix product."""
    a = np.random.default_rng(1).normal(size=(n, n)).astype("f4")
    best = np.inf
    for _ in range(5):
        start = time.process_time()
        a @ a
        best = min(best, time.process_time() - start)
    return 2 * n**3 / best


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


def psfs(folder, arguments):
    """Processor time of a galaxy by form of the PSF, and its ratio to a shared one of 25 x 25 samples."""
    _as_worker()
    from galshape_cnn import ShapeEstimator

    data, ivar, _ = tiles(256)
    widths = np.random.default_rng(1).uniform(2.5, 4, len(data))
    spent, estimator = {}, ShapeEstimator()
    for run in range(6):  # in turn
        for own, (over, side) in product((False, True), ((1, 25), (1, 127), (2, 51), (2, 127))):
            psf = _moffats(widths if own else widths[:1], side, over)
            how = {"psf": psf, "psf_oversampling": over, "error": 1 / np.sqrt(ivar), "strict": False}
            begin = time.process_time()
            estimator(data, threads=1, **how)
            if run:  # the first warms up
                spent.setdefault((own, over, side), []).append(time.process_time() - begin)
    shared = np.array(spent[False, 1, 25])
    rows = []
    for (own, over, side), seconds in spent.items():
        ratio = np.median(np.array(seconds) / shared)
        each = np.median(seconds) / len(data) * 1e3
        rows.append(["own" if own else "shared", side, over, f"{each:.2f}", f"{ratio:.2f}"])
    write(folder, "psfs", ["PSF", "samples", "per pixel", "CPU ms each", "times shared 25"], rows)


def _moffats(fwhm, side, over):
    """Moffat profiles of beta 3, (N, side, side), of unit sum."""
    y, x = (np.mgrid[:side, :side] - side // 2) / over
    radius = fwhm[:, None, None] / (2 * np.sqrt(2 ** (1 / 3) - 1))
    light = (1 + (x**2 + y**2) / radius**2) ** -3.0
    return light / light.sum((1, 2), keepdims=True)


def _cores():
    return len(os.sched_getaffinity(0))


SECTIONS = {one.__name__: one for one in (throughput, stages, roofline, dask, memory, start, psfs)}


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
