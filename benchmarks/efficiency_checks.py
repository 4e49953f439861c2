# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""What `bench_efficiency.py` computes from catalogues: pulls, ranks, optima, chains."""

import time

import galsim
import matplotlib.pyplot as plt
import numpy as np
from scipy.optimize import least_squares
from scipy.stats import kstest

from galshape_cnn.flags import Flag
from galshape_cnn.forward.grid import FourierGrid
from galshape_cnn.forward.render import render, render_with_derivatives
from galshape_cnn.forward.transfer import grid_for, transfer_functions
from galshape_cnn.infer.fit.maximum_likelihood import maximize_likelihood
from galshape_cnn.infer.fit.moments import moment_start
from galshape_cnn.infer.posterior.importance_sampling import sample_posterior
from galshape_cnn.infer.posterior.prior import Prior
from galshape_cnn.study.simulate.config import load_config

_BATCH = 64


def rms_errors(catalog, truth):
    """RMSE of ln flux, n, ln hlr, g1, g2 with standard errors, as text."""
    fluxes = np.log(np.maximum(catalog.parameters[:, 0], 1) / truth[:, 0])
    sizes = np.log(catalog.parameters[:, 2] / truth[:, 2])
    rest = catalog.parameters - truth[:, :5]
    square = np.column_stack([fluxes, rest[:, 1], sizes, rest[:, 3], rest[:, 4]]) ** 2
    root = np.sqrt(square.mean(0))
    error = square.std(0) / np.sqrt(len(square)) / (2 * root)
    return [f"{r:.3f}±{e:.3f}" for r, e in zip(root, error, strict=True)]


def pulls(catalog, truth):
    """Mean and standard deviation of the pulls of maximum likelihood at S/N > 50."""
    bright = catalog.snr > 50
    limit = (catalog.flags & Flag.N_AT_BOUND) > 0
    sigma = np.sqrt(np.diagonal(catalog.crb_covariance, axis1=1, axis2=2))
    pull = ((catalog.parameters - truth[:, :5]) / sigma)[bright & ~limit]
    count = len(pull)
    inner = np.subtract(*np.percentile(pull, [84.135, 15.865], axis=0)) / 2
    # not Gaussian: the standard error of the standard deviation from the fourth moment
    offset = pull - pull.mean(0)
    kurtosis = (offset**4).mean(0) / (offset**2).mean(0) ** 2
    errors = pull.std(0) * np.sqrt((kurtosis - 1) / (4 * count))
    return [
        [f"N (a further {np.sum(bright & limit)} on a limit of n)", *[count] * 5],
        ["mean", *(f"{m:+.2f}±{1 / np.sqrt(count):.2f}" for m in pull.mean(0))],
        ["standard deviation", *(f"{s:.2f}±{e:.2f}" for s, e in zip(pull.std(0), errors, strict=True))],
        ["half the central 68 %", *(f"{s:.2f}" for s in inner)],
    ]


def ranks(catalog, truth):
    """Rank of the truth among m effective draws, as a fraction, (N, 5).

    Of m draws, k below the truth, the rank (k + 1/2) / (m + 1) is uniform; k / m is not, and
    its central intervals cover too little by 2 / m of their share.
    """
    out = []
    for i, true in enumerate(truth):
        below = (catalog.samples(i) < true[:5]).mean(0) if catalog.ess[i] > 0 else np.full(5, np.nan)
        out.append((below * catalog.ess[i] + 0.5) / (catalog.ess[i] + 1))
    return np.array(out)


def calibration(catalog, truth):
    """Coverage, tests of the ranks, effective sample sizes."""
    rank = ranks(catalog, truth)
    rank = rank[np.isfinite(rank).all(1)]
    rows = []
    for level in (0.68, 0.95):
        inside = np.mean(np.abs(rank - 0.5) < level / 2, axis=0)
        error = np.sqrt(level * (1 - level) / len(rank))
        cells = [f"{100 * v:.1f}±{100 * error:.1f}" for v in inside]
        rows.append([f"{100 * level:.0f} % interval covers (%)", *cells])
    rows.append(["p-value, Kolmogorov-Smirnov", *(f"{kstest(r, 'uniform').pvalue:.2g}" for r in rank.T)])
    counts = np.stack([np.histogram(r, 20, (0, 1))[0] for r in rank.T])
    expected = len(rank) / 20
    square = ((counts - expected) ** 2 / expected).sum(1)
    rows.append(["chi-square of 20 bins (19 expected)", *(f"{v:.1f}" for v in square)])
    share = catalog.ess / 256
    low = np.mean((catalog.flags & Flag.LOW_ESS) > 0)
    text = "effective draws per 256: median, 5 %; flagged low"
    middle, poor = np.percentile(share, [50, 5])
    cells = [f"{256 * middle:.0f}", f"{256 * poor:.0f}", f"{100 * low:.2f} %"]
    rows.append([text, *cells, "", f"N = {len(rank)}"])
    return rows


def plot_indices(indices, truth, path):
    """Histogram of the maximum-likelihood index at each S/N."""
    figure, axes = plt.subplots(1, len(indices), figsize=(9, 2.6), sharex=True, layout="constrained")
    for axis, (snr, n) in zip(axes, indices.items(), strict=True):
        axis.hist(n, np.linspace(0.3, 6.2, 41), color="#3b6ea5")
        axis.axvline(truth, color="k", ls="--", lw=1)
        axis.set(title=f"S/N {snr}", xlabel="n", ylabel="realisations" if axis is axes[0] else "")
    figure.savefig(path, dpi=110)
    plt.close(figure)


def plot_ranks(rank, path):
    """Rank histograms with the band that 95 % of uniform ones stay in."""
    figure, axes = plt.subplots(1, 5, figsize=(11, 2.3), sharey=True, layout="constrained")
    expected = len(rank) / 20
    for axis, values, name in zip(axes, rank.T, ("flux", "n", "hlr", "g1", "g2"), strict=True):
        axis.axhspan(expected - 2 * np.sqrt(expected), expected + 2 * np.sqrt(expected), color="0.88")
        axis.hist(values, 20, (0, 1), histtype="step", color="#3b6ea5")
        axis.set(xlabel=f"rank of {name}", ylim=(0, 1.6 * expected))
    figure.savefig(path, dpi=110)
    plt.close(figure)


def _scipy_chi2(stamp, truth, weight, transfer, grid, limits):
    """Lowest chi-square by SciPy, from the truth; shear as length and angle, inside limits."""
    g, angle = np.hypot(truth[3], truth[4]), np.arctan2(truth[4], truth[3])
    largest_g, smallest_hlr = limits
    start = np.array([truth[0] / 1e5, truth[1], truth[2], g, angle, truth[5], truth[6]])
    low = [-np.inf, 0.3, smallest_hlr, 0, -np.inf, -0.5, -0.5]
    high = [np.inf, 6.2, 64, largest_g, np.inf, 63.5, 63.5]
    known = {}

    def both(p):
        key = p.tobytes()
        if key not in known:
            known.clear()
            cos, sin = np.cos(p[4]), np.sin(p[4])
            row = np.array([[1e5 * p[0], p[1], p[2], p[3] * cos, p[3] * sin, p[5], p[6], 0]], np.float32)
            image, slopes = (np.asarray(a[0], float) for a in render_with_derivatives(row, transfer, grid))
            shear = [cos * slopes[3] + sin * slopes[4], p[3] * (cos * slopes[4] - sin * slopes[3])]
            slopes = np.stack([1e5 * slopes[0], slopes[1], slopes[2], *shear, slopes[5], slopes[6]])
            known[key] = ((image - stamp) * weight).ravel(), (slopes * weight).reshape(7, -1).T
        return known[key]

    start = np.clip(start, np.array(low) + 1e-6, np.array(high) - 1e-6)
    fit = least_squares(
        lambda p: both(p)[0], start, jac=lambda p: both(p)[1], bounds=(low, high), x_scale="jac"
    )
    return 2 * fit.cost


def optimum(estimator, stamps, truth):
    """Rows of a table: how often the search ends at SciPy's chi-square, by start and by limits."""
    grid = grid_for(64, 2)
    count = len(truth)
    weight = np.sqrt(stamps.ivar[:, 0, 0].astype(float))
    known = estimator(stamps, method="network", fit_sky=False)
    network = np.concatenate([known.measurement.params[:, :7], np.zeros((count, 1))], 1)
    generic = np.tile([1e5, 1.5, 3.0, 0, 0, 31.5, 31.5, 0], (count, 1))
    results, scipy = {"network": [], "moments": [], "generic": []}, {"equal": [], "wider": []}
    start_time = time.perf_counter()
    for begin in range(0, count, _BATCH):
        rows = slice(begin, begin + _BATCH)
        transfer = np.asarray(transfer_functions(stamps.psf[rows].astype(np.float32), grid, 2))
        arrays = stamps.data[rows], stamps.ivar[rows], transfer, grid
        starts = {"network": network[rows], "moments": moment_start(*arrays), "generic": generic[rows]}
        starts["moments"][:, 7] = 0  # the sky is known
        for name, start in starts.items():
            results[name].append(maximize_likelihood(*arrays, start, fit_sky=False))
        for k, i in enumerate(range(begin, min(begin + _BATCH, count))):
            one = stamps.data[i].astype(float), truth[i], weight[i], transfer[k : k + 1], grid
            scipy["equal"].append(_scipy_chi2(*one, (0.9, 0.05)))
            scipy["wider"].append(_scipy_chi2(*one, (0.95, 0.03)))
        print(f"{begin}: {time.perf_counter() - start_time:.0f} s", flush=True)
    table = []
    for name, limits in [*((name, "equal") for name in results), ("network", "wider")]:
        chi2, evaluations, converged = (
            np.concatenate([getattr(r, what) for r in results[name]])
            for what in ("chi2", "evaluations", "converged")
        )
        excess = chi2 - np.array(scipy[limits])
        shares = [excess <= 0.1, excess > 0.1, excess < -0.1, ~converged]
        label = f"start: {name}" + (", SciPy's limits wider" if limits == "wider" else "")
        error = [100 * np.sqrt(s.mean() * (1 - s.mean()) / count) for s in shares]
        cells = [f"{100 * s.mean():.2f}±{e:.2f} %" for s, e in zip(shares, error, strict=True)]
        table.append([label, count, *cells, f"{evaluations.mean():.1f}"])
    return table


def galsim_speed(stamps, truth, count):
    """Galaxies per second of GalSim and SciPy with finite differences, the PSF known exactly."""
    psf = galsim.InterpolatedImage(galsim.Image(stamps.psf[0].astype(float), scale=0.5), flux=1.0)
    scale = np.array([1e5, 1, 1, 1, 1, 1, 1])
    low = np.array([-np.inf, 0.3, 0.05, -0.7, -0.7, 20, 20]) / scale
    high = np.array([np.inf, 6.2, 60, 0.7, 0.7, 43, 43]) / scale

    def residual(p, i):
        flux, n, hlr, g1, g2, x, y = p * scale
        galaxy = galsim.Sersic(n, half_light_radius=hlr, flux=flux).shear(g1=g1, g2=g2)
        image = galsim.Convolve(galaxy, psf).drawImage(
            nx=64, ny=64, scale=1, offset=(x - 31.5, y - 31.5), method="no_pixel"
        )
        return ((image.array - stamps.data[i]) * np.sqrt(stamps.ivar[i])).ravel()

    start = time.perf_counter()
    for i in range(count):
        guess = np.clip(truth[i, :7] / scale, low + 1e-3, high - 1e-3)
        least_squares(residual, guess, bounds=(low, high), x_scale="jac", diff_step=1e-4, args=(i,))
    return count / (time.perf_counter() - start)


def chains(count, steps):
    """Rows of a table: posterior means and widths beside those of emcee chains.

    Both know the same likelihood: stamps of the package's own renderer, pixel-sampled PSF.
    """
    import emcee

    prior, grid = Prior(load_config("seed")["prior"]), FourierGrid(64)
    rng = np.random.default_rng(20261124)
    psf = galsim.Moffat(beta=2, fwhm=3.0).drawImage(nx=63, ny=63, scale=1, dtype=float).array[None]
    transfer = transfer_functions(psf.astype(np.float32), grid)
    truth = np.concatenate([prior.sample(rng, 4 * count), rng.uniform(31, 32, (4 * count, 2))], 1)
    truth = np.concatenate([truth, np.zeros((len(truth), 1))], 1).astype(np.float32)
    images = np.asarray(render(truth, transfer, grid))
    snr = np.sqrt((images.astype(float) ** 2).sum((1, 2))) / 300
    keep = np.flatnonzero((snr > 10) & (snr < 100))[:count]
    truth, data = truth[keep].astype(float), images[keep] + 300 * rng.standard_normal((count, 64, 64))
    result = sample_posterior(
        data, np.full(data.shape, 300.0**-2), transfer, grid, None, prior, fit_sky=False, n_samples=2048
    )
    offsets, ratios = [], []
    for i in range(count):

        def log_probability(p, i=i):
            with np.errstate(all="ignore"):
                value = prior.log_density(*p[:, :5].T)
            value = np.where(np.abs(p[:, 5:7] - 31.5).max(1) < 16, value, -np.inf)
            legal = np.where(np.isfinite(value)[:, None], p, truth[i, :7])
            rows = np.concatenate([legal, np.zeros((len(p), 1))], 1).astype(np.float32)
            model = np.asarray(render(rows, transfer, grid), float)
            return value - 0.5 * ((data[i] - model) ** 2).sum((1, 2)) / 300**2

        scatter = np.append(np.sqrt(np.diag(result.covariance[i])), [0.05, 0.05])
        middle = np.append(result.mean[i], result.center[i])
        start = middle + 0.5 * scatter * rng.standard_normal((2000, 7))
        start = start[np.isfinite(prior.log_density(*start[:, :5].T))][:32]
        moves = [(emcee.moves.DEMove(), 0.8), (emcee.moves.DESnookerMove(), 0.2)]
        sampler = emcee.EnsembleSampler(32, 7, log_probability, moves=moves, vectorize=True)
        sampler.random_state = np.random.RandomState(i).get_state()  # noqa: NPY002 (emcee's own)
        sampler.run_mcmc(start, steps)
        draws = sampler.get_chain(discard=steps // 5, flat=True)[:, :5]
        length = sampler.get_autocorr_time(discard=steps // 5, tol=0).max()
        sigma = draws.std(0)
        offsets.append((result.mean[i] - draws.mean(0)) / sigma)
        ratios.append(np.sqrt(np.diag(result.covariance[i])) / sigma)
        effective = len(draws) / length
        print(f"chain {i}: {effective:.0f} effective, {result.ess[i]:.0f} by importance", flush=True)
    offsets, ratios = np.array(offsets), np.array(ratios)
    columns = zip(
        ("flux", "n", "hlr", "g1", "g2"), np.sqrt((offsets**2).mean(0)), np.abs(offsets).max(0),
        ratios.mean(0), np.sqrt(((ratios - 1) ** 2).mean(0)), strict=True,
    )  # fmt: skip
    return [[name, *(f"{v:.3f}" for v in values)] for name, *values in columns]
