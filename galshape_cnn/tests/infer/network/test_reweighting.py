# Licensed under a 3-clause BSD style license - see LICENSE.rst
import numpy as np
import pytest

from galshape_cnn.forward.coordinates import POSTERIOR
from galshape_cnn.infer.network.amortized import posterior_moments
from galshape_cnn.infer.network.reweighting import reweighted_moments
from galshape_cnn.infer.posterior.mixture import MixturePosterior
from galshape_cnn.infer.posterior.prior import Prior

WIDE = {
    "flux": {"kind": "loguniform", "low": 1.0, "high": 1e4},
    "n": {"kind": "uniform", "low": 0.3, "high": 6.2},
    "hlr": {"kind": "loguniform", "low": 0.3, "high": 12.0},
    "g": {"kind": "rayleigh", "sigma": 0.3, "low": 0.0, "high": 0.7},
}


@pytest.fixture(scope="module")
def posterior():
    u = POSTERIOR.of([[200.0, 2.0, 3.0, 0.1, -0.05, 31.5, 31.5]])[:, None]
    return MixturePosterior(np.ones((1, 1)), u, np.diag([0.05, 0.4, 0.2, 0.05, 0.05, 0.1, 0.1])[None, None])


def test_the_training_prior_changes_nothing(posterior):
    mean, covariance, ess = reweighted_moments(posterior, Prior(WIDE), Prior(WIDE))
    plain, spread = posterior_moments(posterior)
    np.testing.assert_allclose(mean, plain, rtol=0.01, atol=0.002)
    sigma, expected = (np.sqrt(np.diagonal(c[0])) for c in (covariance, spread))
    np.testing.assert_allclose(sigma, expected, rtol=0.02)
    correlation = covariance[0] / sigma / sigma[:, None]
    np.testing.assert_allclose(correlation, np.eye(7), atol=0.05)
    assert ess[0] > 1020


def test_a_normal_prior_gives_the_product_of_two_normals(posterior):
    # On ln hlr: likelihood N(ln 3, 0.2), prior N(ln 2.5, 0.2): mean of the two, width 0.2 / sqrt 2.
    narrow = WIDE | {"hlr": {"kind": "lognormal", "median": 2.5, "sigma": 0.2, "low": 0.3, "high": 12.0}}
    mean, covariance, ess = reweighted_moments(posterior, Prior(narrow), Prior(WIDE))
    middle, width = np.log(3 * 2.5) / 2, 0.2 / np.sqrt(2)
    expected = np.exp(middle + width**2 / 2)
    error = width * expected / np.sqrt(ess[0])
    assert abs(mean[0, 2] - expected) < 4 * error
    assert np.sqrt(covariance[0, 2, 2]) == pytest.approx(width * expected, rel=0.15)


def test_priors_that_do_not_meet(posterior):
    far = WIDE | {"hlr": {"kind": "uniform", "low": 11.0, "high": 12.0}}
    mean, _, ess = reweighted_moments(posterior, Prior(far), Prior(WIDE))
    assert ess[0] == 0
    assert np.isnan(mean[0]).all()


@pytest.mark.parametrize("width", [0.5, 3.0, 30.0])
def test_limits_of_its_own_prior_are_kept(width):
    """A posterior with light beyond the limits of its prior, up to radii of 1e12 pixels and more."""
    center = [200.0, 2.0, 11.9, 0.1, -0.05, 31.5, 31.5]  # hlr just below its limit
    u = np.concatenate([POSTERIOR.of([center])[:, None]] * 2, 1)
    sigma = np.array([[0.05, 0.4, 0.2, 0.05, 0.05, 0.1, 0.1], [0.05, 0.4, width, 0.3, 0.3, 0.1, 0.1]])
    posterior = MixturePosterior(np.array([[0.5, 0.5]]), u, np.eye(7) * sigma[None, :, None])
    own = Prior(WIDE)
    mean, covariance, ess = reweighted_moments(posterior, own, own)
    wild = posterior_moments(posterior)[0]
    assert wild[0, 2] > 12
    assert 5 < mean[0, 2] < 12
    assert np.hypot(*mean[0, 3:5]) < 0.7
    assert np.isfinite(covariance).all()
    assert np.sqrt(covariance[0, 2, 2]) < 12
    assert 20 < ess[0] <= 256
