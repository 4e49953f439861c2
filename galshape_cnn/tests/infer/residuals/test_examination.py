# Licensed under a 3-clause BSD style license - see LICENSE.rst
import numpy as np
import pytest

from galshape_cnn.forward.render import render
from galshape_cnn.forward.transfer import grid_for, transfer_functions
from galshape_cnn.infer.likelihood.fisher import score_and_fisher
from galshape_cnn.infer.residuals.examination import examine, newton_steps
from galshape_cnn.infer.residuals.point_source import point_source_chi2
from galshape_cnn.infer.residuals.smoothers import SCALES

N, SIDE = 64, 64
GRID = grid_for(SIDE, 1)


@pytest.fixture(scope="module")
def transfer():
    y, x = np.mgrid[-15:16, -15:16]
    psf = np.exp(-(x**2 + y**2) / (2 * 1.4**2))
    return np.asarray(transfer_functions((psf / psf.sum())[None].astype(np.float32), GRID))


@pytest.fixture(scope="module")
def params():
    rng = np.random.default_rng(1)
    out = np.zeros((N, 8))
    out[:, 0], out[:, 1], out[:, 2] = 3000, rng.uniform(0.7, 3, N), rng.uniform(2, 4, N)
    out[:, 3:5] = rng.normal(0, 0.1, (N, 2))
    out[:, 5:7] = 31.5 + rng.uniform(-0.5, 0.5, (N, 2))
    return out


@pytest.fixture(scope="module")
def clean(params, transfer):
    return np.asarray(render(params.astype(np.float32), transfer, GRID), float)


@pytest.fixture(scope="module")
def noise():
    return np.random.default_rng(2).normal(size=(N, SIDE, SIDE))


def look(data, params, transfer, **options):
    return examine(params, data, np.ones(data.shape), transfer, GRID, **options)


def test_equals_the_normal_equations(clean, noise, params, transfer):
    found = look(clean + noise, params, transfer)
    arrays = [np.asarray(a, np.float32) for a in (params, clean + noise, np.ones(clean.shape))]
    chi2, score, fisher = score_and_fisher(*arrays, transfer, GRID)
    np.testing.assert_allclose(found.chi2, chi2, rtol=1e-5)
    scale = np.sqrt(np.diagonal(found.fisher, axis1=1, axis2=2))
    np.testing.assert_allclose(found.score / scale, score / scale, atol=1e-3)
    relative = (found.fisher - fisher) / scale[:, :, None] / scale[:, None]
    np.testing.assert_allclose(relative, 0, atol=1e-5)


def test_noise_alone_is_noise(clean, noise, params, transfer):
    found = look(clean + noise, params, transfer)
    freedom = SIDE**2 - 11
    assert np.mean(found.left) == pytest.approx(freedom, abs=5 * np.sqrt(2 * freedom / N))
    assert np.abs(found.lags).max() < 4.5
    assert found.highest.max() < 5.4
    assert found.lowest.min() > -5.4
    assert found.smear.mean() == pytest.approx(3, abs=5 * np.sqrt(6 / N))
    assert found.core.std() == pytest.approx(1, abs=5 * np.sqrt(0.5 / N))
    assert np.mean(found.inner / found.inner_number) == pytest.approx(1, abs=0.1)
    assert found.tied.max() < 4


def test_error_of_a_parameter_is_a_step_and_leaves_no_residual(clean, noise, params, transfer):
    wrong = params.copy()
    wrong[:, 3] += 0.02
    wrong[:, 5] += 0.03
    found, before = look(clean + noise, wrong, transfer), look(clean + noise, params, transfer)
    step, sigma = newton_steps(found, list(range(8)))
    first, _ = newton_steps(before, list(range(8)))
    np.testing.assert_allclose((step - first)[:, 3] / sigma[:, 3], -0.02 / sigma[:, 3], atol=0.6)
    np.testing.assert_allclose(found.left, before.left, atol=5)
    assert (found.chi2 > before.chi2).mean() > 0.9


def test_a_known_sky_does_not_move(clean, noise, params, transfer):
    data = clean + noise + 0.2
    free, known = look(data, params, transfer), look(data, params, transfer, fit_sky=False)
    assert np.median(known.left - free.left) > 60


@pytest.mark.parametrize(
    ("spoil", "statistic", "limit"),
    [
        (lambda d, c: with_pixel(d, 40, 30, 12.0), lambda f: f.highest[:, 0], 5.4),
        (lambda d, c: d + 150 * spot(45, 40), lambda f: f.highest[:, 1], 4.8),
        (lambda d, c: np.minimum(d, 0.6 * c.max((1, 2), keepdims=True)), lambda f: f.tied, 3.5),
        (lambda d, c: d * 1.3, lambda f: f.left / SIDE**2, 1.05),
    ],
    ids=["hot pixel", "neighbour", "saturation", "noise"],
)
def test_what_is_wrong_shows(clean, noise, params, transfer, spoil, statistic, limit):
    assert np.all(statistic(look(spoil(clean + noise, clean), params, transfer)) > limit)


def with_pixel(data, y, x, height):
    out = data.copy()
    out[:, y, x] += height
    return out


def spot(x, y):
    yy, xx = np.mgrid[:SIDE, :SIDE]
    out = np.exp(-((xx - x) ** 2 + (yy - y) ** 2) / (2 * 1.4**2))
    return out / out.sum()


def test_place_of_the_highest(clean, params, transfer):
    found = look(clean + 400 * spot(45, 40), params, transfer)
    expected = np.hypot(45 - params[:, 5], 40 - params[:, 6])
    np.testing.assert_allclose(found.distance[:, 1], expected, atol=1.5)
    assert found.highest.shape == (N, len(SCALES))


def test_correlated_noise_shows(clean, noise, params, transfer):
    smooth = (noise + np.roll(noise, 1, axis=2)) / np.sqrt(2)
    found = look(clean + smooth, params, transfer)
    assert found.lags[:, 0].min() > 20
    assert np.abs(found.lags[:, 1]).max() < 5


def test_wrong_psf_is_a_smear(clean, noise, params, transfer):
    y, x = np.mgrid[-15:16, -15:16]
    psf = np.exp(-(x**2 / 1.7**2 + y**2 / 1.2**2) / 2)
    other = np.asarray(transfer_functions((psf / psf.sum())[None].astype(np.float32), GRID))
    bright = params * np.r_[20.0, np.ones(7)]
    data = np.asarray(render(bright.astype(np.float32), other, GRID), float) + noise
    assert np.median(look(data, bright, transfer).smear) > 40


def test_a_star_is_a_point(noise, params, transfer):
    star = params.copy()
    star[:, 2] = 0.02
    data = np.asarray(render(star.astype(np.float32), transfer, GRID), float) + noise
    start = star + [100, 0, 1.0, 0, 0, 0.05, -0.05, 0.01]
    chi2 = point_source_chi2(start, data, np.ones(data.shape), transfer, GRID)
    freedom = SIDE**2 - 4
    np.testing.assert_allclose(chi2, freedom, atol=5.5 * np.sqrt(2 * freedom))
    galaxies = np.asarray(render(params.astype(np.float32), transfer, GRID), float) + noise
    chi2 = point_source_chi2(params, galaxies, np.ones(data.shape), transfer, GRID)
    assert chi2.min() > freedom + 500


def test_photon_noise_of_the_source(clean, params, transfer):
    gain = 0.5
    rng = np.random.default_rng(3)
    data = clean + np.sqrt(1 + clean.clip(0) / gain) * rng.normal(size=clean.shape)
    found = look(data, params, transfer, gain=gain)
    assert np.mean(found.chi2) == pytest.approx(SIDE**2, rel=0.01)
    assert np.mean(look(data, params, transfer).chi2) > 1.2 * SIDE**2
