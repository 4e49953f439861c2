# Licensed under a 3-clause BSD style license - see LICENSE.rst
import pickle
from dataclasses import replace

import asdf
import numpy as np
import pytest

from galshape_cnn.errors import BundleError, FileError, InputError
from galshape_cnn.infer.network.architecture import DEFAULT_NETWORK, build_network, build_update
from galshape_cnn.infer.network.bundle import FORMAT_VERSION, Bundle
from galshape_cnn.infer.network.layout import features_of_update, network_shapes, update_shapes

NETWORK = {
    "architecture": "patch-film", "context": [3], "patch_width": 2, "middle_width": 2, "middle_blocks": 0,
    "deep_width": 2, "deep_blocks": 1, "dense": [3], "components": 1,
}  # fmt: skip
PRIOR = {
    "flux": {"kind": "uniform", "low": 1.0, "high": 9.0},
    "n": {"kind": "uniform", "low": 0.5, "high": 6.0},
    "hlr": {"kind": "uniform", "low": 0.5, "high": 6.0},
    "g": {"kind": "uniform", "low": 0.0, "high": 0.6},
}


def small_bundle(**changes):
    """A bundle of a few kilobytes that can be read."""
    rng = np.random.default_rng(1)
    weights = [rng.uniform(0.1, 1, shape).astype(np.float16) for shape in network_shapes(NETWORK)]
    parts = {"network": NETWORK, "weights": tuple(weights), "domain": {"snr": [5.0, 1000.0]}, "prior": PRIOR}
    return Bundle(**parts | {"provenance": {"steps": 3}} | changes)


@pytest.fixture
def bundle():
    return small_bundle()


def rewrite(path, **changes):
    with asdf.open(path, memmap=False, lazy_load=False) as file:
        tree = dict(file.tree) | changes
    asdf.AsdfFile(tree).write_to(path)


def test_written_and_read_back(bundle, tmp_path):
    bundle.write(tmp_path / "b.asdf")
    again = Bundle.read(tmp_path / "b.asdf")
    assert again.sha256 == bundle.sha256
    assert (again.network, again.domain, again.prior) == (bundle.network, bundle.domain, bundle.prior)
    for a, b in zip(again.weights, bundle.weights, strict=True):
        np.testing.assert_array_equal(a, b)
        assert a.dtype == b.dtype
    assert [p.name for p in tmp_path.iterdir()] == ["b.asdf"]
    pickle.loads(pickle.dumps(again))


def test_hash_depends_on_every_weight(bundle):
    changed = bundle.weights[0].copy()
    changed[2] += 1
    assert replace(bundle, weights=(changed, *bundle.weights[1:])).sha256 != bundle.sha256


def test_missing_file(tmp_path):
    with pytest.raises(InputError, match="path is a NoneType; the name of a file is needed"):
        Bundle.read(None)
    with pytest.raises(FileError, match="does not exist"):
        Bundle.read(tmp_path / "none.asdf")


def test_not_asdf(tmp_path):
    (tmp_path / "b.asdf").write_bytes(b"SIMPLE  =")
    with pytest.raises(BundleError, match="damaged or not ASDF"):
        Bundle.read(tmp_path / "b.asdf")


def test_truncated(bundle, tmp_path):
    path = tmp_path / "b.asdf"
    bundle.write(path)
    path.write_bytes(path.read_bytes()[: path.stat().st_size * 2 // 3])
    with pytest.raises(BundleError, match="cut short"):
        Bundle.read(path)


def test_flipped_weight(bundle, tmp_path):
    path = tmp_path / "b.asdf"
    bundle.write(path)
    rewrite(path, weights=[bundle.weights[0] + np.float16(1), *bundle.weights[1:]])
    with pytest.raises(BundleError, match="does not match its hash"):
        Bundle.read(path)


def test_changed_domain(bundle, tmp_path):
    path = tmp_path / "b.asdf"
    bundle.write(path)
    rewrite(path, domain={"snr": [5.0, 2000.0]})
    with pytest.raises(BundleError, match="does not match its hash"):
        Bundle.read(path)


def test_other_asdf_file(tmp_path):
    asdf.AsdfFile({"a": 1}).write_to(tmp_path / "a.asdf")
    with pytest.raises(BundleError, match="not a bundle"):
        Bundle.read(tmp_path / "a.asdf")


def test_future_format(bundle, tmp_path):
    path = tmp_path / "b.asdf"
    bundle.write(path)
    rewrite(path, format_version=FORMAT_VERSION + 1)
    with pytest.raises(BundleError, match=f"format version {FORMAT_VERSION + 1}.*newer"):
        Bundle.read(path)


@pytest.mark.parametrize(
    "change",
    [
        {},
        {"middle_blocks": 0, "context": [5]},
        {"context": [5, 7], "patch_width": 11, "middle_blocks": 2, "deep_blocks": 0, "components": 1},
        {"dense": [], "deep_blocks": 3},
    ],
)
def test_shapes_told_without_keras_are_those_of_keras(change):
    config = DEFAULT_NETWORK | change
    model = build_network(config, initialize=False)
    assert [tuple(w.shape) for w in model.weights] == network_shapes(config)
    size, update = features_of_update(config["components"]), {"dense": [8, 9], "components": 2}
    assert [tuple(w.shape) for w in build_update(update, size).weights] == update_shapes(update, size)


def test_incomplete(bundle, tmp_path):
    path = tmp_path / "b.asdf"
    asdf.AsdfFile({"format": "galshape_cnn bundle", "format_version": 1}).write_to(path)
    with pytest.raises(BundleError, match="lacks .*network"):
        Bundle.read(path)


def test_unwritable(bundle, tmp_path):
    with pytest.raises(FileError, match="cannot write .*b.asdf"):
        bundle.write(tmp_path / "no" / "b.asdf")


def test_shipped_bundle_reads():
    shipped = Bundle.shipped()
    assert {"snr", "hlr", "psf_width", "n", "g"} <= set(shipped.domain)
    assert sum(w.nbytes for w in shipped.weights) < 5e6
