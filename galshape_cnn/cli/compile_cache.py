# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""Folder of compiled functions that commands keep between runs."""

import os
import sys
from contextlib import contextmanager
from pathlib import Path

from galshape_cnn.environment import CACHE_VARIABLE, environment
from galshape_cnn.own_files import WORTH_KEEPING, programs_folder

__all__ = ["compile_cache"]

_JAX = "JAX_COMPILATION_CACHE_DIR"
_WORTH = {"JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": str(WORTH_KEEPING)}


@contextmanager
def compile_cache(by_jax=False):
    """Name the folder of `galshape_cnn.compilation` while a command runs.

    It is ``galshape_cnn/programs`` of the user's cache folder (``XDG_CACHE_HOME``, else ``~/.cache``), unless
    ``GALSHAPE_COMPILE_CACHE`` names another one or is ``off``.

    With ``by_jax`` JAX is given that folder before it is imported, not with the first function of this
    package that it compiles: for commands whose time goes into functions of Keras.  A cache that the user has
    set for JAX is left alone, and so is JAX if it was imported before.
    """
    names = {CACHE_VARIABLE: _default_folder()}
    if by_jax and _JAX not in os.environ and "jax" not in sys.modules:
        folder = programs_folder(os.environ.get(CACHE_VARIABLE, names[CACHE_VARIABLE]))
        names |= {} if folder is None else {_JAX: folder} | _WORTH
    with environment(names):
        yield


def _default_folder():
    """The user's folder for what can be made again; empty where there is no home."""
    if sys.platform == "darwin":
        base = "~/Library/Caches"
    elif sys.platform == "win32":
        base = os.environ.get("LOCALAPPDATA", "~/AppData/Local")
    else:
        base = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    base = Path(os.path.expanduser(base))
    return str(base / "galshape_cnn" / "programs") if base.is_absolute() else ""
