# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""The network's way with several images: proposals of each, likelihood of all."""

from dataclasses import replace

import numpy as np
import pytest
from scipy.ndimage import gaussian_filter

from galshape_cnn import ShapeEstimator
from galshape_cnn.flags import Flag
from galshape_cnn.infer.measure.exposures import estimates
from galshape_cnn.infer.posterior.nested_laplace import nested_moments
from galshape_cnn.tests.exposure_scene import SETUP, TRUTH, exposure, galaxies


@pytest.fixture(scope="module")
def estimator():
    return ShapeEstimator()


@pytest.fixture(scope="module")
def scene():
    rng = np.random.default_rng(8)
    sky, truth = galaxies(rng)
    return sky, truth, [exposure(rng, sky, truth, one) for one in SETUP]


@pytest.fixture(scope="module")
def network(scene, estimator):
    return estimator(scene[2], positions=scene[0], neighbours="ignore")


def sigma(covariance):
    return np.sqrt(np.diagonal(covariance, axis1=1, axis2=2))


def test_default_method_takes_exposures(scene, network):
    assert network.method == "network"
    truth = np.column_stack([scene[1][name] for name in TRUTH])
    pull = (network.parameters - truth) / sigma(network.covariance)
    assert np.abs(pull).max() < 4
    assert (pull**2).mean() == pytest.approx(1, abs=4 * 0.19)
    names = network.to_table().colnames
    assert {"flux_g_std", "hlr_std"} <= set(names)
    assert "ess" not in names
    assert network.is_usable.all()


def test_network_is_close_to_the_exact_posterior(scene, estimator, network):
    """Both have few draws, of which errors of some 0.2 standard deviations remain."""
    exact = estimator(scene[2], positions=scene[0], neighbours="ignore", method="posterior")
    offset = (network.parameters - exact.parameters) / sigma(exact.covariance)
    assert np.sqrt((offset**2).mean()) < 0.25
    ratio = sigma(network.covariance) / sigma(exact.covariance)
    assert ratio.mean() == pytest.approx(1, abs=0.05)
    assert ratio.std() < 0.2


def test_a_galaxy_does_not_depend_on_its_company(scene, estimator, network):
    some = estimator(scene[2], positions=scene[0][[7, 2]], neighbours="ignore")
    np.testing.assert_array_equal(some.parameters, network.parameters[[7, 2]])
    np.testing.assert_array_equal(some.covariance, network.covariance[[7, 2]])


def test_one_exposure_is_the_network_of_a_single_image(scene, estimator):
    one = scene[2][1]
    options = {"positions": scene[0], "neighbours": "ignore"}
    joint = estimator([one], **options)
    single = estimator(one.data, psf=one.psf, error=one.error, wcs=one.wcs, **options)
    np.testing.assert_allclose(joint.parameters, single.parameters, rtol=1e-6, atol=1e-9)
    np.testing.assert_allclose(joint.covariance, single.covariance, rtol=1e-3, atol=1e-9)
    np.testing.assert_array_equal(joint.flags, single.flags)


def test_a_band_without_data_is_nan(scene, estimator):
    mask = np.ones(scene[2][0].data.shape, bool)
    blind = [replace(scene[2][0], mask=mask), *scene[2][1:]]
    catalog = estimator(blind, positions=scene[0][:2], neighbours="ignore")
    assert (catalog.flags & Flag.BAND_MISSING > 0).all()
    assert np.isnan(catalog.flux_g).all()
    assert np.isfinite(catalog.parameters[:, 1:]).all()
    assert np.isfinite(catalog.covariance[:, 1:, 1:]).all()
    assert np.isnan(catalog.covariance[:, 0]).all()


@pytest.mark.parametrize("method", ["network", "posterior"])
def test_correlated_noise_widens_the_posterior(scene, estimator, method):
    """By as much as the sandwich is wider than the bound, where the prior says little."""
    y, x = np.mgrid[-4:5, -4:5]
    kernel = gaussian_filter(np.where((x == 0) & (y == 0), 1.0, 0), 1.2)
    correlation = kernel / kernel.max()
    correlated = [replace(one, noise_correlation=correlation) for one in scene[2]]
    options = {"positions": scene[0][:4], "neighbours": "ignore", "method": method}
    plain = estimator(scene[2], **options)
    wide = estimator(correlated, **options)
    ratio = sigma(wide.covariance) / sigma(plain.covariance)
    expected = sigma(wide.crb_covariance) / sigma(plain.crb_covariance)
    assert np.median(expected) > 1.5
    np.testing.assert_allclose(np.median(ratio[:, :2]), np.median(expected[:, :2]), rtol=0.25)


def test_rows_that_draws_do_not_reach_are_those_of_the_posterior(scene, estimator, network, monkeypatch):
    """Two of nine rows have no draw that counts: they are sampled as by ``"posterior"``, to the last bit."""
    lost, kept = np.array([1, 6]), [0, 2, 3, 4, 5, 7, 8]

    def nothing(target, near):
        result, doubtful = nested_moments(target, near)
        result.ess[lost], doubtful[lost] = 0, False
        return result, doubtful

    monkeypatch.setattr(estimates, "nested_moments", nothing)
    mended = estimator(scene[2], positions=scene[0], neighbours="ignore")
    exact = estimator(scene[2], positions=scene[0], neighbours="ignore", method="posterior")
    for name in ("parameters", "covariance"):
        found = getattr(mended, name)
        assert np.array_equal(found[kept], getattr(network, name)[kept])
        assert np.array_equal(found[lost], getattr(exact, name)[lost])
    assert not (mended.flags & (Flag.NOT_SAMPLED | Flag.LOW_ESS)).any()
    assert mended.measurement.samples is None


@pytest.mark.parametrize("row", [0, 5])
def test_a_galaxy_alone_is_the_same_to_the_last_bit(scene, estimator, row):
    alone = estimator(scene[2], positions=scene[0][row : row + 1], neighbours="ignore", recenter=False)
    among = estimator(scene[2], positions=scene[0], neighbours="ignore", recenter=False)
    assert np.array_equal(alone.parameters[0], among.parameters[row])
    assert np.array_equal(alone.covariance[0], among.covariance[row])
