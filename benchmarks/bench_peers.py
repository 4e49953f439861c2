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
import time
from contextlib import suppress
from pathlib import Path

import numpy as np

SCALE, SIDE, PSF_SIDE, MIDDLE = 0.23, 64, 63, 31.5
NAMES = ("flux", "n", "hlr", "g1", "g2")
LOWEST = np.array([1.0, 0.31, 0.2, -0.9, -0.9, MIDDLE - 3, MIDDLE - 3])
HIGHEST = np.array([1e8, 6.1, 30.0, 0.9, 0.9, MIDDLE + 3, MIDDLE + 3])


def moffat(fwhm):
    """PSF without the pixel."""
    import galsim

    return galsim.Moffat(beta=2, fwhm=float(fwhm))


def sampled(fwhm, side=PSF_SIDE, step=1.0, pixel=True):
    """PSF on an array, its wings cut and not put back."""
    import galsim

    psf = galsim.Convolve(moffat(fwhm), galsim.Pixel(1.0)) if pixel else moffat(fwhm)
    return psf.drawImage(nx=side, ny=side, scale=step, method="no_pixel").array.astype(float)


def mocks(n, seed=20261126):
    """Stamps, noise, widths of the PSFs and true parameters."""
    import galsim

    from galshape_cnn.infer.prior import Distribution
    from galshape_cnn.study.train import load_config

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


def start(data, fwhm):
    """Parameters from moments: what any of the tools may begin with."""
    y, x = np.mgrid[:SIDE, :SIDE]
    cx, cy, width = MIDDLE, MIDDLE, max(fwhm, 3.0)
    for _ in range(10):
        weight = np.exp(-0.5 * ((x - cx) ** 2 + (y - cy) ** 2) / width**2) * data
        total = max(weight.sum(), 1e-3 * np.abs(weight).sum())
        cx, cy = (np.clip((weight * a).sum() / total, MIDDLE - 2, MIDDLE + 2) for a in (x, y))
    radius = np.hypot(x - cx, y - cy)
    flux = max(data[radius < 14].sum(), 3 * np.abs(data[radius < 4].sum()) / 4)
    grown = np.array([data[radius < r].sum() for r in np.arange(1, 14, 0.5)])
    half = 1 + 0.5 * np.argmax(grown > 0.5 * flux)
    hlr = np.sqrt(max(half**2 - (0.6 * fwhm) ** 2, 0.6**2))
    xx, yy, xy = ((weight * a).sum() / total for a in ((x - cx) ** 2, (y - cy) ** 2, (x - cx) * (y - cy)))
    e = np.array([xx - yy, 2 * xy]) / max(xx + yy, 1e-6)
    e *= min(1, 0.5 / max(np.hypot(*e), 1e-6))
    return np.clip([flux, 1.5, hlr, e[0] / 2, e[1] / 2, cx, cy], LOWEST, HIGHEST)


def elliptical(params):
    """Semi-major half-light radius, axis ratio and angle (from +x to +y) of parameters."""
    g = np.hypot(params[3], params[4])
    q = (1 - g) / (1 + g)
    return params[2] / np.sqrt(q), q, 0.5 * np.arctan2(params[4], params[3])


def from_ellipse(flux, n, r_eff, q, theta):
    """flux, n, hlr, g1, g2 of an ellipse."""
    g = (1 - q) / (1 + q)
    return [flux, n, r_eff * np.sqrt(q), g * np.cos(2 * theta), g * np.sin(2 * theta)]


def light(n, r_eff, q):
    """Flux over the intensity at the semi-major half-light radius."""
    from scipy.special import gamma, gammaincinv

    b = gammaincinv(2 * n, 0.5)
    return 2 * np.pi * n * np.exp(b) * b ** (-2 * n) * gamma(2 * n) * r_eff**2 * q


NOTHING = ([np.nan] * 5, [np.nan] * 2, False)


def one_by_one(fit):
    """A tool that measures one galaxy after the other, until its time is over."""

    def run(m, count, limit):
        with suppress(Exception):
            fit(m, 0)
        begin, results = time.process_time(), []
        for i in range(count):
            try:
                results.append(fit(m, i))
            except Exception as error:  # whatever a tool raises is a failure of that galaxy
                print(f"galaxy {i}: {type(error).__name__}: {error}", file=sys.stderr)
                results.append(NOTHING)
            if time.process_time() - begin > limit:
                break
        return results, time.process_time() - begin

    return run


def galshape(method):
    """A method of this package."""

    def run(m, count, limit):
        from galshape_cnn import ShapeEstimator, Stamps
        from galshape_cnn.flags import Flag
        from galshape_cnn.study.train import load_config

        psf = {f: sampled(f, 2 * PSF_SIDE + 1, 0.5) for f in np.unique(m["fwhm"])}
        ivar = np.broadcast_to(1 / m["sigma"][:, None, None] ** 2, m["data"].shape)
        stamps = Stamps(m["data"], ivar, np.array([psf[f] for f in m["fwhm"]]), psf_oversampling=2)[:count]
        estimator, options = ShapeEstimator(), {"method": method, "fit_sky": False, "threads": 1}
        if method == "posterior":  # calibrated for the prior that the galaxies are drawn from
            options["prior"] = load_config("seed")["prior"]
        estimator(stamps[:64], **options)
        begin = time.process_time()
        table = estimator(stamps, **options).to_table()
        spent = time.process_time() - begin
        n_error = table["n_err" if method == "ml" else "n_std"]
        good = (table["flags"] & (Flag.NOT_CONVERGED | Flag.NO_DATA)) == 0
        rows = np.column_stack([np.asarray(table[name]) for name in NAMES])
        errors = np.column_stack([np.asarray(n_error), np.asarray(table["r_eff_err"])])
        if method != "ml":
            errors[:, 1] = np.nan  # the bound, and not what the method states
        return [(list(r), list(e), bool(g)) for r, e, g in zip(rows, errors, good, strict=True)], spent

    return run


def scipy_fit(m, i):
    """GalSim's renderer in SciPy's trust-region solver, the PSF exact."""
    import galsim
    from scipy.optimize import least_squares

    begin = start(m["data"][i], m["fwhm"][i])
    unit = np.array([begin[0], 1, 1, 1, 1, 1, 1])

    def residual(p):
        flux, n, hlr, g1, g2, x, y = p * unit
        g = np.hypot(g1, g2)
        g1, g2 = np.array([g1, g2]) * min(1, 0.9 / max(g, 1e-9))
        galaxy = galsim.Sersic(n, half_light_radius=hlr, flux=flux).shear(g1=g1, g2=g2)
        image = galsim.Convolve(galaxy, moffat(m["fwhm"][i])).drawImage(
            nx=SIDE, ny=SIDE, scale=1, offset=(x - MIDDLE, y - MIDDLE)
        )
        return ((image.array - m["data"][i]) / m["sigma"][i]).ravel()

    bounds = LOWEST / unit, HIGHEST / unit
    fit = least_squares(residual, begin / unit, bounds=bounds, x_scale="jac", diff_step=1e-3)
    covariance = np.linalg.pinv(fit.jac.T @ fit.jac) * np.outer(unit, unit)
    p, g = fit.x * unit, np.hypot(*(fit.x[3:5]))
    slope = np.zeros(7)  # of r_eff
    slope[2] = np.sqrt((1 + g) / (1 - g))
    slope[3:5] = p[2] * slope[2] / (1 - g**2) * fit.x[3:5] / max(g, 1e-9)
    errors = [np.sqrt(covariance[1, 1]), np.sqrt(slope @ covariance @ slope)]
    return list(p[:5]), errors, bool(fit.success)


def pyimfit_fit(m, i):
    """pyimfit's Levenberg-Marquardt."""
    import pyimfit

    p = start(m["data"][i], m["fwhm"][i])
    r_eff, q, theta = elliptical(p)
    description = pyimfit.SimpleModelDescription()
    description.x0.setValue(p[5] + 1, [p[5] - 2, p[5] + 4])
    description.y0.setValue(p[6] + 1, [p[6] - 2, p[6] + 4])
    sersic = pyimfit.make_imfit_function("Sersic")
    sersic.PA.setValue(np.degrees(theta) - 90, [-360, 360])
    sersic.ell.setValue(1 - q, [0, 0.95])
    sersic.n.setValue(p[1], [0.3, 6.2])
    level = p[0] / light(p[1], r_eff, q)
    sersic.I_e.setValue(level, [0, 1e4 * level])
    sersic.r_e.setValue(r_eff, [0.1, 30])
    description.addFunction(sersic)
    psf = sampled(m["fwhm"][i], pixel=False)
    fitter = pyimfit.Imfit(description, psf=psf, psfNormalization=False, maxThreads=1)
    noise = np.full((SIDE, SIDE), m["sigma"][i])
    result = fitter.fit(m["data"][i], error=noise, solver="LM")
    _, _, angle, ell, n, level, r_eff = result.params
    errors = result.paramErrs if result.paramErrs is not None else np.full(7, np.nan)
    row = from_ellipse(level * light(n, r_eff, 1 - ell), n, r_eff, 1 - ell, np.radians(angle + 90))
    return row, [errors[4], errors[6]], bool(result.fitConverged)


def statmorph_fit(m, i):
    """statmorph's Sérsic fit on its own segmentation of the smoothed stamp."""
    import statmorph
    from astropy.convolution import Gaussian2DKernel, convolve
    from photutils.segmentation import detect_sources

    data, sigma = m["data"][i], m["sigma"][i]
    kernel = Gaussian2DKernel(1.5)
    smooth = convolve(data, kernel) / np.sqrt((kernel.array**2).sum())
    segments = detect_sources(smooth, 2 * sigma, 5)
    if segments is None or not segments.data[31:33, 31:33].any():
        return NOTHING
    label = segments.data[31:33, 31:33].max()
    found = statmorph.SourceMorphology(
        data, segments.data, label, weightmap=np.full_like(data, sigma), psf=sampled(m["fwhm"][i])
    )
    n, r_eff, q = found.sersic_n, found.sersic_rhalf, 1 - found.sersic_ellip
    row = from_ellipse(found.sersic_amplitude * light(n, r_eff, q), n, r_eff, q, found.sersic_theta)
    good = found.flag < 2 and found.flag_sersic == 0 and found.sersic_rhalf > 0
    return row, [np.nan] * 2, bool(good)


def pysersic_fit(m, i):
    """pysersic's maximum a posteriori, with its own prior but a flat one of the flux."""
    from jax.random import PRNGKey
    from pysersic import FitSingle
    from pysersic.priors import SourceProperties

    data = m["data"][i]
    p = start(data, m["fwhm"][i])
    properties = SourceProperties(data)
    prior = properties.generate_prior("sersic", sky_type="none")
    prior.set_uniform_prior("flux", 0.1 * p[0], 10 * p[0])
    prior.set_uniform_prior("r_eff", 0.2, 30.0)
    prior.set_uniform_prior("n", 0.5, 6.0)
    prior.set_gaussian_prior("xc", p[5], 1.0)
    prior.set_gaussian_prior("yc", p[6], 1.0)
    fitter = FitSingle(data, np.full_like(data, m["sigma"][i]), sampled(m["fwhm"][i]), prior)
    fit = fitter.find_MAP(PRNGKey(i), return_model=False)
    values = [float(fit[name]) for name in ("flux", "n", "r_eff")]
    row = from_ellipse(*values, 1 - float(fit["ellip"]), float(fit["theta"]) + np.pi / 2)
    return row, [np.nan] * 2, bool(np.isfinite(row).all())


def astrophot_fit(m, count, limit):
    """AstroPhot's batched Levenberg-Marquardt, eight galaxies at a time."""
    import astrophot
    import torch

    torch.set_num_threads(1)
    _astrophot_batch(astrophot, torch, m, np.arange(2))
    begin, results = time.process_time(), []
    for first in range(0, count, 8):
        rows = np.arange(first, min(first + 8, count))
        try:
            results += _astrophot_batch(astrophot, torch, m, rows)
        except Exception as error:  # a batch that fails is a failure of its galaxies
            print(f"galaxies from {first}: {type(error).__name__}: {error}", file=sys.stderr)
            results += [NOTHING] * len(rows)
        if time.process_time() - begin > limit:
            break
    return results, time.process_time() - begin


def _astrophot_batch(astrophot, torch, m, rows):
    targets = [
        astrophot.TargetImage(
            data=m["data"][i],
            variance=np.full((SIDE, SIDE), m["sigma"][i] ** 2),
            pixelscale=1.0,
            psf=sampled(m["fwhm"][i], pixel=False),
            name=f"galaxy{i}",
        )
        for i in rows
    ]
    batch = astrophot.TargetImageBatch(targets)
    model = astrophot.Model(name=f"sersic{rows[0]}", model_type="sersic galaxy model", target=targets[0])
    begin = [start(m["data"][i], m["fwhm"][i]) for i in rows]
    shapes = [elliptical(p) for p in begin]
    values = {
        "center": [[p[5], p[6]] for p in begin],
        "q": [q for _, q, _ in shapes],
        "PA": [theta for _, _, theta in shapes],
        "n": [p[1] for p in begin],
        "Re": [r_eff for r_eff, _, _ in shapes],
        "Ie": [p[0] / light(p[1], r_eff, q) for p, (r_eff, q, _) in zip(begin, shapes, strict=True)],
    }
    model.initialize()
    for name, value in values.items():
        parameter = getattr(model, name)
        parameter.to_dynamic(torch.as_tensor(np.array(value), dtype=torch.float64))
    fit = astrophot.fit.BatchLM(model, batch, batch.window, verbose=0).fit()
    found = {name: getattr(model, name).value.detach().numpy() for name in values}
    spread = {name: getattr(model, name).uncertainty for name in ("n", "Re")}
    out = []
    for k in range(len(rows)):
        n, r_eff, q = (float(found[name][k]) for name in ("n", "Re", "q"))
        row = from_ellipse(float(found["Ie"][k]) * light(n, r_eff, q), n, r_eff, q, float(found["PA"][k]))
        errors = [np.nan if spread[name] is None else float(spread[name][k]) for name in ("n", "Re")]
        out.append((row, errors, "fail" not in fit.message and bool(np.isfinite(row).all())))
    return out


TOOLS = {
    "galshape network": galshape("network"),
    "galshape ml": galshape("ml"),
    "galshape posterior": galshape("posterior"),
    "GalSim + SciPy TRF": one_by_one(scipy_fit),
    "pyimfit LM": one_by_one(pyimfit_fit),
    "AstroPhot BatchLM": astrophot_fit,
    "pysersic MAP": one_by_one(pysersic_fit),
    "statmorph": one_by_one(statmorph_fit),
}


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
