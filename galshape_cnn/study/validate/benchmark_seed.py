# Licensed under a 3-clause BSD style license - see LICENSE.rst
r"""Seed benchmark: one galaxy, many noise realisations, every estimator beside the bound.

The Cramér-Rao bound holds for unbiased estimators only.  For one with mean m(theta) the
bound on its covariance is :math:`R F^{-1} R^T` with :math:`R = \partial m/\partial\theta`,
and R is measured here by drawing the galaxy with slightly different parameters under the
same noise.
"""

import galsim
import numpy as np
from astropy.table import Table

from galshape_cnn.forward.galaxy_model import SINGLE
from galshape_cnn.infer.catalog.columns import SHAPE_PARAMETERS
from galshape_cnn.observe.stamps import Stamps
from galshape_cnn.study.simulate.galsim_stamps import PSF_OVERSAMPLING, draw_galaxy, draw_psf
from galshape_cnn.study.validate.estimates import true_bounds
from galshape_cnn.study.validate.statistics import bias_and_scatter, rmse, rmse_ratio

__all__ = ["NOISE", "PUBLISHED", "SEED_GALAXY", "UNITS", "in_domain", "run_seed_benchmark"]

_SCALE = 0.23  # arcsec per pixel
#: flux, n, hlr, g1, g2, x, y, sky of the galaxy, in pixels.
SEED_GALAXY = np.array([1e5, 3.0, 0.3 / _SCALE, -0.069, 0.15, 31.5, 31.5, 0.0])
#: Noise of one pixel for each S/N.
NOISE = {30: 400.0, 60: 200.0, 200: 60.0}
#: What the numbers of the table are divided by, and what that makes them.
UNITS = {
    "flux": (1e5, "1e5"),
    "n": (1.0, ""),
    "hlr": (1 / _SCALE, "arcsec"),
    "g1": (1.0, ""),
    "g2": (1.0, ""),
}
#: Bias and scatter of others at this galaxy, in the units of the table.
PUBLISHED = {
    (30, "autoencoder CNN"): [(-0.052, 0.12), (-0.57, 0.85), (0.001, 0.060), (-0.019, 0.10), (0.046, 0.10)],
    (30, "Xception CNN"): [(0.052, 0.098), (0.740, 0.828), (0.031, 0.060), (0.013, 0.091), (-0.024, 0.100)],
    (60, "autoencoder CNN"): [
        (-0.016, 0.072),
        (-0.48, 0.67),
        (-0.012, 0.036),
        (0.001, 0.053),
        (-0.027, 0.061),
    ],
    (60, "Xception CNN"): [(0.039, 0.063), (0.435, 0.765), (0.022, 0.035), (0.011, 0.048), (-0.013, 0.055)],
    (60, "L-BFGS-B fit"): [(0.014, 0.120), (-0.168, 1.165), (0.016, 0.063), (0.015, 0.057), (-0.085, 0.087)],
}
_STEPS = np.array([0.05e5, 0.1, 0.05 / _SCALE, 0.03, 0.03])  # for the derivative of the mean


def run_seed_benchmark(network, *, draws, slow_draws, seed, report=None):
    """Bias and scatter at the seed galaxy, of ``network``, and of ``ml`` and ``posterior`` in ``slow_draws``.

    One row for each S/N, method and parameter, in the units of `UNITS`; ``ratio`` is the RMSE of the network
    over that of the posterior, in the realisations that both have measured. ``report(what, done, total)`` is
    called meanwhile.
    """
    psf = galsim.Moffat(beta=2.0, fwhm=0.5 / _SCALE)
    array = draw_psf(psf)
    rows = []
    for snr, sigma in NOISE.items():
        rng = np.random.default_rng([seed, snr])
        noise = sigma * rng.standard_normal((draws, 64, 64))
        clean = draw_galaxy(SEED_GALAXY, psf)
        stamps = _stamps(clean + noise, sigma, array)
        crb = true_bounds(stamps[:1], SEED_GALAXY[None], [False])[0][0]
        errors, first = {}, len(rows)
        for method in ("network", "ml", "posterior"):
            if report is not None:
                report(f"S/N {snr}, {method}", len(rows) // 5, 3 * len(NOISE) + len(PUBLISHED))
            some = stamps if method == "network" else stamps[:slow_draws]
            found = network.measure(some, np.zeros(len(some), bool), method, seed).params[:, SINGLE.reported]
            limit = np.full((5, 5), np.nan)
            if method == "network":
                response = _response(network, psf, array, noise, sigma)
                limit = response @ crb @ response.T
            rows += _rows(snr, method, found, crb, limit)
            errors[method] = (found - SEED_GALAXY[SINGLE.reported])[:slow_draws]
        for row, mine, exact in zip(rows[first:], errors["network"].T, errors["posterior"].T, strict=False):
            row["ratio"], row["ratio_se"] = rmse_ratio(mine, exact)
        rows += _published_rows(snr, crb)
    return Table(rows=rows)


def in_domain(table, domain):
    """Rows of the table that a network can be judged by: of galaxies it was trained for.

    Those within the limits of S/N; none where index or radius of the galaxy are outside.
    """
    n, hlr = SEED_GALAXY[SINGLE.n], SEED_GALAXY[SINGLE.hlr]
    inside = np.ones(len(table), bool)
    for key, value in (("snr", np.asarray(table["snr"])), ("n", n), ("hlr", hlr)):
        low, high = domain.get(key, (-np.inf, np.inf))
        inside &= (low <= value) & (value <= high)
    return table[inside]


def _stamps(data, sigma, psf):
    return Stamps(data, np.full(data.shape, sigma**-2.0), psf, psf_oversampling=PSF_OVERSAMPLING)


def _response(network, psf, array, noise, sigma):
    """d(mean estimate) / d(truth), (5, 5), by central differences under the same noise."""
    noise = noise[: max(len(noise) // 2, 8)]
    columns = []
    for k, step in enumerate(_STEPS):
        means = []
        for sign in (1, -1):
            shifted = SEED_GALAXY.copy()
            shifted[k] += sign * step
            stamps = _stamps(draw_galaxy(shifted, psf) + noise, sigma, array)
            means.append(network.means(stamps, np.zeros(len(stamps), bool)).mean(0))
        columns.append((means[0] - means[1]) / (2 * step))
    return np.stack(columns, 1)


def _rows(snr, method, found, crb, limit):
    rows = []
    for k, name in enumerate(SHAPE_PARAMETERS):
        unit = UNITS[name][0]
        errors = (found[:, k] - SEED_GALAXY[k]) / unit
        names = ("bias", "bias_se", "scatter", "scatter_se", "rmse", "rmse_se")
        known = dict(zip(names, (*bias_and_scatter(errors), *rmse(errors)), strict=True))
        known |= {"number": int(np.isfinite(errors).sum()), "biased_bound": np.sqrt(limit[k, k]) / unit}
        rows.append(_row(snr, method, name, crb[k, k], **known))
    return rows


def _published_rows(snr, crb):
    return [
        _row(snr, method, name, crb[k, k], bias=bias, scatter=scatter, rmse=np.hypot(bias, scatter))
        for (where, method), numbers in PUBLISHED.items()
        for k, (name, (bias, scatter)) in enumerate(zip(SHAPE_PARAMETERS, numbers, strict=True))
        if where == snr
    ]


def _row(snr, method, name, variance, **known):
    """One row of the table, NaN in what is not known."""
    columns = ("bias", "bias_se", "scatter", "scatter_se", "rmse", "rmse_se", "crb", "biased_bound", "ratio")
    row = {"snr": snr, "method": method, "parameter": name, "unit": UNITS[name][1], "number": 0}
    row |= dict.fromkeys((*columns, "ratio_se"), np.nan) | {"crb": np.sqrt(variance) / UNITS[name][0]}
    return row | known
