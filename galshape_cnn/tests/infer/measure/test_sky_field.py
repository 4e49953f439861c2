# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""A sky with structure is fitted with the galaxy: estimates scatter less, and as their errors say."""

import numpy as np
import pytest
from scipy.ndimage import gaussian_filter

from galshape_cnn import ShapeEstimator
from galshape_cnn.infer.residuals.sky_field import _BUMPS, _of_pairs, _stretch, _waves
from galshape_cnn.tests.moffat_scene import GALAXY, drawn, errors, moffat

N, SIDE = 96, 64
MOFFAT, PSF = moffat(4.0)


@pytest.fixture(scope="module")
def estimator():
    return ShapeEstimator()


def scene(bumps, snr=100):
    """Galaxies in noise one, on a sky of bumps of some variance and correlation; and their flux."""
    rng = np.random.default_rng(8)
    light = drawn(GALAXY, MOFFAT, SIDE)
    flux = snr / np.sqrt((light**2).sum())
    sky = gaussian_filter(rng.normal(size=(N, 3 * SIDE, 3 * SIDE)), (0, 5, 5))[:, SIDE:-SIDE, SIDE:-SIDE]
    return light * flux + bumps * sky / sky.std() + rng.normal(size=(N, SIDE, SIDE)), flux


@pytest.mark.parametrize("method", ["ml", "network"])
def test_less_scatter_and_errors_that_hold(estimator, method, monkeypatch):
    data, flux = scene(0.3)
    known = {"psf": PSF, "error": 1.0, "method": method}
    off, pull = errors(estimator(data, **known), flux)
    monkeypatch.setattr("galshape_cnn.infer.residuals.structure._HALO", -np.inf)
    before, _ = errors(estimator(data, **known), flux)
    scatter, old = (np.sqrt((one**2).mean(0)) for one in (off, before))
    assert (scatter < 0.9 * old).all()
    inside = (np.abs(pull) < 1).mean(0)  # to 0.048
    assert (inside > 0.54).all()
    assert (inside < 0.83).all()


def test_a_flat_sky_is_left_as_it_is(estimator, monkeypatch):
    data, _ = scene(0.0)
    known = {"psf": PSF, "error": 1.0, "method": "network"}
    now = estimator(data, **known)
    monkeypatch.setattr("galshape_cnn.infer.residuals.structure._HALO", -np.inf)
    same = (now.parameters == estimator(data, **known).parameters).all(1)
    assert same.mean() > 0.95


def test_the_halo_of_a_galaxy_is_no_sky(estimator, monkeypatch):
    """It is the same on opposite sides, which bumps of the sky hardly are."""
    y, x = np.mgrid[:SIDE, :SIDE] - 31.5
    narrow = np.exp(-np.add.outer(np.arange(-10, 11) ** 2, np.arange(-10, 11) ** 2) / (2 * 1.4**2))
    star = 1800 * np.exp(-(x**2 + y**2) / (2 * 1.4**2)) / narrow.sum()
    halo = 2 * np.exp(-np.hypot(1.2 * x, y) / 8)
    data = star + halo + np.random.default_rng(2).normal(size=(40, SIDE, SIDE))
    known = {"psf": narrow, "error": 1.0, "method": "network"}
    now = estimator(data, **known)
    monkeypatch.setattr("galshape_cnn.infer.residuals.structure._HALO", -np.inf)
    assert (now.parameters == estimator(data, **known).parameters).all(1).mean() > 0.7
    monkeypatch.undo()
    monkeypatch.setattr("galshape_cnn.infer.residuals.structure._HALO", np.inf)
    assert (now.parameters != estimator(data, **known).parameters).any(1).mean() > 0.5


def test_company_changes_nothing(estimator):
    data, _ = scene(0.3)
    known = {"psf": PSF, "error": 1.0, "method": "network"}
    alone, whole = estimator(data[5:6], **known), estimator(data[:20], **known)
    assert (alone.parameters == whole.parameters[5:6]).all()
    assert (alone.covariance == whole.covariance[5:6]).all()


def test_waves_have_the_variance_of_the_field():
    """But for the constant, which is the sky's level, and short ones; at the rim they have somewhat more."""
    along, (y, x), variance = _waves(SIDE)
    waves = along[y, :, None] * along[x, None, :]
    total = np.tensordot(variance, waves**2, 1)
    levels = [share * (1 - 4 * np.pi * width**2 / SIDE**2) for width, share in _BUMPS]
    assert total.mean() == pytest.approx(sum(levels), rel=0.3)
    assert waves.reshape(len(waves), -1).mean(1) == pytest.approx(0, abs=1e-12)


def test_products_of_waves_are_those_of_the_images():
    along, (y, x), _ = _waves(SIDE)
    waves = (along[y, :, None] * along[x, None, :]).reshape(len(y), -1)
    weight = np.random.default_rng(5).uniform(0, 2, SIDE**2)
    products = _of_pairs(along @ weight.reshape(SIDE, SIDE) @ along.T, y, x)
    assert products == pytest.approx((waves * weight) @ waves.T, abs=1e-9 * SIDE**2)


def test_a_covariance_that_is_none_stretches_nothing():
    known = np.diag([1.0, 2.0, 3.0, 4.0, 5.0])
    np.testing.assert_allclose(_stretch(known, 4 * known), 2 * np.eye(5), atol=1e-12)
    for none in (np.diag([1.0, 0.0, 1.0, 1.0, 1.0]), np.full((5, 5), np.nan)):
        np.testing.assert_array_equal(_stretch(none, known), np.eye(5))
    np.testing.assert_array_equal(_stretch(known, np.full((5, 5), np.nan)), np.eye(5))
