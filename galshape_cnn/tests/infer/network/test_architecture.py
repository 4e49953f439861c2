# Licensed under a 3-clause BSD style license - see LICENSE.rst
import json

import numpy as np
import pytest

from galshape_cnn.infer.network import architecture as network
from galshape_cnn.infer.network.features import CONTEXT_SIZE

TINY = {
    "architecture": "patch-film", "context": [8], "patch_width": 8, "middle_width": 8, "middle_blocks": 1,
    "deep_width": 8, "deep_blocks": 1, "dense": [8], "components": 2,
}  # fmt: skip


@pytest.fixture(scope="module")
def outputs():
    return np.random.default_rng(1).normal(size=(5, 72)).astype(np.float32)


def test_loss_is_the_density_of_the_posterior(outputs):
    targets = np.random.default_rng(2).normal(size=(5, 7)).astype(np.float32)
    loss = np.asarray(network.negative_log_likelihood(2)(targets, outputs))
    posterior = network.posterior_from_outputs(outputs, np.ones(5), 2)
    u = network.TARGET_CENTER + network.TARGET_SCALE * targets
    expected = -posterior.log_density(u[:, None])[:, 0] - np.log(network.TARGET_SCALE).sum()
    np.testing.assert_allclose(loss, expected, rtol=1e-4)


def test_posterior_scales_with_the_amplitude(outputs):
    one = network.posterior_from_outputs(outputs, np.ones(5), 2)
    ten = network.posterior_from_outputs(outputs, np.full(5, 10.0), 2)
    np.testing.assert_allclose(ten.means[..., 0] - one.means[..., 0], np.log(10))
    np.testing.assert_array_equal(one.chols, ten.chols)
    assert (np.einsum("nkii->nki", one.chols) > 0).all()
    np.testing.assert_allclose(one.weights.sum(1), 1)


def test_network_rebuilt_from_its_configuration_gives_the_same_answer():
    first = network.build_network(TINY, np.full(CONTEXT_SIZE, 0.5), np.full(CONTEXT_SIZE, 2.0))
    second = network.build_network(TINY, initialize=False)
    second.set_weights([network.import_keras().ops.convert_to_numpy(w.value) for w in first.weights])
    rng = np.random.default_rng(3)
    inputs = [rng.normal(size=(2, 16, 16, 48)).astype("f4"), rng.normal(size=(2, CONTEXT_SIZE)).astype("f4")]
    np.testing.assert_array_equal(first.predict_on_batch(inputs), second.predict_on_batch(inputs))


def test_backend_is_the_users_choice(monkeypatch, tmp_path):
    monkeypatch.setenv("KERAS_HOME", str(tmp_path))
    monkeypatch.delenv("KERAS_BACKEND", raising=False)
    assert network._chosen_backend() is None
    (tmp_path / "keras.json").write_text(json.dumps({"backend": "no_such_backend"}))
    assert network._chosen_backend() is None
    (tmp_path / "keras.json").write_text(json.dumps({"backend": "numpy"}))
    assert network._chosen_backend() == "numpy"
    monkeypatch.setenv("KERAS_BACKEND", "torch")
    assert network._chosen_backend() == "torch"
