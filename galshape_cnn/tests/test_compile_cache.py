# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""Where the command line keeps compiled functions."""

import os
import sys

from galshape_cnn.cli.compile_cache import compile_cache


def test_compiled_functions_are_kept_in_the_users_cache(monkeypatch, tmp_path):
    monkeypatch.delenv("JAX_COMPILATION_CACHE_DIR", raising=False)
    monkeypatch.delitem(sys.modules, "jax", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    with compile_cache():
        folder = os.environ["JAX_COMPILATION_CACHE_DIR"]
    if sys.platform == "linux":
        assert folder == str(tmp_path / "galshape_cnn" / "jax")
    assert "JAX_COMPILATION_CACHE_DIR" not in os.environ
    monkeypatch.setenv("GALSHAPE_COMPILE_CACHE", "off")
    with compile_cache():
        assert "JAX_COMPILATION_CACHE_DIR" not in os.environ
