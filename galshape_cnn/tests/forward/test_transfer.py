# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""PSF arrays as transfer functions, and the Fourier grids they live on."""

import galsim
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from galshape_cnn.forward.grid import FourierGrid
from galshape_cnn.forward.psf.convert import psf_arrays
from galshape_cnn.forward.transfer import grid_for, of_rows, transfer_at, transfer_functions


def transfers(array, grid, oversampling=1):
    """Transfer functions in double precision."""
    with jax.enable_x64(True):
        return np.asarray(transfer_functions(jnp.asarray(array, float), grid, oversampling))


@pytest.mark.parametrize("size", [8, 10, 32, 64, 100])
@pytest.mark.parametrize("bandwidth", [1, 2])
def test_grid_has_the_modes_of_its_transform(size, bandwidth):
    grid = FourierGrid(size, bandwidth)
    assert grid.fft_size >= 1.4 * size
    assert grid.fft_size % 2 == 0
    assert len(grid.kx) == bandwidth * grid.fft_size // 2 + 1
    assert grid.kx[-1] == pytest.approx(np.pi * bandwidth)
    assert grid.kx[1] == pytest.approx(2 * np.pi / grid.fft_size)
    np.testing.assert_array_equal(grid.ky, [*grid.kx, *-grid.kx])


@pytest.mark.parametrize(("size", "bandwidth"), [(7, 1), (6, 1), (64, 3), (33, 2)])
def test_impossible_grid(size, bandwidth):
    with pytest.raises(ValueError, match=f"size={size}, bandwidth={bandwidth}"):
        FourierGrid(size, bandwidth)


def test_nodes_interpolate_smooth_functions():
    grid = FourierGrid(32)
    nodes, pixels = grid.nodes(12), np.arange(32)
    np.testing.assert_allclose(grid.node_weights(12) @ np.exp(-nodes / 20), np.exp(-pixels / 20), rtol=1e-10)


@pytest.mark.parametrize(("oversampling", "bandwidth"), [(1, 1), (2, 2), (5, 2)])
def test_bandwidth_follows_what_the_psf_knows(oversampling, bandwidth):
    assert grid_for(64, oversampling) == FourierGrid(64, bandwidth)


def test_zero_wave_number_is_the_sum():
    array = np.random.default_rng(1).uniform(size=(3, 9, 13))
    found = transfers(array, FourierGrid(16))
    np.testing.assert_allclose(found[:, 0, 0], array.sum((1, 2)), rtol=1e-12)


def test_single_sample_passes_everything():
    array = np.zeros((1, 5, 5))
    array[0, 2, 2] = 1
    np.testing.assert_allclose(transfers(array, FourierGrid(16)), 1, atol=1e-12)


def test_is_the_discrete_transform():
    grid = FourierGrid(16)
    array = np.random.default_rng(2).uniform(size=(1, 7, 7))
    padded = np.zeros((grid.fft_size, grid.fft_size))
    padded[:7, :7] = array[0]
    every = np.fft.rfft2(np.roll(padded, (-3, -3), (0, 1)))
    expected = np.concatenate([every[: len(grid.kx)], every[-np.arange(len(grid.kx))]])
    np.testing.assert_allclose(transfers(array, grid)[0], expected, atol=1e-12)


def test_x_and_y_are_not_swapped():
    array = np.zeros((1, 5, 7))
    array[0, 2, 4] = 1  # one sample towards +x
    grid = FourierGrid(16)
    expected = np.broadcast_to(np.exp(-1j * grid.kx), (len(grid.ky), len(grid.kx)))
    np.testing.assert_allclose(transfers(array, grid)[0], expected, atol=1e-12)


def test_array_larger_than_the_transform_is_used_whole():
    grid = FourierGrid(8)  # a periodic image of 12 pixels
    array = np.zeros((1, 41, 41))
    array[0, 20, 20], array[0, 20, 40] = 0.7, 0.3
    expected = 0.7 + 0.3 * np.exp(-20j * grid.kx)
    np.testing.assert_allclose(transfers(array, grid)[0, 0], expected, atol=1e-12)


@pytest.mark.parametrize(
    "psf", [galsim.Kolmogorov(fwhm=3.0), galsim.Gaussian(fwhm=3.0).shear(g1=0.1, g2=0.05)]
)
def test_transfer_of_a_galsim_psf_is_its_transform(psf):
    arrays = psf_arrays(psf, stamp_size=64)
    grid = grid_for(32, arrays.oversampling)
    effective = galsim.Convolve(psf, galsim.Pixel(1.0), gsparams=galsim.GSParams(kvalue_accuracy=1e-7))
    found = transfers(arrays.array, grid, arrays.oversampling)[0]
    expected = [[effective.kValue(kx, ky) for kx in grid.kx] for ky in grid.ky]
    np.testing.assert_allclose(found, expected, atol=5e-4)


def test_any_wave_numbers():
    array = np.ones((2, 3, 3)) / 9
    with jax.enable_x64(True):
        found = np.asarray(transfer_at(jnp.asarray(array), np.array([0.0, 2 * np.pi / 3]), np.array([0.0])))
    np.testing.assert_allclose(found, [[[1], [0]]] * 2, atol=1e-12)


def test_rows_of_one_for_all_take_no_memory():
    own = np.arange(24.0).reshape(4, 3, 2)
    shared = np.broadcast_to(own[:1], own.shape)
    for rows in ([2, 2, 0], np.array([True, False, True, False]), slice(1, 3)):
        np.testing.assert_array_equal(of_rows(own, rows), own[rows])
        np.testing.assert_array_equal(of_rows(shared, rows), shared[rows])
        assert of_rows(shared, rows).strides[0] == 0
    assert of_rows(own[:1], [0, 1, 2]).shape == (1, 3, 2)
