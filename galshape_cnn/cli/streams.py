# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""Closed standard streams (``galshape ... >&-``, services, GUIs) replaced while a command runs."""

import os
import sys
from contextlib import contextmanager

__all__ = ["give_up_stdout", "standard_streams"]


@contextmanager
def standard_streams():
    """Have both streams while a command runs; what goes to a closed one is lost.

    Python has None in place of a stream that is closed.  Its number would be that of the next file that is
    opened, and what a library prints would end up in that.
    """
    missing = [name for name in ("stdout", "stderr") if getattr(sys, name) is None]
    opened = {name: open(os.devnull, "w", encoding="utf-8") for name in missing}  # noqa: SIM115
    for name, stream in opened.items():
        setattr(sys, name, stream)
    try:
        yield
    finally:
        for name, stream in opened.items():
            setattr(sys, name, None)
            stream.close()


def give_up_stdout():
    """Let the interpreter end without a word about output that nobody reads."""
    try:
        null = os.open(os.devnull, os.O_WRONLY)
        os.dup2(null, sys.stdout.fileno())
        os.close(null)
    except (OSError, ValueError):  # a stream that is no file, as in tests
        pass
