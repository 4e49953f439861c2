# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""Compiled functions kept between runs of the command, by JAX's persistent cache."""

import os
import sys
from contextlib import contextmanager
from pathlib import Path

from galshape_cnn.environment import environment

__all__ = ["compile_cache"]

_OWN = "GALSHAPE_COMPILE_CACHE"
_JAX = "JAX_COMPILATION_CACHE_DIR"
#: Compiling longer than this, in seconds, is worth a file.
_WORTH = {"JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0.05"}


@contextmanager
def compile_cache():
    """Let JAX keep compiled functions while the command runs.

    They lie in ``galshape_cnn/jax`` of the user's cache folder (``XDG_CACHE_HOME``, else
    ``~/.cache``); ``GALSHAPE_COMPILE_CACHE`` names another folder, or is ``off``.  A cache that
    the user has set for JAX is left alone, and so is JAX if it was imported before.
    """
    folder = os.environ.get(_OWN, "").strip() or str(_default_folder())
    if folder.lower() in ("off", "0", "no") or _JAX in os.environ or "jax" in sys.modules:
        yield
        return
    with environment({_JAX: folder} | _WORTH):
        yield


def _default_folder():
    """The user's folder for what can be made again."""
    if sys.platform == "darwin":
        base = Path("~/Library/Caches")
    elif sys.platform == "win32":
        base = Path(os.environ.get("LOCALAPPDATA", "~/AppData/Local"))
    else:
        base = Path(os.environ.get("XDG_CACHE_HOME", "~/.cache"))
    return base.expanduser() / "galshape_cnn" / "jax"
