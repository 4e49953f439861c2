# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""Sources that hide in a galaxy's light are found; the galaxy's own clumps are none."""

import galsim
import numpy as np
import pytest
from scipy.signal import fftconvolve

from galshape_cnn import ShapeEstimator
from galshape_cnn.flags import Flag
from galshape_cnn.tests.moffat_scene import moffat

N, SIDE, WIDTH = 60, 64, 4.0
MOFFAT, PSF = moffat(WIDTH)


@pytest.fixture(scope="module")
def estimator():
    return ShapeEstimator()


def blends(share, distance, snr=80, number=N):
    """Galaxies with a point source of a share of their flux in a random direction, noise one."""
    rng, images = np.random.default_rng(8), []
    for _ in range(number):
        angle = rng.uniform(0, 2 * np.pi)
        galaxy = galsim.Sersic(n=2.0, half_light_radius=4.0).shear(g1=0.1, g2=-0.1)
        star = galsim.DeltaFunction(flux=max(share, 1e-9)).shift(
            distance * np.cos(angle), distance * np.sin(angle)
        )
        light = galsim.Convolve(galaxy + star, MOFFAT).drawImage(nx=SIDE, ny=SIDE, scale=1.0)
        images.append(light.array.astype(float))
    images = np.array(images)
    images *= snr / np.sqrt((images**2).sum((1, 2), keepdims=True))
    return images + rng.normal(size=images.shape)


def flagged(estimator, data, method, **options):
    catalog = estimator(data, psf=PSF, error=1.0, method=method, neighbours="ignore", **options)
    return np.mean(catalog.flags & Flag.NEIGHBOR_LIGHT > 0)


def worst(estimator, data, method):
    """Largest pull of n, hlr, g1, g2 of each galaxy, and which are flagged."""
    catalog = estimator(data, psf=PSF, error=1.0, method=method, neighbours="ignore")
    kind = "err" if method == "ml" else "std"
    table, truth = catalog.to_table(), {"n": 2.0, "hlr": 4.0, "g1": 0.1, "g2": -0.1}
    off = {name: np.abs(np.array(table[name]) - true) for name, true in truth.items()}
    return np.max(
        [off[name] / np.array(table[f"{name}_{kind}"]) for name in truth], 0
    ), catalog.flags & Flag.NEIGHBOR_LIGHT > 0


@pytest.mark.parametrize("method", ["ml", "network"])
def test_errors_count_what_hidden_sources_do(estimator, method):
    pull, _ = worst(estimator, blends(0.15, 1.2 * WIDTH, snr=200), method)
    assert np.mean(pull < 3) > 0.95  # 0.87 and 0.02 without that
    pull, found = worst(estimator, blends(0.3, 1.2 * WIDTH), method)
    assert np.mean((pull < 3) | found) > 0.9
    assert flagged(estimator, blends(0.0, 0.0), method) <= 0.02


def test_hidden_sources_are_flagged(estimator):
    assert flagged(estimator, blends(0.3, 1.2 * WIDTH), "network") > 0.8


def test_faint_and_far_ones_are_left(estimator):
    assert flagged(estimator, blends(0.01, 1.2 * WIDTH), "ml") < 0.1
    assert flagged(estimator, blends(0.15, 2.5 * WIDTH), "ml") < 0.1


@pytest.mark.parametrize("knots", [40, 12])
def test_clumps_are_no_companions(estimator, knots):
    rng, images = galsim.BaseDeviate(4), []
    for _ in range(N):
        disc = galsim.Exponential(half_light_radius=8.0)
        galaxy = 0.5 * disc + 0.5 * galsim.RandomKnots(knots, profile=disc, rng=rng)
        light = galsim.Convolve(galaxy, MOFFAT).drawImage(nx=SIDE, ny=SIDE, scale=1.0).array.astype(float)
        images.append(400 * light / np.sqrt((light**2).sum()))
    data = np.array(images) + np.random.default_rng(1).normal(size=(N, SIDE, SIDE))
    assert flagged(estimator, data, "ml") < 0.1


def test_correlated_noise_raises_no_more(estimator):
    y, x = np.mgrid[-6:7, -6:7]
    kernel = np.exp(-(x**2 + y**2) / 4.0)
    white = np.random.default_rng(2).normal(size=(N, SIDE + 12, SIDE + 12))
    noise = np.array([fftconvolve(one, kernel, mode="valid") for one in white]) / np.sqrt((kernel**2).sum())
    correlation = fftconvolve(kernel, kernel)
    correlation /= correlation.max()
    galaxy = galsim.Convolve(galsim.Sersic(n=2.0, half_light_radius=4.0), MOFFAT)
    light = galaxy.drawImage(nx=SIDE, ny=SIDE, scale=1.0).array.astype(float)
    data = 80 * light / np.sqrt((light**2).sum()) + noise
    assert flagged(estimator, data, "ml", noise_correlation=correlation) <= 0.05
