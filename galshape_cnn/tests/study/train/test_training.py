# Licensed under a 3-clause BSD style license - see LICENSE.rst
import numpy as np
import pytest

from galshape_cnn import ShapeEstimator
from galshape_cnn.errors import FileError, InputError
from galshape_cnn.forward.grid import FourierGrid
from galshape_cnn.forward.transfer import transfer_functions
from galshape_cnn.infer.likelihood.fisher import score_and_fisher
from galshape_cnn.infer.network.architecture import build_network, import_keras
from galshape_cnn.infer.network.features import PSF_KY
from galshape_cnn.study.simulate.config import load_config
from galshape_cnn.study.simulate.mock_sets import write_mocks
from galshape_cnn.study.simulate.recorded import RecordedMocks
from galshape_cnn.study.train.bundling import make_bundle
from galshape_cnn.study.train.training import Training, train_bundle
from galshape_cnn.tests.infer.network.test_architecture import TINY


@pytest.fixture(scope="module")
def config():
    config = load_config()
    del config["update"]
    config["network"] = TINY
    config["training"] |= {"steps": 4, "batch_size": 64, "validation_every": 2, "validation_size": 512}
    return config


def weights(training):
    return [import_keras().ops.convert_to_numpy(w.value) for w in training.model.weights]


@pytest.fixture(scope="module")
def trained(config, tmp_path_factory):
    training = Training(config, tmp_path_factory.mktemp("straight") / "c.npz")
    training.run(lambda line: None)
    return training


def test_resumed_training_ends_with_the_same_bits(config, trained, tmp_path):
    def interrupt(line):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        Training(config, tmp_path / "c.npz").run(interrupt)
    resumed = Training(config, tmp_path / "c.npz")
    resumed.resume()
    assert resumed.step == 2
    resumed.run(lambda line: None)
    for a, b in zip(weights(trained), weights(resumed), strict=True):
        np.testing.assert_array_equal(a, b)
    assert [row[2] for row in resumed.history] == [row[2] for row in trained.history]


def test_training_changes_the_network_and_keeps_a_history(config, trained):
    assert [row[0] for row in trained.history] == [2, 4]
    assert np.isfinite(trained.history).all()


def write_toml(path, config):
    def section(name, node):
        lines = [f"[{name}]"] if name else []
        tables = []
        for key, value in node.items():
            if isinstance(value, dict):
                tables += section(f"{name}.{key}" if name else key, value)
            elif isinstance(value, list) and value and isinstance(value[0], dict):
                for item in value:
                    tables += [f"[[{name}.{key}]]"] + [f"{k} = {v!r}" for k, v in item.items()]
            else:
                lines.append(f"{key} = {value!r}")
        return lines + tables

    path.write_text("\n".join(section("", config)))


def test_train_bundle_leaves_bundle_curve_and_checkpoint(config, tmp_path):
    write_toml(tmp_path / "tiny.toml", config | {"training": config["training"] | {"steps": 2}})
    bundle = train_bundle(tmp_path / "tiny.toml", tmp_path / "b.asdf", report=lambda line: None)
    names = {p.name for p in tmp_path.iterdir()}
    assert names == {"tiny.toml", "b.asdf", "b.asdf.png", "b.asdf.checkpoint.npz"}
    estimator = ShapeEstimator.load(tmp_path / "b.asdf")
    assert estimator.bundle.sha256 == bundle.sha256
    assert bundle.provenance["galaxies"] == 128
    assert bundle.domain["snr"] == [5.0, 1000.0]


def test_second_network_is_trained_on_the_likelihood_at_the_first_ones_answer(config, tmp_path):
    tiny = config | {
        "network": TINY | {"update": {"dense": [8], "components": 2}},
        "training": config["training"] | {"steps": 2},
        "update": {
            "galaxies": 500, "epochs": 3, "batch_size": 128, "learning_rate": 3e-3, "weight_decay": 1e-4,
        },
    }  # fmt: skip
    write_toml(tmp_path / "tiny.toml", tiny)
    lines = []
    bundle = train_bundle(tmp_path / "tiny.toml", tmp_path / "b.asdf", report=lines.append)
    assert sorted(p.suffix for p in tmp_path.iterdir()) == [".asdf", ".npz", ".png", ".toml"]
    epochs = np.array(bundle.provenance["update_history"])
    assert epochs.shape == (3, 3)
    assert epochs[-1, 1] < epochs[0, 1]
    assert sum("second network" in line for line in lines) == 3
    assert len(bundle.weights) > len(first_network_weights(bundle))
    assert ShapeEstimator.load(tmp_path / "b.asdf").live_network().has_update


def first_network_weights(bundle):
    return build_network(bundle.network, initialize=False).weights


def test_training_stops_when_validation_no_longer_falls(config, tmp_path):
    stubborn = config | {
        "training": config["training"]
        | {"steps": 50, "learning_rate": 0.0, "validation_every": 1, "patience": 2}
    }
    training = Training(stubborn, tmp_path / "c.npz")
    training.run(lambda line: None)
    assert (training.step, training.best_step) == (3, 1)


@pytest.fixture(scope="module")
def recorded(tmp_path_factory):
    path = tmp_path_factory.mktemp("mocks") / "m.asdf"
    write_mocks("universal", 220, path, engine="fast", seed=4)
    return path


def test_training_on_a_simulated_set(config, recorded, tmp_path):
    training = Training(config, tmp_path / "c.npz", mocks=recorded)
    training.run(lambda line: None)
    assert training.step == 4
    assert make_bundle(training).provenance["mocks"] == str(recorded)


def test_turned_mocks_are_the_galaxies_of_their_turned_truth(recorded):
    stream = RecordedMocks(recorded, 3)
    assert len(stream) == 209
    seen = []
    for number in range(6):
        mock = stream.simulate(number, 60)
        grid = FourierGrid(64, 2)
        params = np.column_stack([mock["params"], np.zeros(60)]).astype(np.float32)
        rows = params, mock["data"], mock["ivar"], transfer_functions(mock["psf"], grid, 2), grid
        chi2, score, fisher = (np.asarray(a, float) for a in score_and_fisher(*rows))
        # whitened scores of shape and place at the truth are standard normal: 360 numbers each
        z = score[:, 3:7] / np.sqrt(np.einsum("nii->ni", fisher)[:, 3:7])
        seen.append(z)
    assert np.abs(np.std(np.concatenate(seen), axis=0) - 1).max() < 4 / np.sqrt(2 * 360)


def test_psfs_of_a_simulated_set_are_seen_as_at_work(recorded):
    """Of unit sum, and in windows of several sizes: the network's context has no other PSF."""
    stream, sides = RecordedMocks(recorded, 3), set()
    middle = len(PSF_KY) // 2
    for number in range(8):
        mock = stream.simulate(number, 40)
        sides.add(mock["psf"].shape[-1])
        np.testing.assert_allclose(mock["transfer"][:, middle, 0], 1, atol=1e-5)
        true = stream._truth[np.random.default_rng([3, number]).integers(209, size=40)]
        ratio = mock["params"][:, 0] * true["sigma"] / true["flux"]
        assert (ratio < 1.01).all()
        assert (ratio > 0.6).all()
        assert number or ratio.std() > 0
    assert len(sides) > 2
    assert max(sides) == 127


def test_too_few_recorded_mocks(tmp_path):
    write_mocks("universal", 20, tmp_path / "m.asdf", engine="fast", seed=4)
    with pytest.raises(InputError, match="holds 20 mocks; at least 200"):
        RecordedMocks(tmp_path / "m.asdf", 1)


def test_unwritable_output_is_refused_before_training(tmp_path):
    with pytest.raises(FileError, match="no folder"):
        train_bundle(None, tmp_path / "no" / "b.asdf")


def test_configuration_errors(tmp_path):
    with pytest.raises(FileError, match="cannot read the configuration"):
        load_config(tmp_path / "none.toml")
    (tmp_path / "a.toml").write_text("a = [")
    with pytest.raises(FileError, match="not valid TOML"):
        load_config(tmp_path / "a.toml")
    (tmp_path / "b.toml").write_text("[prior]\n[extra]\n")
    with pytest.raises(InputError, match="missing .*'noise'.*unknown .*'extra'"):
        load_config(tmp_path / "b.toml")


def test_checkpoint_of_another_architecture(config, trained, tmp_path):
    other = config | {"network": TINY | {"dense": [8, 8]}}
    with pytest.raises(InputError, match="another architecture"):
        Training(other, trained.checkpoint).resume()
