# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""Compiled functions, and where JAX keeps their programs."""

import os
import subprocess
import sys

import jax
import numpy as np
import pytest

from galshape_cnn.compilation import Program, compiled
from galshape_cnn.environment import CACHE_VARIABLE

X = np.arange(6, dtype=np.float32).reshape(2, 3)


@compiled(static_argnames="times")
def scaled(x, times=1):
    """Numbers times a number."""
    return {"scaled": x * times, "big": x > 2}


def test_arguments_may_be_given_by_place_or_name():
    for found in (scaled(X, 2), scaled(X, times=2), scaled(x=X, times=2)):
        np.testing.assert_array_equal(found["scaled"], 2 * X)
        np.testing.assert_array_equal(found["big"], X > 2)
    np.testing.assert_array_equal(scaled(X)["scaled"], X)
    assert scaled.__doc__ == "Numbers times a number."


def test_within_other_transformations_it_is_jit():
    slope = jax.grad(lambda x: scaled(x, times=3)["scaled"].sum())(X)
    np.testing.assert_array_equal(slope, np.full(X.shape, 3))


def test_a_function_is_made_when_it_is_called():
    made = []

    def make():
        made.append(1)
        return lambda x: x + 1

    program = Program(make)
    assert not made
    np.testing.assert_array_equal(program(X), X + 1)
    np.testing.assert_array_equal(program(X[:1]), X[:1] + 1)
    assert len(made) == 1


RUN = """
import sys
import jax
import numpy as np
from galshape_cnn.compilation import compiled

@compiled
def solved(a, b):
    return jax.numpy.linalg.solve(a, b)

np.testing.assert_allclose(solved(np.eye(3), np.eye(3)), np.eye(3), atol=1e-6)
print(jax.config.jax_compilation_cache_dir)
"""


def run_with(named, **variables):
    """Folder that JAX has in a process of its own, after a function was called."""
    env = {name: value for name, value in os.environ.items() if not name.startswith("JAX_")}
    env |= {"PYTHONPATH": os.pathsep.join(filter(None, sys.path)), CACHE_VARIABLE: str(named)} | variables
    done = subprocess.run([sys.executable, "-c", RUN], env=env, capture_output=True, text=True, check=True)
    return done.stdout.strip()


def files(folder):
    return {path.name: path.stat().st_mtime_ns for path in folder.rglob("*-cache")}


def test_later_processes_find_the_programs(tmp_path):
    folder = tmp_path / "kept"
    assert run_with(folder) == str(folder / "jax")
    first = files(folder)
    assert any("solved" in name for name in first)
    run_with(folder)
    assert files(folder) == first


@pytest.mark.parametrize("named", ["off", ""])
def test_nothing_is_kept_unless_a_folder_is_named(named):
    assert run_with(named) == "None"


@pytest.mark.skipif(os.name == "nt", reason="owners and modes of POSIX")
@pytest.mark.parametrize("what", ["link", "open", "open within"])
def test_what_others_can_have_put_there_is_not_run(tmp_path, what):
    (tmp_path / "kept" / "jax").mkdir(parents=True)
    for folder in (tmp_path / "kept", tmp_path / "kept" / "jax"):
        os.chmod(folder, 0o700)
    named = tmp_path / "kept"
    if what == "link":
        named = tmp_path / "link"
        named.symlink_to(tmp_path / "kept")
    else:
        os.chmod(tmp_path / "kept" if what == "open" else tmp_path / "kept" / "jax", 0o777)
    assert run_with(named) == "None"
    assert not files(tmp_path)


def test_a_cache_of_jax_is_left_alone(tmp_path):
    own = str(tmp_path / "own")
    assert run_with(tmp_path / "kept", JAX_COMPILATION_CACHE_DIR=own) == own
    assert not (tmp_path / "kept").exists()


def test_a_folder_that_cannot_be_made_is_no_failure(tmp_path):
    (tmp_path / "file").write_text("")
    assert run_with(tmp_path / "file" / "kept") == "None"
