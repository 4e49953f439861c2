# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""Errors of axis ratio, position angle and semi-major radius."""

import numpy as np
import pytest

from galshape_cnn.geometry import (
    axis_ratio,
    frame_derivative,
    position_angle,
    semi_major_radius,
    transform_shape,
)
from galshape_cnn.infer.catalog.placement import derived_errors

PARAMETERS = np.array(
    [[100.0, 2.0, 3.0, 0.3, -0.2], [50.0, 1.0, 0.7, -0.1, 0.05], [9.0, 4.0, 12.0, 0.0, 0.6]]
)


def covariances(scale=1e-3, seed=0):
    root = np.random.default_rng(seed).normal(size=(len(PARAMETERS), 5, 5)) * scale
    return root @ np.swapaxes(root, 1, 2)


def test_scatter_of_draws():
    """200,000 draws: the standard deviation is good to 0.16 %, and first order to about the scale."""
    covariance = covariances()
    errors = derived_errors(PARAMETERS, covariance)
    rng = np.random.default_rng(1)
    for i, mean in enumerate(PARAMETERS):
        _, _, hlr, g1, g2 = rng.multivariate_normal(mean, covariance[i], 200_000).T
        turned = (position_angle(g1, g2) - position_angle(*mean[3:]) + 90) % 180
        assert errors["q_err"][i] == pytest.approx(axis_ratio(g1, g2).std(), rel=0.01)
        assert errors["pa_err"][i] == pytest.approx(turned.std(), rel=0.01)
        assert errors["r_eff_err"][i] == pytest.approx(semi_major_radius(hlr, g1, g2).std(), rel=0.01)


def test_errors_belong_to_the_sky_and_not_to_the_pixels():
    """A rotated and flipped frame changes no error; the scale of the pixel is that of the radius's."""
    angle = np.radians(37)
    turn = 0.2 * np.array([[-np.cos(angle), np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    jacobian = np.tile(turn, (3, 1, 1))
    derivative = frame_derivative(PARAMETERS[:, 3], PARAMETERS[:, 4], jacobian)
    moved = PARAMETERS.copy()
    moved[:, 2:] = np.stack(transform_shape(*PARAMETERS[:, 2:].T, jacobian), -1)
    before = derived_errors(PARAMETERS, covariances())
    after = derived_errors(moved, derivative @ covariances() @ np.swapaxes(derivative, 1, 2))
    np.testing.assert_allclose(after["q_err"], before["q_err"])
    np.testing.assert_allclose(after["pa_err"], before["pa_err"])
    np.testing.assert_allclose(after["r_eff_err"], 0.2 * before["r_eff_err"])


def test_angle_of_a_round_galaxy_is_unknown():
    round_one = PARAMETERS[:1] * [1, 1, 1, 0, 0]
    errors = derived_errors(round_one, covariances()[:1])
    assert errors["pa_err"][0] == pytest.approx(180 / np.sqrt(12))
    assert np.isfinite([errors["q_err"][0], errors["r_eff_err"][0]]).all()


def test_nothing_known_gives_nothing():
    errors = derived_errors(PARAMETERS, np.full((3, 5, 5), np.nan))
    assert all(np.isnan(values).all() for values in errors.values())
    errors = derived_errors(np.full((3, 5), np.nan), covariances())
    assert all(np.isnan(values).all() for values in errors.values())
