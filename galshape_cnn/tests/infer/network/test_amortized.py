# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""`AmortizedPosterior`: the network as a function, whatever Keras is set to."""

import numpy as np
import pytest

from galshape_cnn.forward.kernel.library import KERNEL_VARIABLE, chosen
from galshape_cnn.infer.likelihood.rendering import RenderedBatch
from galshape_cnn.infer.network.amortized import AmortizedPosterior, sky_free_posterior
from galshape_cnn.infer.network.architecture import build_network, import_keras
from galshape_cnn.infer.network.bundle import Bundle
from galshape_cnn.infer.network.features import CONTEXT_SIZE
from galshape_cnn.infer.network.live_model import NETWORK_BATCH
from galshape_cnn.observe.stamps import Stamps


def test_networks_weights_are_found_without_building_it():
    bundle = Bundle.shipped()
    live = AmortizedPosterior(bundle)
    model = build_network(bundle.network, initialize=False)
    count = len(model.weights)
    standardise = [list(map(id, model.weights)).index(id(w)) for w in model.get_layer("standardise").weights]
    assert standardise == [0, 1]
    np.testing.assert_array_equal(live._mean, bundle.weights[0])
    assert [len(part._weights) for part in (live._forward, live._update)] == [
        count,
        len(bundle.weights) - count,
    ]


@pytest.mark.parametrize("setting", ["floatx", "dtype_policy"])
def test_networks_precision_is_not_the_users(setting, monkeypatch):
    monkeypatch.setenv(KERNEL_VARIABLE, "off")  # which knows no other precision
    config = import_keras().config
    rng = np.random.default_rng(1)
    n = NETWORK_BATCH  # a product of another shape rounds differently
    inputs = [rng.normal(size=(n, 16, 16, 48)).astype("f4"), rng.normal(size=(n, CONTEXT_SIZE)).astype("f4")]
    usual = AmortizedPosterior(Bundle.shipped())._forward(inputs)
    before, change = getattr(config, setting)(), getattr(config, f"set_{setting}")
    change("float16")
    try:
        live = AmortizedPosterior(Bundle.shipped())
        np.testing.assert_array_equal(live._forward.function.jitted(inputs), usual)
        assert getattr(config, setting)() != before
    finally:
        change(before)


def _galaxies(size, sky, radius):
    """A batch of round galaxies in noise of one, on skies, with radii in pixels."""
    rng = np.random.default_rng(3)
    x = np.arange(size) - (size - 1) / 2
    square = x[:, None] ** 2 + x**2
    light = np.exp(-np.sqrt(square) / np.asarray(radius, float)[:, None, None])
    data = 20 * light + np.asarray(sky, float)[:, None, None] + rng.normal(size=(len(sky), size, size))
    psf = np.exp(-0.5 * (np.arange(-10, 11)[:, None] ** 2 + np.arange(-10, 11) ** 2) / 1.5**2)
    stamps = Stamps(data.astype(np.float32), np.ones(data.shape, np.float32), (psf / psf.sum())[None])
    return RenderedBatch.from_stamps(stamps, None)


def _recorded(live, monkeypatch, name):
    """Numbers of stamps that a method of a live network is given."""
    numbers, method = [], getattr(live, name)

    def recorded(stamps, *rest):
        numbers.append(len(stamps))
        return method(stamps, *rest)

    monkeypatch.setattr(live, name, recorded)
    return numbers


@pytest.mark.parametrize("kernel", ["", "off"])
def test_only_galaxies_on_a_sky_are_looked_at_again(kernel, monkeypatch):
    """With the kernel; JAX is given batches of one size, filled up."""
    monkeypatch.setenv(KERNEL_VARIABLE, kernel)
    live = AmortizedPosterior(Bundle.shipped())
    batch = _galaxies(64, sky=[0, 2, 0, 0, -3, 0], radius=[3] * 6)
    looks = _recorded(live, monkeypatch, "look")
    posterior, strangeness, level = sky_free_posterior(batch, live, True)
    assert looks[:2] == [6, 2 if chosen() else 6]
    assert list(np.flatnonzero(level)) == [1, 4]
    np.testing.assert_allclose(level[[1, 4]], [2, -3], atol=0.3)
    for row in range(6):
        alone = sky_free_posterior(batch[np.full(6, row)], live, True)
        np.testing.assert_array_equal(alone[0].means[0], posterior.means[row])
        np.testing.assert_array_equal(alone[1][0], strangeness[row])
        np.testing.assert_array_equal(alone[2][0], level[row])


@pytest.mark.parametrize("kernel", ["", "off"])
def test_only_large_galaxies_are_looked_at_in_larger_pixels(kernel, monkeypatch):
    monkeypatch.setenv(KERNEL_VARIABLE, kernel)
    live = AmortizedPosterior(Bundle.shipped())
    batch = _galaxies(128, sky=[0] * 4, radius=[2, 14, 2, 3])
    looks = _recorded(live, monkeypatch, "_at_scale")
    poisson = np.zeros(4)
    together = live.look(batch.stamps, True, poisson)
    assert looks == [4, 1 if chosen() else 4]
    for row in range(4):
        alone = live.look(batch.stamps[np.full(4, row)], True, poisson)
        np.testing.assert_array_equal(alone.posterior.means[0], together.posterior.means[row])
        np.testing.assert_array_equal(alone.outputs[0], together.outputs[row])
