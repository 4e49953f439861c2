# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""How `bench_peers.py` runs each tool: its start, its settings, and its answer as flux, n, hlr, g1, g2.

Every tool takes the mocks, how many to measure and a limit of processor time, and returns the time it took
and, for each galaxy, parameters, its own errors of n and of the semi-major radius, and whether it calls the
row good.
"""

import sys
import time
from contextlib import suppress

import numpy as np

__all__ = ["MIDDLE", "NAMES", "SIDE", "TOOLS", "elliptical", "moffat"]

SIDE, PSF_SIDE, MIDDLE = 64, 63, 31.5
PYIMFIT_PSF_SIDE = 31
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
            except ImportError:  # the tool is not installed
                raise
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
        from galshape_cnn.study.simulate.config import load_config

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
    # it computes a margin of the PSF's size around the stamp: one of 63 pixels takes many times as long
    psf = sampled(m["fwhm"][i], PYIMFIT_PSF_SIDE, pixel=False)
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
            data=m["data"][i].T,  # its first axis is x
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
        "PA": [-theta for _, _, theta in shapes],  # it turns from its first axis the other way
        "n": [p[1] for p in begin],
        "Re": [r_eff for r_eff, _, _ in shapes],
        "Ie": [p[0] / light(p[1], r_eff, q) for p, (r_eff, q, _) in zip(begin, shapes, strict=True)],
    }
    model.initialize()
    for name, value in values.items():
        parameter = getattr(model, name)
        parameter.to_dynamic(torch.as_tensor(np.array(value), dtype=torch.float64))
    astrophot.fit.BatchLM(model, batch, batch.window, verbose=0).fit()
    found = {name: getattr(model, name).value.detach().numpy() for name in values}
    spread = {name: getattr(model, name).uncertainty for name in ("n", "Re")}
    out = []
    for k in range(len(rows)):
        n, r_eff, q = (float(found[name][k]) for name in ("n", "Re", "q"))
        row = from_ellipse(float(found["Ie"][k]) * light(n, r_eff, q), n, r_eff, q, -float(found["PA"][k]))
        errors = [np.nan if spread[name] is None else float(spread[name][k]) for name in ("n", "Re")]
        # its message is about the slowest of the batch, not about each galaxy
        out.append((row, errors, bool(np.isfinite(row).all())))
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
