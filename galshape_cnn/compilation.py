# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""Compiled functions, kept between runs where a folder is named.

JAX's own persistent cache keeps what XLA compiled, but finds it by the traced and lowered function: each
run imports Keras, traces a few thousand operations and lowers them only to learn that the program is there.
Here a program is found by what it is made from (the sources of this package, the shapes of the arguments,
the versions of the libraries, the processor), and a run that finds all of its programs traces nothing.

What is kept is machine code with references to functions of its process.  So a new program must give the
same numbers when it is read back, and later runs find it only when a process of its own has run it
(`prove`): what cannot be run elsewhere costs that process, not the user's.

Only a folder and files that no other user can write to are used, and no links are followed. The folder is
that of ``GALSHAPE_COMPILE_CACHE``, which the command line sets. Without it, or where the user has set
JAX's own cache, functions are those of `jax.jit` (and an executable that JAX took from its cache cannot
be written again). With other devices than one CPU, JAX's cache is used, in that folder.

Programs may depend on nothing but their arguments and what `_circumstances` and `Program` look at; those
with random numbers, whose kind is a setting of JAX, stay with `jax.jit`.
"""

import atexit
import hashlib
import inspect
import multiprocessing
import os
import pickle
import platform
import subprocess
import sys
import threading
import time
from contextlib import suppress
from functools import cached_property, lru_cache, partial, wraps
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental.compilation_cache import compilation_cache
from jax.experimental.serialize_executable import deserialize_and_load, serialize

from galshape_cnn.environment import CACHE_VARIABLE, named_folder
from galshape_cnn.errors import FileError, ForkedError
from galshape_cnn.own_files import make_own_folder, own_entries, read_own, write_own

__all__ = ["Program", "compiled", "prove"]

_LIBRARIES = ("jax", "jaxlib", "keras", "numpy", "scipy")  # the last two: tables that become constants
_VARIABLES = ("XLA_FLAGS", "NPROC", "JAX_PLATFORMS")
_PREFIX = "galshape-"  # of folders that are ours
_LARGEST = 2**29  # bytes of all programs; those used longest ago go
_NEW, _BAD = ".new", ".bad"  # no other process has run it yet; such a process did not survive it
_PATIENCE = 120  # seconds that such a process may take
_FORGIVEN = 86400  # seconds after which a bad program is tried again: it may have been killed from outside
_IMPORTED = time.time()


def compiled(function=None, *, static_argnames=()):
    """`jax.jit`, with programs that are kept between runs; for functions of this package.

    Parameters
    ----------
    function : callable
        Pure, at the top level of a module, without ``*args`` and ``**kwargs``; arguments are arrays, or
        trees of them.
    static_argnames : str or sequence of str, optional
        Arguments that are part of the program: hashable, and told apart by their ``repr``; functions
        at the top level of modules.

    Returns
    -------
    function : callable
        Within other transformations of JAX it is `jax.jit` itself.
    """
    if function is None:
        return partial(compiled, static_argnames=static_argnames)
    program = Program(f"{function.__module__}.{function.__qualname__}", lambda: function, static_argnames)
    signature = inspect.signature(function)

    @wraps(function)
    def call(*args, **kwargs):
        given = signature.bind(*args, **kwargs)
        given.apply_defaults()
        return program(**given.arguments)

    return call


class Program:
    """A function compiled for each shape of its arguments, as by `jax.jit`; threads may share it.

    Parameters
    ----------
    name : str
        Tells it, and all that it holds, apart from other functions, in this run and in later ones.
    make : callable
        Returns the function, pure; called when it is to be traced, and not where its program is found.
    static_argnames : str or sequence of str, optional
        Arguments that are part of the program; they must be given, and by name.
    """

    def __init__(self, name, make, static_argnames=()):
        self._name, self._make = name, make
        self._static = (static_argnames,) if isinstance(static_argnames, str) else tuple(static_argnames)
        self._programs, self._lock = {}, threading.Lock()

    @cached_property
    def jitted(self):
        """The function of `jax.jit`, which keeps nothing."""
        return jax.jit(self._make(), static_argnames=self._static)

    def __call__(self, *args, **kwargs):
        """Run the function.

        Parameters
        ----------
        *args, **kwargs
            Its arguments.

        Returns
        -------
        result : tree of jax arrays
        """
        _check_not_forked()
        folder = _folder()
        arrays = {name: value for name, value in kwargs.items() if name not in self._static}
        leaves, tree = jax.tree.flatten((args, arrays))
        if folder is None or any(isinstance(leaf, jax.core.Tracer) for leaf in leaves):
            return self.jitted(*args, **kwargs)
        fixed = tuple(_label(kwargs[name]) for name in self._static)
        modes = jax.config.jax_enable_x64, jax.config.jax_default_matmul_precision
        key = folder, self._name, fixed, tree, tuple(map(_kind, leaves)), modes
        program = self._programs.get(key)
        if program is None:
            with self._lock:  # the work of one thread is enough
                if key not in self._programs:
                    path = folder / hashlib.sha256(repr(key[1:]).encode()).hexdigest()
                    self._programs[key] = _read(path)[0] or self._kept(path, args, kwargs, arrays)
                program = self._programs[key]
        return program(*args, **arrays)

    def _kept(self, path, args, kwargs, arrays):
        """Compile the program and write it; as later runs will read it, or itself if that cannot be done."""
        program = self.jitted.lower(*args, **kwargs).compile()
        if _is_bad(path) or _newest_source() > _IMPORTED:
            return program
        try:
            kept = serialize(program)
            later = deserialize_and_load(*kept)
            both = (jax.tree.leaves(one(*args, **arrays)) for one in (program, later))
            if not all(np.array_equal(a, b, equal_nan=True) for a, b in zip(*both, strict=True)):
                return program
            example = jax.tree.map(lambda leaf: np.zeros(leaf.shape, leaf.dtype), program.in_avals)
            content = pickle.dumps((kept, example))
        except Exception:  # versions that cannot do it
            return program
        with suppress(OSError):  # a full disk, or a folder that is not ours alone
            make_own_folder(path.parent.parent)
            make_own_folder(path.parent)
            write_own(path.with_suffix(_NEW), hashlib.sha256(content).digest() + content)
        return later


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


def _label(value):
    """What stands for a static argument in the name of a file."""
    return f"{value.__module__}.{value.__qualname__}" if inspect.isfunction(value) else repr(value)


def _kind(leaf):
    """Shape and type of an argument, as JAX sees it."""
    kind = jax.typeof(leaf)
    return kind.shape, str(kind.dtype), kind.weak_type


def _folder():
    """Where the programs of this process are kept, or None."""
    named = named_folder(os.environ.get(CACHE_VARIABLE, ""))
    if named is None or jax.config.jax_compilation_cache_dir:
        return None
    folder, circumstances = Path(named), _circumstances()
    if circumstances is not None:
        _prove_at_exit(folder)
        return None if jax.config.jax_disable_jit else folder / circumstances
    try:  # JAX executes what it finds there
        make_own_folder(folder)
        make_own_folder(folder / "jax")
    except FileError:
        return None
    jax.config.update("jax_compilation_cache_dir", str(folder / "jax"))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.05)
    compilation_cache.reset_cache()  # something may have been compiled already
    return None


@lru_cache(maxsize=1)
def _circumstances():
    """Name for all that programs depend on beside their arguments; None where that is not known."""
    sources = _sources()
    if (
        not sources
        or jax.default_backend() != "cpu"
        or jax.device_count() > 1
        or _newest_source() > _IMPORTED
    ):
        return None
    try:
        versions = tuple(map(version, _LIBRARIES))
    except PackageNotFoundError:  # or it goes by another name
        return None
    owner = os.getuid() if hasattr(os, "getuid") else None
    machine = _short_hash(repr((sys.version, versions, owner, _processor())).encode())
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    facts = repr((cores, *map(os.environ.get, _VARIABLES))).encode()
    return f"{_PREFIX}{machine}-{_short_hash(facts, *(path.read_bytes() for path in sources))}"


def _short_hash(*contents):
    digest = hashlib.sha256()
    for content in contents:
        digest.update(content)
    return digest.hexdigest()[:16]


@lru_cache(maxsize=1)
def _sources():
    root = Path(__file__).parent
    return sorted(path for path in root.rglob("*.py") if "tests" not in path.relative_to(root).parts)


def _newest_source():
    """When a source was last changed: after it was imported, it is not what programs are made from."""
    try:
        return max(path.stat().st_mtime for path in _sources())
    except OSError:  # another version is just being installed
        return np.inf


def _processor():
    """What a compiler knows of the processor; homes are shared between machines that differ."""
    with suppress(OSError), open("/proc/cpuinfo", encoding="utf-8") as file:
        lines = [line.rstrip() for line in file]
        wanted = ("model name", "flags", "Features", "CPU part")
        return sorted({line for line in lines if line.startswith(wanted)})
    return platform.machine(), platform.processor()


@lru_cache(maxsize=1)
def _learn_addresses():
    """Programs call LAPACK by addresses that JAX asks SciPy for when it lowers such a call."""
    jax.jit(jnp.linalg.cholesky).lower(np.eye(1, dtype=np.float32))


def _read(path):
    """The program of a file and an example of its arguments, or None and None."""
    try:
        kept = read_own(path)  # what is unpickled can do anything
        digest, content = kept[:32], kept[32:]
        if hashlib.sha256(content).digest() != digest:
            return None, None
        with suppress(OSError):
            os.utime(path)  # used: not to be cleared away
        _learn_addresses()
        kept, example = pickle.loads(content)
        return deserialize_and_load(*kept), example
    except Exception:  # whatever is wrong with it, it can be compiled again
        return None, None


def _is_bad(path):
    try:
        return path.with_suffix(_BAD).stat().st_mtime > time.time() - _FORGIVEN
    except OSError:
        return False


@lru_cache
def _prove_at_exit(root):
    if multiprocessing.parent_process() is None:  # which does it for its workers, after their end
        atexit.register(prove, root)


def prove(root):
    """Run the new programs of this machine in a process of its own; those that it survives are kept.

    Parameters
    ----------
    root : path-like
        Folder that ``GALSHAPE_COMPILE_CACHE`` names.
    """
    root, machine = Path(root), _circumstances().rpartition("-")[0]
    paths = [os.path.abspath(entry) for entry in sys.path if isinstance(entry, str)]
    code = "import sys; sys.path[:] = {!r}; from galshape_cnn import compilation, environment; {}"
    code = code.format(paths, "environment.end_with_parent(); compilation._run_new(*sys.argv[1:])")
    command = [sys.executable, "-c", code, root, machine]
    how = {"stdin": subprocess.DEVNULL, "stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    with suppress(OSError, subprocess.SubprocessError, KeyboardInterrupt):
        left, before = len(_new(root, machine)), None
        while left and left != before:  # it ends early at a program that kills it
            env = os.environ | {"JAX_PLATFORMS": "cpu"}
            subprocess.run(command, env=env, timeout=_PATIENCE, check=False, **how)
            left, before = len(_new(root, machine)), left
        _clear(root)


def _new(root, machine):
    """Files of programs that no other process has run yet."""
    return [path for path in own_entries(root, f"{machine}-") if path.suffix == _NEW]


def _run_new(root, machine):
    """Run the new programs in this process, each marked as bad meanwhile."""
    for new in _new(root, machine):
        bad = new.with_suffix(_BAD)
        try:
            os.utime(new)
            os.replace(new, bad)
        except FileNotFoundError:  # another process was faster
            continue
        try:
            program, (args, arrays) = _read(bad)
            with jax.enable_x64(True):  # or double precision would be made single
                jax.block_until_ready(program(*args, **arrays))
            os.replace(bad, new.with_suffix(""))
        except Exception:  # it stays what it is called
            continue
        except BaseException:  # interrupted, which is not its fault
            bad.unlink(missing_ok=True)
            raise


def _clear(root):
    """Remove programs that were used longest ago, where all of them are too large."""
    files = own_entries(root, _PREFIX)
    size = 0
    for path in sorted(files, key=lambda path: path.stat().st_mtime, reverse=True):
        size += path.stat().st_size
        if size > _LARGEST:
            path.unlink(missing_ok=True)
    for folder in {path.parent for path in files}:
        with suppress(OSError):  # it is not empty
            folder.rmdir()
