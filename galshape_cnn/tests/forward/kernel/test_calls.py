# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""The compiled kernel against JAX: the same numbers to single precision, each galaxy by itself."""

import ctypes
import gc
import subprocess
import sys

import jax
import numpy as np
import pytest

from galshape_cnn.forward.grid import FourierGrid
from galshape_cnn.forward.kernel import calls
from galshape_cnn.forward.kernel.library import KERNEL_VARIABLE, instructions, serves
from galshape_cnn.forward.kernel.plan import plan_of
from galshape_cnn.forward.render import render, render_with_derivatives
from galshape_cnn.forward.transfer import transfer_functions
from galshape_cnn.infer.likelihood import correlated_products
from galshape_cnn.infer.likelihood.fisher import score_and_fisher
from galshape_cnn.infer.likelihood.gaussian import StampLikelihood
from galshape_cnn.infer.network.features import network_inputs
from galshape_cnn.infer.residuals import companions
from galshape_cnn.infer.residuals.examination import examine
from galshape_cnn.infer.residuals.point_source import point_images, point_source_chi2
from galshape_cnn.observe.detect.levels import highest_pixels, local_maxima

pytestmark = pytest.mark.skipif(not instructions(), reason="the package was installed without a compiler")

#: Side of the stamps and bandwidth: a common one, and sides that are no multiple of a vector.
GRIDS = [(64, 1), (26, 1), (50, 2)]


@pytest.fixture(params=GRIDS, ids=str)
def scene(request):
    """Parameters, stamps, transfer functions and grid of a dozen galaxies."""
    size, bandwidth = request.param
    rng, n, grid = np.random.default_rng(5), 12, FourierGrid(size, bandwidth)
    center = (size - 1) / 2 + rng.uniform(-1, 1, (n, 2))
    shape = [10 ** rng.uniform(1, 3, n), rng.uniform(0.35, 6, n), 10 ** rng.uniform(-0.3, 0.9, n)]
    shear = rng.uniform(-0.4, 0.4, (n, 2))
    params = np.column_stack([*shape, shear, center, rng.normal(0, 0.1, n)]).astype(np.float32)
    y, x = np.mgrid[-15:16, -15:16] / bandwidth
    psf = np.stack([(1 + ((x - 0.1) ** 2 + 1.1 * y**2) / width**2) ** -2.5 for width in rng.uniform(2, 4, n)])
    psf = (psf / psf.sum((1, 2), keepdims=True)).astype(np.float32)
    transfer = np.asarray(transfer_functions(psf, grid, bandwidth))
    data = np.asarray(render(params, transfer, grid)) + rng.normal(0, 1, (n, size, size))
    ivar = rng.uniform(0.8, 1.2, data.shape).astype(np.float32)
    ivar[:, 2:5, 3:9] = 0
    return params, data.astype(np.float32), ivar, psf, transfer, grid


def by_both(monkeypatch, function, chosen=""):
    """Results of a function by the kernel and by JAX."""
    monkeypatch.setenv(KERNEL_VARIABLE, chosen)
    assert serves()
    kernel = [np.asarray(one) for one in jax.tree.leaves(function())]
    monkeypatch.setenv(KERNEL_VARIABLE, "off")
    assert not serves()
    return kernel, [np.asarray(one) for one in jax.tree.leaves(function())]


@pytest.mark.parametrize("chosen", instructions())
def test_images_and_derivatives(scene, monkeypatch, chosen):
    params, _, _, _, transfer, grid = scene
    monkeypatch.setenv(KERNEL_VARIABLE, chosen)
    images, derivatives = map(np.asarray, render_with_derivatives(params, transfer, grid))
    with jax.enable_x64(True):
        exact = render_with_derivatives(params.astype(float), transfer.astype(complex), grid)
        exact = [np.asarray(one) for one in exact]
    scale = np.abs(exact[1]).max((2, 3))
    assert (np.abs(images - exact[0]).max((1, 2)) / (scale[:, 0] * params[:, 0] + 1)).max() < 5e-6
    assert (np.abs(derivatives - exact[1]).max((2, 3)) / scale).max() < 5e-5
    alone = np.asarray(render(params, transfer, grid))
    np.testing.assert_allclose(alone, images, rtol=0, atol=5e-6 * np.abs(images).max())


def test_transfer_functions(scene, monkeypatch):
    *_, psf, _, grid = scene
    kernel, by_jax = by_both(monkeypatch, lambda: transfer_functions(psf, grid, grid.bandwidth))
    np.testing.assert_allclose(kernel[0], by_jax[0], rtol=0, atol=3e-6)
    assert np.abs(kernel[0]).max() > 0.9


@pytest.mark.parametrize("gain", [None, 3.0])
@pytest.mark.parametrize("chosen", instructions())
def test_normal_equations(scene, monkeypatch, chosen, gain):
    params, data, ivar, _, transfer, grid = scene
    kernel, by_jax = by_both(
        monkeypatch, lambda: score_and_fisher(params, data, ivar, transfer, grid, gain), chosen
    )
    sigma = np.sqrt(np.einsum("nii->ni", by_jax[2]))
    np.testing.assert_allclose(kernel[0], by_jax[0], rtol=1e-5)
    assert (np.abs(kernel[1] - by_jax[1]) / sigma).max() < 3e-3
    assert (np.abs(kernel[2] - by_jax[2]) / sigma[:, :, None] / sigma[:, None]).max() < 3e-4


def test_equations_of_draws(scene, monkeypatch):
    params, data, ivar, _, transfer, grid = scene
    likelihood = StampLikelihood.from_stamps(data, ivar, transfer, grid)
    draws = np.repeat(params[:, None].astype(float), 8, 1)
    draws[..., 5:7] += np.random.default_rng(1).normal(0, 0.1, (len(params), 8, 2))
    rows = np.arange(len(params))
    kernel, by_jax = by_both(monkeypatch, lambda: likelihood.linear_equations_of_draws(draws, rows))
    sigma = np.sqrt(np.einsum("nsii->nsi", by_jax[2]))
    np.testing.assert_allclose(kernel[0], by_jax[0], rtol=1e-5)
    assert (np.abs(kernel[1] - by_jax[1]) / sigma).max() < 3e-3
    np.testing.assert_allclose(kernel[2], by_jax[2], rtol=1e-4)


@pytest.mark.parametrize("chosen", instructions())
@pytest.mark.parametrize("fit_sky", [True, False])
def test_examination(scene, monkeypatch, chosen, fit_sky):
    params, data, ivar, _, transfer, grid = scene
    correlation, both = np.array([[0.1, 0.3, 0.2], [0.3, 1.0, 0.3], [0.2, 0.3, 0.1]]), []
    for kind in (chosen, "off"):
        monkeypatch.setenv(KERNEL_VARIABLE, kind)
        both.append(examine(params, data, ivar, transfer, grid, fit_sky, 3.0, correlation))
    kernel, by_jax = both
    scale = np.sqrt(np.diagonal(by_jax.fisher, axis1=1, axis2=2))
    assert (np.abs(kernel.actual - by_jax.actual) / (scale[:, :, None] * scale[:, None, :])).max() < 1e-3
    assert (np.diagonal(kernel.actual, axis1=1, axis2=2) > 1.5 * scale**2)[:, 7].all()  # of the sky level
    for name in ("chi2", "left", "inner", "inner_number", "rff", "distance", "tied"):
        np.testing.assert_allclose(
            getattr(kernel, name), getattr(by_jax, name), rtol=1e-3, atol=1e-3, err_msg=name
        )
    for name in ("lags", "highest", "lowest", "core", "smear"):
        np.testing.assert_allclose(
            getattr(kernel, name), getattr(by_jax, name), rtol=0.01, atol=5e-3, err_msg=name
        )


@pytest.mark.parametrize("chosen", instructions())
def test_companions(scene, monkeypatch, chosen):
    params, data, ivar, _, transfer, grid = scene
    width = np.linspace(2, 9, len(params))
    points = point_images(params + np.float32([0, 0, 0, 0, 0, 1.5, -1, 0]), transfer, grid)
    data = data + params[:, :1, None] * points
    known, found = (data, ivar, transfer, grid, np.full(len(params), 0.3, np.float32), True, width), []
    for kind in (chosen, "off"):
        monkeypatch.setenv(KERNEL_VARIABLE, kind)
        found.append(companions._best_sources(params, *known))
    assert (found[0][:, 5] > companions._SIGNIFICANT**2).sum() > 3
    scale = np.abs(found[1]).max(0) + 1
    assert (np.abs(found[0] - found[1]) / (np.abs(found[1]) + 1e-3 * scale)).max() < 0.02


def correlation_of(lags):
    """The same about the middle only."""
    half = [side // 2 for side in lags]
    y, x = np.mgrid[-half[0] : half[0] + 1, -half[1] : half[1] + 1]
    return np.exp(-np.abs(x - 0.4 * y) / 2 - np.abs(y) / 3)


def noise_on_waves(part=0.1):
    lag = np.arange(-16, 17)
    waves = np.exp(-np.add.outer(lag**2, lag**2) / 64)
    waves[13:20, 13:20] += (1 / part - 1) * correlation_of((7, 7))
    return part * waves


def test_waves_are_told_from_noise():
    core, line = calls._core_and_line(noise_on_waves())
    assert core.shape == (7, 7)
    np.testing.assert_allclose(core, 0.9 * correlation_of((7, 7)), atol=1e-12)
    np.testing.assert_allclose(np.outer(line, line)[16], 0.1 * np.exp(-((np.arange(33) - 16) ** 2) / 64))
    for correlation in (correlation_of((17, 17)), correlation_of((5, 9)), np.ones((1, 1)), -np.ones((3, 3))):
        core, line = calls._core_and_line(correlation)
        assert core is correlation
        assert len(line) == 0


@pytest.mark.parametrize("chosen", instructions())
@pytest.mark.parametrize("lags", [(1, 1), (5, 9), (17, 17), (71, 3), "waves"], ids=str)
def test_products_in_correlated_noise(scene, monkeypatch, chosen, lags):
    params, _, ivar, _, transfer, grid = scene
    correlation = noise_on_waves() if lags == "waves" else correlation_of(lags)
    known = ivar, transfer, grid, np.linspace(0, 0.2, len(params)).astype(np.float32), correlation
    monkeypatch.setenv(KERNEL_VARIABLE, chosen)
    found = correlated_products.products_in_correlated_noise(params, *known)
    few = ivar[4:5], transfer[4:5], grid, known[3][4:5], correlation
    one = correlated_products.products_in_correlated_noise(params[4:5], *few)
    for ours, theirs, alone in zip(
        found, correlated_products.rendered_products(params, *known), one, strict=True
    ):
        scale = np.sqrt(np.diagonal(theirs, axis1=1, axis2=2))
        off = np.abs(ours - theirs) / (scale[:, :, None] * scale[:, None, :])
        assert off.max() < 2e-4
        np.testing.assert_array_equal(alone[0], ours[4])


@pytest.mark.parametrize("shape", [(64, 64), (26, 50), (8, 3)])
def test_peaks(monkeypatch, shape):
    rng = np.random.default_rng(3)
    array = np.round(rng.normal(0, 2, (20, *shape)), 1).astype(np.float32)  # with many equal pixels
    at = rng.uniform(-3, 3, (20, 2)) + np.array(shape[::-1]) / 2
    at[:3] = [[-20], [0], [60]]
    near = rng.uniform(1, 9, 20), rng.uniform(0.2, 15, 20)
    by_both = []
    for kind in ("", "off"):
        monkeypatch.setenv(KERNEL_VARIABLE, kind)
        maxima = local_maxima(array)
        by_both.append((maxima, highest_pixels(array, maxima, at, *near)))
    assert by_both[0][0].sum() > 20
    np.testing.assert_array_equal(by_both[0][0], by_both[1][0])
    np.testing.assert_array_equal(by_both[0][1], by_both[1][1])


def test_point_source(scene, monkeypatch):
    params, data, ivar, _, transfer, grid = scene
    kernel, by_jax = by_both(
        monkeypatch, lambda: point_source_chi2(params, data, ivar, transfer, grid, True, 3)
    )
    np.testing.assert_allclose(kernel[0], by_jax[0], rtol=1e-4)


def test_features_of_the_network(monkeypatch):
    rng = np.random.default_rng(2)
    data, ivar = rng.normal(size=(2, 5, 64, 64)).astype(np.float32)
    data[:, 28:36, 28:36] += 3
    ivar = np.abs(ivar)
    ivar[0, 5:9] = 0
    ivar[1] = 0
    psf = np.ones((5, 15, 8), np.complex64)
    more = np.ones(5, np.float32), np.full(5, 0.1, np.float32)
    kernel, by_jax = by_both(monkeypatch, lambda: network_inputs(data, ivar, psf, *more))
    for one, other in zip(kernel, by_jax, strict=True):
        np.testing.assert_allclose(one, other, rtol=2e-4, atol=2e-5)


def test_a_galaxy_does_not_know_its_company(scene):
    params, data, ivar, psf, transfer, grid = scene
    rows = np.arange(len(params))
    together = calls.normal_equations(params, rows, data, ivar, transfer, grid)
    for row in (0, 7, 11):
        alone = calls.normal_equations(params[[row]], [0], data[[row]], ivar[[row]], transfer[[row]], grid)
        for one, all_ in zip(alone, together, strict=True):
            np.testing.assert_array_equal(one[0], all_[row])
        own = calls.transfer(psf[[row]], grid, grid.bandwidth)
        np.testing.assert_array_equal(own[0], transfer[row])
    shared = calls.normal_equations(params, rows, data, ivar, transfer[:1], grid)
    repeated = calls.normal_equations(params, rows, data, ivar, transfer[rows * 0], grid)
    for one, other in zip(shared, repeated, strict=True):
        np.testing.assert_array_equal(one, other)


def test_impossible_rows_cost_themselves_alone(scene):
    params, data, ivar, _, transfer, grid = scene
    wild = params.copy()
    wild[1, 2], wild[3, 1], wild[5, 3] = np.nan, -1.0, 1.0
    rows = np.arange(len(params))
    found = calls.normal_equations(wild, rows, data, ivar, transfer, grid)
    expected = calls.normal_equations(params, rows, data, ivar, transfer, grid)
    good = np.setdiff1d(rows, [1, 3, 5])
    for one, other in zip(found, expected, strict=True):
        assert np.isnan(one[[1, 3, 5]]).all()
        np.testing.assert_array_equal(one[good], other[good])


def test_double_precision_is_left_to_jax(scene):
    params, _, _, _, transfer, grid = scene
    with jax.enable_x64(True):
        assert render(params[:1].astype(float), transfer[:1].astype(complex), grid).dtype == np.float64


def test_importing_the_package_does_not_load_it():
    code = "import sys, galshape_cnn; print(any('kernel' in name for name in sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["False"]


def test_unknown_instructions_are_refused(monkeypatch):
    monkeypatch.setenv(KERNEL_VARIABLE, "nonsense")
    with pytest.raises(ValueError, match="GALSHAPE_KERNEL='nonsense'; allowed: off, .*base"):
        serves()


def test_a_plan_in_use_outlives_the_cache(scene):
    params, _, _, _, transfer, grid = scene
    plan = plan_of(grid)
    for size in range(20, 60, 2):  # more than are kept
        plan_of(FourierGrid(size, 1))
    assert plan_of(grid) is not plan
    gc.collect()
    np.testing.assert_array_equal(np.ctypeslib.as_array(plan.kx, (plan.modes,)), grid.kx.astype(np.float32))
    assert plan.arrays["kx"].ctypes.data == ctypes.addressof(plan.kx.contents)
