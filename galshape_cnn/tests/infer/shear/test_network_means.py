# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""Means of the first network and their derivatives: by kernel and by JAX, with edges and held contexts."""

from copy import copy
from dataclasses import replace

import numpy as np
import pytest

from galshape_cnn import ShapeEstimator, Stamps
from galshape_cnn.forward.kernel.library import KERNEL_VARIABLE, instructions
from galshape_cnn.infer.likelihood.rendering import RenderedBatch
from galshape_cnn.infer.network.conditions import HeldContext
from galshape_cnn.infer.network.features import CONTEXT_SIZE, SIDE, crop_center
from galshape_cnn.infer.shear.copies import copy_batches
from galshape_cnn.infer.shear.moments import mean_parameters
from galshape_cnn.infer.shear.network_means import NetworkMeans, network_means
from galshape_cnn.infer.shear.response import shear_response
from galshape_cnn.tests.infer.shear.test_generators import psf_array
from galshape_cnn.tests.infer.shear.test_response import images, shapes, stamps

COUNT = 64


@pytest.fixture(scope="module")
def network():
    return ShapeEstimator().live_network()


@pytest.fixture(scope="module")
def seen():
    """What masked stamps of an elliptical PSF are to the network, and images along which they move."""
    data, rng = images(shapes(COUNT), snr=60.0), np.random.default_rng(8)
    ivar = np.where(rng.uniform(size=data.shape) < 0.02, 0, rng.uniform(0.5, 2, data.shape))
    batch = RenderedBatch.from_stamps(
        Stamps(data, ivar, psf_array("elliptical"), psf_oversampling=2), gain=20.0
    )
    (part,) = copy_batches(batch, np.arange(COUNT), np.zeros(COUNT))
    arrays = [part.arrays[name] for name in ("data", "ivar", "view", "sky", "poisson", "change")]
    data, ivar, view, sky, poisson, change = arrays
    along = rng.normal(size=(COUNT, 3, SIDE, SIDE)).astype(np.float32) * (ivar > 0)[:, None]
    return (data, ivar, view[:, 0], sky, poisson), (along, change[:, 0])


@pytest.mark.skipif(not instructions(), reason="the package was installed without a compiler")
def test_the_kernel_finds_what_jax_finds(network, seen, monkeypatch):
    found = NetworkMeans(network).moved(*seen[0], *seen[1], COUNT)
    values = NetworkMeans(network).values(*seen[0], COUNT)
    monkeypatch.setenv(KERNEL_VARIABLE, "off")
    means = NetworkMeans(network)
    expected = means.moved(*seen[0], *seen[1], COUNT)
    largest = np.abs(expected).max(0)
    assert (largest[1:, 3:5] > 1e-2).all()  # the directions matter, the PSF's too
    assert (np.abs(found - expected) < 2e-4 * largest).all()
    np.testing.assert_allclose(found[:, 0], values, rtol=1e-5)
    np.testing.assert_allclose(means.values(*seen[0], COUNT), values, rtol=1e-3, atol=1e-4)


def test_derivatives_are_differences(network, seen):
    known, (along, change) = seen
    means, step = network_means(network), 1e-2
    found = means.moved(*known, along, change, COUNT)
    data, ivar, view, *rest = known
    for direction in range(3):
        of_psf = step * change * (direction == 2)
        high, low = (
            means.values(data + s * step * along[:, direction], ivar, view + s * of_psf, *rest, COUNT)
            for s in (1, -1)
        )
        difference = (high - low)[:, 3:5] / (2 * step)
        off = found[:, 1 + direction, 3:5] - difference
        assert np.abs(off).max() < 0.01 * np.abs(difference).max()


def cut(count=8):
    """Stamps that lack their outermost row and column."""
    data = images(shapes(count), snr=60.0)
    return RenderedBatch.from_stamps(stamps(data[:, :62, :62]))


def test_edges_are_shown_as_in_measuring(network):
    """A network that knows no masks is shown full stamps; the copies without noise are the stamp itself.

    Others are shown what lies within reach of the derivatives.
    """
    batch, silent = cut(), np.zeros((8, SIDE, SIDE))
    own = copy(network)
    own.edge = 2
    ivar = batch.stamps.ivar
    x, corner = np.arange(ivar.shape[-1]), crop_center(ivar, batch.stamps.center)[1]
    dx, dy = (x - one[:, None] - (SIDE - 1) / 2 for one in corner.T)
    near = np.hypot(dx[:, None, :], dy[:, :, None]) < 25
    within = replace(batch.stamps, ivar=np.where(near, ivar, 0))

    def of(network, first_name, seen):
        other = copy(network)
        other._forward = copy(network._forward)
        other._forward.name = first_name  # means are kept by name
        found = shear_response(batch, other, np.zeros(8), noise=silent)[:, 0, 0]
        look = other.look(seen, True, np.zeros(8))
        amplitude = np.exp(look.posterior.means[:, 0, 0])  # any: only shapes are compared
        outputs = look.outputs.astype(np.float32)
        means = mean_parameters(outputs, amplitude.astype(np.float32), network.components)
        return found[:, 3:5], np.asarray(means)[:, 3:5]

    mirrored, masked = of(own, "mirrored", batch.stamps), of(network, "masked", within)
    np.testing.assert_allclose(*mirrored, atol=2e-6)
    np.testing.assert_allclose(*masked, atol=2e-6)
    assert np.abs(mirrored[0] - masked[0]).max() > 1e-4


def test_mirrored_images_move_as_what_they_mirror(network):
    own = copy(network)
    own.edge = 2
    data, ivar = np.zeros((2, 3, SIDE, SIDE)), np.ones((3, SIDE, SIDE))
    along = np.random.default_rng(2).normal(size=(3, 3, SIDE, SIDE))
    data, ivar[1, -2:] = along[:, 0].copy(), 0
    along[1, :, -2:] = 0
    seen, weights, moved = NetworkMeans(own).mirrored(data, ivar, along)
    assert (weights > 0).all()
    np.testing.assert_array_equal(moved[1, :, -2:], along[1, :, [-3, -4]].swapaxes(0, 1))
    np.testing.assert_array_equal(seen[1, -2:], data[1, [-3, -4]])
    np.testing.assert_array_equal(moved[[0, 2]], along[[0, 2]])


def test_a_context_that_is_held_does_not_move():
    variance = np.ones(CONTEXT_SIZE)
    variance[[3, 250]] = 0
    held, context = HeldContext(np.full(CONTEXT_SIZE, 7.0), variance), np.ones((2, 4, CONTEXT_SIZE))
    moved = held.moved(context)
    expected = context.copy()
    expected[:, 0, [3, 250]], expected[:, 1:, [3, 250]] = 7, 0
    np.testing.assert_array_equal(moved, expected)
    np.testing.assert_array_equal(held.values(context[:, 0]), expected[:, 0])
    np.testing.assert_array_equal(held(context[:, 0])[0], expected[:, 0])
    assert (context == 1).all()
