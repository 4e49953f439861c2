# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""Galaxies a second from a FITS cube to a folder of Parquet files, by method, number and workers.

Stamps are tiles of a small set of mocks with a pixel-sampled PSF for each. The steady rate is that between
two numbers of galaxies, so that what starts once (imports, network, cached programs) is listed apart.
"""

import argparse
import json
import os
import platform
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from astropy.io import fits


def tiles(count=256):
    """Stamps, inverse variances and PSFs of the seed's prior, pixel-sampled."""
    from galshape_cnn.study.simulate import draw_mocks

    stamps, _ = draw_mocks("seed", count, engine="fast")
    middle = stamps.psf.shape[-1] // 2
    psf = stamps.psf[:, middle % 2 :: 2, middle % 2 :: 2] * 4
    half = psf.shape[-1] // 2
    psf = psf[:, half - 12 : half + 13, half - 12 : half + 13]
    return stamps.data, stamps.ivar, psf / psf.sum((1, 2), keepdims=True)


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


def timed(path, method, workers):
    """Seconds, CPU seconds and peak memory of one run in a process of its own."""
    out = tempfile.mkdtemp()
    code = (
        "import sys, time, json, resource, os; from galshape_cnn import ShapeEstimator\n"
        "from galshape_cnn.scale import measure_stream\n"
        "if __name__ == '__main__':\n"
        "    start = time.perf_counter()\n"
        "    summary = measure_stream(ShapeEstimator(), sys.argv[1], sys.argv[2], method=sys.argv[3],\n"
        "        workers=int(sys.argv[4]) or None)\n"
        "    used = [sum(os.times()[:4]), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024]\n"
        "    print(json.dumps([time.perf_counter() - start, *used, summary['rows'], summary['errors']]))\n"
    )
    script = Path(out) / "run.py"
    script.write_text(code)
    start = time.perf_counter()
    command = [sys.executable, str(script), path, str(Path(out) / "blocks"), method, str(workers)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    wall = time.perf_counter() - start
    shutil.rmtree(out)
    _, cpu, memory, rows, errors = json.loads(done.stdout.splitlines()[-1])
    return {"rows": rows, "errors": errors, "seconds": wall, "cpu_seconds": cpu, "memory_mb": memory}


def matrix_rate(n=2048):
    """Floating-point operations a second of the largest matrix product."""
    a = np.random.default_rng(1).normal(size=(n, n)).astype("f4")
    best = np.inf
    for _ in range(4):
        start = time.perf_counter()
        a @ a
        best = min(best, time.perf_counter() - start)
    return 2 * n**3 / best


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("-o", "--output", default="throughput.json")
    parser.add_argument("--method", nargs="+", default=["network", "ml", "posterior"])
    parser.add_argument("--workers", nargs="+", type=int, default=[0], help="processes; 0: threads")
    parser.add_argument("-n", nargs=2, type=int, default=None, help="two numbers of galaxies")
    args = parser.parse_args()
    arrays, results = tiles(), []
    sizes = {"network": (1024, 9216), "ml": (512, 2560), "posterior": (256, 1024)}
    machine = {"cores": len(os.sched_getaffinity(0)), "machine": platform.processor() or platform.machine()}
    machine["matrix_flops"] = matrix_rate()
    with tempfile.TemporaryDirectory() as folder:
        for method in args.method:
            small, large = args.n or sizes[method]
            for n in (small, large):
                write_cube(f"{folder}/{n}.fits", n, arrays)
            for workers in args.workers:
                timed(f"{folder}/{small}.fits", method, workers)  # fills the cache of compiled functions
                runs = [timed(f"{folder}/{n}.fits", method, workers) for n in (small, large)]
                gained = large - small
                rate = gained / (runs[1]["seconds"] - runs[0]["seconds"])
                cpu = (runs[1]["cpu_seconds"] - runs[0]["cpu_seconds"]) / gained * 1e3
                row = {"method": method, "workers": workers, "rate": rate, "cpu_ms": cpu}
                row |= {"short": runs[0], "long": runs[1]}
                results.append(row)
                print(f"{method}, workers {workers}: {rate:.0f}/s steady, {cpu:.2f} ms of CPU each,", end=" ")
                whole = f"{n} in {runs[1]['seconds']:.1f} s all told"
                print(f"{whole}, {runs[1]['memory_mb']:.0f} MB", flush=True)
                Path(args.output).write_text(json.dumps({"machine": machine, "runs": results}, indent=1))


if __name__ == "__main__":
    main()
