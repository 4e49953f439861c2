# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""Arguments of design studies, with one value for all galaxies or for each of them."""

from collections.abc import Mapping

import numpy as np

from galshape_cnn.errors import InputError

__all__ = ["holds_many", "split_points"]

#: Dimensions of an argument of one galaxy; arrays with one more hold N.
_SINGLE = {"error": (0, 2), "mask": (0, 2), "pixel_scale": (0,), "gain": (0,)}


def split_points(arguments):
    """Arguments of `galshape_cnn.cramer_rao_bound` for each galaxy of a design study; None where it is one.

    ``InputError`` if the numbers of galaxies do not agree.
    """
    lists = {name: _as_list(name, value) for name, value in arguments.items()}
    counts = {name: len(values) for name, values in lists.items() if values is not None}
    if not counts:
        return None
    if len(set(counts.values())) > 1:
        said = ", ".join(f"{name} of {count}" for name, count in counts.items())
        raise InputError(f"the numbers of galaxies do not agree: {said}; give one for all, or for each")
    total = next(iter(counts.values()))
    if total == 0:
        raise InputError(f"{next(iter(counts))} is empty; at least one galaxy is needed")
    return [
        {name: arguments[name] if values is None else values[k] for name, values in lists.items()}
        for k in range(total)
    ]


def holds_many(params):
    """Whether ``params`` of `galshape_cnn.cramer_rao_bound` are those of N galaxies, and not of one."""
    return _params(params) is not None


def _as_list(name, value):
    """One value for each galaxy, or None for one that serves all."""
    if name == "params":
        return _params(value)
    if name == "psf":
        listed = isinstance(value, (list, tuple)) and (not value or np.ndim(value[0]) != 1)  # no rows
        return value if listed or (isinstance(value, np.ndarray) and value.ndim == 3) else None
    if value is None or np.ndim(value) in _SINGLE[name]:
        return None
    return value if hasattr(value, "ndim") else np.asarray(value)


def _params(params):
    """Parameters of each galaxy, or None for those of one."""
    if isinstance(params, Mapping):
        return _of_mapping(params)
    if hasattr(params, "colnames"):
        return list(params) if hasattr(params, "columns") and hasattr(params, "itercols") else None
    return list(np.asarray(params, float)) if np.ndim(params) == 2 else None


def _of_mapping(params):
    """A mapping for each galaxy from one with arrays."""
    sizes = {name: len(value) for name, value in params.items() if np.ndim(value) == 1}
    if not sizes:
        return None
    if len(set(sizes.values())) > 1:
        said = ", ".join(f"{name} of {size}" for name, size in sizes.items())
        raise InputError(f"params: the numbers of galaxies do not agree: {said}")
    total = next(iter(sizes.values()))
    return [
        {name: value[k] if name in sizes else value for name, value in params.items()} for k in range(total)
    ]
