# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""Stamps whose pixels are sheared on the sky, measured on a grid that is not."""

import numpy as np
import pytest

from galshape_cnn import ShapeEstimator, Stamps, mean_shear
from galshape_cnn.forward.render import render
from galshape_cnn.forward.transfer import grid_for, transfer_functions
from galshape_cnn.geometry import shear_matrix, transform_shape
from galshape_cnn.infer.likelihood.rendering import RenderedBatch
from galshape_cnn.infer.shear.grids import _regridded, grid_jacobian, grid_steps, interpolated
from galshape_cnn.infer.shear.response import shear_response
from galshape_cnn.tests.infer.shear.test_generators import psf_array
from galshape_cnn.tests.infer.shear.test_response import composed, images, shapes

TURN = np.array([[np.cos(0.5), -np.sin(0.5)], [np.sin(0.5), np.cos(0.5)]])
SHEARED = 0.2 * TURN @ np.diag([1.1, 0.9])
FLIP = np.diag([-1.0, 1.0])
STEPS = (24, -14)


@pytest.fixture(scope="module")
def estimator():
    return ShapeEstimator()


def in_pixels(g, jacobian):
    _, g1, g2 = transform_shape(1.0, g.real, g.imag, np.linalg.inv(jacobian))
    return g1 + 1j * g2


def stamps(data, jacobian=None, ivar=None):
    where = {}
    if jacobian is not None:
        where = {"jacobian": jacobian, "skycoord": np.tile([10.0, 3.0], (len(data), 1))}
    ivar = np.ones(data.shape) if ivar is None else ivar
    return Stamps(data, ivar, psf_array("moffat"), psf_oversampling=2, **where)


def measured(estimator, *args, noise=None):
    batch = RenderedBatch.from_stamps(stamps(*args))
    return shear_response(batch, estimator.live_network(), np.zeros(len(batch)), noise=noise)


def rendered(params, psf):
    grid = grid_for(64, 2)
    transfer = transfer_functions(psf.astype(np.float32), grid, 2)
    return np.asarray(render(np.asarray(params, np.float32)[None], transfer, grid))[0]


def drawn(jacobian, psf):
    """A galaxy of the sky in such pixels."""
    _, g1, g2 = transform_shape(1.0, 0.2, 0.1, jacobian)
    x, y = jacobian @ [0.3, -0.2] + 31.5
    return rendered([100, 1.0, 3.5, g1, g2, x, y, 0], psf)


def test_images_and_psfs_are_interpolated_as_they_would_be_drawn():
    psf, matrix = psf_array("moffat"), shear_matrix(*np.multiply(STEPS, 0.002))
    on_grid = interpolated(psf, STEPS, 145)
    assert on_grid.sum() == pytest.approx(psf.sum(), abs=1e-4)
    direct, found = drawn(matrix, on_grid), interpolated(drawn(np.eye(2), psf)[None], STEPS, 64)[0]
    assert np.abs(found - direct)[4:-4, 4:-4].max() < 2e-4 * direct.max()
    assert np.abs(drawn(np.eye(2), psf) - direct).max() > 0.03 * direct.max()


@pytest.mark.parametrize("flip", [np.eye(2), FLIP])
def test_grids_are_similarities_of_the_sky(flip):
    jacobian = np.array([SHEARED @ flip, 0.2 * TURN @ flip @ [[1.004, 0.007], [0.007, 0.996]]])
    grid = grid_jacobian(jacobian)
    axes = np.linalg.svd(grid, compute_uv=False)
    assert (axes[:, 0] / axes[:, 1] < 1 + 2 * np.sqrt(2) * 0.001).all()
    np.testing.assert_allclose(np.linalg.det(grid), np.linalg.det(jacobian))


@pytest.mark.parametrize(
    "jacobian", [np.eye(2), FLIP, 3 * TURN, 0.2 * TURN @ FLIP @ [[1, 5e-4], [5e-4, 1.001]]]
)
def test_pixels_that_are_nearly_squares_stay_as_they_are(estimator, jacobian):
    assert not grid_steps(jacobian[None]).any()
    np.testing.assert_array_equal(grid_jacobian(jacobian[None])[0], jacobian)
    data = images(shapes(4))
    np.testing.assert_array_equal(measured(estimator, data, jacobian), measured(estimator, data))


def test_mean_shear_where_pixels_are_sheared_on_the_sky(estimator, monkeypatch):
    """Galaxies at S/N 30 without noise, each in eight directions: the same m and c as in square pixels.

    Without grids of their own, followed to first order in the shear of the Jacobian, m is larger by 0.01.
    """
    sky = (shapes(4) * np.exp(2j * np.pi * np.arange(8)[:, None] / 8)).ravel()
    same = {"seed": 3, "snr": 30.0, "noisy": False}

    def mean(jacobian, gamma):
        groups = composed(sky, gamma).reshape(8, 4)
        data = np.concatenate([images(in_pixels(g, jacobian), **same) for g in groups])
        silent = np.zeros(data.shape)
        batch = RenderedBatch.from_stamps(stamps(data, jacobian))
        sheared = shear_response(batch, estimator.live_network(), np.zeros(len(data)), noise=silent)
        found = catalogue(estimator, data, jacobian, sheared)
        return np.array([found["g1"][0], found["g2"][0]])

    m, c = {}, {}
    for name, jacobian, step in (
        ("square", 0.2 * TURN, 0.002),
        ("sheared", SHEARED, 0.002),
        ("old", SHEARED, 9),
    ):
        monkeypatch.setattr("galshape_cnn.infer.shear.grids.STEP", step)
        high, low = (mean(jacobian, sign * 0.02 * (1 + 1j)) for sign in (1, -1))
        m[name], c[name] = ((high - low) / 0.04).mean() - 1, (high + low) / 2
    assert abs(m["square"]) < 0.004
    assert abs(m["sheared"] - m["square"]) < 0.002
    assert abs(m["old"] - m["square"]) > 0.006
    assert np.abs(c["sheared"] - c["square"]).max() < 1e-3


def catalogue(estimator, data, jacobian, sheared):
    """Mean shear of measured copies."""
    from dataclasses import replace

    from galshape_cnn import ShapeCatalog
    from galshape_cnn.infer.catalog.measurement import Measurement
    from galshape_cnn.observe.observation import prepare

    blank = Measurement.empty(len(data))
    measurement = replace(blank, flags=np.zeros(len(data), int), sheared=sheared)
    some = prepare(stamps(data, jacobian))
    return mean_shear(ShapeCatalog.from_measurements(some, [measurement], method="network", meta={}))


def test_a_mirrored_sky_mirrors_shapes(estimator):
    data = images(shapes(8))
    plain, mirrored = (
        estimator(stamps(data, jacobian), shear_response=True, neighbours="ignore")
        for jacobian in (SHEARED, FLIP @ SHEARED)
    )
    np.testing.assert_allclose(mirrored.g1, plain.g1, atol=1e-6)
    np.testing.assert_allclose(mirrored.g2, -plain.g2, atol=1e-6)
    np.testing.assert_allclose(mirrored.response, plain.response * [[1, -1], [-1, 1]], atol=1e-6)


def test_numbers_do_not_depend_on_the_company(estimator):
    data = images(shapes(6))
    kinds = np.array([np.eye(2), SHEARED, SHEARED, 0.2 * np.diag([1.03, 0.97]), FLIP, SHEARED @ FLIP])
    together = measured(estimator, data, kinds)
    for row in range(6):
        alone = measured(estimator, data[row : row + 1], kinds[row : row + 1])
        np.testing.assert_array_equal(alone[0], together[row])


def test_masked_pixels_stay_masked(estimator):
    """What is in them does not matter, and those around them are measured."""
    data, ivar = images(shapes(4)), np.ones((4, 64, 64))
    ivar[:, 20:24, 30] = 0
    found = measured(estimator, data, SHEARED, ivar)
    spoilt = data.copy()
    spoilt[:, 20:24, 30] = 1e4
    np.testing.assert_array_equal(measured(estimator, spoilt, SHEARED, ivar), found)
    ivar[1] = 0
    lost = measured(estimator, data, SHEARED, ivar)
    assert np.isnan(lost[1]).all()
    np.testing.assert_array_equal(lost[2:], found[2:])
    whole = measured(estimator, data, SHEARED)
    assert np.isfinite(found).all()
    assert 0 < np.abs(found - whole)[:, :, 0, 3:5].max() < 0.1


@pytest.mark.parametrize("corner", [(8, 8), (7, 10)])
def test_small_stamps_lack_as_much_on_every_side(corner):
    ivar, (x, y) = np.zeros((64, 64)), corner
    ivar[y : y + 48, x : x + 48] = 1
    stamp = {"data": ivar, "ivar": ivar, "noise": ivar, "inverse_gain": 0.0}
    _, found, _ = _regridded(stamp, ivar, ivar, np.array(STEPS))
    assert 35**2 < (found > 0).sum() < 48**2
    np.testing.assert_array_equal(found, np.rot90(found))
    np.testing.assert_array_equal(found, found.T)
