# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""Stamps and Fisher matrices per second, beside GalSim drawing the same stamps in the same run.

python benchmarks/bench_render.py [--stamps 1024] [--galsim 48] [--repeat 5]
"""

import argparse
import os
import platform
import time

import galsim
import jax
import jax.numpy as jnp
import numpy as np

from galshape_cnn.forward.psf.convert import psf_arrays
from galshape_cnn.forward.render import render
from galshape_cnn.forward.transfer import grid_for, transfer_functions
from galshape_cnn.infer.likelihood.fisher import bound, fisher_matrices

SIZE, SCALE, SIGMA = 64, 0.23, 300.0


def seed_prior(count, rng):
    """Galaxies of the seed's prior in pixel units, as rows of PARAMETERS."""
    g, angle = rng.uniform(0, 0.67, count), rng.uniform(0, 2 * np.pi, count)
    columns = [
        rng.uniform(0.3, 4, count) * 1e5,
        rng.uniform(0.5, 6, count),
        rng.uniform(0.1, 0.6, count) / SCALE,
        g * np.cos(angle),
        g * np.sin(angle),
        *rng.uniform(31, 32, (2, count)),
        np.zeros(count),
    ]
    return np.stack(columns, 1).astype(np.float32)


def fastest(function, repeat):
    """Shortest wall time of several runs, after one that compiles."""
    jax.block_until_ready(function())
    times = []
    for _ in range(repeat):
        start = time.perf_counter()
        jax.block_until_ready(function())
        times.append(time.perf_counter() - start)
    return min(times)


def galsim_stamps(params, psf):
    """The same stamps by GalSim, default accuracy; a new n for each builds its table."""
    images = []
    for flux, n, hlr, g1, g2, x, y, _ in params.astype(float):
        galaxy = galsim.Sersic(n, half_light_radius=hlr, flux=flux).shear(g1=g1, g2=g2)
        middle = (SIZE - 1) / 2
        image = galsim.Convolve(galaxy, psf).drawImage(
            nx=SIZE, ny=SIZE, scale=1.0, offset=(x - middle, y - middle), dtype=float
        )
        images.append(image.array)
    return np.array(images)


def package_rates(params, psf, repeat):
    """Rates of rendering, Fisher matrices and bounds, for both bandwidths, and the stamps."""
    ivar = jnp.full((len(params), SIZE, SIZE), SIGMA**-2, jnp.float32)
    fine = psf_arrays(psf, stamp_size=SIZE)
    native = psf.drawImage(nx=63, ny=63, scale=1.0, dtype=float).array[None]
    cases = {"pixel-sampled PSF": (native, 1), "PSF known at 2x": (fine.array, fine.oversampling)}
    images = None
    for name, (array, oversampling) in cases.items():
        grid = grid_for(SIZE, oversampling)
        transfer = transfer_functions(jnp.asarray(array), grid, oversampling)
        rows = {
            "renders": lambda t=transfer, g=grid: render(params, t, g),
            "Fisher matrices (8x8)": lambda t=transfer, g=grid: fisher_matrices(params, ivar, t, g),
        }
        for what, function in rows.items():
            print(f"{what:24s} {name:20s} {len(params) / fastest(function, repeat):9.0f} /s", flush=True)
        images = np.asarray(render(params, transfer, grid))
        fisher = np.asarray(fisher_matrices(params, ivar, transfer, grid))
    seconds = fastest(lambda: bound(fisher)[0], repeat)
    print(f"{'bounds from these':24s} {'':20s} {len(params) / seconds:9.0f} /s")
    return images


def main():
    """Print a table of rates."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--stamps", type=int, default=1024)
    parser.add_argument("--galsim", type=int, default=48, help="stamps that GalSim draws")
    parser.add_argument("--repeat", type=int, default=5)
    args = parser.parse_args()
    usable = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    load = os.getloadavg()[0] if hasattr(os, "getloadavg") else float("nan")
    print(f"{platform.machine()}, {usable} cores usable, load {load:.1f}, JAX {jax.__version__} on", end=" ")
    print(f"{jax.default_backend()}, GalSim {galsim.__version__}, {SIZE}x{SIZE} pixels")
    params = seed_prior(args.stamps, np.random.default_rng(1))
    psf = galsim.Moffat(beta=2, fwhm=0.6 / SCALE)
    images = package_rates(params, psf, args.repeat)
    few = params[: args.galsim]
    start = time.perf_counter()
    galsim_stamps(few, psf)
    first = time.perf_counter() - start
    start = time.perf_counter()
    drawn = galsim_stamps(few, psf)
    again = time.perf_counter() - start
    print(f"{'GalSim, new n':45s} {len(few) / first:9.0f} /s")
    print(f"{'GalSim, n seen before':45s} {len(few) / again:9.0f} /s")
    difference = np.abs(images[: len(few)] - drawn).max((1, 2)) / drawn.max((1, 2))
    print(f"largest difference between the two, relative to the peak: {difference.max():.1e}")


if __name__ == "__main__":
    main()
