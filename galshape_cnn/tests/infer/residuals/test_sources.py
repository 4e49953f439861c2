# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""The kernel's search for sources in residuals finds what that of NumPy finds, place by place."""

import numpy as np
import pytest
from scipy.ndimage import gaussian_filter

from galshape_cnn.forward.grid import FourierGrid
from galshape_cnn.forward.kernel.library import KERNEL_VARIABLE, instructions
from galshape_cnn.forward.render import render
from galshape_cnn.forward.transfer import of_rows, transfer_functions
from galshape_cnn.infer.likelihood.fisher import score_and_fisher
from galshape_cnn.infer.residuals import sources
from galshape_cnn.infer.residuals.point_source import point_images

pytestmark = pytest.mark.skipif(not instructions(), reason="the package was installed without a compiler")

N = 10
ALIKE = np.exp(-(np.mgrid[-4:5, -4:5] ** 2).sum(0) / 4.0)  # noise smoothed by a pixel


def scene(size, seed):
    """Arguments of a search beside galaxies with up to four sources, some within them, some at the edge."""
    rng, grid = np.random.default_rng(seed), FourierGrid(size, 1)
    light = [
        10 ** rng.uniform(2, 4.5, N),
        rng.uniform(0.4, 5, N),
        10 ** rng.uniform(-0.1, 0.7, N) * size / 48,
    ]
    centre = (size - 1) / 2 + rng.uniform(-1.5, 1.5, (N, 2))
    params = np.column_stack([*light, rng.uniform(-0.4, 0.4, (N, 2)), centre, rng.normal(0, 0.1, N)])
    params, width = params.astype(np.float32), rng.uniform(2, 5, N)
    y, x = np.mgrid[-12:13, -12:13]
    psf = np.stack([(1 + ((x - 0.1) ** 2 + 1.1 * y**2) / (w / 1.3) ** 2) ** -3.0 for w in width])
    transfer = np.asarray(transfer_functions(psf / psf.sum((1, 2), keepdims=True), grid, 1))
    data = np.asarray(render(params, transfer, grid)).astype(float)
    gain = 5.0 if seed % 3 == 0 else None
    variance = 1 + (0 if gain is None else np.maximum(data - params[:, 7, None, None], 0) / gain)
    for k in np.repeat(np.arange(N), rng.integers(0, 5, N)):
        place = [
            centre[k] + rng.normal(0, width[k], 2),
            rng.uniform(0, size - 1, 2),
            (0, rng.uniform(0, size)),
        ]
        moved = params[k : k + 1].copy()
        moved[0, 5:7] = place[rng.integers(3)]
        point = np.asarray(point_images(moved, of_rows(transfer, slice(k, k + 1)), grid))[0]
        data[k] += rng.uniform(3, 15) * rng.choice([1, 1, 1, 8]) / np.sqrt((point**2).sum()) * point
    noise = rng.normal(size=data.shape)
    correlation = ALIKE if seed % 4 == 1 else None
    if correlation is not None:
        noise = gaussian_filter(noise, (0, 1, 1))
        noise /= noise.std()
    ivar = rng.uniform(0.8, 1.2, data.shape) if seed % 2 else np.ones(data.shape)
    for k in range(0, N, 2):
        y, x = rng.integers(0, size, 2)
        ivar[k, y : y + size // 6, x : x + size // 6] = 0
    pixels = (data + noise * np.sqrt(variance)).astype(np.float32), ivar.astype(np.float32), transfer, grid
    fisher = np.asarray(score_and_fisher(params, *pixels, gain)[2])
    errors = 1 / np.sqrt(np.diagonal(fisher, axis1=1, axis2=2)[:, :5])
    white = rng.uniform(1, 2, N) if seed % 5 == 0 else None
    return params, errors, width, *pixels, bool(seed % 7), gain, correlation, white


def assert_same(found, expected, rtol=1e-4):
    for name in ("found", "close"):
        np.testing.assert_array_equal(getattr(found, name), getattr(expected, name))
    np.testing.assert_allclose(
        found.images, expected.images, rtol=0, atol=1e-5 * np.abs(expected.images).max()
    )
    scale = np.abs(expected.light).max((1, 2), keepdims=True) + 1e-6
    np.testing.assert_allclose(found.light / scale, expected.light / scale, rtol=0, atol=rtol)


@pytest.mark.parametrize("size", [16, 32, 50, 64, 96, 128])
def test_the_kernel_finds_what_numpy_finds(size, monkeypatch):
    number = np.zeros(4, int)
    for seed in range(16):
        known = scene(size, seed)
        found = [sources.find_residual_sources(*known)]
        with monkeypatch.context() as patch:
            patch.setattr(sources, "_found", sources._found.__wrapped__)
            found.append(sources.find_residual_sources(*known))
        assert_same(*found)
        number += np.bincount(found[0].images[:, ::3].any((2, 3)).sum(1), minlength=4)
    assert number.min() > 5


@pytest.mark.parametrize("chosen", instructions())
def test_every_set_of_instructions_finds_the_same(chosen, monkeypatch):
    known, found = scene(64, 5), []
    for kind in (chosen, "off"):
        monkeypatch.setenv(KERNEL_VARIABLE, kind)
        found.append(sources.find_residual_sources(*known))
    assert found[0].found.sum() > 3
    assert_same(*found, rtol=1e-3)  # JAX renders the images otherwise


def test_no_number_depends_on_its_company():
    known = scene(50, 1)
    together = sources.find_residual_sources(*known)
    for k in np.flatnonzero(together.found)[:3]:
        own = (slice(k, k + 1),)
        params, errors, width, data, ivar, transfer, grid, *how, white = known
        rows = (one[own] for one in (params, errors, width, data, ivar, transfer))
        alone = sources.find_residual_sources(*rows, grid, *how, None if white is None else white[own])
        for one, all_ in zip(alone, together, strict=True):
            np.testing.assert_array_equal(one[0], all_[k])


def test_clumps_are_no_sources(monkeypatch):
    params, errors, width, _, ivar, transfer, grid, *_ = scene(64, 2)
    params[:, :5] = 20000, 1, 9, 0, 0
    data = np.asarray(render(params, transfer, grid)) + np.random.default_rng(1).normal(size=ivar.shape)
    for *place, snr in ((9, 0, 6), (-7, 7, 6), (0, -25, 9)):  # two within the galaxy
        moved = params.copy()
        moved[:, 5:7] += place
        points = np.asarray(point_images(moved, transfer, grid))
        data += snr / np.sqrt((points**2).sum((1, 2), keepdims=True)) * points
    known = params, 0 * errors, width, data, ivar, transfer, grid
    found = sources.find_residual_sources(*known)
    assert found.found.sum() > 3
    monkeypatch.setattr(sources, "_found", sources._found.__wrapped__)
    assert_same(found, sources.find_residual_sources(*known))
    monkeypatch.setattr(sources, "_MOST_CLOSE", 3)
    assert sources.find_residual_sources(*known).close.sum() > found.close.sum() + 3
