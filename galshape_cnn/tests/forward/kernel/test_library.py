# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""Tests of the choice between the compiled kernel and JAX or NumPy."""

import ast
from pathlib import Path

import jax
import numpy as np
import pytest

import galshape_cnn
from galshape_cnn.forward.kernel.library import KERNEL_VARIABLE, batches, instructions, with_kernel

pytestmark = pytest.mark.skipif(not instructions(), reason="the kernel was not built")

NUMBERS = np.arange(20, dtype=np.float32)


@with_kernel(lambda array, scale=1: ("kernel", scale), "array")
def by_jax(array, scale=1):
    return "jax", scale


@with_kernel(lambda array: "kernel", "array", instead_of="numpy")
def by_numpy(array):
    return "numpy"


def test_the_kernel_is_called_where_it_serves(monkeypatch):
    assert by_jax(NUMBERS, 3) == ("kernel", 3)
    assert by_jax(scale=2, array=NUMBERS) == ("kernel", 2)
    assert by_numpy(NUMBERS) == "kernel"
    monkeypatch.setenv(KERNEL_VARIABLE, "off")
    assert by_jax(NUMBERS, 3) == ("jax", 3)
    assert by_numpy(array=NUMBERS) == "numpy"


def test_double_precision_and_traced_arguments_are_left_to_jax():
    with jax.enable_x64(True):
        assert by_jax(NUMBERS.astype(float)) == ("jax", 1)
        assert by_jax(NUMBERS) == ("kernel", 1)
    seen = []
    jax.jit(lambda array: seen.append(by_jax(array)) or array)(NUMBERS)
    assert seen == [("jax", 1)]
    assert by_numpy(NUMBERS.astype(float)) == "numpy"


def test_batches(monkeypatch):
    rows = np.arange(3, 13)
    (only,) = batches(rows, 8)
    assert only[0] is only[1] is rows
    assert not list(batches(rows[:0], 8))
    assert [len(padded) for _, padded in batches(rows, 8, of_kernel=1)] == [1] * 10
    monkeypatch.setenv(KERNEL_VARIABLE, "off")
    for of_kernel in (None, 1):
        (first, whole), (rest, padded) = batches(rows, 8, of_kernel)
        assert list(first) == list(whole) == list(rows[:8])
        assert list(rest) == [11, 12]
        assert list(padded) == [11, 12, *[11] * 6]


def test_no_other_module_decides():
    """Modules outside of the kernel's folder name what the kernel does; when it does it is decided here."""
    package, deciding = Path(galshape_cnn.__file__).parent, []
    for path in package.rglob("*.py"):
        if "tests" in path.parts or path.parent.name == "kernel":
            continue
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.ImportFrom) and "forward.kernel" in (node.module or ""):
                names = {one.name for one in node.names} & {"serves", "instructions"}
                deciding += [f"{path.name}: {name}" for name in names]
    assert not deciding
