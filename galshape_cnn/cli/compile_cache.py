# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""Where the command keeps compiled functions from one run to the next."""

import os
import sys
from contextlib import contextmanager
from pathlib import Path

from galshape_cnn.environment import environment

__all__ = ["compile_cache"]


@contextmanager
def compile_cache():
    """Name the folder of `galshape_cnn.programs` while the command runs.

    It is ``galshape_cnn/programs`` of the user's cache folder (``XDG_CACHE_HOME``, else
    ``~/.cache``), unless ``GALSHAPE_COMPILE_CACHE`` names another one or is ``off``.
    """
    with environment({"GALSHAPE_COMPILE_CACHE": str(_default_folder())}):
        yield


def _default_folder():
    """The user's folder for what can be made again."""
    if sys.platform == "darwin":
        base = Path("~/Library/Caches")
    elif sys.platform == "win32":
        base = Path(os.environ.get("LOCALAPPDATA", "~/AppData/Local"))
    else:
        base = Path(os.environ.get("XDG_CACHE_HOME", "~/.cache"))
    return base.expanduser() / "galshape_cnn" / "programs"
