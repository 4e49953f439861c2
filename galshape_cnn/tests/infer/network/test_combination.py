# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""Single-image posteriors combined: precisions add, the prior counts once, frames are undone."""

import numpy as np
import pytest

from galshape_cnn.forward.coordinates import POSTERIOR
from galshape_cnn.forward.galaxy_model import SINGLE, GalaxyModel
from galshape_cnn.forward.view import View
from galshape_cnn.infer.network.combination import combined_posterior
from galshape_cnn.infer.posterior.prior import Prior

PRIOR = Prior(
    {
        "n": {"kind": "lognormal", "median": 1.5, "sigma": 0.5, "low": 0.3, "high": 6.2},
        "hlr": {"kind": "lognormal", "median": 2.0, "sigma": 0.7, "low": 0.3, "high": 12.0},
        "g": {"kind": "rayleigh", "sigma": 0.3, "low": 0.0, "high": 0.7},
        "snr": {"kind": "loguniform", "low": 5, "high": 1000},
    }
)
PARAMS = np.array([[300.0, 1.5, 3.0, 0.2, -0.1, 15.3, 15.8], [500.0, 2.5, 2.0, -0.1, 0.2, 15.6, 15.2]])


def chols(scale=1.0):
    rng = np.random.default_rng(2)
    factor = np.diag([0.05, 0.3, 0.1, 0.08, 0.08, 0.05, 0.05]) @ (np.eye(7) + 0.2 * rng.normal(size=(7, 7)))
    return scale * np.tile(np.linalg.cholesky(factor @ factor.T), (2, 1, 1))


def covariances(chol):
    return chol @ np.swapaxes(chol, 1, 2)


def prior_precision():
    draws = PRIOR.sample(np.random.default_rng(7), 20000)
    u = POSTERIOR.of(np.column_stack([np.ones(20000), draws[:, 1:], np.zeros((20000, 2))]))
    return np.diag(np.concatenate([[0], 1 / u.var(0)[1:5], [0, 0]])), u.mean(0)


def test_one_image_keeps_its_posterior():
    """What it says is taken apart from the prior, and put together again."""
    piece = np.arange(2), View(), POSTERIOR.of(PARAMS), chols()
    mean, covariance = combined_posterior(SINGLE, 2, [piece], PRIOR)
    np.testing.assert_allclose(mean, PARAMS, rtol=1e-3)
    np.testing.assert_allclose(covariance, covariances(chols()), rtol=2e-3, atol=1e-7)


def test_precisions_add_and_the_prior_counts_once():
    first, second = POSTERIOR.of(PARAMS), POSTERIOR.of(PARAMS * [1.02, 1.1, 0.98, 1, 1, 1.001, 1])
    pieces = [(np.arange(2), View(), first, chols()), (np.arange(2), View(), second, chols(1.5))]
    mean, covariance = combined_posterior(SINGLE, 2, pieces, PRIOR)
    known, center = prior_precision()
    precisions = [np.linalg.inv(covariances(chols(scale))) for scale in (1, 1.5)]
    expected = precisions[0] + precisions[1] - known
    np.testing.assert_allclose(
        np.linalg.inv(covariance), expected, rtol=0.02, atol=0.02 * np.abs(known).max()
    )
    pull = sum((p @ u[..., None])[..., 0] for p, u in zip(precisions, (first, second), strict=True))
    best = np.linalg.solve(expected, (pull - known @ center)[..., None])[..., 0]
    sigma = np.sqrt(np.diagonal(covariance, axis1=1, axis2=2))
    assert (np.abs(POSTERIOR.of(mean) - best) / sigma).max() < 0.02


def test_an_image_of_another_frame_and_unit_says_the_same():
    turned = View(
        frame=np.array([[0.0, -1.5], [1.5, 0.1]]),
        reference=np.array([15.0, 15.0]),
        pixel=np.array([20.0, 22.0]),
        factor=3.0,
    )
    own = turned.params(SINGLE.with_sky(PARAMS))[:, :7]
    piece = np.arange(2), turned, POSTERIOR.of(own), chols(0.1)
    mean, covariance = combined_posterior(SINGLE, 2, [piece], PRIOR)
    np.testing.assert_allclose(mean, PARAMS, rtol=1e-4)
    draws = POSTERIOR.of(own)[:, None] + np.random.default_rng(1).normal(size=(2, 20000, 7)) @ np.swapaxes(
        piece[3], 1, 2
    )
    for row in (0, 1):
        back = turned.outward(SINGLE.with_sky(POSTERIOR.params(draws[row])))[:, :7]
        np.testing.assert_allclose(
            np.sqrt(np.diagonal(covariance[row])), POSTERIOR.of(back).std(0), rtol=0.03
        )


def test_bands_have_fluxes_of_their_own():
    model = GalaxyModel(("g", "r"), (0, 1))
    pieces = [
        (np.arange(2), View(model, k), POSTERIOR.of(PARAMS * [1 + k, *6 * [1]]), chols()) for k in (0, 1)
    ]
    mean, covariance = combined_posterior(model, 2, pieces, PRIOR)
    np.testing.assert_allclose(mean[:, 1] / mean[:, 0], 2, rtol=0.02)
    alone = covariances(chols())
    assert (covariance[:, 2, 2] < 0.6 * alone[:, 1, 1]).all()
    assert (covariance[:, 0, 0] < alone[:, 0, 0]).all()


@pytest.mark.parametrize("broken", ["mean", "chol"])
def test_what_is_not_finite_is_left_out(broken):
    model = GalaxyModel(("g", "r"), (0, 1))
    mean, chol = POSTERIOR.of(PARAMS), chols()
    bad_mean, bad_chol = mean.copy(), chol.copy()
    (bad_mean if broken == "mean" else bad_chol)[0] = np.nan
    pieces = [(np.arange(2), View(model, 0), mean, chol), (np.arange(2), View(model, 1), bad_mean, bad_chol)]
    found, covariance = combined_posterior(model, 2, pieces, PRIOR)
    assert np.isnan(found[0, 1])
    assert np.isnan(covariance[0, 1]).all()
    np.testing.assert_allclose(found[0, [0, *range(2, 8)]], PARAMS[0], rtol=1e-3)
    assert np.isfinite(found[1]).all()
    nothing, _ = combined_posterior(
        model, 1, [(np.arange(1), View(model, 1), bad_mean[:1], bad_chol[:1])], PRIOR
    )
    assert np.isnan(nothing).all()
