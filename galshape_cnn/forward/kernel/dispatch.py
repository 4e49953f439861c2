# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""The choice between the compiled kernel and JAX or NumPy: made here, and nowhere else."""

from functools import wraps
from inspect import signature

import numpy as np

from galshape_cnn.forward.kernel.library import chosen
from galshape_cnn.parallel import fixed_batches

__all__ = ["batches", "either", "serves", "with_kernel"]

_SINGLE = (np.float32, np.complex64)


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
    """Yield rows in batches for functions `with_kernel`, as `galshape_cnn.parallel.fixed_batches` does.

    Of the one size that JAX compiles for; the kernel, which takes any number, gets all rows at once, so that
    none is computed for nothing, or batches of the size ``of_kernel``, whose images then stay in cache.
    """
    if not serves():
        yield from fixed_batches(rows, size)
    elif of_kernel is None:
        if len(rows):
            yield rows, rows
    else:
        yield from fixed_batches(rows, of_kernel)
