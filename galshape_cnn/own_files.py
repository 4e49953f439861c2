# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""Folders that only their owner can write to, for what is executed when read.

A folder may lie where others can write, and may have been put there by them.
"""

import os
import stat
from contextlib import suppress

from galshape_cnn.environment import named_folder
from galshape_cnn.errors import FileError

__all__ = ["WORTH_KEEPING", "is_own_folder", "make_own_folder", "programs_folder"]

#: Seconds of compiling from which JAX keeps a program.
WORTH_KEEPING = 0.05
_OTHERS = stat.S_IWGRP | stat.S_IWOTH


def is_own_folder(path):
    """Whether a path is a folder, and no link, that only this user, or the administrator, can write to."""
    try:
        status = os.lstat(path)
    except OSError:
        return False
    if not stat.S_ISDIR(status.st_mode):
        return False
    if not hasattr(os, "getuid"):  # Windows: homes are closed to others
        return True
    return status.st_uid == os.getuid() and not status.st_mode & _OTHERS


def make_own_folder(path):
    """Make a folder, and those above it, that only this user can write to, unless it is there.

    ``FileError`` if it cannot be made, or what is there is a link or can be changed by others.
    """
    try:
        os.makedirs(os.path.dirname(os.path.abspath(path)), exist_ok=True)
        with suppress(FileExistsError):
            os.mkdir(path, 0o700)
    except OSError as error:
        raise FileError(f"cannot make the folder {os.fspath(path)!r}: {error.strerror or error}") from error
    if not is_own_folder(path):
        name = os.fspath(path)
        raise FileError(f"{name!r} is a link, or others can write to it; allowed: a folder of your own")


def programs_folder(named):
    """Folder in which JAX may keep what it compiles, made if need be; JAX executes what it finds there.

    Within the one that ``GALSHAPE_COMPILE_CACHE`` names; None where it names none, or others could write to
    it.
    """
    folder = named_folder(named)
    if folder is None:
        return None
    within = os.path.join(folder, "jax")
    try:
        make_own_folder(folder)
        make_own_folder(within)
    except FileError:
        return None
    return within
