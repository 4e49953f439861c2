# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""Coordinates of the fit and of posteriors: there and back, derivatives, bounds; several bands too."""

import numpy as np
import pytest

from galshape_cnn.forward.coordinates import ETA_MAX, FIT, HLR_MIN, POSTERIOR, Coordinates
from galshape_cnn.forward.galaxy_model import GalaxyModel
from galshape_cnn.forward.sersic import N_RANGE

BANDS = GalaxyModel(("g", "r"), (0, 1, 1))
ALL = [FIT, POSTERIOR, Coordinates(BANDS), Coordinates(BANDS, log_flux=True, logit_n=True)]


def random_params(model, count=200):
    rng = np.random.default_rng(1)
    params = rng.uniform(-5, 5, (count, model.size))
    params[:, model.fluxes] = rng.uniform(1, 1e3, (count, len(model.bands)))
    params[:, model.shape] = rng.uniform([0.31, 0.1, -0.6, -0.6], [6.19, 20, 0.6, 0.6], (count, 4))
    params[0, model.shear] = 0
    return params


@pytest.mark.parametrize("coordinates", ALL)
def test_there_and_back(coordinates):
    params = random_params(coordinates.model)
    back = coordinates.params(coordinates.of(params))
    np.testing.assert_allclose(back, params, rtol=1e-12)
    assert len(coordinates.names) == params.shape[1]


@pytest.mark.parametrize("coordinates", ALL)
def test_derivative_and_determinant_are_those_of_differences(coordinates):
    theta = coordinates.of(random_params(coordinates.model))
    theta[1, coordinates.model.shear] = 1.2, 0.5
    step = 1e-5 * np.eye(theta.shape[1])
    numeric = (
        np.stack([coordinates.params(theta + e) - coordinates.params(theta - e) for e in step], -1) / 2e-5
    )
    np.testing.assert_allclose(coordinates.derivative(theta), numeric, rtol=1e-6, atol=1e-6)
    determinant = np.log(np.linalg.det(coordinates.derivative(theta)))
    np.testing.assert_allclose(coordinates.log_determinant(theta), determinant, atol=1e-9)


def test_names():
    assert FIT.names == ("flux", "ln_n", "ln_hlr", "eta1", "eta2", "x", "y", "sky")
    assert POSTERIOR.names == ("ln_flux", "logit_n", "ln_hlr", "eta1", "eta2", "x", "y")


def test_parameters_never_leave_their_range():
    extreme = POSTERIOR.params(np.random.default_rng(2).normal(scale=30, size=(1000, 7)))
    assert (extreme[:, 1] >= 0.3).all()
    assert (extreme[:, 1] <= 6.2).all()
    assert (np.hypot(extreme[:, 3], extreme[:, 4]) < 1).all()


def test_clipped_coordinates_are_legal():
    theta = np.array([[1.0, 9.0, -99.0, 9.0, 9.0, -50.0, 99.0, 0.0]])
    params = FIT.params(FIT.clipped(theta, 32))[0]
    assert params[1] == N_RANGE[1]
    assert params[2] == pytest.approx(HLR_MIN)
    assert np.arctanh(np.hypot(params[3], params[4])) == pytest.approx(ETA_MAX)
    assert 0 <= params[6] - 31.5 < 1e-9
