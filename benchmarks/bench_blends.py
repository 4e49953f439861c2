# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""Blends drawn by GalSim: bias and scatter of the galaxy's parameters against the neighbour's distance.

A galaxy (n = 1.5, hlr = 3 px, g = (0.2, 0.1), S/N 60 alone) with a neighbour (n = 1, hlr = 2.5 px,
``--ratio`` times its flux) at a given distance in a random direction, a Moffat PSF of FWHM 3 px, white
noise.  Each is measured with ``neighbours="ignore"``, ``"mask"`` and ``"fit"``, and with ``"fit"`` and the
neighbour's position listed (half a pixel wrong).  Bias is the median error and scatter 1.48 times its median
absolute deviation, both in units of the bound that the table states for that treatment.  "Beyond 5" is the
share of galaxies of which flux, n, hlr or shear is wrong by more than five bounds, or not measured; "found"
the share in which ``"fit"`` found the neighbour for itself.

    python benchmarks/bench_blends.py -n 200 --ratio 1 0.3 --plot blends.png --tables .
"""

import argparse
import os
import time
from pathlib import Path

import galsim
import numpy as np
from csv_tables import write

from galshape_cnn import ShapeEstimator

TILE, SNR = 80, 60.0
TRUTH = {"n": 1.5, "half_light_radius": 3.0}
SHEAR = (0.2, 0.1)
PSF = galsim.Moffat(beta=2.5, fwhm=3.0)
NAMES = ("flux", "n", "hlr", "g+", "gx")
TREATMENTS = ("ignore", "mask", "fit", "fit, listed")


def draw(profile, offset):
    image = galsim.Convolve(profile.shift(*offset), PSF).drawImage(nx=TILE, ny=TILE, scale=1.0)
    return image.array.astype(float)


def field(separation, ratio, n, rng):
    """Image of n blends in a row, noise one; flux; positions of galaxies and neighbours; directions."""
    galaxy = galsim.Sersic(flux=1.0, **TRUTH).shear(g1=SHEAR[0], g2=SHEAR[1])
    flux = SNR / np.sqrt((draw(galaxy, (0, 0)) ** 2).sum())
    angle, shift = rng.uniform(0, 2 * np.pi, n), rng.uniform(-0.5, 0.5, (n, 2))
    away = separation * np.column_stack([np.cos(angle), np.sin(angle)])
    neighbour = galsim.Sersic(n=1.0, half_light_radius=2.5, flux=ratio * flux)
    tiles = [draw(galaxy * flux, s) + draw(neighbour, s + a) for s, a in zip(shift, away, strict=True)]
    middle = np.column_stack([TILE * np.arange(n) + (TILE - 1) / 2, np.full(n, (TILE - 1) / 2)])
    image = np.concatenate(tiles, axis=1)
    return image + rng.normal(size=image.shape), flux, middle + shift, middle + shift + away, angle


def along(catalog, flux, angle):
    """Errors and bounds of flux, n, hlr and of the shear along and across the neighbour, (n, 5) each."""
    n = len(angle)
    error = catalog.parameters[:n] - np.array([flux, TRUTH["n"], TRUTH["half_light_radius"], *SHEAR])
    bound = np.sqrt(np.diagonal(catalog.crb_covariance, axis1=1, axis2=2))[:n].copy()
    turned = (error[:, 3] + 1j * error[:, 4]) * np.exp(-2j * angle)
    error[:, 3], error[:, 4] = turned.real, turned.imag
    bound[:, 3:] = np.sqrt((bound[:, 3:] ** 2).mean(1, keepdims=True))
    return error, bound


def measure(estimator, separation, ratio, n, rng):
    """Of each treatment: bias, scatter (5,), shares beyond 5 bounds and with a neighbour, ms per galaxy."""
    image, flux, galaxies, neighbours, angle = field(separation, ratio, n, rng)
    results = {}
    for treatment in TREATMENTS:
        listed = treatment.endswith("listed")
        positions = np.concatenate([galaxies, neighbours + 0.35]) if listed else galaxies
        start = time.perf_counter()
        catalog = estimator(
            image, psf=PSF, error=1.0, positions=positions, method="ml", neighbours=treatment.split(",")[0],
            recenter=not listed,
        )  # fmt: skip
        spent = 1e3 * (time.perf_counter() - start) / len(positions)
        error, bound = along(catalog, flux, angle)
        pulls = error / bound
        middle = np.nanmedian(pulls, 0)
        scatter = 1.4826 * np.nanmedian(np.abs(pulls - middle), 0)
        wrong = 1 - (np.abs(pulls) < 5).all(1).mean()
        results[treatment] = middle, scatter, wrong, (catalog.neighbour_fraction[:n] > 0).mean(), spent
    return results


def plot(path, separations, results, n):
    """Bias and scatter against distance, for each flux ratio."""
    import matplotlib.pyplot as plt

    rows = 2 * len(results)
    size = (11, 2.4 * rows)
    fig, axes = plt.subplots(rows, 4, figsize=size, sharex=True, sharey="row", layout="constrained")
    colours = dict(zip(TREATMENTS, ("0.6", "tab:orange", "tab:blue", "tab:green"), strict=True))
    for row, (ratio, one) in enumerate(results.items()):
        for what, line in enumerate(axes[2 * row : 2 * row + 2]):
            for k, (name, ax) in enumerate(zip(NAMES, line, strict=False)):
                for (treatment, colour), width in zip(colours.items(), (1, 1, 2.5, 1), strict=True):
                    values = [at[treatment][what][k] for at in one]
                    ax.plot(separations, values, "o-", ms=3, lw=width, color=colour, label=treatment)
                ax.axhline(what, color="k", lw=0.5)
                ax.set_yscale("log" if what else "symlog", **({} if what else {"linthresh": 1}))
                if row == what == 0:
                    ax.set_title({"g+": "shear along the neighbour"}.get(name, name), fontsize=9)
            line[0].set_ylabel(f"flux ratio {ratio:g}\n{('bias', 'scatter')[what]} / bound")
    for ax in axes[-1]:
        ax.set_xlabel("distance (px)")
    axes[0, 3].legend(fontsize=7, title=f"{n} galaxies a point", title_fontsize=7)
    fig.savefig(path, dpi=75)


def write_tables(folder, separations, results):
    """Bias, and the share that is far off, of each ratio, distance and treatment."""
    header = ["flux ratio", "distance, px", "found, %", *TREATMENTS]
    biases, wrongs = [], []
    for ratio, one in results.items():
        for separation, at in zip(separations, one, strict=True):
            keys = [f"{ratio:g}", f"{separation:g}", f"{100 * at['fit'][3]:.0f}"]
            texts = [" / ".join(f"{round(b, 1) + 0:.1f}" for b in at[name][0][:4]) for name in TREATMENTS]
            biases.append(keys + [text.replace("-", "\N{MINUS SIGN}") for text in texts])
            wrongs.append(keys + [f"{100 * at[name][2]:.1f}" for name in TREATMENTS])
    write(folder, "blends_bias", header, biases, keys=2)
    write(folder, "blends_wrong", header, wrongs, keys=2)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("-n", type=int, default=48, help="blends for each distance")
    parser.add_argument(
        "--ratio", type=float, nargs="+", default=[1.0], help="flux of the neighbour over the galaxy's"
    )
    parser.add_argument("--separations", type=float, nargs="+", default=[5, 6.5, 8, 10, 13, 18, 24])
    parser.add_argument("--plot", help="PNG to write")
    parser.add_argument("--tables", type=Path, metavar="DIR", help="folder for CSV tables")
    args = parser.parse_args()
    estimator, results = ShapeEstimator(), {}
    print(f"{os.cpu_count()} cores, {args.n} blends a line; bias | scatter of {', '.join(NAMES)}, in bounds")
    for ratio in args.ratio:
        rng, results[ratio] = np.random.default_rng(6), []
        for separation in args.separations:
            results[ratio].append(measure(estimator, separation, ratio, args.n, rng))
            for treatment, (bias, scatter, wrong, found, spent) in results[ratio][-1].items():
                numbers = " ".join(f"{b:6.2f}" for b in bias) + " | " + " ".join(f"{s:5.2f}" for s in scatter)
                rest = f"beyond 5 {wrong:5.3f} found {found:4.2f} {spent:4.0f} ms"
                print(f"{ratio:4g} {separation:5.1f} {treatment:12s} {numbers}  {rest}", flush=True)
    if args.plot:
        plot(args.plot, args.separations, results, args.n)
    if args.tables:
        write_tables(args.tables, args.separations, results)


if __name__ == "__main__":
    main()
