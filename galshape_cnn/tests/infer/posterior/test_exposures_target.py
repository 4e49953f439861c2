# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""Density of the posterior of several images."""

import numpy as np
import pytest

from galshape_cnn.forward.galaxy_model import SINGLE, GalaxyModel
from galshape_cnn.forward.grid import FourierGrid
from galshape_cnn.forward.render import render
from galshape_cnn.forward.transfer import transfer_functions
from galshape_cnn.forward.view import View
from galshape_cnn.infer.likelihood.exposures import ExposureStamps, JointLikelihood
from galshape_cnn.infer.likelihood.gaussian import StampLikelihood
from galshape_cnn.infer.posterior.exposures_target import ExposuresTarget
from galshape_cnn.infer.posterior.prior import Prior
from galshape_cnn.infer.posterior.target import ShapeTarget

GRID = FourierGrid(32)
TRUTH = np.array(
    [[300.0, 1.5, 3.0, 0.2, -0.1, 15.3, 15.8, 0.1], [500.0, 2.5, 2.0, -0.1, 0.2, 15.6, 15.2, 0.0]]
)
PRIOR = Prior(
    {
        "n": {"kind": "uniform", "low": 0.4, "high": 6.0},
        "hlr": {"kind": "loguniform", "low": 0.3, "high": 10.0},
        "g": {"kind": "rayleigh", "sigma": 0.3, "low": 0.0, "high": 0.9},
        "flux": {"kind": "uniform", "low": 0.0, "high": 1e6},
    }
)


def stamps_of(seed):
    """Likelihood of both galaxies in one exposure."""
    r2 = np.add.outer(np.arange(-8, 9.0) ** 2, np.arange(-8, 9.0) ** 2)
    psf = np.exp(-r2 / 4)[None] / np.exp(-r2 / 4).sum()
    transfer = np.asarray(transfer_functions(psf.astype(np.float32), GRID))
    noise = np.random.default_rng(seed).normal(size=(2, 32, 32))
    data = np.asarray(render(TRUTH, transfer, GRID)) + noise
    return StampLikelihood.from_stamps(data, np.ones(data.shape), transfer, GRID)


def joint(model, stamps):
    parts = [ExposureStamps(np.arange(2), one, View(model, k)) for k, one in enumerate(stamps)]
    return JointLikelihood(model, tuple(parts), np.ones((2, model.size)))


def target_of(model, stamps):
    best = np.zeros((2, model.size))
    best[:, model.fluxes] = TRUTH[:, :1]
    best[:, model.searched] = TRUTH[:, SINGLE.searched]
    return ExposuresTarget(joint(model, stamps), best, np.tile(np.eye(model.size), (2, 1, 1)), PRIOR, 32)


@pytest.fixture(scope="module")
def points():
    rng = np.random.default_rng(3)
    centre = np.array([-0.8, 1.0, 0.1, 0.0, 15.4, 15.5])
    u = centre + 0.15 * rng.normal(size=(2, 16, 6))
    return u, rng.uniform(size=(2, 16, 2))


def differences(density):
    return density - density[:, :1]


def test_one_exposure_has_the_density_of_one_image(points):
    """With a flat prior of the flux, which lies many standard deviations above zero."""
    u, uniform = points
    stamps = stamps_of(1)
    several, _ = target_of(SINGLE, [stamps])(u, uniform[..., :1])
    best = TRUTH / SINGLE.units(stamps.scale)
    one, _ = ShapeTarget(stamps, best, np.tile(np.eye(8), (2, 1, 1)), PRIOR, True)(u, uniform)
    np.testing.assert_allclose(differences(several), differences(one), atol=5e-3)


def test_exposures_multiply(points):
    """Of exposures in bands of their own, densities multiply but for the prior and the Jacobian."""
    u, uniform = points
    model = GalaxyModel(("g", "r"), (0, 1))
    both = target_of(model, [stamps_of(1), stamps_of(2)])
    density, flux = both(u, uniform)
    alone = [target_of(SINGLE, [stamps_of(k)])(u, uniform[..., k - 1 : k]) for k in (1, 2)]
    theta = np.concatenate([np.zeros((2, 16, 1)), u], -1)
    single = target_of(SINGLE, [stamps_of(1)])
    common = single.coordinates.log_determinant(theta) + single.prior_of_shape(
        single.coordinates.params(theta)
    )
    expected = alone[0][0] + alone[1][0] - common
    np.testing.assert_allclose(differences(density), differences(expected), atol=1e-3)
    np.testing.assert_allclose(flux, np.concatenate([alone[0][1], alone[1][1]], -1), rtol=1e-5)


def test_fluxes_are_positive_whatever_the_data(points):
    u, uniform = points
    stamps = stamps_of(1)
    dark = StampLikelihood(-stamps.data, stamps.ivar, stamps.transfer, stamps.grid, stamps.scale)
    density, flux = target_of(SINGLE, [dark])(u, uniform[..., :1])
    assert np.isfinite(density).all()
    assert (flux > 0).all()


def test_a_band_without_data_changes_nothing(points):
    u, uniform = points
    stamps = stamps_of(1)
    blind = StampLikelihood(stamps.data, 0 * stamps.ivar, stamps.transfer, stamps.grid, stamps.scale)
    model = GalaxyModel(("g", "r"), (0, 1))
    parts = [ExposureStamps(np.arange(2), stamps, View(model, 0))]
    target = target_of(model, [stamps, blind])
    target = ExposuresTarget(
        JointLikelihood(model, tuple(parts), np.ones((2, model.size))), target.best, target.fisher, PRIOR, 32
    )
    density, flux = target(u, uniform)
    alone, _ = target_of(SINGLE, [stamps])(u, uniform[..., :1])
    np.testing.assert_allclose(differences(density), differences(alone), atol=1e-6)
    assert np.isnan(flux[..., 1]).all()


def test_points_outside_the_prior_are_impossible(points):
    u, uniform = points
    far = u.copy()
    far[:, 3, 1] = np.log(11.0)
    density, _ = target_of(SINGLE, [stamps_of(1)])(far, uniform[..., :1])
    assert np.isneginf(density[:, 3]).all()
    assert np.isfinite(density[:, 4]).all()
