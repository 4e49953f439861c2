# Licensed under a 3-clause BSD style license - see LICENSE.rst
import galsim
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from galshape_cnn.geometry import (
    axis_ratio,
    conformal_shear,
    frame_derivative,
    position_angle,
    reduced_shear,
    semi_major_radius,
    shear_matrix,
    transform_shape,
)

PIXEL = 0.262
ANGLE = np.deg2rad(35.0)
ROTATION = np.array([[np.cos(ANGLE), -np.sin(ANGLE)], [np.sin(ANGLE), np.cos(ANGLE)]])
FLIP = np.diag([-1.0, 1.0])
JACOBIANS = {
    "identity": np.eye(2),
    "scale": PIXEL * np.eye(2),
    "rotation": PIXEL * ROTATION,
    "flip in x": PIXEL * FLIP,
    "flip in y": PIXEL * -FLIP,
    "transpose": PIXEL * np.array([[0.0, 1.0], [1.0, 0.0]]),
    "shear": PIXEL * shear_matrix(0.1, -0.05),
    "strong shear": PIXEL * shear_matrix(-0.4, 0.5),
    "rotated flip": PIXEL * ROTATION @ FLIP,
    "flip, rotation, shear": PIXEL * FLIP @ ROTATION @ shear_matrix(0.2, 0.15),
    "nothing special": np.array([[0.31, -0.12], [0.05, -0.22]]),
}
SHAPES = [(0.0, 0.0), (0.3, 0.0), (0.0, -0.2), (-0.5, 0.45), (0.069, 0.15)]
jacobians = pytest.mark.parametrize("jacobian", JACOBIANS.values(), ids=JACOBIANS)
shapes = pytest.mark.parametrize(("g1", "g2"), SHAPES)

modulus = st.floats(0.0, 0.9)
angle = st.floats(0.0, 2 * np.pi)


@st.composite
def shears(draw):
    g = draw(modulus) * np.exp(1j * draw(angle))
    return g.real, g.imag


@st.composite
def any_jacobian(draw):
    """Rotation x shear x scale, mirrored or not: every regular Jacobian that is not nearly flat."""
    turn = draw(angle)
    rotation = np.array([[np.cos(turn), -np.sin(turn)], [np.sin(turn), np.cos(turn)]])
    g1, g2 = draw(shears())
    mirror = FLIP if draw(st.booleans()) else np.eye(2)
    return draw(st.floats(0.01, 10.0)) * rotation @ mirror @ shear_matrix(0.8 * g1, 0.8 * g2)


def second_moments(hlr, g1, g2):
    """Moment matrix of a Gaussian whose circularised radius is ``hlr``: transforms as J M J^T."""
    shear = shear_matrix(g1, g2)
    return hlr**2 * shear @ shear.T


@shapes
def test_shear_matrix_is_galsims(g1, g2):
    expected = galsim.Shear(g1=g1, g2=g2).getMatrix()
    np.testing.assert_allclose(shear_matrix(g1, g2), expected, rtol=1e-12, atol=1e-15)


@shapes
def test_axis_ratio_is_galsims(g1, g2):
    assert axis_ratio(g1, g2) == pytest.approx(galsim.Shear(g1=g1, g2=g2).q, rel=1e-12)


def test_semi_major_radius_is_that_of_the_ellipse():
    # the sheared circle's longest radius is the largest singular value of S
    largest = np.linalg.svd(shear_matrix(-0.5, 0.45))[1][0]
    assert semi_major_radius(1.7, -0.5, 0.45) == pytest.approx(1.7 * largest)


def test_radii_of_the_axes_conserve_area():
    q = axis_ratio(0.2, 0.3)
    major = semi_major_radius(2.0, 0.2, 0.3)
    assert major * (q * major) == pytest.approx(2.0**2)


@pytest.mark.parametrize(
    ("g1", "g2", "expected"),
    [
        (-0.3, 0.0, 0.0),  # along v: North
        (0.3, 0.0, 90.0),  # along u: West, the same line as East
        (0.0, 0.3, 135.0),  # along u = v: between North and West
        (0.0, -0.3, 45.0),  # along u = -v: between North and East
    ],
)
def test_position_angle_is_east_of_north(g1, g2, expected):
    # modulo 180 degrees: rounding may put 0 just below 180
    assert (position_angle(g1, g2) - expected + 90) % 180 == pytest.approx(90)


def test_position_angle_falls_when_the_galaxy_turns_from_north_to_west():
    turn = np.deg2rad(20.0)
    from_v_to_u = np.array([[np.cos(turn), np.sin(turn)], [-np.sin(turn), np.cos(turn)]])
    _, g1, g2 = transform_shape(1.0, -0.3, 0.0, from_v_to_u)
    assert position_angle(g1, g2) == pytest.approx(160.0)


@given(shears())
def test_position_angle_is_in_range(g):
    assert 0 <= position_angle(*g) < 180


@jacobians
@shapes
def test_moments_agree(jacobian, g1, g2):
    there = second_moments(*transform_shape(2.0, g1, g2, jacobian))
    expected = jacobian @ second_moments(2.0, g1, g2) @ jacobian.T
    np.testing.assert_allclose(there, expected, rtol=1e-10, atol=1e-14)


@jacobians
@shapes
def test_agrees_with_galsims_jacobian(jacobian, g1, g2):
    """GalSim carries the profile from pixels to the sky; its adaptive moments give the shape there."""
    wcs = galsim.JacobianWCS(*jacobian.ravel())
    in_pixels = galsim.Gaussian(half_light_radius=3.0).shear(g1=g1, g2=g2)
    in_sky = wcs.toWorld(in_pixels)
    hlr, s1, s2 = transform_shape(3.0, g1, g2, jacobian)
    expected = galsim.Gaussian(half_light_radius=float(hlr)).shear(g1=float(s1), g2=float(s2))
    for k in [(0.5, 0.0), (0.0, 0.7), (0.4, 0.3), (-0.3, 0.6)]:
        assert in_sky.kValue(*k) == pytest.approx(expected.kValue(*k), rel=1e-10)


@pytest.mark.parametrize(("g1", "g2"), SHAPES[1:])
def test_agrees_with_galsims_shear_addition(g1, g2):
    first, second = galsim.Shear(g1=g1, g2=g2), galsim.Shear(g1=0.1, g2=-0.05)
    _, s1, s2 = transform_shape(1.0, g1, g2, second.getMatrix())
    total = second + first
    assert (s1, s2) == pytest.approx((total.g1, total.g2), abs=1e-12)


def test_flip_turns_the_sign_of_g2_only():
    hlr, g1, g2 = transform_shape(1.5, 0.2, 0.3, FLIP)
    assert (hlr, g1, g2) == pytest.approx((1.5, 0.2, -0.3))


def test_quarter_turn_turns_the_sign_of_both():
    _, g1, g2 = transform_shape(1.5, 0.2, 0.3, [[0, -1], [1, 0]])
    assert (g1, g2) == pytest.approx((-0.2, -0.3))


@given(any_jacobian(), shears())
def test_there_and_back(jacobian, g):
    hlr, g1, g2 = transform_shape(*transform_shape(1.3, *g, jacobian), np.linalg.inv(jacobian))
    assert (hlr, g1, g2) == pytest.approx((1.3, *g), rel=1e-6, abs=1e-6)


@given(any_jacobian(), any_jacobian(), shears())
def test_two_steps_are_one(first, second, g):
    stepwise = transform_shape(*transform_shape(1.3, *g, first), second)
    assert transform_shape(1.3, *g, second @ first) == pytest.approx(stepwise, rel=1e-6, abs=1e-6)


@given(any_jacobian(), shears())
def test_shear_stays_below_one(jacobian, g):
    _, g1, g2 = transform_shape(1.0, *g, jacobian)
    assert np.hypot(g1, g2) < 1


def test_arrays_equal_one_by_one():
    stack = np.array(list(JACOBIANS.values()))
    g1, g2 = np.linspace(-0.4, 0.4, len(stack)), np.linspace(0.5, -0.3, len(stack))
    together = np.transpose(transform_shape(np.full(len(stack), 2.0), g1, g2, stack))
    single = [transform_shape(2.0, *row) for row in zip(g1, g2, stack, strict=True)]
    np.testing.assert_allclose(together, single, rtol=1e-14)
    slopes = [frame_derivative(*row) for row in zip(g1, g2, stack, strict=True)]
    np.testing.assert_allclose(frame_derivative(g1, g2, stack), slopes, rtol=1e-14)


@jacobians
@shapes
def test_derivative_agrees_with_finite_differences(jacobian, g1, g2):
    def carry(p):
        hlr, s1, s2 = transform_shape(p[2], p[3], p[4], jacobian)
        return np.array([p[0], p[1], hlr, s1, s2])

    point, step = np.array([10.0, 2.0, 1.7, g1, g2]), 1e-6
    columns = [(carry(point + step * e) - carry(point - step * e)) / (2 * step) for e in np.eye(5)]
    expected = np.transpose(columns)
    np.testing.assert_allclose(frame_derivative(g1, g2, jacobian), expected, rtol=1e-6, atol=1e-8)


@given(any_jacobian(), shears())
def test_derivatives_there_and_back_cancel(jacobian, g):
    _, g1, g2 = transform_shape(1.0, *g, jacobian)
    product = frame_derivative(g1, g2, np.linalg.inv(jacobian)) @ frame_derivative(*g, jacobian)
    np.testing.assert_allclose(product, np.eye(5), atol=1e-5)


def test_inputs_are_not_modified():
    jacobian, g1, g2 = JACOBIANS["rotated flip"].copy(), np.array([0.1]), np.array([0.2])
    for values in (jacobian, g1, g2):
        values.flags.writeable = False
    transform_shape(np.array([1.0]), g1, g2, jacobian)
    frame_derivative(g1, g2, jacobian)


def test_conformal_shear_and_back():
    g1, g2 = np.array([0.0, 0.3, -0.6, 0.69]), np.array([0.0, -0.2, 0.6, 0.0])
    eta = conformal_shear(g1, g2)
    assert eta[0][3] == pytest.approx(np.arctanh(0.69))
    np.testing.assert_allclose(reduced_shear(*eta), (g1, g2), atol=1e-12)


def test_reduced_shear_stays_below_one():
    assert np.hypot(*reduced_shear(300.0, -500.0)) < 1


def test_conformal_shear_stays_finite_up_to_one():
    eta = conformal_shear(np.array([0.9999, 1.0, 1.5]), 0.0)[0]
    assert np.isfinite(eta).all()
    np.testing.assert_allclose(eta[0], np.arctanh(0.9999), rtol=1e-12)
    assert eta[1] > np.arctanh(1 - 1e-11)


@pytest.mark.parametrize("carry", [conformal_shear, reduced_shear])
@pytest.mark.parametrize("small", [1e-12, 3e-8])
def test_nearly_round_is_the_identity(carry, small):
    np.testing.assert_allclose(carry(small, -small), (small, -small), rtol=1e-12)
