# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""Shear from likelihoods: shapes with Gaussian errors, where all is known, and draws of images."""

import numpy as np
import pytest
from scipy.integrate import dblquad

from galshape_cnn import ShapeEstimator
from galshape_cnn.errors import InputError
from galshape_cnn.infer.likelihood.rendering import RenderedBatch
from galshape_cnn.infer.posterior.prior import Prior
from galshape_cnn.infer.shear.hierarchical import EDGE, log_shape_density, posterior_shear, shape_draws
from galshape_cnn.tests.infer.shear.test_response import composed, images, shapes, stamps

GAMMA, WIDTH, NOISE = 0.03 - 0.02j, 0.25, 0.2


def drawn_shapes(rng, count):
    """From the distribution of shapes, by rejection."""
    out = np.empty(0, complex)
    while len(out) < count:
        g = EDGE * (rng.uniform(-1, 1, (2, 4 * count)) * [[1], [1j]]).sum(0)
        kept = rng.uniform(size=len(g)) < np.exp(log_shape_density(g, WIDTH) - log_shape_density(0.0, WIDTH))
        out = np.concatenate([out, g[kept]])
    return out[:count]


def draws_of(gamma, count=2000, draws=32, seed=1):
    """Shapes measured with Gaussian errors, with partners after a quarter turn, and draws about them."""
    rng = np.random.default_rng(seed)
    g, noise = drawn_shapes(rng, count), NOISE * (rng.normal(size=(2, count)) * [[1], [1j]]).sum(0)
    seen = np.concatenate([composed(s * g, gamma) + s * noise for s in (1, -1)])[:, None]
    offset = (rng.normal(size=(2, 2 * count, draws)) * np.array([1, 1j])[:, None, None]).sum(0)
    wide = 1.3 * NOISE
    tried = seen + wide * offset
    log_weights = -0.5 * np.abs((tried - seen) / NOISE) ** 2 + 0.5 * np.abs(offset) ** 2
    return np.stack([tried.real, tried.imag], -1), log_weights


def bias(draws, correct):
    """m, and its error as if pairs of opposite shear did not share their noise."""
    high, low = (posterior_shear(*draws_of(s * GAMMA, draws=draws), correct=correct) for s in (1, -1))
    difference = high.shear - low.shear
    truth = 2 * np.array([GAMMA.real, GAMMA.imag])
    error = np.sqrt(2 * np.trace(high.covariance)) / np.sqrt(2) / np.abs(2 * GAMMA)
    return (difference @ truth) / (truth @ truth) - 1, error, high


def test_density_is_normalised_and_smooth_at_the_edge():
    total, _ = dblquad(
        lambda a, r: r * np.exp(log_shape_density(np.array(r + 0j), 0.3)), 0, EDGE, 0, 2 * np.pi
    )
    assert abs(total - 1) < 1e-4
    near = np.exp(log_shape_density(EDGE * (1 - np.array([1e-3, 2e-3])), 0.3))
    np.testing.assert_allclose(near[1] / near[0], 4, rtol=0.05)


def test_shear_and_width_are_found():
    m, error, result = bias(64, True)
    assert error < 0.12  # were it not that both signs have the same noise
    assert abs(m) < 0.02
    assert abs(result.width - WIDTH) < 0.015
    assert result.n == 4000


def test_few_draws_bias_the_logarithm_and_most_of_it_is_taken_back():
    """The mean of few draws scatters, and the likelihood prefers shapes that make it scatter less."""
    plain, mended = (posterior_shear(*draws_of(GAMMA, draws=8), correct=c).width for c in (False, True))
    assert plain - WIDTH > 0.07
    assert abs(mended - WIDTH) < 0.6 * (plain - WIDTH)


def test_shear_of_a_wrong_likelihood_is_noticed():
    """Errors thought to be half as large: shapes count for more than they are worth."""
    tried, log_weights = draws_of(GAMMA, draws=64)
    result = posterior_shear(tried, 4 * log_weights)
    assert abs(result.width - WIDTH) > 0.02


def test_draws_of_images_know_the_shape():
    g = shapes(4)
    batch = RenderedBatch.from_stamps(stamps(images(g, snr=100.0)))
    uniform = {"kind": "uniform", "low": 0.0, "high": 0.9}
    prior = Prior(
        {
            "snr": {"kind": "loguniform", "low": 5, "high": 1000},
            "n": {"kind": "uniform", "low": 0.5, "high": 5.5},
            "hlr": {"kind": "loguniform", "low": 1.0, "high": 10.0},
            "g": uniform,
        }
    )
    network = ShapeEstimator().live_network()
    drawn, log_weights = shape_draws(batch, network, prior, n_draws=128)
    again = shape_draws(batch[np.array([2])], network, prior, n_draws=128)
    np.testing.assert_array_equal(again[1][0], log_weights[2])
    weights = np.exp(log_weights - log_weights.max(1, keepdims=True))
    weights /= weights.sum(1, keepdims=True)
    assert (1 / (weights**2).sum(1) > 20).all()
    mean = (weights[..., None] * drawn).sum(1)
    assert np.abs(mean[:, 0] + 1j * mean[:, 1] - g).max() < 0.08
    assert np.abs(np.sqrt((weights[..., None] * (drawn - mean[:, None]) ** 2).sum(1))).max() < 0.05


def test_what_does_not_fit_is_refused():
    with pytest.raises(InputError, match="log_weights"):
        posterior_shear(np.zeros((3, 4, 2)), np.zeros((3, 5)))
    with pytest.raises(InputError, match="no galaxy"):
        posterior_shear(np.zeros((3, 4, 2)), np.full((3, 4), -np.inf))
