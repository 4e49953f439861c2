# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""The networks by the compiled kernel against Keras, each galaxy by itself."""

from concurrent.futures import ThreadPoolExecutor
from threading import Barrier

import jax
import numpy as np
import pytest

from galshape_cnn.forward.kernel.library import KERNEL_VARIABLE, instructions
from galshape_cnn.infer.network.architecture import DEFAULT_NETWORK, build_network, build_update
from galshape_cnn.infer.network.features import CONTEXT_SIZE
from galshape_cnn.infer.network.live_model import DIRECTIONS, LiveModel, chain_of, network_of

pytestmark = pytest.mark.skipif(not instructions(), reason="the package was installed without a compiler")

#: What bundles of one's own may have: other depths, odd widths of what is no map, one layer.
CONFIGURATIONS = {
    "shipped": DEFAULT_NETWORK,
    "flat": DEFAULT_NETWORK | {"middle_blocks": 0, "deep_blocks": 0, "context": [50], "dense": [70]},
    "deep": DEFAULT_NETWORK
    | {"middle_blocks": 2, "middle_width": 48, "deep_width": 80, "dense": [33, 48, 9], "components": 1},
}


def random_weights(model, seed):
    """Weights of any size that keeps the maps' numbers near one."""
    rng = np.random.default_rng(seed)
    out = []
    for variable in model.weights:
        shape = tuple(variable.shape)
        scale = 1 / np.sqrt(np.prod(shape[:-1])) if len(shape) > 1 else 0.3
        out.append((scale * rng.normal(size=shape) + (len(shape) == 1) * 0.8).astype(np.float32))
    out[1] = np.abs(out[1]) + 0.1
    return out


def inputs_of(n, seed=3):
    rng = np.random.default_rng(seed)
    return [rng.normal(size=(n, *shape)).astype(np.float32) for shape in ((16, 16, 48), (CONTEXT_SIZE,))]


@pytest.mark.parametrize("chosen", instructions())
@pytest.mark.parametrize("name", CONFIGURATIONS)
def test_outputs_are_those_of_keras(name, chosen, monkeypatch):
    config = CONFIGURATIONS[name]
    model = build_network(config)
    weights = random_weights(model, 1)
    model.set_weights(weights)
    inputs = inputs_of(21)  # a whole group of sixteen, and one that is not full
    monkeypatch.setenv(KERNEL_VARIABLE, chosen)
    expected = np.asarray(model.predict_on_batch(inputs))
    found = network_of(config, weights)(*inputs)
    assert found.shape == expected.shape
    assert expected.std() > 0.1
    np.testing.assert_allclose(found, expected, rtol=0, atol=3e-5 * np.abs(expected).max())


@pytest.mark.parametrize("chosen", instructions())
def test_chains_are_those_of_keras(chosen, monkeypatch):
    config, rng = {"dense": [40, 19], "components": 2}, np.random.default_rng(5)
    model = build_update(config, 37, np.zeros(37), np.ones(37))
    weights = random_weights(model, 2)
    model.set_weights(weights)
    features = rng.normal(size=(19, 37)).astype(np.float32)
    monkeypatch.setenv(KERNEL_VARIABLE, chosen)
    expected = np.asarray(model.predict_on_batch(features))
    np.testing.assert_allclose(
        chain_of(weights)(features), expected, rtol=0, atol=2e-5 * np.abs(expected).max()
    )


def moved_inputs_of(n, seed=6):
    """Values in the first slot, then how they move."""
    rng = np.random.default_rng(seed)
    return [
        rng.normal(size=(n, 1 + DIRECTIONS, *shape)).astype(np.float32)
        for shape in ((16, 16, 48), (CONTEXT_SIZE,))
    ]


def test_derivatives_are_those_of_keras(monkeypatch):
    config = CONFIGURATIONS["deep"]
    model = build_network(config)
    weights = random_weights(model, 1)
    model.set_weights(weights)
    inputs = moved_inputs_of(6)
    states = [[v.value for v in kind] for kind in (model.trainable_variables, model.non_trainable_variables)]

    @jax.jit
    def derivative(*along):
        return jax.jvp(lambda *one: model.stateless_call(*states, list(one))[0], *along)[1]

    expected = [
        derivative(*(tuple(one[:, slot] for one in inputs) for slot in (0, direction)))
        for direction in range(1, 1 + DIRECTIONS)
    ]
    assert min(one.std() for one in expected) > 0.1
    for chosen in instructions():
        monkeypatch.setenv(KERNEL_VARIABLE, chosen)
        network = network_of(config, weights)
        found = network.moved(*inputs)
        np.testing.assert_array_equal(found[:, 0], network(*(one[:, 0] for one in inputs)))
        for direction, one in enumerate(expected, 1):
            np.testing.assert_allclose(found[:, direction], one, rtol=0, atol=3e-5 * np.abs(one).max())


def test_derivatives_of_a_galaxy_do_not_know_its_company():
    weights = random_weights(build_network(DEFAULT_NETWORK), 1)
    network, inputs = network_of(DEFAULT_NETWORK, weights), moved_inputs_of(11)
    inputs[0][7], inputs[1][2] = np.inf, np.nan
    together = network.moved(*inputs)
    assert np.isnan(together[[2, 7]]).all()
    assert np.isfinite(np.delete(together, [2, 7], 0)).all()
    for rows in ([0], [3, 9], [10, 2, 5, 1, 9], np.arange(11)[::-1]):
        np.testing.assert_array_equal(network.moved(*(one[rows] for one in inputs)), together[rows])


def test_a_galaxy_does_not_know_its_company():
    weights = random_weights(build_network(DEFAULT_NETWORK), 1)
    network, inputs = network_of(DEFAULT_NETWORK, weights), inputs_of(35)
    together = network(*inputs)
    for rows in ([0], [3, 17], [34, 2, 20, 1, 9], np.arange(35)[::-1]):
        np.testing.assert_array_equal(network(*(one[rows] for one in inputs)), together[rows])


def test_a_row_that_is_not_finite_is_alone():
    weights = random_weights(build_network(DEFAULT_NETWORK), 1)
    network, (pixels, context) = network_of(DEFAULT_NETWORK, weights), inputs_of(18)
    expected = network(pixels, context)
    context[3] = np.nan
    pixels[17] = np.inf
    found = network(pixels, context)
    assert np.isnan(found[[3, 17]]).all()
    good = np.setdiff1d(np.arange(18), [3, 17])
    np.testing.assert_array_equal(found[good], expected[good])


def test_maps_whose_widths_are_no_multiple_of_a_vector_are_left_to_keras():
    config = DEFAULT_NETWORK | {"deep_width": 100}
    weights = [np.zeros(variable.shape, np.float32) for variable in build_network(config).weights]
    assert network_of(config, weights) is None


def test_live_models_ask_the_kernel_where_it_serves(monkeypatch):
    weights = random_weights(build_network(DEFAULT_NETWORK), 1)

    def build():
        raise AssertionError("built though the kernel has it")

    live = LiveModel("one", build, weights, network_of(DEFAULT_NETWORK, weights))
    assert live(inputs_of(3)).shape == (3, 108)
    monkeypatch.setenv(KERNEL_VARIABLE, "off")
    with pytest.raises(AssertionError, match="built though"):
        live(inputs_of(3))


def test_inputs_of_other_shapes_are_refused():
    weights = random_weights(build_network(DEFAULT_NETWORK), 1)
    network, (pixels, context) = network_of(DEFAULT_NETWORK, weights), inputs_of(3)
    for wrong in ([pixels], [pixels, context, context], [pixels, context[:2]], [pixels, context[:, 1:]]):
        with pytest.raises(ValueError, match="inputs of shapes"):
            network(*wrong)
    moved = moved_inputs_of(3)
    for wrong in ([pixels, context], [one[:, :3] for one in moved], [moved[0], context]):
        with pytest.raises(ValueError, match="inputs of shapes"):
            network.moved(*wrong)


def test_threads_that_begin_together_share_it():
    """Each packs the weights; none may lose those that it computes with."""
    weights, inputs = random_weights(build_network(DEFAULT_NETWORK), 1), inputs_of(8)
    expected = network_of(DEFAULT_NETWORK, weights)(*inputs)
    for _ in range(5):
        network, ready = network_of(DEFAULT_NETWORK, weights), Barrier(4)

        def run(network=network, ready=ready):
            ready.wait()
            return [network(*inputs) for _ in range(3)]

        with ThreadPoolExecutor(4) as pool:
            for future in [pool.submit(run) for _ in range(4)]:
                for found in future.result():
                    np.testing.assert_array_equal(found, expected)
