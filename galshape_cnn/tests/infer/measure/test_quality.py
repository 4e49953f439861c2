# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""Flags through the front door: galaxies to which one thing was done."""

from dataclasses import replace

import numpy as np
import pytest

from galshape_cnn import PSFConvolvedSersic2D, ShapeEstimator
from galshape_cnn.flags import Flag, decode_flags, quality_of
from galshape_cnn.infer.measure.quality import settled_bounds

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


def test_parameters_at_a_limit_that_the_data_do_not_know():
    """The same limits, with errors that leave everything open and with errors that do not."""
    params = np.tile([100.0, 0.3, 0.5, 0.9, 0.0, 31.5, 31.5, 0.0], (5, 1))
    params[3, 3], params[4, 1:4] = 0.1, [6.2, 64, 0.1]
    sigma = np.tile([5.0, 1.0, 0.5, 0.6, 0.6], (5, 1))
    sigma[1, 3], sigma[2:4, 1] = 0.1, 0.2
    covariance = sigma[:, :, None] ** 2 * np.eye(5)
    flags = np.where(np.arange(5) == 3, 0, Flag.PARAMETER_AT_BOUND) | Flag.N_AT_BOUND
    settled = settled_bounds(flags, params, covariance, 64)
    assert list(settled & Flag.PARAMETER_AT_BOUND > 0) == [False, True, True, True, True]
    assert list(settled & Flag.UNCONSTRAINED > 0) == [True, False, True, False, False]
    assert list(quality_of(settled)) == [0, 1, 1, 1, 1]
    assert (settled & Flag.N_AT_BOUND > 0).all()


def test_stars_at_the_limits_of_size_and_shear_can_be_selected(estimator, noise):
    """A point source has no shape: the limit at which the search for it ends is no fault of its flux."""
    catalog = estimator(stars() / 4 + noise, psf=PSF, error=1.0, method="ml")
    free = catalog.flags & Flag.UNCONSTRAINED > 0
    assert free.mean() > 0.3
    assert not (catalog.flags & Flag.PARAMETER_AT_BOUND > 0)[free].any()
    singular = catalog.flags & Flag.SINGULAR > 0
    assert np.mean(catalog.quality[free & ~singular] == 0) > 0.9
    pull = (np.asarray(catalog.flux) - 150) / np.asarray(catalog.flux_err)
    assert np.median(np.abs(pull[free & (catalog.quality == 0)])) < 1.5


@pytest.mark.parametrize("method", ["network", "ml"])
def test_a_centre_that_is_not_where_it_was_said_to_be(estimator, clean, noise, method):
    image = np.hstack((10 * clean + noise)[:8])
    right = np.column_stack([np.arange(8) * SIDE + 31.5, np.full(8, 31.5)])
    flags = {}
    for move in (0.0, 0.7, 1.2, 2.9):
        positions = right + [0, move]
        flags[move] = estimator(image, psf=PSF, error=1.0, positions=positions, method=method).flags
    for move in (0.0, 0.7, 1.2):  # as positions from catalogues are
        assert not (flags[move] & Flag.FAR_CENTROID).any()
    assert (flags[2.9] & Flag.FAR_CENTROID > 0).all()
    # the middle of a cutout is nobody's word
    shifted = estimator(np.roll(clean + noise, 2, 1), psf=PSF, error=1.0, method=method).flags
    assert not (shifted & Flag.FAR_CENTROID).any()


@pytest.mark.parametrize("as_cutout", [True, False])
def test_a_place_inside_a_large_galaxy_is_not_far_from_its_centre(estimator, noise, as_cutout):
    """Half of the semi-major radius is allowed, and no more."""
    yy, xx = np.mgrid[:128, :128]
    far = []
    for move in (4.5, 8.5):
        image = PSFConvolvedSersic2D(4e5, 1.0, 12.0, 0.0, 0.0, 63.5, 63.5 + move, psf=PSF)(xx, yy)
        image += np.tile(noise[0], (2, 2))
        how = {"psf": PSF, "error": 1.0, "method": "ml", "noise_scale": None, "noise_correlation": None}
        if as_cutout:
            catalog = estimator(image[None], **how)
        else:
            catalog = estimator(np.pad(image, 64), positions=[[127.5, 127.5]], **how)
        assert abs(float(catalog.hlr[0].value) - 12) < 0.5
        far.append(bool(catalog.flags[0] & Flag.FAR_CENTROID))
    assert far == [False, True]


@pytest.mark.parametrize("method", ["network", "ml"])
def test_a_noise_map_too_small_by_a_factor_widens_errors_by_it(estimator, clean, noise, method):
    factor = 1.6
    right = estimator(clean + noise, psf=PSF, error=1.0, method=method)
    wrong = estimator(clean + noise, psf=PSF, error=1 / factor, method=method)
    for name in ("flux", "hlr", "g1"):
        errors = [np.asarray(getattr(one, f"{name}_err")) for one in (wrong, right)]
        bound = np.asarray(getattr(wrong, f"{name}_crb"))
        assert np.median(errors[0] / errors[1]) == pytest.approx(1, abs=0.1)
        assert np.median(errors[0] / bound) == pytest.approx(factor, abs=0.1)
    assert not (wrong.flags & Flag.SPIKE > 0).any()
    assert (wrong.flags & Flag.POOR_FIT > 0).all()


def test_a_posterior_squeezed_against_its_limit(estimator, clean, noise):
    """A point with a halo, for which no allowed n is steep enough: the network's n piles up at 6.2."""
    yy, xx = np.mgrid[:SIDE, :SIDE]
    halo = 2 * np.exp(-np.hypot(xx - 31.5, yy - 31.5) / 8)
    assert flagged(estimator, 3 * stars() + halo + noise, "PRIOR_LIMIT") > 0.9
    assert flagged(estimator, clean + noise, "PRIOR_LIMIT") == 0


@pytest.mark.parametrize(("method", "flagged_share"), [("network", 1), ("ml", 0)])
def test_a_galaxy_that_reaches_far_into_its_stamp(estimator, noise, method, flagged_share):
    """Radius of 0.6 of half the stamp: the networks have seen no such galaxies, a fit copes."""
    yy, xx = np.mgrid[:SIDE, :SIDE]
    large = PSFConvolvedSersic2D(60000, 1.0, 19.0, 0.05, 0.0, 31.5, 31.5, psf=PSF)(xx, yy)
    share = flagged(estimator, large + noise[:16], "STAMP_SMALL", method=method)
    assert abs(share - flagged_share) < 0.1
