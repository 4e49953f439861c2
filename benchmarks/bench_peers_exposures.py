# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""AstroPhot's joint model beside the methods of this package: three images of each galaxy, fitted together.

Galaxies of the prior of the network that ships, of S/N 20 to 100 in all images together, in aligned cutouts
of 64 pixels of the bands g, r, z, with a Moffat PSF and a depth each, drawn by GalSim; centres are off by up
to half a pixel, and the sky is known to be zero.  One shape, one centre and three fluxes are fitted.
AstroPhot begins where it begins by itself, integrates the pixel, and gets the PSF without it.  Each tool
runs in a process of one thread; times are of the processor, after a first galaxy.

    python benchmarks/bench_peers_exposures.py -n 48 -o docs/performance
    python benchmarks/bench_peers_exposures.py -n 48 -o docs/performance --peer-python /elsewhere/bin/python
"""

import argparse
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

BANDS = {"g": (2.5, 1.0), "r": (3.2, 0.7), "z": (4.0, 1.3)}  # FWHM of the PSF in pixels, noise
SIDE, SNR = 64, (20.0, 100.0)
LIMIT = 120.0  # seconds of the processor, after which AstroPhot is not given another galaxy
NAMES = "flux r", "n", "hlr", "g1", "g2"
HEADER = ("tool", "N", "failed", "CPU ms each", "common N", "scatter ln flux r", "n", "hlr", "g1", "g2")


def mocks(path, n, seed=3):
    """Images (3, n, 64, 64), PSFs with and without the pixel, and the truth (n, 5)."""
    import galsim

    from galshape_cnn import ShapeEstimator

    rng = np.random.default_rng(seed)
    _, index, hlr, g1, g2 = ShapeEstimator().live_network().prior.sample(rng, n).T
    index = np.round(index / 0.05).clip(6, 124) * 0.05
    colours, shifts = np.exp(rng.normal(0, 0.4, (n, 3))), rng.uniform(-0.5, 0.5, (n, 2))
    clean = np.empty((3, n, SIDE, SIDE))
    out = {"psf": [], "bare": [], "sigma": [one for _, one in BANDS.values()]}
    for band, (fwhm, _) in enumerate(BANDS.values()):
        psf = galsim.Moffat(beta=3, fwhm=fwhm)
        for row in range(n):
            galaxy = galsim.Sersic(index[row], half_light_radius=hlr[row], flux=colours[row, band])
            seen = galsim.Convolve(galaxy.shear(g1=g1[row], g2=g2[row]), psf)
            clean[band, row] = seen.drawImage(nx=SIDE, ny=SIDE, scale=1, offset=shifts[row]).array
        for name, one in (("psf", galsim.Convolve(psf, galsim.Pixel(1))), ("bare", psf)):
            array = one.drawImage(nx=49, ny=49, scale=1, method="no_pixel").array
            out[name].append(array / array.sum())
    sigma = np.array(out["sigma"])[:, None]
    snr = np.exp(rng.uniform(*np.log(SNR), n)) / np.sqrt(((clean**2).sum((2, 3)) / sigma**2).sum(0))
    data = clean * snr[None, :, None, None] + rng.normal(size=clean.shape) * sigma[..., None, None]
    truth = np.column_stack([colours[:, 1] * snr, index, hlr, g1, g2])
    np.savez(path, data=data, truth=truth, **{name: np.array(value) for name, value in out.items()})


def galshape(method):
    """The package: all galaxies in one call."""

    def fit(m):
        from galshape_cnn import Exposure, ShapeEstimator

        estimator = ShapeEstimator()

        def measured(rows):
            exposures = [
                Exposure(data[rows], psf=psf, error=float(sigma), band=band)
                for band, data, psf, sigma in zip(BANDS, m["data"], m["psf"], m["sigma"], strict=True)
            ]
            return estimator(exposures, method=method, fit_sky=False, threads=1)

        everything = np.arange(len(m["truth"]))
        measured(everything)
        begin = time.process_time()
        catalog = measured(everything)
        spent = time.process_time() - begin
        return np.delete(catalog.parameters, (0, 2), 1), catalog.quality > 1, spent

    return fit


def astrophot_fit(m):
    """A group of three Sérsic models that share all but their brightness, by Levenberg-Marquardt."""
    import torch

    torch.set_num_threads(1)
    rows = np.full((len(m["truth"]), len(NAMES)), np.nan)
    _astrophot_one(m, 0)
    begin = time.process_time()
    for done, row in enumerate(rows):
        try:
            row[:] = _astrophot_one(m, done)
        except Exception as error:
            print(f"galaxy {done}: {type(error).__name__}: {error}", file=sys.stderr)
        print(f"galaxy {done}: {time.process_time() - begin:.1f} s", file=sys.stderr, flush=True)
        if time.process_time() - begin > LIMIT:
            break
    rows = rows[: done + 1]
    return rows, ~np.isfinite(rows).all(1), time.process_time() - begin


def _astrophot_one(m, k):
    """flux in r, n, hlr, g1, g2 of one galaxy."""
    import astrophot

    targets = [
        astrophot.TargetImage(
            data=data[k].T, variance=np.full((SIDE, SIDE), sigma**2), pixelscale=1.0, psf=psf, name=band
        )  # its first axis is x
        for band, data, psf, sigma in zip(BANDS, m["data"], m["bare"], m["sigma"], strict=True)
    ]
    models = [
        astrophot.Model(name=f"model_{one.name}", model_type="sersic galaxy model", target=one)
        for one in targets
    ]
    for one in models:
        one.initialize()
    for one in models[1:]:
        for name in ("center", "q", "PA", "n", "Re"):
            setattr(one, name, getattr(models[0], name))
    target = astrophot.TargetImageList(targets)
    joint = astrophot.Model(name="joint", model_type="group model", models=models, target=target)
    astrophot.fit.LM(joint, verbose=0).fit()
    n, r_eff, q, angle = (float(getattr(models[0], name).value) for name in ("n", "Re", "q", "PA"))
    flux = float(models[1].total_flux())
    shear = (1 - q) / (1 + q)
    return [flux, n, r_eff * np.sqrt(q), shear * np.cos(2 * angle), -shear * np.sin(2 * angle)]


TOOLS = {
    "galshape network": galshape("network"),
    "galshape ml": galshape("ml"),
    "AstroPhot joint LM": astrophot_fit,
}


def scatter(found, truth):
    """Half of the range that holds 68 per cent of the errors, of the flux that of its logarithm."""
    with np.errstate(invalid="ignore"):
        error = np.column_stack([np.log(found[:, 0] / truth[:, 0]), found[:, 1:] - truth[:, 1:]])
    low, high = np.nanpercentile(error, (15.9, 84.1), axis=0)
    return (high - low) / 2


def main():
    """Entry point."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("-n", type=int, default=48)
    parser.add_argument("-o", "--output", type=Path)
    parser.add_argument("--tools", nargs="+", choices=TOOLS, default=list(TOOLS))
    parser.add_argument("--peer-python", default=sys.executable, help="interpreter that has AstroPhot")
    parser.add_argument("--child", nargs=3, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.child:
        tool, source, path = args.child
        found, failed, spent = TOOLS[tool](np.load(source))
        np.savez(path, found=found, failed=failed, spent=spent)
        return
    from csv_tables import write

    if args.output is not None:
        args.output.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as folder:
        source, found = Path(folder) / "mocks.npz", {}
        mocks(source, args.n)
        truth = np.load(source)["truth"]
        for number, tool in enumerate(args.tools):
            path = Path(folder) / f"{number}.npz"
            python = sys.executable if tool.startswith("galshape") else args.peer_python
            subprocess.run([python, __file__, "--child", tool, source, path], check=True)
            found[tool] = dict(np.load(path))
    most = min(len(one["found"]) for one in found.values())
    good = ~np.any([one["failed"][:most] for one in found.values()], 0)
    rows = []
    for tool, one in found.items():
        spread = scatter(one["found"][:most][good], truth[:most][good])
        count = len(one["found"])
        ms = 1e3 * float(one["spent"]) / count
        rows.append([tool, count, int(one["failed"].sum()), f"{ms:.0f}", int(good.sum())])
        rows[-1] += [f"{value:.3f}" for value in spread]
    write(args.output, "peers_exposures", HEADER, rows, keys=1)


if __name__ == "__main__":
    main()
