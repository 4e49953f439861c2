# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""`jax.jit` with compiled programs kept between runs.

What measuring needs is done by the compiled kernel, which compiles nothing; JAX is left with training, with
the shear response, and with all of it where there is no kernel, in double precision and on other devices.

The folder is that of ``GALSHAPE_COMPILE_CACHE``, which the command line sets.  JAX executes what it finds
there, so only a folder is used that no other user can write to.
"""

import os
from functools import cached_property, lru_cache, partial, wraps
from importlib.util import find_spec

import jax
from jax.experimental.compilation_cache import compilation_cache

from galshape_cnn.environment import CACHE_VARIABLE
from galshape_cnn.errors import ForkedError
from galshape_cnn.own_files import WORTH_KEEPING, programs_folder

__all__ = ["Program", "compiled"]

_LARGEST = 2**29  # bytes of all programs; those used longest ago go


def compiled(function=None, *, static_argnames=()):
    """`jax.jit`, with programs that are kept between runs; for functions of this package.

    They are pure, of arrays or trees of them, but for static arguments, which are part of the program:
    hashable. Within other transformations of JAX it is `jax.jit` itself.
    """
    if function is None:
        return partial(compiled, static_argnames=static_argnames)
    program = Program(lambda: function, static_argnames)

    @wraps(function)
    def call(*args, **kwargs):
        return program(*args, **kwargs)

    return call


class Program:
    """A function compiled for each shape of its arguments, as by `jax.jit`; threads may share it.

    Parameters
    ----------
    make : callable
        Returns the function, pure; called when it is to be traced.
    static_argnames : str or sequence of str, optional
        Arguments that are part of the program.
    """

    def __init__(self, make, static_argnames=()):
        self._make, self._static = make, static_argnames

    @cached_property
    def jitted(self):
        """The function of `jax.jit`."""
        return jax.jit(self._make(), static_argnames=self._static)

    def __call__(self, *args, **kwargs):
        """Run the function with these arguments; a tree of JAX arrays comes back."""
        _check_not_forked()
        _keep_programs(os.environ.get(CACHE_VARIABLE, ""))
        return self.jitted(*args, **kwargs)


_running = set()  # processes in which JAX was started by this package: this one, and those it is a copy of


def _check_not_forked():
    """Refuse to compute in a copy of a process in which JAX runs: its threads are not there."""
    process = os.getpid()
    if process in _running:
        return
    if _running:
        raise ForkedError(
            "this process is a copy (os.fork) of one in which the package has computed, and JAX does not "
            "survive that; start processes with multiprocessing.get_context('spawn')"
        )
    _running.add(process)


@lru_cache(maxsize=1)
def _keep_programs(named):
    """Give JAX the folder that a variable names, unless the user has given it one."""
    folder = None if jax.config.jax_compilation_cache_dir else programs_folder(named)
    if folder is None:
        return
    jax.config.update("jax_compilation_cache_dir", folder)
    jax.config.update("jax_persistent_cache_min_compile_time_secs", WORTH_KEEPING)
    if find_spec("filelock"):  # by which JAX clears away
        jax.config.update("jax_compilation_cache_max_size", _LARGEST)
    compilation_cache.reset_cache()  # something may have been compiled already
