# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""Loading of the compiled kernel, and the choice between it and JAX or NumPy, which is made nowhere else.

It holds plain functions of C, three times over, for processors with the basic instructions of their kind,
with AVX2 and with AVX-512.  Where no compiler was there when the package was installed there is no library,
and everything is done by JAX.
"""

import ctypes
import os
from functools import lru_cache, wraps
from importlib.machinery import EXTENSION_SUFFIXES
from inspect import signature
from pathlib import Path

import numpy as np

from galshape_cnn.errors import InputError
from galshape_cnn.parallel import fixed_batches

__all__ = [
    "KERNEL_VARIABLE",
    "batches",
    "call",
    "chosen",
    "double",
    "either",
    "instructions",
    "integer",
    "serves",
    "single",
    "with_kernel",
]

#: ``off`` switches the library off, ``base``, ``avx2`` and ``avx512`` choose its instructions.
KERNEL_VARIABLE = "GALSHAPE_KERNEL"

_INSTRUCTIONS = ("base", "avx2", "avx512")
_SINGLE = (np.float32, np.complex64)


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
    return _chosen(os.environ.get(KERNEL_VARIABLE, ""))


@lru_cache(maxsize=8)
def _chosen(wanted):
    possible, wanted = instructions(), wanted.strip().lower()
    if not possible or wanted in ("off", "0", "no"):
        return None
    if wanted and wanted not in possible:
        raise InputError(f"{KERNEL_VARIABLE}={wanted!r}; allowed: off, {', '.join(possible)}")
    return wanted or possible[-1]


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
    # plain numbers: ``ctypes.data_as`` makes cycles, which keep arrays until the garbage is collected
    pointers = [ctypes.c_void_p(one.ctypes.data) if isinstance(one, np.ndarray) else one for one in arguments]
    if not function(*pointers):
        raise MemoryError(f"no memory to {name} galaxies")


def single(array):
    """An array as functions of the library take it, in single precision."""
    return np.ascontiguousarray(array, np.float32)


def double(array):
    """The same in double precision."""
    return np.ascontiguousarray(array, float)


#: A number of rows or pixels as they take it.
integer = ctypes.c_int64


def serves(*arrays):
    """Whether the kernel computes what JAX would compute in single precision on the processor.

    Parameters
    ----------
    *arrays : array_like
        Arguments of the computation.

    Returns
    -------
    yes : bool
        False without the library, on other devices, in double precision, and within JAX's
        transformations.
    """
    if chosen() is None:
        return False
    import jax

    if any(isinstance(one, jax.core.Tracer) for one in arrays) or jax.default_backend() != "cpu":
        return False
    return not jax.config.jax_enable_x64 or _are_single(arrays)


def _serves_instead_of_numpy(*arrays):
    """The same for functions that NumPy does otherwise, whatever the device of JAX, which is not loaded."""
    return chosen() is not None and _are_single(arrays)


def _are_single(arrays):
    return all(one.dtype in _SINGLE for one in arrays)


def either(of_kernel, otherwise, *arrays):
    """What the kernel has, where it serves for these arguments; else what stands in for it."""
    return of_kernel if serves(*arrays) else otherwise


def with_kernel(of_kernel, *arrays, instead_of="jax"):
    """Decorate a function of JAX, or of NumPy, with that of the kernel, which is called wherever it serves.

    Parameters
    ----------
    of_kernel : callable
        Takes the same arguments and returns the same, from the kernel.
    *arrays : str
        Arguments by which to decide: JAX computes where one is of double precision, or is traced.
    instead_of : {'jax', 'numpy'}, optional
        What the decorated function computes with.
    """
    decide = serves if instead_of == "jax" else _serves_instead_of_numpy

    def decorate(function):
        places = [(list(signature(function).parameters).index(name), name) for name in arrays]

        @wraps(function)
        def either_way(*args, **kwargs):
            looked_at = (args[k] if k < len(args) else kwargs[name] for k, name in places)
            return (of_kernel if decide(*looked_at) else function)(*args, **kwargs)

        return either_way

    return decorate


def batches(rows, size, of_kernel=None):
    """Rows in batches for functions `with_kernel`, as `galshape_cnn.parallel.fixed_batches` yields them.

    Of the one size that JAX compiles for; the kernel, which takes any number, gets all rows at once, so that
    none is computed for nothing, or batches of the size ``of_kernel``, whose images then stay in cache.
    """
    if not serves():
        return fixed_batches(rows, size)
    if of_kernel is not None:
        return fixed_batches(rows, of_kernel)
    return [(rows, rows)] if len(rows) else []
