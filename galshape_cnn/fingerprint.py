# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""Fingerprint of an input, to detect changed data when a run is resumed."""

import hashlib
from pathlib import Path

import numpy as np

from galshape_cnn.masked import split_mask

__all__ = ["fingerprint"]


def fingerprint(value):
    """Short text that changes when a value does.

    A path to an existing file counts by name, size and time of change; arrays and tables by their bytes;
    anything else by its representation.
    """
    if value is None or isinstance(value, (bool, int, float)):
        return repr(value)
    if isinstance(value, (str, Path)):
        path = Path(value).expanduser()
        if path.is_file():
            status = path.stat()
            return f"{path.name} {status.st_size} {status.st_mtime_ns}"
        return str(value)
    values, mask = split_mask(value)
    if mask is not None:
        return fingerprint([values, mask])
    if getattr(value, "unit", None) is not None and hasattr(value, "to_value"):
        return fingerprint([value.value, str(value.unit)])
    if isinstance(value, (list, tuple)):
        return _digest(fingerprint(one).encode() for one in value)
    if isinstance(value, dict):
        return _digest(f"{key}={fingerprint(value[key])}".encode() for key in sorted(value))
    if hasattr(value, "colnames"):
        return _digest(f"{name}={fingerprint(_column(value[name]))}".encode() for name in value.colnames)
    if hasattr(value, "array") and not isinstance(value, np.ndarray):
        return fingerprint(np.asarray(value.array))
    if isinstance(value, np.ndarray) and value.dtype != object:
        return _digest([str(value.shape).encode(), np.ascontiguousarray(value).tobytes()])
    return repr(value)


def _column(column):
    """Column of a table, with the mask that it may have."""
    return column if split_mask(column)[1] is not None else np.asarray(column)


def _digest(chunks):
    digest = hashlib.sha256()
    for chunk in chunks:
        digest.update(chunk)
    return digest.hexdigest()[:16]
