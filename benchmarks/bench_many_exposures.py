# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""Many galaxies in four exposures each, by the stream: rate, memory, and restart after a kill.

The cubes of cutouts repeat one set of mocks, so every galaxy occurs many times and its rows must be equal
to the last bit.  The exposures are of the bands g, r, r, z, with PSFs and depths of their own.  ``--kill``
ends the first run of the shortest list when it has written two blocks, and goes on with it.

    python benchmarks/bench_many_exposures.py -n 10000 100000 -o docs/performance --kill
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import galsim
import numpy as np
from astropy.io import fits
from bench_throughput import peak_memory
from csv_tables import write

#: Band, FWHM of the PSF in pixels, noise of a pixel.
SETUP = (("g", 3.0, 1.0), ("r", 3.5, 1.3), ("r", 2.5, 0.8), ("z", 4.0, 1.0))
SNR = 15.0, 150.0  # of all exposures together
UNIT = 512  # galaxies that repeat
HEADER = ("method", "pixels", "N", "seconds", "CPU ms each", "peak memory, MB", "quality 0, %")

RUN = """
import json, os, sys
from galshape_cnn import Exposure, ShapeEstimator
from galshape_cnn.scale import measure_stream

if __name__ == "__main__":
    setup, folder, out, method, rows = sys.argv[1:]
    exposures = [
        Exposure(f"{folder}/{k}.fits", error=error, band=band)
        for k, (band, _, error) in enumerate(json.loads(setup))
    ]
    done = measure_stream(ShapeEstimator(), exposures, out, method=method, block_rows=int(rows))
    print(json.dumps([done["rows"], done["clean"], done["errors"], sum(os.times()[:2])]))
"""


def tiles(size):
    """Noisy stamps (UNIT, size, size) and the PSF of each exposure."""
    from galshape_cnn import ShapeEstimator

    rng = np.random.default_rng(1)
    _, n, hlr, g1, g2 = ShapeEstimator().live_network().prior.sample(rng, UNIT).T
    n = np.clip(np.round(n / 0.05), 6, 124) * 0.05  # GalSim tabulates each index
    shapes = [
        galsim.Sersic(float(a), half_light_radius=float(b)).shear(g1=float(c), g2=float(d))
        for a, b, c, d in zip(n, hlr, g1, g2, strict=True)
    ]
    psfs = [galsim.Moffat(beta=3, fwhm=fwhm) for _, fwhm, _ in SETUP]
    clean = np.array([
        [galsim.Convolve(one, psf).drawImage(nx=size, ny=size, scale=1.0).array for one in shapes]
        for psf in psfs
    ])  # fmt: skip
    sigma = np.array([error for *_, error in SETUP])
    square = ((clean**2).sum((2, 3)) / sigma[:, None] ** 2).sum(0)
    clean *= (np.exp(rng.uniform(*np.log(SNR), UNIT)) / np.sqrt(square))[:, None, None]  # one flux in all
    for stamps, psf, error in zip(clean, psfs, sigma, strict=True):
        seen = galsim.Convolve(psf, galsim.Pixel(1.0))
        pixels = seen.drawImage(nx=41, ny=41, scale=1.0, method="no_pixel").array
        yield stamps + rng.normal(scale=error, size=stamps.shape), pixels


def write_cubes(folder, arrays, n):
    """A FITS cube for each exposure, a tile after the other."""
    for k, (stamps, psf) in enumerate(arrays):
        stamps = stamps.astype(">f4")
        header = fits.ImageHDU(stamps[:1], name="SCI").header
        header["NAXIS3"] = n
        with (folder / f"{k}.fits").open("wb") as file:
            file.write(fits.PrimaryHDU().header.tostring().encode())
            file.write(header.tostring().encode())
            for start in range(0, n, UNIT):
                file.write(stamps[: n - start].tobytes())
            file.write(b"\0" * (-(n * stamps[0].nbytes) % 2880))
            fits.ImageHDU(psf.astype("f4"), name="PSF").writeto(folder / "psf.fits", overwrite=True)
            with fits.open(folder / "psf.fits") as hdus:
                file.write(hdus[1].header.tostring().encode())
                file.write(hdus[1].data.tobytes())
                file.write(b"\0" * (-hdus[1].data.nbytes % 2880))


def started(folder, out, method, block_rows):
    """The run, in a process of its own."""
    (folder / "run.py").write_text(RUN)
    command = [sys.executable, folder / "run.py", json.dumps(SETUP), folder, out, method, block_rows]
    return subprocess.Popen(list(map(str, command)), stdout=subprocess.PIPE, text=True)


def killed(folder, out, method, block_rows):
    """Begin a run and end it by force after two blocks; how many it has written."""
    with started(folder, out, method, block_rows) as process:
        while process.poll() is None and len(list(out.glob("part-*"))) < 2:
            time.sleep(0.2)
        process.kill()
    return len(list(out.glob("part-*")))


def check_repeats(out):
    """Every galaxy's rows are equal to the last bit, whatever else was in their blocks."""
    from galshape_cnn.scale import read_blocks

    table = read_blocks(out)
    first = table[np.arange(len(table)) % UNIT]
    names = [name for name in table.colnames if name != "id" and np.asarray(table[name]).dtype.kind in "fiub"]
    differ = [name for name in names if not np.array_equal(table[name], first[name], equal_nan=True)]
    if differ:
        raise SystemExit(f"rows of the same galaxy differ in {differ}")
    return table


def main():
    """Entry point."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("-n", nargs="+", type=int, default=[10_000, 100_000])
    parser.add_argument("--size", type=int, default=40)
    parser.add_argument("--method", default="network")
    parser.add_argument("--block-rows", type=int, default=4096)
    parser.add_argument("--kill", action="store_true")
    parser.add_argument("-o", "--output", type=Path, required=True)
    args = parser.parse_args()
    args.output.mkdir(parents=True, exist_ok=True)
    arrays = list(tiles(args.size))
    for n in args.n:
        with tempfile.TemporaryDirectory() as work:
            row = measured(Path(work), arrays, n, args)
        write(args.output, "many_exposures", HEADER, [row], keys=3)


def measured(folder, arrays, n, args):
    """One line of the table."""
    write_cubes(folder, arrays, n)
    begin = time.perf_counter()
    with started(folder, folder / "out", args.method, args.block_rows) as process:
        memory = peak_memory(process)
        rows, clean, errors, cpu = json.loads(process.stdout.read().splitlines()[-1])
    seconds = time.perf_counter() - begin
    if errors or rows != n:
        raise SystemExit(f"{errors} errors, {rows} rows of {n}")
    table = check_repeats(folder / "out")
    if args.kill and n == min(args.n):
        blocks = killed(folder, folder / "killed", args.method, args.block_rows)
        with started(folder, folder / "killed", args.method, args.block_rows) as process:
            process.stdout.read()
        again = check_repeats(folder / "killed")
        same = all(
            np.array_equal(table[name], again[name])
            or np.array_equal(table[name], again[name], equal_nan=True)
            for name in table.colnames
        )
        print(f"killed after {blocks} blocks, restarted: {'equal to the last bit' if same else 'DIFFERENT'}")
    return (
        args.method, args.size, n, f"{seconds:.0f}", f"{1e3 * cpu / n:.1f}", f"{memory:.0f}",
        f"{100 * clean / n:.1f}",
    )  # fmt: skip


if __name__ == "__main__":
    main()
