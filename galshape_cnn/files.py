# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""Atomic writing of files, and checks of output paths."""

import os
import tempfile
from contextlib import contextmanager, suppress
from pathlib import Path

from galshape_cnn.errors import FileError, InputError

__all__ = [
    "as_path",
    "check_output_path",
    "check_writable_folder",
    "made_folder",
    "output_folder",
    "written_whole",
]


@contextmanager
def written_whole(path):
    """Write a file beside its place and give it its name at the end; one that is there is replaced.

    Yields the path to write to: the same name, in a folder of its own. Where that raises `OSError`,
    ``FileError`` follows and nothing is left.
    """
    path = Path(path)
    try:
        with tempfile.TemporaryDirectory(dir=path.absolute().parent, prefix=f".{path.stem}-") as folder:
            beside = Path(folder) / path.name
            yield beside
            os.replace(beside, path)
    except OSError as error:
        raise FileError(f"cannot write {str(path)!r}: {error.strerror or error}") from error


def as_path(path):
    """A path of whatever names a file; ``InputError`` if it does not."""
    if not isinstance(path, (str, os.PathLike)):
        raise InputError(f"path is a {type(path).__name__}; the name of a file is needed")
    return Path(path)


def made_folder(path):
    """A folder, made with those above it if it is missing; ``FileError`` if it cannot be made."""
    try:
        os.makedirs(path, exist_ok=True)
    except OSError as error:
        raise FileError(f"cannot make the folder {os.fspath(path)!r}: {error}") from error
    return Path(path)


@contextmanager
def output_folder(path):
    """A folder for results, as `made_folder` makes it; after an error those that it made and are empty go."""
    path = Path(path).absolute()
    missing = [folder for folder in (path, *path.parents) if not folder.exists()]
    try:
        yield made_folder(path)
    except BaseException:
        with suppress(OSError):  # one that holds something stays, and so do those above it
            for folder in missing:
                folder.rmdir()
        raise


def check_writable_folder(folder, what):
    """Refuse a folder that is missing or cannot be written to, naming what was to be written."""
    if not os.path.isdir(folder):
        raise FileError(f"cannot write {what}: no folder {os.fspath(folder)!r}")
    if not os.access(folder, os.W_OK):
        raise FileError(f"cannot write {what}: the folder {os.fspath(folder)!r} is not writable")


def check_output_path(path, suffixes, overwrite=False):
    """Path of a file; refused, before any work, if it could not be written.

    ``InputError`` if its name ends in none of the suffixes, ``FileError`` if the file exists and may not be
    replaced (``overwrite``), or its folder is missing or not writable.
    """
    path = as_path(path)
    if path.suffix.lower() not in suffixes:
        raise InputError(
            f"output {str(path)!r} has the suffix {path.suffix!r}; allowed: {', '.join(suffixes)}"
        )
    if path.is_dir():
        raise FileError(f"cannot write {str(path)!r}: it is a folder")
    if path.exists() and not overwrite:
        raise FileError(
            f"cannot write {str(path)!r}: it exists; allow it to be overwritten or choose another name"
        )
    check_writable_folder(path.absolute().parent, repr(str(path)))
    return path
