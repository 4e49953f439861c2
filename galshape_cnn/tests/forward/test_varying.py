# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""Shapes that change with wavelength: values and derivatives in each band."""

from dataclasses import replace

import numpy as np
import pytest

from galshape_cnn.forward.coordinates import Coordinates
from galshape_cnn.forward.galaxy_model import GalaxyModel
from galshape_cnn.forward.sersic import N_RANGE
from galshape_cnn.forward.varying import band_shape, polynomials
from galshape_cnn.forward.view import View

MODEL = GalaxyModel(
    ("g", "r", "z"), (0, 1, 1, 2), True, (("n", 1), ("hlr", 2), ("g", 1)), (480.0, 640.0, 920.0)
)


@pytest.fixture
def params():
    rng = np.random.default_rng(1)
    out = np.zeros((5, MODEL.size))
    out[:, MODEL.fluxes], out[:, MODEL.n], out[:, MODEL.hlr], out[:, MODEL.centre] = 100, 1.5, 3, 10
    out[:, MODEL.shear] = rng.uniform(-0.4, 0.4, (5, 2))
    out[:, MODEL.varying] = rng.uniform(-0.4, 0.4, (5, MODEL.coefficients))
    return out


def test_names_and_places():
    assert MODEL.names[3:14] == (
        "n", "hlr", "g1", "g2", "n_1", "hlr_1", "g1_1", "g2_1", "hlr_2", "x", "y",
    )  # fmt: skip
    assert MODEL.names[MODEL.varying] == ("n_1", "hlr_1", "g1_1", "g2_1", "hlr_2")
    assert MODEL.names[MODEL.skies] == ("sky_0", "sky_1", "sky_2", "sky_3")
    assert hash(MODEL) == hash(replace(MODEL))


def test_polynomials_span_the_bands():
    values = polynomials([480, 640, 920], 2)
    np.testing.assert_allclose(values[[0, 2]], [[-1, 1], [1, 1]], atol=1e-15)
    t = (2 * np.log(640) - np.log(480) - np.log(920)) / np.log(920 / 480)
    np.testing.assert_allclose(values[1], [t, 2 * t**2 - 1])


def test_a_line_is_a_power_law(params):
    params[:, MODEL.varying] = [0.3, -0.2, 0, 0, 0]
    shapes = [band_shape(params, MODEL, band)[0] for band in range(3)]
    for column, slope in ((0, 0.3), (1, -0.2)):
        power = 2 * slope / np.log(920 / 480)
        for band, wavelength in ((1, 640), (2, 920)):
            ratio = shapes[band][:, column] / shapes[0][:, column]
            np.testing.assert_allclose(ratio, (wavelength / 480) ** power)
    np.testing.assert_allclose(shapes[1][:, 2:], params[:, MODEL.shear])


def test_derivatives_are_those_of_differences(params):
    rng = np.random.default_rng(2)
    for exposure in range(4):
        view = View(MODEL, exposure, rng.normal(size=(5, 2, 2)), np.zeros(2), np.ones(2), np.full(5, 1.3))
        for k, column in enumerate(np.moveaxis(view.jacobian(params), 2, 0)):
            step = 1e-5 * np.eye(MODEL.size)[k]
            difference = (view.params(params + step) - view.params(params - step)) / 2e-5
            np.testing.assert_allclose(column, difference, atol=1e-8)


def test_n_stays_in_its_range_and_does_not_move_there(params):
    params[:, MODEL.varying] = [2.0, 0, 0, 0, 0]
    for band, limit in ((0, N_RANGE[0]), (2, N_RANGE[1])):
        shape, derivative = band_shape(params, MODEL, band)
        np.testing.assert_array_equal(shape[:, 0], limit)
        assert not derivative[:, 0].any()


def test_coordinates_there_and_back(params):
    coordinates = Coordinates(MODEL)
    theta = coordinates.of(params)
    np.testing.assert_allclose(coordinates.params(theta), params)
    theta[:, MODEL.varying] = 9
    assert (np.abs(coordinates.clipped(theta, 64)[:, MODEL.varying]) == 2).all()
