# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""`AmortizedPosterior`: the network as a function, whatever Keras is set to."""

import numpy as np
import pytest

from galshape_cnn.forward.kernel.library import KERNEL_VARIABLE
from galshape_cnn.infer.network.amortized import AmortizedPosterior
from galshape_cnn.infer.network.architecture import build_network, import_keras
from galshape_cnn.infer.network.bundle import Bundle
from galshape_cnn.infer.network.features import CONTEXT_SIZE
from galshape_cnn.infer.network.live_model import NETWORK_BATCH


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
