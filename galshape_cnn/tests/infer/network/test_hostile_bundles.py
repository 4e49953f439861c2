# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""Bundles from strangers: whatever a file holds, it is read or refused with a `BundleError`."""

import builtins
import re
import tracemalloc
import zlib
from datetime import timedelta

import numpy as np
import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from galshape_cnn.errors import BundleError
from galshape_cnn.infer.network.bundle import Bundle
from galshape_cnn.tests.infer.network.test_bundle import NETWORK, PRIOR, small_bundle


@pytest.fixture(scope="module")
def content(tmp_path_factory):
    """A good file."""
    path = tmp_path_factory.mktemp("good") / "b.asdf"
    small_bundle().write(path)
    return path.read_bytes()


def with_text(content, change):
    """The file with its text changed by a function."""
    end = content.index(b"\n...\n")
    return change(content[:end].decode()).encode() + content[end:]


def read(folder, content):
    path = folder / "b.asdf"
    path.write_bytes(content)
    return Bundle.read(path)


ODD = {
    "refers to itself": ("provenance: {steps: 3}", "provenance: &a {steps: *a}"),
    "of type timestamp": ("steps: 3", "steps: 2026-11-28"),
    "a key is 1": ("steps: 3", "1: 3, steps: 3"),
    "has the tag": ("{steps: 3}", "!!python/object/apply:os.system {steps: 3}"),
    "architecture='other'": ("patch-film", "other"),
    "whole number": ("deep_width: 2", "deep_width: 10000000"),
    "whole number ": ("deep_blocks: 1", "deep_blocks: 1000000"),
    "lies in 'file:///etc/passwd'": ("source: 0\n", "source: 'file:///etc/passwd'\n"),
    "lies in 'http://127.0.0.1:1/x'": ("source: 0\n", "source: 'http://127.0.0.1:1/x'\n"),
    "lies in 'other.asdf'": ("source: 0\n", "source: other.asdf\n"),
    "no list of arrays": (
        "- !core/ndarray-1.1.0",
        "- {$ref: 'other.asdf#/weights/0'}\n- !core/ndarray-1.1.0",
    ),
    "needs": ("shape: [272]", "shape: [100000000000]"),
    "of type int64": ("datatype: float16", "datatype: int64"),
    "of type []": ("datatype: float16", "datatype: []"),
    "of type float16, []": ("byteorder: little", "byteorder: []"),
    "its prior cannot be used": ("kind: uniform", "kind: unknown"),
    "its domain is malformed": ("snr: [5.0, 1000.0]", "snr: [a, b]"),
    "is damaged": ("steps: 3", "steps: [3"),
}


@pytest.mark.parametrize("message", ODD)
def test_odd_text_is_refused(message, content, tmp_path):
    old, new = ODD[message]

    def change(text):
        assert old in text
        return text.replace(old, new, 1)

    with pytest.raises(BundleError, match=re.escape(message.strip())):
        read(tmp_path, with_text(content, change))


@pytest.mark.parametrize("depth", [50, 20000])
def test_deep_nesting_is_refused(depth, content, tmp_path):
    deep = "steps: " + depth * "[" + depth * "]"
    with pytest.raises(BundleError, match="nested too deep" if depth < 100 else "damaged"):
        read(tmp_path, with_text(content, lambda text: text.replace("steps: 3", deep)))


def test_nothing_but_the_file_is_opened(content, tmp_path, monkeypatch):
    opened, real = [], builtins.open
    monkeypatch.setattr(
        builtins, "open", lambda name, *args, **kw: opened.append(name) or real(name, *args, **kw)
    )
    (tmp_path / "other.asdf").write_bytes(content)
    with pytest.raises(BundleError):
        read(tmp_path, with_text(content, lambda text: text.replace("source: 0\n", "source: other.asdf\n")))
    assert {str(name).rpartition("/")[2] for name in opened if isinstance(name, str)} <= {"b.asdf"}


@pytest.mark.parametrize(
    ("message", "weights"),
    [
        ("not finite", lambda w: (w[0] * np.nan, *w[1:])),
        ("its network needs", lambda w: w[:-1]),
        ("its network needs", lambda w: (w[0][:-1], *w[1:])),
        ("negative", lambda w: (w[0], -w[1], *w[2:])),
        ("of type int16", lambda w: (w[0].astype(np.int16), *w[1:])),
    ],
)
def test_weights_are_compared_with_the_network(message, weights, tmp_path):
    bundle = small_bundle()
    small_bundle(weights=weights(bundle.weights)).write(tmp_path / "b.asdf")
    with pytest.raises(BundleError, match=message):
        Bundle.read(tmp_path / "b.asdf")


def test_a_small_file_does_not_become_large_in_memory(content, tmp_path):
    """A block that says it holds 544 bytes and inflates to half a gigabyte."""
    bomb = zlib.compress(bytes(2**29), 9)
    head = content.index(b"\xd3BLK")
    size = int.from_bytes(content[head + 14 : head + 22], "big")
    block = bytearray(content[head : head + 54])
    for place in (14, 22):
        block[place : place + 8] = len(bomb).to_bytes(8, "big")
    block[38:54] = bytes(16)
    evil = content[:head] + bytes(block) + bomb + content[head + 54 + size :]
    tracemalloc.start()
    try:
        with pytest.raises(BundleError, match="inflates"):
            read(tmp_path, evil)
        assert tracemalloc.get_traced_memory()[1] < 2**24
    finally:
        tracemalloc.stop()


def test_hostile_format_is_noticed_before_any_array_is_read(tmp_path):
    with pytest.raises(BundleError, match="not a bundle"):
        read(tmp_path, b"#ASDF 1.0.0\n%YAML 1.1\n--- {format: other}\n...\n\xd3BLK" + bytes(99))


damages = st.lists(
    st.tuples(
        st.floats(0, 1), st.sampled_from(["set", "cut", "add", "end", "double"]), st.binary(max_size=12)
    ),
    min_size=1,
    max_size=4,
)


def damaged(content, damage):
    for where, how, new in damage:
        place = int(where * len(content))
        if how == "set":
            content = content[:place] + new + content[place + len(new) :]
        elif how == "cut":
            content = content[:place] + content[place + len(new) :]
        elif how == "add":
            content = content[:place] + new + content[place:]
        elif how == "end":
            content = content[:place]
        else:
            content = content[:place] + content[place // 2 :]
    return content


def is_read_or_refused(folder, content):
    try:
        bundle = read(folder, content)
    except BundleError:
        return
    assert bundle.sha256


fuzz = settings(
    max_examples=1000, deadline=timedelta(seconds=10), derandomize=True, database=None,
    suppress_health_check=list(HealthCheck),
)  # fmt: skip


@pytest.mark.slow
@fuzz
@given(damages)
def test_damaged_bytes(content, tmp_path_factory, damage):
    is_read_or_refused(tmp_path_factory.getbasetemp(), damaged(content, damage))


leaves = (
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8) | st.dates()
    | st.sampled_from([10**400, 1e308, "file:///etc/passwd", b"\xff", float("nan"), {"$ref": "http://x/y#z"}])
)  # fmt: skip
trees = st.recursive(
    leaves,
    lambda inner: (
        st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5) | st.integers(), inner, max_size=4)
    ),
    max_leaves=8,
)
paths = st.lists(st.integers(0, 30), min_size=1, max_size=5)


def nodes_of(node):
    """What can be replaced within a node: pairs of a list and an index."""
    if isinstance(node, yaml.MappingNode):
        return [(node.value, k) for k in range(len(node.value))]
    return [(node.value, k) for k in range(len(node.value))] if isinstance(node, yaml.SequenceNode) else []


def replaced(root, path, new, how):
    """The tree with one node replaced, removed, doubled, or made to hold the whole tree."""
    node, places = root, []
    for step in path:
        places = nodes_of(node)
        if not places:
            break
        holder, k = places[step % len(places)]
        last = holder, k
        node = holder[k][1] if isinstance(holder[k], tuple) else holder[k]
    holder, k = last
    if how == "remove":
        del holder[k]
    elif how == "double":
        holder.append(holder[k])
    else:
        value = root if how == "cycle" else new
        holder[k] = (holder[k][0], value) if isinstance(holder[k], tuple) else value
    return root


@pytest.mark.slow
@fuzz
@given(paths, trees, st.sampled_from(["value", "value", "value", "remove", "double", "cycle"]), st.booleans())
def test_damaged_tree(content, tmp_path_factory, path, new, how, is_right):
    """Any node replaced by anything; half of the time with a hash that fits what the file says then."""
    loader = yaml.SafeLoader

    def change(text):
        root = yaml.compose(text, loader)
        value = yaml.compose(yaml.dump(new, allow_unicode=True), loader)
        text = yaml.serialize(replaced(root, path, value, how), explicit_start=True, version=(1, 1))
        return "#ASDF 1.0.0\n#ASDF_STANDARD 1.6.0\n" + (rehashed(text) if is_right else text)

    is_read_or_refused(tmp_path_factory.getbasetemp(), with_text(content, change))


class Loose(yaml.SafeLoader):
    """Does not mind the tags of ASDF."""


Loose.add_multi_constructor("tag:stsci.edu:asdf/", lambda loader, suffix, node: mapped(loader, node))


def mapped(loader, node):
    return dict(loader.construct_pairs(node, deep=True))


def rehashed(text):
    """The text with the hash that a stranger would compute, as far as that can be done."""
    try:
        tree = yaml.load(text, Loose)
        parts = {key: tree.get(key, {}) for key in ("network", "domain", "prior")}
        right = small_bundle(**parts).sha256
    except Exception:  # not even that
        return text
    return re.sub(r"sha256: [0-9a-f]{64}", f"sha256: {right}", text)


def test_a_stranger_can_make_a_bundle_that_is_read(content, tmp_path):
    """The fuzzer's own rehashing works: another domain is accepted with its hash."""
    changed = with_text(content, lambda text: text.replace("1000.0", "900.0"))
    with pytest.raises(BundleError, match="hash"):
        read(tmp_path, changed)
    good = read(tmp_path, with_text(changed, rehashed))
    assert good.domain["snr"] == [5.0, 900.0]
    assert (good.network, good.prior) == (NETWORK, PRIOR)
