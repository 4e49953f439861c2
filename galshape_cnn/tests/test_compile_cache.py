# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""Where the command line keeps compiled functions."""

import os
import sys

from galshape_cnn.cli.compile_cache import compile_cache
from galshape_cnn.programs import CACHE_VARIABLE


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
