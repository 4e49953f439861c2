# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""An ideal estimator seen in pixels that are sheared, rotated and mirrored on the sky."""

import numpy as np
import pytest

from galshape_cnn.geometry import transform_shape
from galshape_cnn.infer.shear.frames import reported_columns

N = 200
TURN = np.array([[np.cos(0.7), -np.sin(0.7)], [np.sin(0.7), np.cos(0.7)]])
SHEARED = 0.2 * TURN @ np.array([[1.11, 0.03], [0.03, 0.91]])
FRAMES = {"sheared": SHEARED, "mirrored": SHEARED @ np.diag([-1, 1]), "turned": TURN}


def composed(g, gamma):
    return (g + gamma) / (1 + np.conj(gamma) * g)


def by_gamma(g, direction, step=1e-5):
    return (composed(g, step * direction) - composed(g, -step * direction)) / (2 * step)


def ideal(shapes, jacobian, psf=0.0):
    """Slots of an estimator that measures shapes of the sky exactly, and the PSF with ``psf``."""
    hlr, g1, g2 = transform_shape(1.0, shapes.real, shapes.imag, np.linalg.inv(jacobian))
    slots, g = np.zeros((N, 2, 4, 6)), (g1 + 1j * g2)[:, None]
    slots[:, :, 0, 2] = hlr
    for slot, value in enumerate((g + psf, by_gamma(g, 1), by_gamma(g, 1j), psf)):
        slots[:, :, slot, 3], slots[:, :, slot, 4] = np.real(value), np.imag(value)
    return slots


@pytest.fixture
def shapes():
    return np.random.default_rng(5).uniform(-0.3, 0.3, (N, 2)) @ [1, 1j]


@pytest.mark.parametrize("name", FRAMES)
def test_ideal_estimator_responds_to_a_shear_of_the_sky(name, shapes):
    frame = np.broadcast_to(FRAMES[name], (N, 2, 2))
    columns = reported_columns(ideal(shapes, FRAMES[name]), frame)
    np.testing.assert_allclose(columns.shear @ [1, 1j], shapes, atol=1e-8)
    np.testing.assert_allclose(columns.values[..., 2], 1, rtol=1e-12)
    for component, direction in enumerate((1, 1j)):
        found = columns.response[:, :, component] @ [1, 1j]
        np.testing.assert_allclose(found, by_gamma(shapes, direction), atol=1e-8)


def test_rotation_left_out_would_be_noticed(shapes, monkeypatch):
    frame = np.broadcast_to(SHEARED, (N, 2, 2))
    slots = ideal(shapes, SHEARED)
    monkeypatch.setattr("galshape_cnn.infer.shear.frames._SKY_SHEARS", np.zeros((2, 2, 2)))
    assert np.abs(reported_columns(slots, frame).response).max() == 0


def test_influence_of_the_psf_is_subtracted(shapes):
    columns = reported_columns(ideal(shapes, np.eye(2), psf=0.01 - 0.02j), None)
    np.testing.assert_allclose(columns.shear @ [1, 1j], shapes, atol=1e-12)


def test_prior_for_round_pixels_is_taken_back():
    """An estimator that shrinks shapes towards round pixels is additively biased on the sky without it."""
    rng = np.random.default_rng(6)
    half = rng.normal(0, 0.15, (N // 2, 2)) @ [1, 1j]
    shapes = np.concatenate([half, 1j * half, -half, -1j * half])[:N] if N % 4 == 0 else half
    shapes = np.concatenate([half[: N // 4] * turn for turn in (1, 1j, -1, -1j)])
    slots = ideal(shapes, SHEARED)
    slots[..., 3:5] *= 0.7
    columns = reported_columns(slots, np.broadcast_to(SHEARED, (N, 2, 2)))
    hlr, g1, g2 = transform_shape(1.0, slots[:, 0, 0, 3], slots[:, 0, 0, 4], SHEARED)
    plain = np.hypot(g1.mean(), g2.mean())
    assert plain > 0.02
    assert np.abs(columns.shear.mean(0)).max() < 0.02 * plain
