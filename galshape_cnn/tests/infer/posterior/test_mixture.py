# Licensed under a 3-clause BSD style license - see LICENSE.rst
import numpy as np
import pytest
from scipy.stats import multivariate_normal

from galshape_cnn.infer.posterior.mixture import MixturePosterior


@pytest.fixture
def mixture():
    rng = np.random.default_rng(3)
    chols = 0.3 * np.tril(rng.normal(size=(4, 2, 7, 7)))
    chols[..., range(7), range(7)] = rng.uniform(0.5, 1.5, (4, 2, 7))
    weights = np.array([[0.3, 0.7], [0.5, 0.5], [0.9, 0.1], [1.0, 0.0]])
    return MixturePosterior(weights, rng.normal(size=(4, 2, 7)), chols)


def test_log_density_is_scipys(mixture):
    u = np.random.default_rng(4).normal(size=(4, 5, 7))
    for i in range(4):
        expected = sum(
            w * multivariate_normal(m, c @ c.T).pdf(u[i])
            for w, m, c in zip(mixture.weights[i], mixture.means[i], mixture.chols[i], strict=True)
        )
        np.testing.assert_allclose(np.exp(mixture.log_density(u)[i]), expected, rtol=1e-9)


def test_draws_have_the_mixtures_mean_and_covariance(mixture):
    draws = mixture.sample(np.random.default_rng(5), 40000)
    mean = np.einsum("nk,nki->ni", mixture.weights, mixture.means)
    error = draws.std(1) / np.sqrt(40000)
    assert (np.abs(draws.mean(1) - mean) < 5 * error).all()
    covariance = mixture.chols[3, 0] @ mixture.chols[3, 0].T
    np.testing.assert_allclose(np.cov(draws[3].T), covariance, atol=0.08)
