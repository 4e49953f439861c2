# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""Flags through the front door: galaxies to which one thing was done."""

from dataclasses import replace

import numpy as np
import pytest

from galshape_cnn import PSFConvolvedSersic2D, ShapeEstimator
from galshape_cnn.flags import Flag, decode_flags

N, SIDE = 48, 64
Y, X = np.mgrid[-15:16, -15:16]
PSF = np.exp(-(X**2 + Y**2) / (2 * 1.4**2))
PSF /= PSF.sum()


@pytest.fixture(scope="module")
def estimator():
    return ShapeEstimator()


@pytest.fixture(scope="module")
def clean():
    rng = np.random.default_rng(3)
    yy, xx = np.mgrid[:SIDE, :SIDE]
    images = []
    for _ in range(N):
        n, hlr, (g1, g2) = rng.uniform(0.8, 2.5), rng.uniform(2.2, 3.5), rng.normal(0, 0.1, 2)
        x, y = 31.5 + rng.uniform(-0.3, 0.3, 2)
        images.append(PSFConvolvedSersic2D(1500, n, hlr, g1, g2, x, y, psf=PSF)(xx, yy))
    return np.array(images)


@pytest.fixture(scope="module")
def noise():
    return np.random.default_rng(4).normal(size=(N, SIDE, SIDE))


def flagged(estimator, data, name, **options):
    """Fraction of rows with a flag."""
    catalog = estimator(data, psf=PSF, error=options.pop("error", 1.0), **options)
    return np.mean(catalog.flags & getattr(Flag, name) > 0)


def test_good_galaxies_are_not_flagged(estimator, clean, noise):
    flags = estimator(clean + noise, psf=PSF, error=1.0).flags
    assert np.mean(flags != 0) <= 0.05, [decode_flags(f) for f in flags if f]


def stars():
    yy, xx = np.mgrid[:SIDE, :SIDE]
    one = np.exp(-((xx - 31.6) ** 2 + (yy - 31.3) ** 2) / (2 * 1.4**2))
    return np.repeat(600 * (one / one.sum())[None], N, 0)


def with_spike(data):
    out = data.copy()
    out[:, 36, 29:33] += 15
    return out


def with_neighbour(data):
    yy, xx = np.mgrid[:SIDE, :SIDE]
    one = np.exp(-((xx - 40) ** 2 + (yy - 36) ** 2) / (2 * 1.4**2))
    return data + 180 * one / one.sum()


CASES = {
    "star": (lambda c, n: stars() + n, "UNRESOLVED", {}),
    "saturated": (lambda c, n: np.minimum(c + n, 0.6 * c.max((1, 2), keepdims=True)), "SATURATED", {}),
    "cosmic ray": (lambda c, n: with_spike(c + n), "SPIKE", {}),
    "neighbour": (lambda c, n: with_neighbour(c + n), "NEIGHBOR", {"neighbours": "ignore"}),
    "correlated": (lambda c, n: c + (n + np.roll(n, 1, 1)) / np.sqrt(2), "CORRELATED_NOISE", {}),
    "noise": (lambda c, n: c + n, "POOR_FIT", {"error": 1.2}),
}


@pytest.mark.parametrize("case", CASES)
def test_what_went_wrong_is_named(estimator, clean, noise, case):
    spoil, name, options = CASES[case]
    assert flagged(estimator, spoil(clean, noise), name, **options) >= 0.9


def test_an_estimate_off_the_maximum(estimator, clean, noise):
    """The network of a bundle whose answers are all moved by five standard deviations."""
    bundle = estimator.bundle
    components = bundle.network.get("update", bundle.network)["components"]
    bias = bundle.weights[-1].copy()
    bias[components : 8 * components] += 5
    damaged = ShapeEstimator(replace(bundle, weights=(*bundle.weights[:-1], bias)))
    assert flagged(damaged, clean + noise, "INCONSISTENT") > 0.5
    assert flagged(estimator, clean + noise, "INCONSISTENT") < 0.05


def test_outside_the_region_of_trust(estimator, clean, noise):
    cells = {"snr": [5, 1000], "hlr_over_fwhm": [0, 10], "n": [0.3, 6.2], "trusted": [[[0]]]}
    wary = ShapeEstimator(replace(estimator.bundle, trust={"ml": cells}))
    assert flagged(wary, clean + noise, "UNTRUSTED", method="ml") == 1
    assert flagged(wary, clean + noise, "UNTRUSTED") == 0
