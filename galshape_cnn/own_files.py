# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""Files that only their owner can change: what is read from them is executed.

A folder may lie where others can write, and may have been put there by them.  Here no link is followed,
nothing is read that another user owns or could have changed, and nothing outside the folder is deleted.
"""

import os
import stat
import tempfile
from contextlib import suppress
from pathlib import Path

from galshape_cnn.errors import FileError

__all__ = ["is_own_folder", "make_own_folder", "own_entries", "read_own", "write_own"]

_OTHERS = stat.S_IWGRP | stat.S_IWOTH
_NO_LINK = getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0)


def _is_own(status):
    """Whether only this user, or the administrator, can have written what has this status."""
    if not hasattr(os, "getuid"):  # Windows: homes are closed to others
        return True
    return status.st_uid == os.getuid() and not status.st_mode & _OTHERS


def is_own_folder(path):
    """Whether a path is a folder, and no link, that only this user can write to.

    Parameters
    ----------
    path : path-like
        Of the folder.

    Returns
    -------
    own : bool
        False where nothing is there.
    """
    try:
        status = os.lstat(path)
    except OSError:
        return False
    return stat.S_ISDIR(status.st_mode) and _is_own(status)


def make_own_folder(path):
    """Make a folder that only this user can write to, unless it is there.

    Parameters
    ----------
    path : path-like
        Of the folder; folders above it are made too.

    Raises
    ------
    FileError
        If it cannot be made, or what is there is a link or can be changed by others.
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


def read_own(path):
    """Content of a file in a folder of one's own.

    Parameters
    ----------
    path : path-like
        Of the file; its folder and the one above are looked at too.

    Returns
    -------
    content : bytes

    Raises
    ------
    OSError
        If it cannot be read, or is a link, or others can have written it.
    """
    path = Path(path)
    if not (is_own_folder(path.parent) and is_own_folder(path.parent.parent)):
        raise FileError(f"{str(path.parent)!r} is not a folder that only you can write to")
    with open(os.open(path, os.O_RDONLY | _NO_LINK), "rb") as file:
        status = os.fstat(file.fileno())
        if not (stat.S_ISREG(status.st_mode) and _is_own(status)):
            raise FileError(f"{str(path)!r} is not a file that only you can write to")
        return file.read()


def write_own(path, content):
    """Write a file that only this user can read or change, whole or not at all.

    Parameters
    ----------
    path : path-like
        Of the file, in a folder of `make_own_folder`.
    content : bytes
        What it is to hold.

    Raises
    ------
    OSError
        If it cannot be written.
    """
    path = Path(path)
    handle, beside = tempfile.mkstemp(dir=path.parent, prefix=".")  # of mode 0600, and new
    try:
        with open(handle, "wb") as file:
            file.write(content)
        os.replace(beside, path)
    except BaseException:
        with suppress(OSError):
            os.unlink(beside)
        raise


def own_entries(root, prefix):
    """Files in those folders of a folder whose names begin in some way.

    Parameters
    ----------
    root : path-like
        A folder of one's own.
    prefix : str
        Of the names of the folders within it.

    Returns
    -------
    paths : list of Path
        Of regular files; what is behind links is left out.
    """
    if not is_own_folder(root):
        return []
    paths = []
    with suppress(OSError):
        folders = [entry.path for entry in os.scandir(root) if entry.name.startswith(prefix)]
        for folder in filter(is_own_folder, folders):
            paths += [Path(one.path) for one in os.scandir(folder) if one.is_file(follow_symlinks=False)]
    return paths
