# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""Files that are there whole or not at all."""

import os
import tempfile
from contextlib import contextmanager
from pathlib import Path

from galshape_cnn.errors import FileError

__all__ = ["written_whole"]


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
