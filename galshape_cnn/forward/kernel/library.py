# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""Loading of the compiled kernel, and of the instructions that it uses.

It holds plain functions of C, three times over, for processors with the basic instructions of their kind,
with AVX2 and with AVX-512 (only if asked for: there was no such processor to try it on).  Where no compiler
was there when the package was installed there is no library, and everything is done by JAX.
"""

import ctypes
import os
from functools import lru_cache
from importlib.machinery import EXTENSION_SUFFIXES
from pathlib import Path

from galshape_cnn.errors import InputError

__all__ = ["KERNEL_VARIABLE", "call", "chosen", "instructions"]

#: ``off`` switches the library off, ``base``, ``avx2`` and ``avx512`` choose its instructions.
KERNEL_VARIABLE = "GALSHAPE_KERNEL"

_INSTRUCTIONS = ("base", "avx2", "avx512")
_TRIED = ("base", "avx2")  # on a processor that has them; the others only by the variable


@lru_cache(maxsize=1)
def _library():
    """The library and the instructions that this processor has, or None and none."""
    for suffix in EXTENSION_SUFFIXES:
        path = Path(__file__).with_name(f"_kernel{suffix}")
        try:
            library = ctypes.CDLL(str(path))
            return library, _INSTRUCTIONS[: 1 + library.galshape_instructions()]
        except (OSError, AttributeError):  # there is none, or it is one of another machine
            continue
    return None, ()


def instructions():
    """Sets of instructions that the library can use here.

    Returns
    -------
    names : tuple of str
        The best last; empty without the library.
    """
    return _library()[1]


def chosen():
    """Set of instructions to use.

    Returns
    -------
    name : str or None
        None without the library, or where the user wants none.

    Raises
    ------
    InputError
        If ``GALSHAPE_KERNEL`` names instructions that this processor does not have.
    """
    possible = instructions()
    wanted = os.environ.get(KERNEL_VARIABLE, "").strip().lower()
    if not possible or wanted in ("off", "0", "no"):
        return None
    if wanted and wanted not in possible:
        raise InputError(f"{KERNEL_VARIABLE}={wanted!r}; allowed: off, {', '.join(possible)}")
    return wanted or [name for name in possible if name in _TRIED][-1]


def call(name, *arguments):
    """Call a function of the library.

    Parameters
    ----------
    name : str
        Without the instructions.
    *arguments : ctypes objects and contiguous ndarrays

    Raises
    ------
    MemoryError
        If there was no memory for it.
    """
    function = getattr(_library()[0], f"galshape_{name}_{chosen()}")
    pointers = [
        one if not hasattr(one, "ctypes") else one.ctypes.data_as(ctypes.c_void_p) for one in arguments
    ]
    if not function(*pointers):
        raise MemoryError(f"no memory to {name} galaxies")
