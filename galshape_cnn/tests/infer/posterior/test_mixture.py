# Licensed under a 3-clause BSD style license - see LICENSE.rst
import numpy as np
import pytest
from scipy.stats import multivariate_normal

from galshape_cnn.infer.posterior.mixture import (
    MixturePosterior,
    from_parameters,
    log_jacobian,
    to_parameters,
)


@pytest.fixture
def params():
    rng = np.random.default_rng(1)
    low = [1, 0.31, 0.1, -0.6, -0.6, 20, 20]
    high = [1e5, 6.19, 20, 0.6, 0.6, 40, 40]
    return rng.uniform(low, high, (200, 7))


def test_coordinates_and_back(params):
    np.testing.assert_allclose(to_parameters(from_parameters(params)), params, rtol=1e-12)


def test_zero_shear_is_regular():
    u = from_parameters([1.0, 1.0, 1.0, 0.0, 0.0, 0.0, 0.0])
    assert np.isfinite(u).all()
    assert np.isfinite(log_jacobian(u))


def test_parameters_never_leave_their_range():
    extreme = to_parameters(np.random.default_rng(2).normal(scale=30, size=(1000, 7)))
    assert (extreme[:, 1] >= 0.3).all()
    assert (extreme[:, 1] <= 6.2).all()
    assert (np.hypot(extreme[:, 3], extreme[:, 4]) < 1).all()


def test_jacobian_is_the_determinant_of_differences(params):
    u, step = from_parameters(params), 1e-5
    columns = [to_parameters(u + step * e) - to_parameters(u - step * e) for e in np.eye(7)]
    determinant = np.linalg.det(np.stack(columns, -1) / (2 * step))
    np.testing.assert_allclose(np.log(determinant), log_jacobian(u), atol=1e-6)


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
