# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""Where the command line keeps compiled functions."""

import os
import sys

from galshape_cnn.cli.compile_cache import compile_cache
from galshape_cnn.environment import CACHE_VARIABLE


def test_compiled_functions_are_kept_in_the_users_cache(monkeypatch, tmp_path):
    monkeypatch.delenv(CACHE_VARIABLE)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    with compile_cache():
        folder = os.environ[CACHE_VARIABLE]
    if sys.platform == "linux":
        assert folder == str(tmp_path / "galshape_cnn" / "programs")
    assert CACHE_VARIABLE not in os.environ


def test_the_users_choice_stays(monkeypatch):
    monkeypatch.setenv(CACHE_VARIABLE, "off")
    with compile_cache():
        assert os.environ[CACHE_VARIABLE] == "off"


def test_without_a_home_nothing_is_kept(monkeypatch):
    monkeypatch.delenv(CACHE_VARIABLE)
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.setattr(os.path, "expanduser", lambda path: path)
    with compile_cache():
        assert os.environ[CACHE_VARIABLE] == ""


def test_jax_keeps_what_long_commands_compile(monkeypatch, tmp_path):
    monkeypatch.setenv(CACHE_VARIABLE, str(tmp_path))
    monkeypatch.delenv("JAX_COMPILATION_CACHE_DIR", raising=False)
    monkeypatch.delitem(sys.modules, "jax", raising=False)
    with compile_cache(by_jax=True):
        assert os.environ["JAX_COMPILATION_CACHE_DIR"] == str(tmp_path / "jax")
    assert "JAX_COMPILATION_CACHE_DIR" not in os.environ
    monkeypatch.setenv(CACHE_VARIABLE, "off")
    with compile_cache(by_jax=True):
        assert "JAX_COMPILATION_CACHE_DIR" not in os.environ


def test_jax_is_not_given_a_folder_that_others_can_write(monkeypatch, tmp_path):
    monkeypatch.setenv(CACHE_VARIABLE, str(tmp_path / "shared"))
    monkeypatch.delenv("JAX_COMPILATION_CACHE_DIR", raising=False)
    monkeypatch.delitem(sys.modules, "jax", raising=False)
    (tmp_path / "shared").mkdir()
    os.chmod(tmp_path / "shared", 0o777)
    if os.name != "nt":
        with compile_cache(by_jax=True):
            assert "JAX_COMPILATION_CACHE_DIR" not in os.environ
