# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""Densities along a curve from their values and slopes at three points."""

import numpy as np
import pytest
from scipy.special import ndtri

from galshape_cnn.infer.posterior.nodes import REACH, Node, curved, drawn_from, log_density, mixed, straight

UNIFORM = (np.arange(2048) + 0.5) / 2048


def nodes_of(value, slope, curvature, rest=lambda t: 0.0 * t):
    nothing = np.zeros(1)
    return [
        Node(*(np.full(1, f(t)) for f in (value, slope, curvature, rest)), *6 * [nothing])
        for t in (-REACH, 0.0, REACH)
    ]


def test_a_gaussian_is_one():
    nodes = nodes_of(lambda t: -0.5 * t**2, lambda t: -t, lambda t: -1.0)
    np.testing.assert_allclose(drawn_from(log_density(nodes), UNIFORM)[0], ndtri(UNIFORM), atol=0.01)


def test_what_amplitudes_add_moves_it():
    """A linear term moves a Gaussian by its slope."""
    nodes = nodes_of(lambda t: -0.5 * t**2, lambda t: -t, lambda t: -1.0, lambda t: 0.4 * t)
    draws = drawn_from(log_density(nodes), UNIFORM)[0]
    assert draws.mean() == pytest.approx(0.4, abs=0.005)
    assert draws.std() == pytest.approx(1.0, abs=0.01)


@pytest.mark.parametrize("sign", [-1, 1])
def test_a_skewed_density_keeps_its_moments(sign):
    """Of a logarithm of a gamma deviate of shape 4, whose skewness is 0.53."""
    grid = np.linspace(-8, 8, 4001)
    weight = np.exp(-4 * (np.exp(grid / 2) - 1 - grid / 2))
    mean = (weight * grid).sum() / weight.sum()
    std = np.sqrt((weight * (grid - mean) ** 2).sum() / weight.sum())
    nodes = nodes_of(
        lambda t: -4 * (np.exp(sign * t / 2) - 1 - sign * t / 2),
        lambda t: -2 * sign * (np.exp(sign * t / 2) - 1),
        lambda t: -np.exp(sign * t / 2),
    )
    draws = drawn_from(log_density(nodes), UNIFORM)[0]
    assert abs(mean) > 0.2
    assert sign * draws.mean() == pytest.approx(mean, abs=0.02)
    assert draws.std() == pytest.approx(std, rel=0.02)


def test_means_lie_on_a_parabola_and_widths_on_lines():
    t = np.array([[-REACH, -0.5 * REACH, 0.0, 0.5 * REACH, REACH]])
    values = [np.full((1, 2), one) for one in (4.0, 0.0, 4.0)]
    np.testing.assert_allclose(mixed(curved(t), values)[0, :, 1], [4, 1, 0, 1, 4], atol=1e-12)
    np.testing.assert_allclose(mixed(straight(t), values)[0, :, 0], [4, 2, 0, 2, 4], atol=1e-12)
    np.testing.assert_allclose(mixed(straight(3 * t), values)[0, :, 0], [4, 4, 0, 4, 4], atol=1e-12)
