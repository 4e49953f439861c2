# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""Galaxies fitted together with their neighbours, and what that costs in information."""

import numpy as np
import pytest

from galshape_cnn import ShapeEstimator, Stamps
from galshape_cnn.flags import Flag
from galshape_cnn.forward.grid import FourierGrid
from galshape_cnn.forward.render import render, render_with_derivatives
from galshape_cnn.forward.transfer import transfer_functions
from galshape_cnn.infer.fit.joint_fit import fit_scenes
from galshape_cnn.infer.likelihood.fisher import bound
from galshape_cnn.infer.likelihood.nuisance_images import projected
from galshape_cnn.infer.likelihood.rendering import RenderedBatch
from galshape_cnn.infer.likelihood.sandwich import information

SIZE, MIDDLE = 64, 31.5
R2 = np.add.outer(np.arange(-15, 16.0) ** 2, np.arange(-15, 16.0) ** 2)
PSF = np.exp(-R2 / (2 * 1.3**2)) / np.exp(-R2 / (2 * 1.3**2)).sum()
GRID = FourierGrid(SIZE)
GALAXY = np.array([3000.0, 1.5, 3.0, 0.2, 0.1, MIDDLE, MIDDLE, 0.5])
NEIGHBOUR = np.array([2500.0, 1.0, 2.5, -0.1, 0.2, MIDDLE + 8, MIDDLE + 4, 0.0])
SCENE = np.array([GALAXY, NEIGHBOUR])


def transfer():
    return np.asarray(transfer_functions(PSF[None], GRID))


def images(scene):
    return np.asarray(render(scene.astype(np.float32), transfer(), GRID), float)


def stamps_with(nuisance=None, n=1, seed=0, scene=SCENE):
    data = images(scene).sum(0) + np.random.default_rng(seed).normal(size=(n, SIZE, SIZE))
    return Stamps(data, np.ones_like(data), PSF, nuisance=nuisance)


@pytest.fixture(scope="module")
def estimator():
    return ShapeEstimator()


def test_a_scene_without_noise_is_found_from_a_poor_start():
    data = images(SCENE).sum(0)[None]
    start = SCENE[None] * [0.7, 1.3, 0.8, 0.5, 0.5, 1, 1, 0] + [0, 0, 0, 0, 0, 0.7, -0.6, 0]
    fit = fit_scenes(data, np.full(data.shape, 100.0), transfer(), GRID, start)
    assert fit.converged.all()
    np.testing.assert_allclose(fit.params[0], SCENE, atol=0.02, rtol=2e-3)
    np.testing.assert_allclose(fit.others[0], images(SCENE)[1], atol=0.05)


def test_sky_and_photon_noise_are_options():
    data = images(SCENE).sum(0)[None]
    fit = fit_scenes(data - 0.5, np.full(data.shape, 100.0), transfer(), GRID, SCENE[None], fit_sky=False)
    assert (fit.params[:, :, 7] == 0).all()
    np.testing.assert_allclose(fit.params[0, :, :7], SCENE[:, :7], atol=0.02, rtol=2e-3)
    noisy = fit_scenes(data, np.full(data.shape, 100.0), transfer(), GRID, SCENE[None], gain=np.array([0.5]))
    np.testing.assert_allclose(noisy.params[0], SCENE, atol=0.02, rtol=2e-3)


def test_bound_is_that_of_the_joint_fisher_matrix():
    slopes = np.asarray(render_with_derivatives(SCENE.astype(np.float32), transfer(), GRID)[1], float)
    slopes = slopes.reshape(2, 8, -1)
    joint = np.concatenate([slopes[0], slopes[1, :7]])
    full = np.linalg.inv(joint @ joint.T)[:5, :5]
    stamps = stamps_with(slopes[1, :7].reshape(1, 7, SIZE, SIZE))
    marginal, singular = bound(information(RenderedBatch.from_stamps(stamps), GALAXY[None])[0])
    assert not singular[0]
    np.testing.assert_allclose(np.sqrt(np.diag(marginal[0])), np.sqrt(np.diag(full)), rtol=5e-3)
    alone, _ = bound(information(RenderedBatch.from_stamps(stamps_with()), GALAXY[None])[0])
    assert (np.diag(marginal[0]) > 1.1 * np.diag(alone[0])).any()


def test_projection_takes_out_what_is_there_and_nothing_for_zeros():
    rng = np.random.default_rng(1)
    columns, nuisance = rng.normal(size=(2, 3, 50)), rng.normal(size=(2, 4, 50))
    left = np.asarray(projected(columns, nuisance))
    np.testing.assert_allclose(np.einsum("bik,bjk->bij", left, nuisance), 0, atol=1e-3)
    np.testing.assert_allclose(projected(columns, 0 * nuisance), columns, rtol=1e-6)


def test_fit_is_unbiased_with_the_stated_errors_and_mask_is_not(estimator):
    stamps = stamps_with(n=40, seed=3)
    pulls = {}
    for how in ("mask", "fit"):
        catalog = estimator(stamps, method="ml", neighbours=how)
        assert (catalog.flags & Flag.NEIGHBOR > 0).all()
        sigma = np.sqrt(np.diagonal(catalog.crb_covariance, axis1=1, axis2=2))
        pulls[how] = (catalog.parameters - GALAXY[:5]) / sigma
    error = 1 / np.sqrt(40)
    assert np.abs(pulls["mask"].mean(0)).max() > 5 * error
    assert np.abs(pulls["fit"].mean(0)).max() < 3.5 * error
    np.testing.assert_allclose(pulls["fit"].std(0, ddof=1), 1, atol=3.5 * error / np.sqrt(2))


def test_other_methods_know_that_the_neighbour_is_fitted(estimator):
    """Widths contain the neighbour's uncertainty, and the stamps that are kept are without it."""
    stamps = stamps_with(n=8, seed=5)
    without = stamps_with(n=8, seed=5, scene=SCENE[:1])
    for method in ("network", "posterior"):
        fitted = estimator(stamps, method=method, neighbours="fit")
        alone = estimator(without, method=method)
        error = (fitted.parameters - GALAXY[:5]) / np.sqrt(np.diagonal(fitted.covariance, 0, 1, 2))
        assert np.abs(np.median(error, 0)).max() < 2
        assert np.median(fitted.flux_std / alone.flux_std) > 1.02
        assert np.median(fitted.flux_err / alone.flux_err) > 1.02
        kept = np.concatenate([fitted.stamp(i).data for i in range(8)])
        assert np.abs((kept - without.data)[:, 35, 39].mean()) < 3
