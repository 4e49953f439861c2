# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""Environment variables that libraries are told of, unless the user has set them."""

import os
from contextlib import contextmanager

__all__ = ["environment", "unset_of"]


def unset_of(values):
    """Those variables of the environment that the user has not set.

    Parameters
    ----------
    values : dict
        Names and values.

    Returns
    -------
    unset : dict
    """
    return {name: value for name, value in values.items() if name not in os.environ}


@contextmanager
def environment(values):
    """Set variables for a while, for libraries imported and processes started meanwhile.

    Parameters
    ----------
    values : dict
        Names and values; what the user has set stays.
    """
    new = unset_of(values)
    os.environ.update(new)
    try:
        yield
    finally:
        for name in new:
            os.environ.pop(name, None)
