# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""Where a command keeps compiled functions from one run to the next."""

import os
import sys
from contextlib import contextmanager, suppress
from pathlib import Path

from galshape_cnn.environment import CACHE_VARIABLE, environment, named_folder
from galshape_cnn.errors import FileError
from galshape_cnn.own_files import make_own_folder

__all__ = ["compile_cache"]

_JAX = "JAX_COMPILATION_CACHE_DIR"
#: Compiling longer than this, in seconds, is worth a file.
_WORTH = {"JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0.05"}


@contextmanager
def compile_cache(by_jax=False):
    """Name the folder of `galshape_cnn.compilation` while a command runs.

    It is ``galshape_cnn/programs`` of the user's cache folder (``XDG_CACHE_HOME``, else ``~/.cache``),
    unless ``GALSHAPE_COMPILE_CACHE`` names another one or is ``off``.

    Parameters
    ----------
    by_jax : bool, optional
        Let JAX keep all that it compiles, in that folder, which is slower to find: for commands whose time
        goes into functions of Keras.  A cache that the user has set for JAX is left alone, and so is JAX
        if it was imported before.
    """
    names = {CACHE_VARIABLE: _default_folder()}
    folder = named_folder(os.environ.get(CACHE_VARIABLE, names[CACHE_VARIABLE]))
    if by_jax and folder and _JAX not in os.environ and "jax" not in sys.modules:
        with suppress(FileError):  # JAX executes what it finds there, so it must be ours alone
            make_own_folder(folder)
            make_own_folder(os.path.join(folder, "jax"))
            names |= {_JAX: os.path.join(folder, "jax")} | _WORTH
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
