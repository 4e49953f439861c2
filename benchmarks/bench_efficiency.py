# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""How close each method comes to the bound, to the optimum and to calibration.

The seed benchmark: 64 x 64 pixels, Moffat beta = 2, white noise, known sky, galaxies drawn
by GalSim.  Each section writes CSV tables, which the documentation shows::

    python benchmarks/bench_efficiency.py -o docs/efficiency seed prior optimum chains

``seed``: one galaxy, many realisations of the noise; ``prior``: galaxies of the seed's prior, pulls,
errors, coverage and ranks; ``optimum``: chi-square beside SciPy's, from three starts; ``chains``:
posteriors beside long emcee chains; ``speed``: galaxies per second, on an idle machine.  After a new
network was trained, ``seed prior --methods network`` replaces the rows of the network and keeps the
rest.
"""

import argparse
import os
import time
from pathlib import Path

import efficiency_checks as checks
import galsim
import numpy as np
from csv_tables import write

from galshape_cnn import ShapeEstimator, Stamps, cramer_rao_bound
from galshape_cnn.flags import Flag
from galshape_cnn.infer.posterior.prior import Distribution
from galshape_cnn.study.simulate.config import load_config

NAMES = ("flux", "n", "hlr", "g1", "g2")
SCALE = 0.23
SEED_GALAXY = (1e5, 3.0, 0.3 / SCALE, -0.069, 0.15)
SIGMAS = {30: 400.0, 60: 200.0, 200: 60.0}
MIDDLE = 31.5
METHODS = ("network", "ml", "posterior")
#: Bias and scatter as published, of flux / 1e5, n, hlr in arcsec, g1, g2.
PUBLISHED = {
    (30, "CAE"): "-0.052±0.12 -0.57±0.85 0.001±0.060 -0.019±0.10 0.046±0.10",
    (30, "Xception"): "+0.052±0.098 +0.740±0.828 +0.031±0.060 +0.013±0.091 -0.024±0.100",
    (60, "CAE"): "-0.016±0.072 -0.48±0.67 -0.012±0.036 0.001±0.053 -0.027±0.061",
    (60, "Xception"): "+0.039±0.063 +0.435±0.765 +0.022±0.035 +0.011±0.048 -0.013±0.055",
    (60, "L-BFGS-B fit"): "+0.014±0.120 -0.168±1.165 +0.016±0.063 +0.015±0.057 -0.085±0.087",
}


def moffat(fwhm):
    """PSF of the benchmark, without the pixel."""
    return galsim.Moffat(beta=2, fwhm=fwhm)


def psf_array(fwhm):
    """Effective PSF at twice the sampling, its wings kept."""
    psf = galsim.Convolve(moffat(fwhm), galsim.Pixel(1.0))
    return psf.drawImage(nx=127, ny=127, scale=0.5, method="no_pixel").array.astype(float)


def draw(params, fwhm, offset=(0, 0)):
    """Noise-free stamp."""
    flux, n, hlr, g1, g2 = params
    galaxy = galsim.Sersic(n, half_light_radius=hlr, flux=flux).shear(g1=g1, g2=g2)
    return galsim.Convolve(galaxy, moffat(fwhm)).drawImage(nx=64, ny=64, scale=1, offset=offset).array


def _order(row):
    """Sort by S/N, if there is one, and method."""
    first = float(row[0]) if row[0].replace(".", "").isdigit() else 0.0
    return first, [METHODS.index(cell) if cell in METHODS else -1 for cell in row[:2]]


def seed_galaxy(estimator, folder, arguments):
    """One galaxy at three noise levels: bias and scatter beside the bound."""
    fwhm = 0.5 / SCALE
    clean, psf = draw(SEED_GALAXY, fwhm), psf_array(fwhm)
    rows, shown, indices = [], [], {}
    for target, sigma in SIGMAS.items():
        rng = np.random.default_rng([20261122, target])
        data = clean + sigma * rng.standard_normal((arguments.n, 64, 64))
        stamps = Stamps(data, np.full(data.shape, 1 / sigma**2), psf, psf_oversampling=2)
        bound = cramer_rao_bound(SEED_GALAXY, moffat(fwhm), sigma, fit_sky=False)
        crb = np.sqrt(np.diagonal(bound.covariance))
        shown.append([target, "CRB", *_in_units_of_the_table(0 * crb, crb)])
        for method in arguments.methods:
            some = stamps if method != "posterior" else stamps[: arguments.n_posterior]
            catalog = estimator(some, method=method, fit_sky=False)
            delta = catalog.parameters - SEED_GALAXY
            bias, scatter, n = delta.mean(0), delta.std(0, ddof=1), catalog.parameters[:, 1]
            rows.append([target, method, len(delta), *_with_errors(bias / crb, scatter / crb, len(delta))])
            limit = np.mean((catalog.flags & Flag.N_AT_BOUND) > 0)
            rows[-1] += [f"{v:.2f}" for v in np.percentile(n, [5, 50, 95])] + [f"{100 * limit:.1f}"]
            shown.append([target, method, *_in_units_of_the_table(bias, scatter)])
            indices[target, method] = n
    header = ["S/N", "method", "N", *(f"{name}: bias, scatter" for name in NAMES)]
    header += ["n at 5 %", "50 %", "95 %", "% on a limit of n"]
    write(folder, "seed", header, rows, keys=2, order=_order)
    shown += [[*key, *text.split()] for key, text in PUBLISHED.items()]
    header = ["S/N", "method", "flux / 1e5", "n", "hlr / arcsec", "g1", "g2"]
    write(folder, "table3", header, shown, keys=2, order=_order)
    if "ml" in arguments.methods:
        checks.plot_indices({s: indices[s, "ml"] for s in SIGMAS}, SEED_GALAXY[1], folder / "seed_n.png")


def _with_errors(bias, scatter, count):
    """Bias and scatter over the bound with standard errors, as text."""
    pairs = zip(bias, scatter, strict=True)
    return [f"{b:+.2f}±{s / np.sqrt(count):.2f}, {s:.2f}±{s / np.sqrt(2 * count):.2f}" for b, s in pairs]


def _in_units_of_the_table(bias, scatter):
    unit = np.array([1e-5, 1, SCALE, 1, 1])
    return [
        f"{b:+.3f}±{s:.3f}" if b else f"{s:.3f}" for b, s in zip(bias * unit, scatter * unit, strict=True)
    ]


def prior_galaxies(n, rng, fwhm=None):
    """Galaxies of the seed's prior, S/N 10 to 100; with one PSF where its width is given."""
    config = load_config("seed")
    spec = {key: Distribution(config["prior"][key], key) for key in ("flux", "n", "hlr", "g")}
    fwhms = np.linspace(config["psf"]["fwhm"]["low"], config["psf"]["fwhm"]["high"], 24)
    if fwhm is not None:
        fwhms = np.array([fwhm])
    psfs = [psf_array(f) for f in fwhms]
    truth, data, sigma, psf = [], [], [], []
    while len(truth) < n:
        which, angle, noise = rng.integers(len(fwhms)), rng.uniform(0, 2 * np.pi), rng.uniform(200, 400)
        g = spec["g"].sample(rng, 1)[0]
        row = [spec[key].sample(rng, 1)[0] for key in ("flux", "n", "hlr")]
        row += [g * np.cos(angle), g * np.sin(angle)]
        row[1] = round(row[1] * 20) / 20  # GalSim is quick for an index it has seen
        offset = rng.uniform(-0.5, 0.5, 2)
        clean = draw(row, fwhms[which], offset)
        if not 10 < np.sqrt((clean**2).sum()) / noise < 100:
            continue
        truth.append([*row, *(MIDDLE + offset), 0.0])
        data.append(clean + noise * rng.standard_normal((64, 64)))
        sigma.append(noise)
        psf.append(psfs[which])
    ivar = np.broadcast_to(1 / np.array(sigma)[:, None, None] ** 2, (n, 64, 64))
    return Stamps(np.array(data), ivar, np.array(psf), psf_oversampling=2), np.array(truth)


def prior_wide(estimator, folder, arguments):
    """Pulls, errors and coverage over the seed's prior."""
    stamps, truth = prior_galaxies(arguments.n, np.random.default_rng(20261123))
    # The posterior is calibrated for the prior that the galaxies are drawn from.
    options = {"fit_sky": False, "prior": load_config("seed")["prior"]}
    errors = []
    for method in arguments.methods:
        catalog = estimator(stamps, method=method, **options)
        errors.append([method, len(truth), *checks.rms_errors(catalog, truth)])
        if method == "ml":
            write(folder, "pulls", ["pulls at S/N > 50", *NAMES], checks.pulls(catalog, truth))
        if method == "posterior":
            write(folder, "calibration", ["posterior", *NAMES], checks.calibration(catalog, truth))
            wrong = Stamps(stamps.data, 4 * stamps.ivar, stamps.psf, psf_oversampling=2)[:500]
            wrong = estimator(wrong, method=method, **options)
            rows = checks.calibration(wrong, truth[:500])
            write(folder, "calibration_wrong", ["noise halved", *NAMES], rows)
            checks.plot_ranks(checks.ranks(catalog, truth), folder / "ranks.png")
    header = ["method", "N", "ln flux", "n", "ln hlr", "g1", "g2"]
    write(folder, "errors", header, errors, keys=1, order=_order)


def speed(estimator, folder, arguments):
    """Galaxies per second, one pixel-sampled PSF for all, beside GalSim and SciPy in the same run."""
    stamps, truth = prior_galaxies(arguments.n_speed, np.random.default_rng(20261125), fwhm=3.0)
    psf = galsim.Moffat(beta=2, fwhm=3.0).drawImage(nx=63, ny=63, scale=1, dtype=float).array
    shared, rows = Stamps(stamps.data, stamps.ivar, psf), []
    for method in arguments.methods:
        estimator(shared[:64], method=method)  # compile
        start, busy = time.perf_counter(), time.process_time()
        estimator(shared, method=method)
        busy = (time.process_time() - busy) / len(truth)
        rate = len(truth) / (time.perf_counter() - start)
        rows.append([method, len(truth), f"{rate:.0f}", f"{1e3 * busy:.1f}"])
    busy = time.process_time()
    rate = checks.galsim_speed(stamps, truth, 6)
    rows.append(["GalSim + least_squares", 6, f"{rate:.1f}", f"{1e3 * (time.process_time() - busy) / 6:.0f}"])
    load = os.getloadavg()[0] if hasattr(os, "getloadavg") else float("nan")
    header = ["method", "N", f"galaxies/s ({os.cpu_count()} cores, load {load:.0f})", "CPU ms a galaxy"]
    write(folder, "speed", header, rows)


def optimum(estimator, folder, arguments):
    """Chi-square beside SciPy's from the truth, from three starts."""
    stamps, truth = prior_galaxies(arguments.n, np.random.default_rng(20261123))
    header = ["", "N", "within 0.1", "above by more", "below by more", "unconverged", "evaluations"]
    write(folder, "optimum", header, checks.optimum(estimator, stamps, truth))


def chains(estimator, folder, arguments):
    """Posteriors beside emcee chains."""
    header = ["parameter", "mean: rms difference / σ", "mean: largest", "width ratio: mean", "rms about 1"]
    write(folder, "chains", header, checks.chains(arguments.n_chains, arguments.steps))


def main():
    """Run the sections named on the command line."""
    sections = {"seed": seed_galaxy, "prior": prior_wide, "optimum": optimum, "chains": chains}
    sections["speed"] = speed
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("sections", nargs="+", choices=list(sections))
    parser.add_argument("-o", "--output", type=Path, default=Path("efficiency"))
    parser.add_argument("--n", type=int, default=2000)
    parser.add_argument("--n-posterior", type=int, default=1000, help="of the seed galaxy")
    parser.add_argument("--n-speed", type=int, default=512)
    parser.add_argument("--n-chains", type=int, default=40)
    parser.add_argument("--steps", type=int, default=1500)
    parser.add_argument("--methods", nargs="+", choices=METHODS, default=METHODS)
    parser.add_argument("--bundle")
    arguments = parser.parse_args()
    arguments.output.mkdir(parents=True, exist_ok=True)
    estimator = ShapeEstimator.load(arguments.bundle) if arguments.bundle else ShapeEstimator()
    for section in arguments.sections:
        sections[section](estimator, arguments.output, arguments)


if __name__ == "__main__":
    main()
