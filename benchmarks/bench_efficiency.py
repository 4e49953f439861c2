# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""How close each method comes to the bound, to the optimum and to calibration.

The seed benchmark: 64 x 64 pixels, Moffat beta = 2, white noise, known sky, galaxies drawn
by GalSim.  Sections: ``seed`` (one galaxy, many noise realisations), ``prior`` (galaxies of
the seed's prior: pulls, optimum, coverage, ranks, speed)::

    python benchmarks/bench_efficiency.py --n 2000 seed prior
"""

import argparse
import os
import time

import galsim
import numpy as np
from scipy.optimize import least_squares
from scipy.stats import kstest

from galshape_cnn import ShapeEstimator, Stamps, cramer_rao_bound
from galshape_cnn.flags import Flag
from galshape_cnn.forward.render import render_with_derivatives
from galshape_cnn.forward.transfer import grid_for, transfer_functions
from galshape_cnn.infer.prior import Distribution
from galshape_cnn.study.train import load_config

NAMES = ("flux", "n", "hlr", "g1", "g2")
SCALE = 0.23
SEED_GALAXY = (1e5, 3.0, 0.3 / SCALE, -0.069, 0.15)
SIGMAS = {30: 400.0, 60: 200.0, 200: 60.0}
MIDDLE = 31.5


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


def line(label, values, digits=3):
    """Print one row of five numbers."""
    print(f"  {label:34s}" + "".join(f"{v:12.{digits}f}" for v in values))


def seed_galaxy(estimator, n, rng):
    """One galaxy at three noise levels: bias and scatter beside the bound."""
    fwhm = 0.5 / SCALE
    clean, psf = draw(SEED_GALAXY, fwhm), psf_array(fwhm)
    for target, sigma in SIGMAS.items():
        data = clean + sigma * rng.standard_normal((n, 64, 64))
        ivar = np.full(data.shape, 1 / sigma**2)
        stamps = Stamps(data, ivar, psf, psf_oversampling=2)
        bound = cramer_rao_bound(SEED_GALAXY, moffat(fwhm), sigma, fit_sky=False)
        crb = np.sqrt(np.diagonal(bound.covariance))
        print(f"\nseed galaxy, S/N {target}, {n} realisations" + "".join(f"{name:>12s}" for name in NAMES))
        line("CRB", crb)
        for method in ("network", "ml", "posterior"):
            count = n if method != "posterior" else min(n, 500)
            catalog = estimator(stamps[:count], method=method, fit_sky=False)
            report_seed(method, catalog, crb, count)


def report_seed(method, catalog, crb, count):
    """Bias, scatter, RMSE and efficiency of one method."""
    delta = catalog.parameters - SEED_GALAXY
    bias, scatter = delta.mean(0), delta.std(0, ddof=1)
    line(f"{method}: bias / CRB", bias / crb)
    line(f"{method}: scatter / CRB", scatter / crb)
    line(f"{method}: (standard error of both)", np.full(5, 1 / np.sqrt(count)))
    line(f"{method}: RMSE", np.sqrt((delta**2).mean(0)))
    n = catalog.parameters[:, 1]
    percentiles = np.percentile(n, [5, 25, 50, 75, 95]).round(2)
    at_bound = np.mean((catalog.flags & Flag.N_AT_BOUND) > 0)
    print(f"    n percentiles 5-95: {percentiles}, on a limit of n: {at_bound:.3f}")


def prior_galaxies(n, rng):
    """Galaxies of the seed's prior, S/N 10 to 100."""
    config = load_config("seed")
    spec = {key: Distribution(config["prior"][key], key) for key in ("flux", "n", "hlr", "g")}
    fwhms = np.linspace(config["psf"]["fwhm"]["low"], config["psf"]["fwhm"]["high"], 24)
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


def optimum(stamps, truth, chosen):
    """Chi-square of scipy's least squares started at the truth."""
    grid = grid_for(64, 2)
    transfer = transfer_functions(stamps.psf[chosen].astype(np.float32), grid, 2)
    scale = np.array([1e5, 1, 1, 1, 1, 1, 1])
    low, high = [-np.inf, 0.3, 0.03, -0.95, -0.95, 20, 20], [np.inf, 6.2, 60, 0.95, 0.95, 43, 43]
    best = []
    for k, i in enumerate(chosen):
        weight = np.sqrt(stamps.ivar[i].astype(float))

        def both(p, k=k, i=i, weight=weight):
            params = np.append(p * scale, 0.0)[None].astype(np.float32)
            image, slopes = render_with_derivatives(params, transfer[k : k + 1], grid)
            residual = (np.asarray(image[0], float) - stamps.data[i]) * weight
            jacobian = np.asarray(slopes[0, :7], float) * weight * scale[:, None, None]
            return residual.ravel(), jacobian.reshape(7, -1).T

        fit = least_squares(
            lambda p: both(p)[0], truth[i, :7] / scale, jac=lambda p: both(p)[1],  # noqa: B023
            bounds=(np.array(low) / scale, np.array(high) / scale), x_scale="jac",
        )  # fmt: skip
        best.append(2 * fit.cost)
    return np.array(best)


def prior_wide(estimator, n, rng, n_scipy):
    """Pulls, optimum, coverage and speed over the seed's prior."""
    stamps, truth = prior_galaxies(n, rng)
    catalogs = {}
    # The posterior is calibrated for the prior that the galaxies are drawn from.
    options = {"fit_sky": False, "prior": load_config("seed")["prior"]}
    for method in ("network", "ml", "posterior"):
        estimator(stamps[:512], method=method, **options)  # compile
        start = time.perf_counter()
        catalogs[method] = estimator(stamps, method=method, **options)
        print(f"{method}: {n / (time.perf_counter() - start):.0f} galaxies/s on {os.cpu_count()} cores")
    report_pulls(catalogs["ml"], truth)
    chosen = np.arange(min(n, n_scipy))
    start = time.perf_counter()
    reference = optimum(stamps, truth, chosen)
    print(f"scipy least_squares: {len(chosen) / (time.perf_counter() - start):.1f} galaxies/s")
    freedom = 64 * 64 - 7
    excess = catalogs["ml"].chi2[chosen] * freedom - reference
    lost = np.mean((catalogs["ml"].flags & Flag.NOT_CONVERGED) > 0)
    found = np.mean(excess <= 0.1)
    print(f"ml chi2 - scipy chi2 <= 0.1 for {found:.4f} of {len(chosen)}; unconverged {lost:.4f}")
    report_errors(catalogs, truth)
    report_calibration(catalogs["posterior"], truth)


def report_pulls(catalog, truth):
    """Pulls of maximum likelihood at S/N > 50."""
    bright = (catalog.snr > 50) & ((catalog.flags & Flag.N_AT_BOUND) == 0)
    sigma = np.sqrt(np.diagonal(catalog.crb_covariance, axis1=1, axis2=2))
    pulls = ((catalog.parameters - truth[:, :5]) / sigma)[bright]
    at_bound = np.mean(((catalog.flags & Flag.N_AT_BOUND) > 0)[catalog.snr > 50])
    print(f"\nml at S/N > 50: {len(pulls)} galaxies, {at_bound:.3f} on a limit of n (counted apart)")
    line("pull mean", pulls.mean(0))
    line("pull std", pulls.std(0))
    line("pull std by quartiles", (np.subtract(*np.percentile(pulls, [75, 25], axis=0))) / 1.349)


def report_errors(catalogs, truth):
    """RMSE of each method, and of the network over the posterior's."""

    def root(catalog):
        fluxes = np.log(np.maximum(catalog.parameters[:, 0], 1) / truth[:, 0])
        sizes = np.log(catalog.parameters[:, 2] / truth[:, 2])
        rest = catalog.parameters - truth[:, :5]
        columns = np.column_stack([fluxes, rest[:, 1], sizes, rest[:, 3], rest[:, 4]])
        return np.sqrt((columns**2).mean(0))

    names = ("ln flux", "n", "ln hlr", "g1", "g2")
    print("\nRMSE over the prior" + " " * 17 + "".join(f"{name:>12s}" for name in names))
    for method, catalog in catalogs.items():
        line(method, root(catalog))
    line("network / posterior", root(catalogs["network"]) / root(catalogs["posterior"]))


def report_calibration(catalog, truth):
    """Ranks, coverage and effective sample sizes of the posterior."""
    ranks, inside = [], []
    for i in range(len(catalog)):
        draws = catalog.samples(i)
        if len(draws):
            ranks.append((draws < truth[i, :5]).mean(0))
    ranks = np.array(ranks)
    for level in (0.68, 0.95):
        inside = np.mean(np.abs(ranks - 0.5) < level / 2, axis=0)
        line(f"posterior: {100 * level:.0f} % interval covers", inside)
    line("posterior: KS p-value of the ranks", [kstest(r, "uniform").pvalue for r in ranks.T])
    low = np.mean((catalog.flags & Flag.LOW_ESS) > 0)
    middle, poor = np.percentile(catalog.ess, [50, 5])
    print(f"  effective sample size: median {middle:.0f}, 5 %: {poor:.0f}, flagged low {low:.4f}")


def main():
    """Run the sections named on the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("sections", nargs="+", choices=["seed", "prior"])
    parser.add_argument("--n", type=int, default=2000)
    parser.add_argument("--n-scipy", type=int, default=300)
    parser.add_argument("--bundle")
    arguments = parser.parse_args()
    estimator = ShapeEstimator.load(arguments.bundle) if arguments.bundle else ShapeEstimator()
    rng = np.random.default_rng(20261122)
    if "seed" in arguments.sections:
        seed_galaxy(estimator, arguments.n, rng)
    if "prior" in arguments.sections:
        prior_wide(estimator, arguments.n, rng, arguments.n_scipy)


if __name__ == "__main__":
    main()
