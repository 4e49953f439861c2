# Licensed under a 3-clause BSD style license - see LICENSE.rst
import numpy as np
import pytest
from astropy.table import Table

from galshape_cnn.infer.catalog.columns import SHAPE_PARAMETERS
from galshape_cnn.infer.posterior.prior import Prior
from galshape_cnn.study.validate.van_trees import information, van_trees_table

PRIOR = {
    "snr": {"kind": "loguniform", "low": 4, "high": 1200},
    "n": {"kind": "uniform", "low": 0.3, "high": 6.2},
    "hlr": {"kind": "lognormal", "median": 2.2, "sigma": 0.9, "low": 0.3, "high": 12.0},
    "g": {"kind": "rayleigh", "sigma": 0.3, "low": 0, "high": 0.7},
}


def galaxies(number=6000):
    draws = Prior(PRIOR).sample(np.random.default_rng(1), number)
    columns = dict(zip(("snr", "n", "hlr", "g1", "g2"), draws.T, strict=True))
    return Table(columns | {"psf_width": np.random.default_rng(2).uniform(2, 4, number)})


def bounds(precision, edges=(4, 1200), truth=None):
    truth = galaxies() if truth is None else truth
    matrices = np.asarray(precision)[..., None, None] * np.broadcast_to(np.eye(5), (len(truth), 5, 5))
    gradient = np.tile([1.0, 0, 0, 0, 0], (len(truth), 1))
    table = van_trees_table(matrices, gradient, truth, PRIOR, edges)
    return dict(zip(table["parameter"], table["bound"], strict=True))


def test_good_data_give_the_cramer_rao_bound():
    for bound in bounds(1e4).values():
        assert 0.009 < bound <= 0.01


def test_poor_data_give_no_more_than_the_prior():
    truth, found = galaxies(), bounds(1e-6)
    spread = {"n": truth["n"].std(), "hlr": np.log(truth["hlr"]).std(), "g1": truth["g1"].std()}
    for name, sigma in spread.items():
        assert 0.5 * sigma < found[name] < sigma


@pytest.mark.parametrize("precision", [0.3, 3.0, 30.0, 300.0])
def test_no_posterior_mean_is_below(precision):
    """Measurements with Gaussian errors: the posterior mean of n, computed, against the bound."""
    rng = np.random.default_rng(3)
    n, noise = np.asarray(galaxies()["n"], float), 1 / np.sqrt(precision)
    grid = np.linspace(0.3, 6.2, 600)  # the prior of n is flat
    data = n + noise * rng.normal(size=len(n))
    weight = np.exp(-0.5 * ((data[:, None] - grid) / noise) ** 2)
    error = (weight * grid).sum(1) / weight.sum(1) - n
    rmse, standard_error = np.sqrt((error**2).mean()), (error**2).std() / np.sqrt(len(n))
    assert bounds(precision)["n"] < rmse + 2 * standard_error / (2 * rmse)
    assert bounds(precision)["n"] > 0.6 * rmse


def test_bins_and_priors_of_flux():
    truth = galaxies()
    table = van_trees_table(
        np.broadcast_to(np.eye(5), (len(truth), 5, 5)),
        np.eye(5)[[0] * len(truth)],
        truth,
        PRIOR,
        (5, 50, 500),
    )
    assert len(table) == 2 * len(SHAPE_PARAMETERS)
    flux = {key: value for key, value in PRIOR.items() if key != "snr"}
    flux["flux"] = {"kind": "uniform", "low": 1, "high": 2}
    assert len(van_trees_table(None, None, truth, flux, (5, 50))) == 0


def test_information_separates_the_signal_to_noise():
    """S/N and shape are orthogonal: the amplitude does not know the shape at fixed S/N."""
    rng = np.random.default_rng(1)
    root = rng.normal(size=(7, 8, 8))
    fisher, params = root @ np.swapaxes(root, 1, 2), rng.uniform(1, 3, (7, 8))
    matrices, gradient = information(fisher, params)
    np.testing.assert_allclose(matrices[:, 0, 1:], 0, atol=1e-9)
    np.testing.assert_allclose(matrices[:, 0, 0], fisher[:, 0, 0] * params[:, 0] ** 2)
    np.testing.assert_allclose(gradient[:, 0], 1)
