# Licensed under a 3-clause BSD style license - see LICENSE.rst
import numpy as np
import pytest

from galshape_cnn.infer.network.features import (
    CONTEXT_SIZE,
    SIDE,
    block_average,
    crop_center,
    mirrored_edges,
    network_inputs,
)


@pytest.fixture
def batch():
    rng = np.random.default_rng(1)
    x = np.arange(SIDE) - 31.5
    galaxy = 40 * np.exp(-(x[:, None] ** 2 + x**2) / 30)
    data = (galaxy + rng.normal(size=(3, SIDE, SIDE))).astype(np.float32)
    ivar = np.ones_like(data)
    ivar[1, :10] = 0
    transfer = np.ones((3, 15, 8), np.complex64)
    return data, ivar, transfer, np.ones(3, np.float32), np.zeros(3, np.float32)


def test_shapes_are_finite(batch):
    pixels, context, amplitude = network_inputs(*batch)
    assert pixels.shape == (3, 16, 16, 48)
    assert context.shape == (3, CONTEXT_SIZE)
    assert all(np.isfinite(np.asarray(a)).all() for a in (pixels, context, amplitude))


def test_unit_of_flux_does_not_matter(batch):
    data, ivar, *rest = batch
    pixels, context, amplitude = network_inputs(data, ivar, *rest)
    scaled = network_inputs(data * 1024, ivar / 1024**2, *rest)
    np.testing.assert_array_equal(pixels, scaled[0])
    np.testing.assert_array_equal(context, scaled[1])
    np.testing.assert_array_equal(np.asarray(amplitude) * 1024, scaled[2])


def test_values_under_the_mask_do_not_matter(batch):
    data, ivar, *rest = batch
    other = np.where(ivar > 0, data, 1e6).astype(np.float32)
    for a, b in zip(network_inputs(data, ivar, *rest), network_inputs(other, ivar, *rest), strict=True):
        np.testing.assert_array_equal(a, b)


def test_patches_hold_neighbouring_pixels(batch):
    data, ivar, *rest = batch
    pixels = np.asarray(network_inputs(data, ivar, *rest)[0])
    asinh = pixels.reshape(3, 16, 16, 4, 4, 3)[..., 1]
    np.testing.assert_allclose(asinh[0, 2, 5], np.arcsinh(data[0, 8:12, 20:24]), rtol=1e-5)


@pytest.mark.parametrize("shape", [(40, 50), (64, 64), (100, 90)])
def test_crop_puts_the_galaxy_in_the_middle(shape):
    center = np.array([[20.2, 18.7], [31.4, 30.0]])
    images = np.zeros((2, *shape))
    for image, (x, y) in zip(images, np.rint(center).astype(int), strict=True):
        image[y, x] = 1
    out, corner = crop_center(images, center)
    assert out.shape == (2, SIDE, SIDE)
    assert (np.abs(center - corner - 31.5) <= 0.5).all()
    for image, (x, y) in zip(out, np.rint(center).astype(int) - corner, strict=True):
        assert image[y, x] == 1


def test_block_average_keeps_flux_and_information():
    data = np.random.default_rng(2).normal(size=(2, 12, 12))
    total, weight = block_average(data, np.full(data.shape, 4.0), 3)
    np.testing.assert_allclose(total.sum((1, 2)), data.sum((1, 2)))
    np.testing.assert_allclose(weight, 4.0 / 9)


def test_block_average_ignores_masked_pixels():
    data, ivar = np.ones((1, 4, 4)), np.ones((1, 4, 4))
    data[0, 0, 0], ivar[0, 0, 0] = 1e9, 0
    ivar[0, 2:, 2:] = 0
    total, weight = block_average(data, ivar, 2)
    assert total[0, 0, 0] == pytest.approx(4)
    assert weight[0, 0, 0] == pytest.approx(3 / 16)
    assert weight[0, 1, 1] == 0


def test_missing_edges_are_mirrored():
    rng = np.random.default_rng(2)
    data, ivar = rng.standard_normal((4, 64, 64)), np.ones((4, 64, 64))
    ivar[0, :1], ivar[1, :, -2:], ivar[2, :9] = 0, 0, 0  # an edge, two columns, and too much
    ivar[1, 30, 30] = 0
    data[ivar == 0] = 0
    kept = data.copy()
    filled, weight = mirrored_edges(data, ivar, 2)
    np.testing.assert_array_equal(data, kept)
    np.testing.assert_array_equal(filled[0, 0], data[0, 1])
    np.testing.assert_array_equal(filled[1, :, -2:], data[1, :, [-3, -4]].T)
    assert (weight[0] == 1).all()
    assert (weight[1] == 0).sum() == 1  # what is masked inside stays so
    np.testing.assert_array_equal(filled[2:], data[2:])
    np.testing.assert_array_equal(weight[2:], ivar[2:])
    assert mirrored_edges(data, ivar, 0)[0] is data
