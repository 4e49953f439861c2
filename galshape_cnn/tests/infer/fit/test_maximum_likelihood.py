# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""The maximum of the likelihood: found, from poor starts too, unbiased, with honest flags."""

import numpy as np
import pytest
from scipy.optimize import least_squares

from galshape_cnn.errors import InputError
from galshape_cnn.flags import Flag
from galshape_cnn.forward.coordinates import HLR_MIN
from galshape_cnn.forward.grid import FourierGrid
from galshape_cnn.forward.render import render, render_with_derivatives
from galshape_cnn.forward.sersic import N_RANGE
from galshape_cnn.forward.transfer import transfer_functions
from galshape_cnn.infer.fit.bounded_steps import _nearest, _nearest_of_all
from galshape_cnn.infer.fit.maximum_likelihood import maximize_likelihood
from galshape_cnn.infer.fit.moments import moment_start
from galshape_cnn.infer.fit.variable_projection import Penalty
from galshape_cnn.infer.likelihood.gaussian import StampLikelihood

GRID = FourierGrid(32)
SEED_GRID = FourierGrid(64)


def moffat(fwhm, beta=2.0, side=65):
    """Pixel-integrated Moffat PSFs by ten-fold supersampling."""
    x = (np.arange(side * 10) - (side * 10 - 1) / 2) / 10
    r2 = np.add.outer(x**2, x**2)
    radius = np.asarray(fwhm)[:, None, None] / 2 / np.sqrt(2 ** (1 / beta) - 1)
    fine = (beta - 1) / (np.pi * radius**2) * (1 + r2 / radius**2) ** -beta / 100
    return fine.reshape(-1, side, 10, side, 10).sum((2, 4))


def seed_prior(n, rng):
    """Galaxies of the seed's prior with S/N 10 to 100, and their stamps."""
    fwhm = rng.uniform(0.5, 1.0, 8) / 0.23
    transfer = np.asarray(transfer_functions(moffat(fwhm), SEED_GRID))
    m = 4 * n
    which, sigma = rng.integers(0, 8, m), rng.uniform(200, 400, m)
    g, angle = rng.uniform(0, 0.67, m), rng.uniform(0, 2 * np.pi, m)
    columns = [rng.uniform(0.3e5, 4e5, m), rng.uniform(0.5, 6, m), rng.uniform(0.1, 0.6, m) / 0.23]
    columns += [g * np.cos(angle), g * np.sin(angle), *rng.uniform(31, 32, (2, m)), np.zeros(m)]
    truth = np.stack(columns, 1)
    images = np.asarray(render(truth.astype(np.float32), transfer[which], SEED_GRID))
    snr = np.sqrt((images.astype(float) ** 2).sum((1, 2))) / sigma
    keep = np.flatnonzero((snr > 10) & (snr < 100))[:n]
    data = images[keep] + sigma[keep, None, None] * rng.normal(size=images[keep].shape)
    ivar = np.broadcast_to(sigma[keep, None, None] ** -2.0, data.shape)
    return truth[keep], data.astype(np.float32), ivar.astype(np.float32), transfer[which[keep]]


def seed_galaxy(n, sigma, rng):
    """Realisations of the seed galaxy."""
    transfer = np.asarray(transfer_functions(moffat([0.5 / 0.23]), SEED_GRID))
    truth = np.array([[1e5, 3.0, 0.3 / 0.23, -0.069, 0.15, 31.5, 31.5, 0.0]])
    image = np.asarray(render(truth, transfer, SEED_GRID))
    data = image + sigma * rng.normal(size=(n, 64, 64))
    return truth[0], data.astype(np.float32), np.full(data.shape, sigma**-2.0, np.float32), transfer


@pytest.fixture(scope="module")
def small():
    """Forty easy galaxies on small stamps, two PSFs."""
    rng = np.random.default_rng(3)
    n = 40
    transfer = np.asarray(transfer_functions(moffat([2.5, 3.0], side=31), GRID))[np.arange(n) % 2]
    g, angle = rng.uniform(0, 0.5, n), rng.uniform(0, 2 * np.pi, n)
    columns = [rng.uniform(500, 1000, n), rng.uniform(0.8, 2, n), rng.uniform(1.5, 3, n)]
    columns += [g * np.cos(angle), g * np.sin(angle), *rng.uniform(15, 16, (2, n)), rng.normal(size=n)]
    truth = np.stack(columns, 1)
    images = np.asarray(render(truth.astype(np.float32), transfer, GRID))
    data = images + rng.normal(size=images.shape) * 0.3
    return truth, data.astype(np.float32), np.full(data.shape, 0.3**-2.0, np.float32), transfer


@pytest.fixture(scope="module")
def fitted(small):
    truth, data, ivar, transfer = small
    return maximize_likelihood(data, ivar, transfer, GRID, truth)


def optimum(data, ivar, transfer, start, grid):
    """Chi-square that scipy's trust region reaches; v with g = 0.9 v / sqrt(1 + v^2) keeps to |g| < 0.9."""
    one = transfer[None]
    low = [0, N_RANGE[0], HLR_MIN, -np.inf, -np.inf, 0, 0, -np.inf]
    high = [np.inf, N_RANGE[1], grid.size, np.inf, np.inf, grid.size, grid.size, np.inf]

    def params(q):
        p = q.copy()
        p[3:5] *= 0.9 / np.sqrt(1 + q[3] ** 2 + q[4] ** 2)
        return p[None].astype(np.float32)

    def residual(q):
        image = np.asarray(render(params(q), one, grid), float)[0]
        return ((image - data) * np.sqrt(ivar)).ravel()

    def jacobian(q):
        _, slopes = render_with_derivatives(params(q), one, grid)
        columns = (np.asarray(slopes, float)[0] * np.sqrt(ivar)).reshape(8, -1).T
        long = np.sqrt(1 + q[3] ** 2 + q[4] ** 2)
        columns[:, 3:5] = columns[:, 3:5] @ (0.9 / long * (np.eye(2) - np.outer(q[3:5], q[3:5]) / long**2))
        return columns

    begin = start.copy()
    begin[3:5] /= np.sqrt(0.9**2 - start[3] ** 2 - start[4] ** 2)
    scale = [start[0], 1, 1, 0.3, 0.3, 1, 1, 1 / np.sqrt(ivar.max())]
    fit = least_squares(residual, begin, jacobian, bounds=(low, high), x_scale=scale, xtol=1e-8, ftol=1e-8)
    return 2 * fit.cost


def test_step_into_a_box_is_the_best_one():
    rng = np.random.default_rng(0)
    root = rng.normal(size=(50, 3, 3))
    metric = root @ np.swapaxes(root, 1, 2) + 0.1 * np.eye(3)
    target, low, high = rng.normal(size=(50, 3)), -rng.uniform(0, 0.5, (50, 3)), rng.uniform(0, 0.5, (50, 3))
    low[:, 2] = -np.inf
    found = _nearest(target, metric, low, high)
    cost = lambda p: np.einsum("ni,nij,nj->n", p - target, metric, p - target)  # noqa: E731
    others = np.clip(found + 0.05 * rng.normal(size=(500, 50, 3)), low, high)
    assert all((cost(found) <= cost(p) + 1e-12).all() for p in others)


def test_one_bound_that_decides_is_enough():
    rng = np.random.default_rng(1)
    root = rng.normal(size=(2000, 3, 3))
    metric = root @ np.swapaxes(root, 1, 2) + 0.1 * np.eye(3)
    target, (low, high) = rng.normal(size=(2000, 3)), rng.uniform(0, 1, (2, 2000, 3)) * [[[-1]], [[1]]]
    low[:, 2] = -np.inf
    known = target, metric, low, high
    np.testing.assert_allclose(_nearest(*known), _nearest_of_all(*known), rtol=0, atol=1e-9)


def test_chi_square_and_gradient_are_those_of_the_images(small):
    truth, data, ivar, transfer = small
    likelihood = StampLikelihood.from_stamps(data, ivar, transfer, GRID)
    unit = np.ones((len(truth), 8))
    unit[:, [0, 7]] = likelihood.scale[:, None]
    chi2, gradient, fisher = likelihood.normal_equations(truth / unit, np.arange(len(truth)))
    images, slopes = (
        np.asarray(a, float) for a in render_with_derivatives(truth.astype(np.float32), transfer, GRID)
    )
    residual = data - images
    np.testing.assert_allclose(chi2, (residual**2 * ivar).sum((1, 2)), rtol=1e-6)
    columns = (slopes * unit[:, :, None, None]).reshape(len(truth), 8, -1)
    weighted = columns * ivar.reshape(len(truth), 1, -1)
    expected = (weighted @ residual.reshape(len(truth), -1, 1))[..., 0]
    np.testing.assert_allclose(gradient, expected, rtol=1e-3, atol=0.1)
    np.testing.assert_allclose(fisher, weighted @ np.swapaxes(columns, 1, 2), rtol=2e-3, atol=2)
    chi2_again, gradient, _ = likelihood.linear_equations(truth / unit, np.arange(len(truth)))
    np.testing.assert_allclose(chi2_again, chi2, rtol=1e-6)


def test_same_minimum_as_scipy(small, fitted):
    truth, data, ivar, transfer = small
    reached = [optimum(data[i], ivar[i], transfer[i], truth[i], GRID) for i in range(12)]
    assert fitted.converged.all()
    assert (fitted.chi2[:12] - reached < 0.01).all()
    assert fitted.evaluations.mean() < 6


def test_pulls(small, fitted):
    truth = small[0]
    free = fitted.flags == 0
    sigma = np.sqrt(np.einsum("nii->ni", np.linalg.inv(fitted.fisher[free])))
    pull = (fitted.params - truth)[free] / sigma
    assert free.mean() > 0.9
    assert (np.abs(pull.mean(0)) < 4 / np.sqrt(free.sum())).all()
    assert ((pull.std(0) > 0.65) & (pull.std(0) < 1.4)).all()


def test_poor_starts_reach_the_same_place(small, fitted):
    truth, data, ivar, transfer = small
    generic = np.tile([100.0, 1.5, 2.0, 0, 0, 15.5, 15.5, 0], (len(truth), 1))
    far = maximize_likelihood(data, ivar, transfer, GRID, generic)
    moments = maximize_likelihood(data, ivar, transfer, GRID, moment_start(data, ivar, transfer, GRID))
    for result in (far, moments):
        np.testing.assert_allclose(result.chi2, fitted.chi2, atol=0.02)


def test_second_start_rescues_a_wrong_one(small, fitted):
    truth, data, ivar, transfer = small
    wrong = np.tile([1.0, 6.2, 0.05, 0.899, 0, 14.0, 17.0, 0], (8, 1))
    few = {"max_iterations": 7}  # from this start it takes about ten
    alone = maximize_likelihood(data[:8], ivar[:8], transfer[:8], GRID, wrong, retry=False, **few)
    helped = maximize_likelihood(data[:8], ivar[:8], transfer[:8], GRID, wrong, **few)
    assert not alone.converged.any()
    assert helped.converged.mean() > 0.7
    assert (helped.chi2 < alone.chi2 + 0.01).all()
    assert np.median(helped.chi2 - fitted.chi2[:8]) < 0.01


def test_moments_start_near(small):
    truth, data, ivar, transfer = small
    start = moment_start(data, ivar, transfer, GRID)
    assert np.median(np.abs(start[:, 5:7] - truth[:, 5:7])) < 0.1
    assert np.median(np.abs(np.log(start[:, 0] / truth[:, 0]))) < 0.2
    assert np.corrcoef(start[:, 3], truth[:, 3])[0, 1] > 0.9


def test_batch_does_not_matter(small, fitted):
    truth, data, ivar, transfer = small
    order = [17, 3, 30]
    some = maximize_likelihood(data[order], ivar[order], transfer[order], GRID, truth[order])
    np.testing.assert_allclose(some.params, fitted.params[order], rtol=1e-3, atol=1e-3)


def test_flux_scale_does_not_matter(small, fitted):
    truth, data, ivar, transfer = small
    scaled = truth[:8] * np.array([1e-9, 1, 1, 1, 1, 1, 1, 1e-9])
    result = maximize_likelihood(data[:8] * 1e-9, ivar[:8].astype(float) * 1e18, transfer[:8], GRID, scaled)
    np.testing.assert_allclose(result.params[:, 0], fitted.params[:8, 0] * 1e-9, rtol=1e-3)
    np.testing.assert_allclose(result.params[:, 1:7], fitted.params[:8, 1:7], atol=5e-3)


def test_masked_pixels_do_not_matter(small):
    truth, data, ivar, transfer = small
    ivar, spoiled = ivar[:8].copy(), data[:8].copy()
    ivar[:, 5:9, 12:20] = 0
    spoiled[:, 5:9, 12:20] = 1e4
    a = maximize_likelihood(spoiled, ivar, transfer[:8], GRID, truth[:8])
    b = maximize_likelihood(data[:8], ivar, transfer[:8], GRID, truth[:8])
    np.testing.assert_array_equal(a.params, b.params)
    assert (a.n_data == 32 * 32 - 32).all()


def test_fixed_sky_stays(small):
    truth, data, ivar, transfer = small
    start = truth[:8].copy()
    start[:, 7] += 0.5
    result = maximize_likelihood(data[:8], ivar[:8], transfer[:8], GRID, start, fit_sky=False)
    np.testing.assert_allclose(result.params[:, 7], start[:, 7])


def test_one_transfer_for_all(small):
    truth, data, ivar, transfer = small
    a = maximize_likelihood(data[:1], ivar[:1], transfer[:1], GRID, truth[:1])
    twice = np.repeat(data[:1], 2, 0), np.repeat(ivar[:1], 2, 0)
    b = maximize_likelihood(*twice, transfer[:1], GRID, np.repeat(truth[:1], 2, 0))
    np.testing.assert_allclose(b.params[1], a.params[0], rtol=1e-4, atol=1e-4)


def test_bad_rows_are_flagged_not_raised(small):
    truth, data, ivar, transfer = small
    ivar, start = ivar[:3].copy(), truth[:3].copy()
    ivar[0] = 0
    start[1, 2] = np.nan
    result = maximize_likelihood(data[:3], ivar, transfer[:3], GRID, start)
    assert result.flags[0] == Flag.NO_DATA
    assert result.flags[1] == Flag.NOT_CONVERGED
    assert np.isnan(result.params[:2]).all()
    assert result.converged.tolist() == [False, False, True]


def test_pure_noise_gives_an_answer():
    rng = np.random.default_rng(1)
    transfer = transfer_functions(moffat([2.5], side=31), GRID)
    data = rng.normal(size=(6, 32, 32)).astype(np.float32)
    result = maximize_likelihood(
        data, np.ones_like(data), transfer, GRID, moment_start(data, np.ones_like(data), transfer, GRID)
    )
    assert np.isfinite(result.params).all()
    assert (result.params[:, 0] > 0).all()


def test_point_source_is_flagged_at_the_bound():
    rng = np.random.default_rng(2)
    psf = moffat([2.5], side=31)
    data = np.zeros((8, 32, 32))
    data[:, 1:, 1:] = 1000 * psf
    data += rng.normal(size=data.shape)
    transfer = transfer_functions(psf, GRID)
    start = np.tile([900.0, 1.0, 1.0, 0, 0, 16, 16, 0], (8, 1))
    result = maximize_likelihood(data, np.ones_like(data), transfer, GRID, start)
    assert (result.params[:, 2] < 0.8).all()
    assert ((result.flags & (Flag.PARAMETER_AT_BOUND | Flag.N_AT_BOUND)) != 0).any()


def test_penalty_holds_back_what_the_data_do_not_know():
    rng = np.random.default_rng(8)
    transfer = transfer_functions(moffat([2.5], side=31), GRID)
    truth = np.tile([60.0, 1.5, 1.2, 0, 0, 15.5, 15.5, 0], (12, 1))
    data = np.asarray(render(truth.astype(np.float32), transfer, GRID)) + rng.normal(size=(12, 32, 32))
    center, precision = np.zeros(8), np.zeros(8)
    center[1], precision[1], precision[3:5] = np.log(1.5), 0.5**-2, 0.2**-2
    loose = maximize_likelihood(data, np.ones_like(data), transfer, GRID, truth)
    held = maximize_likelihood(
        data, np.ones_like(data), transfer, GRID, truth, penalty=Penalty(center, precision)
    )
    spread = lambda r: np.hypot(r.params[:, 3], r.params[:, 4]).mean()  # noqa: E731
    assert spread(held) < 0.6 * spread(loose)
    assert held.converged.all()
    assert (held.flags & Flag.N_AT_BOUND == 0).all()


def test_too_few_steps_are_reported(small):
    truth, data, ivar, transfer = small
    start = truth[:8].copy()
    start[:, 2] *= 3
    result = maximize_likelihood(data[:8], ivar[:8], transfer[:8], GRID, start, max_iterations=1, retry=False)
    assert (result.flags & Flag.NOT_CONVERGED).all()


@pytest.mark.parametrize("weights", ["model", "data"])
def test_photon_noise_does_not_bias_the_flux(weights):
    """Weights of the model are unbiased; weights of the data, done on purpose, are not."""
    rng = np.random.default_rng(4)
    n = 160
    transfer = transfer_functions(moffat([2.5], side=31), GRID)
    truth = np.array([[3000.0, 1.0, 2.0, 0.1, 0.1, 15.5, 15.5, 0.0]])
    image = np.asarray(render(truth, transfer, GRID), float)
    data = image + rng.normal(size=(n, 32, 32)) * np.sqrt(4 + np.maximum(image, 0))
    ivar, gain = np.full(data.shape, 0.25), 1.0
    if weights == "data":
        ivar, gain = 1 / (4 + np.maximum(data, 0)), None
    start = np.repeat(truth, n, 0)
    result = maximize_likelihood(data, ivar, transfer, GRID, start, gain=gain, retry=False)
    bias = (result.params[:, 0] - 3000) / np.sqrt(np.linalg.inv(result.fisher)[:, 0, 0])
    significance = bias.mean() * np.sqrt(n)
    if weights == "data":
        assert significance < -4  # the test can see the bias
    else:
        assert abs(significance) < 3.5
        assert bias.std() == pytest.approx(1, abs=0.2)


def test_misuse_is_named(small):
    truth, data, ivar, transfer = small
    with pytest.raises(InputError, match=r"ivar has shape \(40, 32, 31\); \(40, 32, 32\) is needed"):
        maximize_likelihood(data, ivar[:, :, 1:], transfer, GRID, truth)
    with pytest.raises(InputError, match=r"start has shape \(40, 7\)"):
        maximize_likelihood(data, ivar, transfer, GRID, truth[:, :7])
    with pytest.raises(InputError, match="transfer has shape"):
        maximize_likelihood(data, ivar, transfer[:, 1:], GRID, truth)
    with pytest.raises(InputError, match="gain=-1; a positive number"):
        maximize_likelihood(data, ivar, transfer, GRID, truth, gain=-1)


@pytest.mark.slow
def test_seed_galaxy_is_at_the_bound():
    """S/N 200: scatter at the Cramer-Rao bound, no bias."""
    n = 300
    truth, data, ivar, transfer = seed_galaxy(n, 60.0, np.random.default_rng(5))
    result = maximize_likelihood(data, ivar, transfer, SEED_GRID, np.tile(truth, (n, 1)))
    at_truth = maximize_likelihood(
        data[:1], ivar[:1], transfer, SEED_GRID, truth[None], max_iterations=0, retry=False
    )
    sigma = np.sqrt(np.diag(np.linalg.inv(at_truth.fisher[0])))
    pull = (result.params - truth) / sigma
    assert (np.abs(pull.mean(0))[:5] < 0.1 + 3 / np.sqrt(n)).all()
    assert (np.abs(pull.std(0)[:5] - 1) < 0.05 + 3 / np.sqrt(2 * n)).all()


@pytest.mark.slow
def test_seed_prior_reaches_the_optimum():
    """Against scipy started at the truth, from moments."""
    n = 300
    truth, data, ivar, transfer = seed_prior(n, np.random.default_rng(6))
    result = maximize_likelihood(
        data, ivar, transfer, SEED_GRID, moment_start(data, ivar, transfer, SEED_GRID)
    )
    reached = np.array([optimum(data[i], ivar[i], transfer[i], truth[i], SEED_GRID) for i in range(n)])
    assert (result.chi2 - reached < 0.1).mean() >= 0.995
    assert (~result.converged).mean() <= 0.002 + 1 / n
