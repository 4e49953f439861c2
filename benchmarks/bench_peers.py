# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""Other tools beside the methods of this package, on the same mocks in the same run.

Galaxies of the seed's prior (64 x 64 pixels, Moffat PSF of 24 widths, white noise, S/N 10 to 100, centres off
by up to half a pixel, sky known to be zero), drawn by GalSim.  Each tool runs in a process of its own, one
thread, and stops at a limit of time; rates are galaxies per second of processor time after a first galaxy, so
that a busy machine matters little.  ``pip install 'galshape-cnn[bench]'`` brings the tools::

    python benchmarks/bench_peers.py -o docs/performance/peers.csv --limit 60

Every fit begins at the same moments.  pyimfit and AstroPhot integrate the pixel themselves and get the PSF
without it, pysersic gets a flat prior of the flux, the methods of this package the effective PSF at twice the
sampling.  Tools that are not installed are left out; rows of an older table are kept.
"""

import argparse
import csv
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
from peer_tools import MIDDLE, NAMES, SIDE, TOOLS, elliptical, moffat


def mocks(n, seed=20261126):
    """Stamps, noise, widths of the PSFs and true parameters."""
    import galsim

    from galshape_cnn.infer.posterior.prior import Distribution
    from galshape_cnn.study.simulate.config import load_config

    config, rng = load_config("seed"), np.random.default_rng(seed)
    spec = {key: Distribution(config["prior"][key], key) for key in ("flux", "n", "hlr", "g")}
    widths = np.linspace(config["psf"]["fwhm"]["low"], config["psf"]["fwhm"]["high"], 24)
    out = {name: [] for name in ("data", "sigma", "fwhm", "truth")}
    while len(out["data"]) < n:
        fwhm, angle, sigma = rng.choice(widths), rng.uniform(0, 2 * np.pi), rng.uniform(200, 400)
        flux, index, hlr, g = (spec[key].sample(rng, 1)[0] for key in ("flux", "n", "hlr", "g"))
        row = [flux, round(index * 20) / 20, hlr, g * np.cos(angle), g * np.sin(angle)]
        x, y = rng.uniform(-0.5, 0.5, 2)
        galaxy = galsim.Sersic(row[1], half_light_radius=hlr, flux=flux).shear(g1=row[3], g2=row[4])
        image = galsim.Convolve(galaxy, moffat(fwhm)).drawImage(nx=SIDE, ny=SIDE, scale=1, offset=(x, y))
        clean = image.array
        if not 10 < np.sqrt((clean.astype(float) ** 2).sum()) / sigma < 100:
            continue
        noisy = clean + sigma * rng.standard_normal(clean.shape)
        for name, value in zip(out, (noisy, sigma, fwhm, [*row, MIDDLE + x, MIDDLE + y]), strict=True):
            out[name].append(value)
    return {name: np.array(value) for name, value in out.items()}


def bounds(m, n):
    """Cramér-Rao bounds of the parameters of the first galaxies, (n, 5)."""
    from galshape_cnn import cramer_rao_bound

    rows = zip(m["truth"][:n], m["fwhm"], m["sigma"], strict=False)
    known = [
        cramer_rao_bound(p[:5], moffat(fwhm), sigma, center=tuple(p[5:]), fit_sky=False)
        for p, fwhm, sigma in rows
    ]
    return np.sqrt([np.diagonal(one.covariance) for one in known])


def summary(name, m, results, seconds):
    """A row of the table."""
    n = len(results)
    rows, errors, good = (np.array(column) for column in zip(*results, strict=True))
    good = good & np.isfinite(rows).all(1) & (rows[:, 2] > 0)
    truth = m["truth"][:n]
    pulls = ((rows - truth[:, :5]) / m["bound"][:n])[good]
    used = max(len(pulls), 1)
    cells = []
    for column in pulls.T:
        middle = np.median(column)
        scatter = 1.4826 * np.median(np.abs(column - middle))
        # standard errors of the median and of the median deviation of a normal sample
        bias_error, scatter_error = 1.25 * scatter / np.sqrt(used), 1.17 * scatter / np.sqrt(used)
        cells.append(f"{middle:+.2f}±{bias_error:.2f}, {scatter:.2f}±{scatter_error:.2f}")
    far = np.abs(np.log(rows[good, 2] / truth[good, 2])) > 0.5
    r_eff = np.array([elliptical(p)[0] for p in truth])
    found = np.array([elliptical(p)[0] for p in np.column_stack([rows, rows[:, :2]])])
    coverage = []
    for error, delta in ((errors[:, 0], rows[:, 1] - truth[:, 1]), (errors[:, 1], found - r_eff)):
        known = good & np.isfinite(error) & (error > 0)
        share = np.mean(np.abs(delta[known]) < error[known]) if known.any() else None
        coverage.append("" if share is None else f"{100 * share:.0f}±{50 / np.sqrt(known.sum()):.0f}")
    rate = n / seconds
    speed = f"{rate:.0f}" if rate > 20 else f"{rate:.2g}"
    return [name, n, speed, f"{100 * np.mean(~good):.0f}", f"{100 * np.mean(far):.0f}", *cells, *coverage]


HEADER = ["tool", "N", "galaxies/s of one core", "failed %", "hlr off by 1.6 %", *NAMES]
HEADER += ["n covered %", "r_eff covered %"]


def write(path, rows):
    """Write the table; rows of tools that did not run are kept."""
    if path.exists():
        with path.open(newline="", encoding="utf-8") as file:
            old = {row[0]: row for row in list(csv.reader(file))[1:]}
        rows = {**old, **rows}
    with path.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([HEADER, *(rows[name] for name in TOOLS if name in rows)])


def run_tool(name, path, limit, python):
    """Results and seconds of one tool, in a process of its own; None if it cannot run."""
    threads = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")
    threads["XLA_FLAGS"] = "--xla_cpu_multi_thread_eigen=false"
    command = [python, __file__, "--mocks", str(path), "--only", name, "--limit", str(limit)]
    done = subprocess.run(command, capture_output=True, text=True, env={**os.environ, **threads})
    if done.returncode:
        print(f"{name}: left out: {done.stderr.strip().splitlines()[-1]}", flush=True)
        return None
    return json.loads(done.stdout.splitlines()[-1])


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("-o", "--output", type=Path, default=Path("peers.csv"))
    parser.add_argument("-n", type=int, default=192, help="galaxies, of which a slow tool measures the first")
    parser.add_argument("--limit", type=float, default=60, help="seconds of processor time for each tool")
    parser.add_argument("--tools", nargs="+", default=list(TOOLS), choices=list(TOOLS), metavar="TOOL")
    parser.add_argument("--python", default=sys.executable, help="interpreter of the other tools")
    parser.add_argument("--mocks", type=Path, help="file of the mocks, made if it does not exist")
    parser.add_argument("--only", choices=list(TOOLS), help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.only:
        with np.load(args.mocks) as file:
            m = dict(file)
        results, seconds = TOOLS[args.only](m, len(m["sigma"]), args.limit)
        print(json.dumps([results, seconds]))
        return
    path = args.mocks or Path(tempfile.mkdtemp()) / "mocks.npz"
    if not path.exists():
        np.savez(path, **mocks(args.n))
    with np.load(path) as file:
        m = dict(file)
    m["bound"] = bounds(m, len(m["sigma"]))
    for name in args.tools:
        python = sys.executable if name.startswith("galshape") else args.python
        done = run_tool(name, path, args.limit, python)
        if done is not None:
            row = summary(name, m, *done)
            write(args.output, {name: [str(cell) for cell in row]})
            print(" | ".join(map(str, row)), flush=True)


if __name__ == "__main__":
    main()
