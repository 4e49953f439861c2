# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""Fisher matrices, score and S/N of batches: beside derivatives by JAX, and what a singular matrix gives."""

import astropy.units as u
import galsim
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from galshape_cnn import snr
from galshape_cnn.errors import InputError, NoiseError
from galshape_cnn.forward.psf.convert import psf_arrays
from galshape_cnn.forward.render import render
from galshape_cnn.forward.transfer import grid_for, transfer_functions
from galshape_cnn.infer.likelihood.fisher import CONDITION_LIMITS, bound, fisher_matrices, score_and_fisher


def small_batch(dtype=np.float32, size=32):
    """Parameters, transfer function and grid of four galaxies."""
    params = np.array([[900, 1.5, 2.0, 0.2, -0.1, 15.5, 15.2, 0]] * 4, dtype)
    params[:, 1] = [0.5, 1.0, 2.0, 4.0]
    arrays = psf_arrays(galsim.Gaussian(fwhm=3.0), stamp_size=size)
    grid = grid_for(size, arrays.oversampling)
    return params, transfer_functions(jnp.asarray(arrays.array), grid, arrays.oversampling), grid


# --- Fisher matrices -------------------------------------------------------------------------------


def test_fisher_matrix_is_the_sum_over_pixels():
    rng = np.random.default_rng(4)
    with jax.enable_x64(True):
        params, transfer, grid = small_batch(np.float64)
        ivar = rng.uniform(0, 2, (4, 32, 32)) * (rng.uniform(size=(4, 32, 32)) > 0.2)
        fisher = np.asarray(fisher_matrices(jnp.asarray(params), jnp.asarray(ivar), transfer, grid))
        slopes = np.asarray(jax.jacfwd(lambda p: render(p[None], transfer, grid)[0])(jnp.asarray(params[2])))
    expected = np.einsum("yxa,yx,yxb->ab", slopes, ivar[2], slopes)
    scale = np.sqrt(np.diag(expected))
    scale = np.outer(scale, scale)
    np.testing.assert_allclose(fisher[2] / scale, expected / scale, atol=1e-7)


@pytest.mark.parametrize("gain", [None, 3.0])
def test_score_is_the_slope_of_the_likelihood(gain):
    rng = np.random.default_rng(5)
    with jax.enable_x64(True):
        params, transfer, grid = small_batch(np.float64)
        ivar = rng.uniform(0, 2, (4, 32, 32)) * (rng.uniform(size=(4, 32, 32)) > 0.2)
        data = np.asarray(render(jnp.asarray(params), transfer, grid)) + rng.normal(size=ivar.shape)
        params += [9, 0.1, 0.1, 0.02, 0.02, 0.1, -0.1, 0.05]
        arrays = (jnp.asarray(params), jnp.asarray(data), jnp.asarray(ivar), transfer, grid)
        chi2, score, fisher = map(np.asarray, score_and_fisher(*arrays, gain))
        fixed = np.asarray(render(jnp.asarray(params), transfer, grid))
        light = np.maximum(fixed - params[:, 7, None, None], 0) / (gain or np.inf)
        weight = jnp.asarray(ivar / (1 + ivar * light))

        def half_chi2(row):
            return 0.5 * (weight[1] * (data[1] - render(row[None], transfer, grid)[0]) ** 2).sum()

        value = float(half_chi2(jnp.asarray(params[1])))
        slope = np.asarray(jax.jacfwd(half_chi2)(jnp.asarray(params[1])))
        bounds = fisher_matrices(jnp.asarray(params), jnp.asarray(ivar), transfer, grid, gain)
    assert chi2[1] == pytest.approx(2 * value, rel=1e-10)
    np.testing.assert_allclose(score[1], -slope, rtol=1e-7, atol=1e-7 * np.abs(slope).max())
    np.testing.assert_allclose(fisher, bounds, rtol=1e-12)


def test_score_of_another_data_differs():
    params, transfer, grid = small_batch()
    data, ivar = np.zeros((4, 32, 32), np.float32), np.ones((4, 32, 32), np.float32)
    chi2, score, _ = score_and_fisher(params, data, ivar, transfer, grid)
    less, other, _ = score_and_fisher(params, render(params, transfer, grid), ivar, transfer, grid)
    assert (np.asarray(less) < 1e-5 * np.asarray(chi2)).all()
    assert (np.abs(other[:, :3]) < 1e-3 * np.abs(score[:, :3])).all()


def test_single_precision_bounds():
    params, transfer, grid = small_batch()
    single, _ = bound(fisher_matrices(params, np.ones((4, 32, 32), np.float32), transfer, grid))
    with jax.enable_x64(True):
        params, transfer, grid = small_batch(np.float64)
        double, _ = bound(fisher_matrices(jnp.asarray(params), jnp.ones((4, 32, 32)), transfer, grid))
    np.testing.assert_allclose(np.einsum("nii->ni", single), np.einsum("nii->ni", double), rtol=2e-3)


def test_photon_noise_adds_to_the_variance():
    with jax.enable_x64(True):
        params, transfer, grid = small_batch(np.float64)
        params = jnp.asarray(params)
        source = render(params, transfer, grid)
        gain = np.array([0.5, 1.0, 2.0, 4.0])
        ivar = jnp.ones((4, 32, 32)).at[:, 3:9].set(0)
        known = ivar / (1 + ivar * source / gain[:, None, None])
        expected = fisher_matrices(params, known, transfer, grid)
        lifted = params.at[:, 7].set(100.0)  # the sky's own photons are in ivar already
        found = fisher_matrices(lifted, ivar, transfer, grid, gain)
        np.testing.assert_allclose(found, expected, rtol=1e-6, atol=1e-6)
        found = fisher_matrices(params, ivar, transfer, grid, 2.0)[2]
        np.testing.assert_allclose(found, expected[2], rtol=1e-6, atol=1e-6)


# --- bound -----------------------------------------------------------------------------------------


def random_fisher(count=5, seed=0):
    slopes = np.random.default_rng(seed).normal(size=(count, 8, 50))
    return slopes @ slopes.transpose(0, 2, 1)


@pytest.mark.parametrize(("fit_sky", "fit_centroid", "also"),
    [(True, True, [5, 6, 7]), (False, True, [5, 6]), (True, False, [7]), (False, False, [])])  # fmt: skip
def test_bound_marginalises(fit_sky, fit_centroid, also):
    fisher = random_fisher()
    found, singular = bound(fisher, fit_sky, fit_centroid)
    keep = [0, 1, 2, 3, 4, *also]
    expected = np.linalg.inv(fisher[:, keep][:, :, keep])[:, :5, :5]
    np.testing.assert_allclose(found, expected, rtol=1e-9, atol=1e-12)
    assert not singular.any()


def test_units_of_the_parameters_do_not_matter():
    fisher = random_fisher()
    scale = 10.0 ** np.array([-12, 5, 0, 3, -3, 8, -8, 12])
    found, singular = bound(fisher * np.outer(scale, scale))
    expected = bound(fisher, True, True)[0] / np.outer(scale[:5], scale[:5])
    np.testing.assert_allclose(found, expected, rtol=1e-9)
    assert not singular.any()


def test_no_information_is_nan_not_a_pseudo_inverse():
    fisher = random_fisher(6)
    fisher[0] = 0
    fisher[1, 7] = fisher[1, :, 7] = 0  # nothing known of the sky
    fisher[2, 1], fisher[2, :, 1] = fisher[2, 0].copy(), fisher[2, :, 0].copy()  # n and flux do the same
    fisher[3, 4, 4] = np.nan
    fisher[4, 2, 2] = -1e-9  # a sum that rounding has made negative
    covariance, singular = bound(fisher)
    assert singular.tolist() == [True, True, True, True, True, False]
    assert np.isnan(covariance[:5]).all()
    assert np.isfinite(covariance[5]).all()
    assert np.isfinite(bound(fisher, fit_sky=False)[0][1]).all()


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_ill_conditioned_is_flagged(dtype):
    limit = CONDITION_LIMITS[dtype]
    fisher = np.tile(np.eye(8), (2, 1, 1))
    for row, condition in enumerate((limit / 1.3, limit * 1.3)):  # eigenvalues 2 and 2 / condition
        fisher[row, 0, 1] = fisher[row, 1, 0] = 1 - 2 / condition
    covariance, singular = bound(fisher.astype(dtype))
    assert singular.tolist() == [False, True]
    assert np.isfinite(covariance).all()


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_less_than_rounding_leaves_is_nothing(dtype):
    rounding = 8 * 2 * np.finfo(dtype).eps  # sum of the rounding of eight entries, largest eigenvalue 2
    fisher = np.tile(np.eye(8), (2, 1, 1))
    for row, smallest in enumerate((0.7 * rounding, 1.4 * rounding)):
        fisher[row, 0, 1] = fisher[row, 1, 0] = 1 - smallest
    covariance, singular = bound(fisher.astype(dtype))
    assert singular.all()
    assert np.isnan(covariance[0]).all()
    assert np.isfinite(covariance[1]).all()


# --- S/N -------------------------------------------------------------------------------------------


def test_snr():
    assert snr([3.0, 4.0], 1.0) == 5.0
    assert snr([3.0, 8.0], [1.0, 2.0]) == 5.0
    assert snr([3.0, 4.0] * u.nJy, 0.001 * u.uJy) == pytest.approx(5)
    assert snr(np.ma.array([3.0, 4.0, 9.0], mask=[0, 0, 1]), 1.0) == 5.0
    assert snr([3.0, 4.0, 9.0, np.nan, 2.0], [1, 1, np.nan, 1, np.inf]) == 5.0


def test_snr_refuses():
    with pytest.raises(NoiseError, match="values <= 0"):
        snr([1.0], 0.0)
    with pytest.raises(NoiseError, match="another unit"):
        snr([1.0] * u.nJy, 1.0)
    with pytest.raises(NoiseError, match="another unit than model"):
        snr([1.0], 1.0 * u.nJy)
    with pytest.raises(NoiseError, match="NaN or masked in every pixel"):
        snr([1.0, 2.0], [np.nan, np.nan])
    with pytest.raises(NoiseError, match="NaN or masked in every pixel"):
        snr([1.0, 2.0], np.ma.array([1.0, 1.0], mask=True))
    with pytest.raises(InputError, match=r"shape \(3,\); it does not fit model \(2,\)"):
        snr([1.0, 2.0], [1.0, 1.0, 1.0])
    with pytest.raises(InputError, match="model is a str; a number or an array of numbers is needed"):
        snr("galaxy", 1.0)
    for model, error, name in ((None, 1.0, "model"), ([1.0, 2.0], None, "error")):
        with pytest.raises(InputError, match=f"{name} is a NoneType; a number or an array"):
            snr(model, error)
    with pytest.raises(InputError, match="error is a list; a number or an array of numbers is needed"):
        snr([1.0, 2.0], ["one", "two"])
