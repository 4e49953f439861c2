# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""Programs to be kept, and the folder where they are: for tests of `galshape_cnn.compilation`."""

import os
import sys

import jax
import numpy as np
import pytest
from jax.experimental.compilation_cache import compilation_cache

from galshape_cnn import compilation as programs
from galshape_cnn.compilation import Program
from galshape_cnn.environment import CACHE_VARIABLE

__all__ = ["Traced", "X", "clean", "half", "kept_programs", "names"]

X = np.arange(6, dtype=np.float32).reshape(2, 3)


@pytest.fixture
def kept_programs(monkeypatch, tmp_path):
    """Where programs are kept; not yet there."""
    own = jax.config.jax_compilation_cache_dir
    jax.config.update("jax_compilation_cache_dir", None)
    compilation_cache.reset_cache()
    monkeypatch.setattr(programs, "_prove_at_exit", lambda folder: None)
    monkeypatch.setattr(programs, "_newest_source", lambda: 0.0)  # of a developer at work
    programs._circumstances.cache_clear()
    monkeypatch.setenv(CACHE_VARIABLE, str(tmp_path / "kept"))
    yield tmp_path / "kept" / programs._circumstances()
    programs._circumstances.cache_clear()
    jax.config.update("jax_compilation_cache_dir", own)
    compilation_cache.reset_cache()


class Traced:
    """A function that counts how often it is traced."""

    def __init__(self, function):
        self.count, self._function = 0, function

    def program(self, **options):
        """As a new process would have it."""

        def function(x, times=1):
            self.count += 1
            return self._function(x, times)

        return Program("f", lambda: function, **options)


def half(x, times=1):
    return {"half": x / 2 * times, "big": x > 2}


def names(folder):
    return sorted(path.suffix for path in folder.iterdir())


def clean():
    """Variables for a process that keeps programs."""
    own = {name: value for name, value in os.environ.items() if name != "JAX_COMPILATION_CACHE_DIR"}
    return own | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
