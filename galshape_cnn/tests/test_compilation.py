# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""Compiled functions kept between runs."""

import hashlib
import os
import pickle
import subprocess
import sys
import threading
import time
from importlib.metadata import PackageNotFoundError

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from galshape_cnn import compilation as programs
from galshape_cnn.compilation import Program, compiled, prove
from galshape_cnn.environment import CACHE_VARIABLE
from galshape_cnn.tests.program_scene import Traced, X, clean, half, kept_programs, names

folder = kept_programs


def solved(a, b):
    """Calls LAPACK."""
    return jnp.linalg.solve(a, b)


def test_a_program_is_found_once_another_process_has_run_it(folder):
    traced = Traced(half)
    first = traced.program()(X)
    assert names(folder) == [".new"]
    traced.program()(X)
    assert traced.count == 2  # not proven
    prove(folder.parent)
    assert names(folder) == [""]
    found = traced.program()(X)
    assert traced.count == 2
    assert oct(folder.stat().st_mode)[-3:] == "700" or os.name == "nt"
    for key, value in half(X).items():
        np.testing.assert_array_equal(first[key], value)
        np.testing.assert_array_equal(found[key], value)
        assert found[key].dtype == value.dtype


def test_lapack_is_there_in_a_new_process(folder):
    a = np.eye(3, dtype=np.float32) + 0.1
    Program("solved", lambda: solved)(a, a)
    prove(folder.parent)
    assert names(folder) == [""]
    code = """
import numpy as np
from galshape_cnn.compilation import Program
a = np.eye(3, dtype=np.float32) + 0.1
np.testing.assert_allclose(Program("solved", None)(a, a), np.eye(3), atol=1e-6)
"""
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, env=clean(), check=False
    )
    assert done.returncode == 0, done.stderr


def test_shapes_types_and_static_arguments_tell_programs_apart(folder):
    traced = Traced(half)
    program = traced.program(static_argnames="times")
    for x in (X, X[:1], X.astype(int), 1.0, np.float32(1)):
        program(x, times=1)
    program(X, times=2)
    with jax.enable_x64(True):
        assert program(X.astype(float), times=1)["half"].dtype == np.float64
    program(X, times=1), program(X.astype(float), times=1)  # the latter is single precision here
    assert len(names(folder)) == traced.count == 7


def test_a_program_that_kills_its_process_is_not_tried_again_for_a_day(folder):
    traced = Traced(half)
    traced.program()(X)
    (path,) = folder.iterdir()
    content = pickle.dumps(Killer())
    path.write_bytes(hashlib.sha256(content).digest() + content)
    traced.program()(X[:1])
    prove(folder.parent)  # and goes on to the other one
    assert names(folder) == ["", ".bad"]
    np.testing.assert_array_equal(traced.program()(X)["half"], X / 2)
    assert names(folder) == ["", ".bad"]
    bad = path.with_suffix(".bad")
    os.utime(bad, (time.time() - 90_000,) * 2)
    traced.program()(X)
    prove(folder.parent)
    assert names(folder) == ["", ""]


def test_double_precision_is_proven_too(folder):
    with jax.enable_x64(True):
        Traced(half).program()(X.astype(float))
    prove(folder.parent)
    assert names(folder) == [""]


def test_an_interruption_is_not_the_programs_fault(folder, monkeypatch):
    def interrupted(path):
        raise KeyboardInterrupt

    Traced(half).program()(X)
    monkeypatch.setattr(programs, "_read", interrupted)
    with pytest.raises(KeyboardInterrupt):
        programs._run_new(folder.parent, folder.name.rpartition("-")[0])
    assert names(folder) == []


def test_proving_ends_where_nothing_can_be_done(folder, monkeypatch):
    runs = []
    Traced(half).program()(X)
    monkeypatch.setattr(subprocess, "run", lambda command, **how: runs.append(command))
    prove(folder.parent)
    assert len(runs) == 1
    assert names(folder) == [".new"]


def test_strange_entries_of_the_search_path_do_no_harm(folder, monkeypatch):
    monkeypatch.setattr(sys, "path", [*sys.path, folder, None])
    Traced(half).program()(X)
    prove(folder.parent)
    assert names(folder) == [""]


class Killer:
    """Ends the process that unpickles it, as a wild address would."""

    def __reduce__(self):
        return os._exit, (11,)


@pytest.mark.parametrize("spoil", ["cut", "flipped", "empty", "foreign"])
def test_a_file_that_cannot_be_trusted_is_made_again(folder, spoil, monkeypatch):
    traced = Traced(half)
    traced.program()(X)
    prove(folder.parent)
    (path,) = folder.iterdir()
    content = path.read_bytes()
    changed = bytes([content[100] ^ 1])
    spoilt = {"cut": content[:-9], "flipped": content[:100] + changed + content[101:], "empty": b""}
    path.write_bytes(spoilt.get(spoil, content))
    if spoil == "foreign":
        monkeypatch.setattr(os, "getuid", lambda: path.stat().st_uid + 1, raising=False)
    np.testing.assert_array_equal(traced.program()(X)["half"], X / 2)
    assert traced.count == 2
    prove(folder.parent)
    assert names(folder) == [""]


def test_numbers_that_differ_when_read_back_are_not_kept(folder, monkeypatch):
    monkeypatch.setattr(programs, "deserialize_and_load", lambda *kept: lambda x: half(x + 1))
    np.testing.assert_array_equal(Traced(half).program()(X)["half"], X / 2)
    assert not folder.exists()


@pytest.mark.parametrize("value", ["off", "", "no"])
def test_nothing_is_kept_unless_a_folder_is_named(folder, monkeypatch, value):
    monkeypatch.setenv(CACHE_VARIABLE, value)
    traced = Traced(half)
    program = traced.program()
    program(X), program(X)
    assert traced.count == 1
    assert not folder.parent.exists()


def test_a_cache_of_jax_is_left_alone(folder, tmp_path):
    jax.config.update("jax_compilation_cache_dir", str(tmp_path / "jax"))
    Traced(half).program()(X)
    assert not folder.parent.exists()


def test_a_folder_that_cannot_be_written_is_no_failure(folder):
    folder.parent.write_text("a file")
    np.testing.assert_array_equal(Traced(half).program()(X)["half"], X / 2)


def test_with_several_devices_it_is_jaxs_own_cache(tmp_path):
    code = """
import jax, numpy as np
from galshape_cnn.compilation import compiled
jax.numpy.ones(3) + 1  # JAX has decided not to keep anything
big = compiled(lambda x: jax.numpy.linalg.inv(jax.numpy.sin(x) @ jax.numpy.exp(x)))
jax.config.update("jax_persistent_cache_min_compile_time_secs", 0)
big(np.eye(300, dtype=np.float32))
"""
    devices = {"XLA_FLAGS": "--xla_force_host_platform_device_count=2", "JAX_PLATFORMS": "cpu"}
    subprocess.run(
        [sys.executable, "-c", code], env=clean() | devices | {CACHE_VARIABLE: str(tmp_path)}, check=True
    )
    assert os.listdir(tmp_path) == ["jax"]
    assert os.listdir(tmp_path / "jax")


def test_within_other_transformations_it_is_jit(folder):
    double = compiled(lambda x, power=1: (2 * x) ** power, static_argnames="power")
    np.testing.assert_array_equal(jax.vmap(double)(X), 2 * X)
    np.testing.assert_array_equal(jax.jit(lambda x: double(x, 2))(X), 4 * X**2)
    np.testing.assert_array_equal(jax.grad(lambda x: double(x).sum())(X), np.full_like(X, 2))
    assert not folder.exists()
    np.testing.assert_array_equal(double(X, power=2), double(X, 2))
    assert names(folder) == [".new"]


def test_functions_are_told_apart_by_their_name(folder):
    apply = compiled(lambda function, x: function(x), static_argnames="function")
    apply(half, X), apply(twice, X)
    np.testing.assert_array_equal(apply(twice, X), 2 * X)
    assert len(names(folder)) == 2


def twice(x):
    return 2 * x


def test_programs_used_longest_ago_are_cleared_away(folder, monkeypatch):
    foreign = folder.parent / ("0" * 32) / "file"
    for number, path in enumerate(
        [foreign, *(folder.parent / f"galshape-{i}" / "program" for i in range(9))]
    ):
        path.parent.mkdir(parents=True)
        path.write_bytes(b"0" * 2000)
        os.utime(path, (number, number))
    traced = Traced(half)
    traced.program()(X)
    prove(folder.parent)
    size = next(folder.iterdir()).stat().st_size
    monkeypatch.setattr(programs, "_LARGEST", size + 5000)
    prove(folder.parent)
    left = sorted(path.parent.name for path in folder.parent.glob("*/*"))
    assert left == sorted([foreign.parent.name, "galshape-7", "galshape-8", folder.name])
    assert len(list(folder.parent.iterdir())) == len(left)


def test_a_folder_that_cannot_be_searched_is_no_failure(folder, monkeypatch):
    def stat(path, **how):
        raise PermissionError(path)

    folder.mkdir(parents=True)
    monkeypatch.setattr(type(folder), "stat", stat)
    monkeypatch.setattr(type(folder), "mkdir", stat)
    np.testing.assert_array_equal(Traced(half).program()(X)["half"], X / 2)


def test_code_that_changed_after_its_import_is_not_kept(folder, monkeypatch):
    monkeypatch.setattr(programs, "_newest_source", lambda: programs._IMPORTED + 1)
    Traced(half).program()(X)
    assert not folder.exists()
    programs._circumstances.cache_clear()
    assert programs._circumstances() is None


def test_a_source_that_is_gone_is_no_failure(monkeypatch, tmp_path):
    monkeypatch.setattr(programs, "_sources", lambda: [tmp_path / "gone.py"])
    assert programs._newest_source() > programs._IMPORTED


def test_a_library_without_a_version_is_no_failure(folder, monkeypatch):
    def missing(name):
        raise PackageNotFoundError(name)

    monkeypatch.setattr(programs, "version", missing)
    programs._circumstances.cache_clear()
    np.testing.assert_array_equal(Traced(half).program()(X)["half"], X / 2)
    assert not folder.exists()


def test_functions_that_are_not_to_be_compiled_are_not(folder):
    with jax.disable_jit():
        Traced(half).program()(X)
    assert not folder.exists()


def test_threads_share_the_work_of_one(folder):
    traced, results = Traced(half), []
    program = traced.program()
    threads = [threading.Thread(target=lambda: results.append(program(X)["half"])) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert traced.count == 1
    np.testing.assert_array_equal(results, [X / 2] * 8)
