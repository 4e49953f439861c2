# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""Posteriors under a prior that says how S/N is distributed, and so the flux."""

import numpy as np
import pytest
from scipy.stats import chisquare

from galshape_cnn.forward.grid import FourierGrid
from galshape_cnn.forward.render import render
from galshape_cnn.forward.transfer import transfer_functions
from galshape_cnn.infer.posterior.importance_sampling import sample_posterior
from galshape_cnn.infer.posterior.prior import Prior

SHAPE = {
    "n": {"kind": "uniform", "low": 0.5, "high": 5.0},
    "hlr": {"kind": "uniform", "low": 1.0, "high": 3.0},
    "g": {"kind": "uniform", "low": 0.0, "high": 0.5},
}
GRID = FourierGrid(32)
LIMITS = (4.0, 6.0)


def by_snr(kind):
    return Prior(SHAPE | {"snr": {"kind": kind, "low": LIMITS[0], "high": LIMITS[1]}})


@pytest.fixture(scope="module")
def transfer():
    y, x = np.mgrid[-10:11, -10:11]
    psf = np.exp(-(x**2 + y**2) / (2 * 1.3**2))
    return np.asarray(transfer_functions((psf / psf.sum())[None], GRID))


def unit_snr(params, transfer):
    """S/N of galaxies of unit flux in unit noise."""
    rows = np.concatenate([np.ones((len(params), 1)), params[:, 1:7], np.zeros((len(params), 1))], 1)
    images = np.asarray(render(rows.astype(np.float32), transfer, GRID), float)
    return np.sqrt((images**2).sum((1, 2)))


def measured(prior, transfer, number, seed):
    """Truth of galaxies of a prior, and their posteriors under it."""
    rng = np.random.default_rng(seed)
    truth = np.concatenate(
        [prior.sample(rng, number), rng.uniform(15, 16, (number, 2)), np.zeros((number, 1))], 1
    )
    truth[:, 0] /= unit_snr(truth, transfer)
    data = np.asarray(render(truth.astype(np.float32), transfer, GRID)) + rng.normal(size=(number, 32, 32))
    ivar = np.ones(data.shape, np.float32)
    return truth, sample_posterior(
        data, ivar, transfer, GRID, None, prior, fit_sky=False, n_samples=512, seed=1
    )


def test_density_is_that_of_the_flux():
    """Integrated over the flux of one shape it is one, whatever the kind."""
    per_flux, flux = 0.02, np.linspace(150, 400, 20001)
    for kind in ("uniform", "loguniform"):
        prior = by_snr(kind)
        shape = (1.0, 2.0, 0.1, 0.2)
        density = np.exp(prior.log_density(flux, *shape, snr=per_flux * flux))
        rest = np.exp(
            prior["n"].log_density(1.0)
            + prior["hlr"].log_density(2.0)
            + prior["g"].log_density(np.hypot(0.1, 0.2))
        ) / (2 * np.pi * np.hypot(0.1, 0.2))
        assert np.trapezoid(density, flux) / rest == pytest.approx(1, rel=2e-3)
        assert (density[(flux * per_flux < LIMITS[0]) | (flux * per_flux > LIMITS[1])] == 0).all()


@pytest.mark.parametrize("kind", ["uniform", "loguniform"])
def test_flux_is_calibrated_at_low_signal(transfer, kind):
    """Without the limits of S/N the posterior has a tail towards zero flux."""
    truth, found = measured(by_snr(kind), transfer, 160, 5)
    rank = (found.samples[..., 0] < truth[:, None, 0]).mean(1)
    assert chisquare(np.histogram(rank, 8, (0, 1))[0]).pvalue > 1e-3


def test_samples_keep_to_the_limits_of_signal(transfer):
    """But for the centre, which is not among the samples, and hardly matters."""
    truth, found = measured(by_snr("loguniform"), transfer, 8, 6)
    for row, samples in enumerate(found.samples):
        params = np.concatenate([samples, np.broadcast_to(truth[row, 5:7], (len(samples), 2))], 1)
        snr = samples[:, 0] * unit_snr(params, transfer)
        assert snr.min() > 0.99 * LIMITS[0]
        assert snr.max() < 1.01 * LIMITS[1]
