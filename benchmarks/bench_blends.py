# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""Blends drawn by GalSim: bias and scatter of the galaxy's parameters against the neighbour's distance.

A galaxy (n = 1.5, hlr = 3 px, g = (0.2, 0.1), S/N 60 alone) with a neighbour (n = 1, hlr = 2.5 px,
``--ratio`` times its flux) at a given distance in a random direction, a Moffat PSF of FWHM 3 px, white
noise.  Each is measured with ``neighbours="ignore"``, ``"mask"`` and ``"fit"``, and with ``"fit"`` and the
neighbour's position listed (half a pixel wrong).  Bias is the median error and scatter 1.48 times its median
absolute deviation, both in units of the bound that the table states for that treatment.

    python benchmarks/bench_blends.py -n 48 --plot blends.png
"""

import argparse
import os
import time

import galsim
import numpy as np

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
    """Of each treatment: bias and scatter (5,), share of galaxies flagged NEIGHBOR, ms per galaxy."""
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
        middle = np.median(pulls, 0)
        flagged = np.mean([bool(f & 256) for f in catalog.flags[:n]])
        results[treatment] = middle, 1.4826 * np.median(np.abs(pulls - middle), 0), flagged, spent
    return results


def plot(path, separations, results, n):
    """Bias and scatter against distance."""
    import matplotlib.pyplot as plt

    fig, axes = plt.subplots(2, 4, figsize=(11, 5), sharex=True, sharey="row", layout="constrained")
    colours = dict(zip(TREATMENTS, ("0.6", "tab:orange", "tab:blue", "tab:green"), strict=True))
    for row, what in enumerate(("bias / bound", "scatter / bound")):
        for k, name in enumerate(NAMES[:4]):
            ax = axes[row, k]
            for treatment, colour in colours.items():
                values = [one[treatment][row][k] for one in results]
                ax.plot(separations, values, "o-", ms=3, lw=1, color=colour, label=treatment)
            ax.axhline(1 - (row == 0), color="k", lw=0.5)
            ax.set_yscale("symlog" if row == 0 else "log", **({"linthresh": 1} if row == 0 else {}))
            ax.set_title({"g+": "shear along the neighbour"}.get(name, name) if row == 0 else "", fontsize=9)
            ax.set_xlabel("distance (px)" if row else "")
        axes[row, 0].set_ylabel(what)
    axes[0, 3].legend(fontsize=7, title=f"{n} galaxies a point", title_fontsize=7)
    fig.savefig(path, dpi=75)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("-n", type=int, default=48, help="blends for each distance")
    parser.add_argument("--ratio", type=float, default=1.0, help="flux of the neighbour over the galaxy's")
    parser.add_argument("--separations", type=float, nargs="+", default=[5, 6.5, 8, 10, 13, 18, 24])
    parser.add_argument("--plot", help="PNG to write")
    args = parser.parse_args()
    estimator, rng, results = ShapeEstimator(), np.random.default_rng(6), []
    print(f"{os.cpu_count()} cores, {args.n} blends a line, flux ratio {args.ratio}")
    print(f"bias and scatter in units of the bound, of {', '.join(NAMES)}")
    for separation in args.separations:
        results.append(measure(estimator, separation, args.ratio, args.n, rng))
        for treatment, (bias, scatter, flagged, spent) in results[-1].items():
            numbers = " ".join(f"{b:6.2f}" for b in bias) + " | " + " ".join(f"{s:5.2f}" for s in scatter)
            rest = f"NEIGHBOR {flagged:4.2f} {spent:4.0f} ms"
            print(f"{separation:5.1f} {treatment:12s} {numbers}  {rest}", flush=True)
    if args.plot:
        plot(args.plot, args.separations, results, args.n)


if __name__ == "__main__":
    main()
