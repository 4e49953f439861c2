# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""What was the same in all of a training is kept, taken as the default, refused or flagged."""

from dataclasses import replace

import numpy as np
import pytest

from galshape_cnn import ShapeEstimator
from galshape_cnn.errors import InputError
from galshape_cnn.flags import Flag
from galshape_cnn.infer.network.bundle import Bundle
from galshape_cnn.infer.network.conditions import HeldContext, conditions_of, noise_spread, settled_sky
from galshape_cnn.infer.network.layout import CONTEXT_SIZE
from galshape_cnn.tests.infer.network.test_bundle import small_bundle

SKY, GAIN, VALID = range(CONTEXT_SIZE - 3, CONTEXT_SIZE)


def trained(domain=None, **constant):
    """A bundle whose context was the same in all of its training in some entries; it has learnt nothing."""
    bundle = small_bundle(domain=domain or {})
    scale = np.zeros(CONTEXT_SIZE, np.float32), np.ones(CONTEXT_SIZE, np.float32)
    return replace(bundle, weights=(*_held(*scale, constant), *bundle.weights[2:]))


def shipped(domain=None, **constant):
    """The shipped network, as if some entries had been the same in all of its training."""
    bundle = Bundle.shipped()
    weights = (*_held(*(one.copy() for one in bundle.weights[:2]), constant), *bundle.weights[2:])
    return replace(bundle, weights=weights, domain=bundle.domain | (domain or {}))


def _held(mean, variance, constant):
    for name, value in constant.items():
        place = {"sky": SKY, "gain": GAIN, "valid": VALID}[name]
        mean[place], variance[place] = value, 1e-6
    return mean, variance


def test_the_sky_of_the_training_is_the_default():
    assert settled_sky(trained(), None, "network") is True
    assert settled_sky(trained(), False, "network") is False
    assert settled_sky(trained(sky=0), None, "network") is False
    assert settled_sky(trained(sky=1), None, "posterior") is True


@pytest.mark.parametrize(("sky", "asked"), [(0, True), (1, False)])
def test_a_sky_that_the_network_has_never_seen_is_refused_by_name(sky, asked):
    bundle = trained(sky=sky)
    with pytest.raises(InputError, match=f"fit_sky={asked}.*sky_fraction.*allowed: fit_sky={not asked}"):
        settled_sky(bundle, asked, "network")
    for method in ("ml", "posterior"):  # the likelihood knows any
        assert settled_sky(bundle, asked, method) is asked


def test_a_gain_that_the_network_was_never_told_is_refused_by_name():
    for fit_sky in (None, True):
        with pytest.raises(InputError, match="gain is given.*poisson_fraction"):
            settled_sky(trained(gain=0), fit_sky, "network", gain=2.0)
    assert settled_sky(trained(gain=0), None, "ml", gain=2.0) is True
    assert settled_sky(trained(), None, "network", gain=2.0) is True


def test_constants_are_held_and_what_differs_is_noticed():
    bundle = trained(sky=0, gain=0, valid=1)
    held = HeldContext(*bundle.weights[:2])
    context = np.full((4, CONTEXT_SIZE), 0.5, np.float32)
    context[:, [GAIN, VALID]] = [0, 1]
    context[1, GAIN], context[2, VALID] = 0.3, 0.9
    seen, unknown = held(context)
    np.testing.assert_array_equal(unknown, [False, True, True, False])
    np.testing.assert_array_equal(seen[:, [SKY, GAIN, VALID]], [[0, 0, 1]] * 4)
    np.testing.assert_array_equal(seen[:, :SKY], context[:, :SKY])
    assert context[1, GAIN] == np.float32(0.3)  # the caller's stays


def test_the_shipped_network_is_shown_what_it_always_was():
    bundle = Bundle.shipped()
    assert conditions_of(bundle) == (None, True, True)
    context = np.ones((2, CONTEXT_SIZE), np.float32)
    assert HeldContext(*bundle.weights[:2])(context)[0] is context


def test_spread_of_the_noise():
    ivar = np.ones((3, 8, 8))
    ivar[1, :, :4], ivar[2] = 1 / 4, 0
    np.testing.assert_allclose(noise_spread(ivar), [0, np.log(2) / 2, 0])


def cutouts(count):
    """Images of a galaxy with noise, and a PSF."""
    y, x = np.mgrid[:64, :64] - 31.5
    noise = np.random.default_rng(1).normal(size=(count, 64, 64))
    py, px = np.mgrid[-15:16, -15:16]
    return 50 * np.exp(-np.hypot(x, y) / 2.5) + noise, np.exp(-(px**2 + py**2) / 4)


def test_an_estimator_follows_its_network():
    (image,), psf = cutouts(1)
    estimator = ShapeEstimator(shipped(sky=0, valid=1))
    with pytest.raises(InputError, match="fit_sky=True"):
        estimator(image, psf=psf, error=1.0, fit_sky=True)
    catalog = estimator(image, psf=psf, error=1.0)
    assert np.isfinite(catalog.hlr).all()
    plain = estimator(image, psf=psf, error=1.0, fit_sky=False)
    np.testing.assert_array_equal(catalog.parameters, plain.parameters)
    mask = np.zeros((64, 64), bool)
    mask[5, 5] = True
    assert not catalog.flags[0] & Flag.UNLIKE_TRAINING
    assert estimator(image, psf=psf, error=1.0, mask=mask).flags[0] & Flag.UNLIKE_TRAINING


def test_an_edge_that_centring_leaves_is_no_mask():
    """A stamp of the network's size whose galaxy is a pixel off along both axes."""
    (image,), psf = cutouts(1)
    moved = np.roll(image, (1, -1), (0, 1))
    for offset, unknown in ((2.0, False), (np.inf, True)):  # the latter of an older bundle
        estimator = ShapeEstimator(shipped(domain={"offset": offset}, sky=0, valid=1))
        (stamps,) = estimator(moved, psf=psf, error=1.0).stamps
        assert (stamps.ivar == 0).any()  # it was centred
        network = estimator.live_network()
        context = network._inputs(stamps, 1, False, np.zeros(1))[1]
        assert network.held(context)[1] == unknown
