# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""Process set-up: environment variables, memory allocation, binding to a core."""

import ctypes
import os
import sys
import threading
import time
from contextlib import contextmanager, suppress

__all__ = [
    "CACHE_VARIABLE",
    "end_with_parent",
    "environment",
    "keep_freed_memory",
    "keep_to_core",
    "named_folder",
    "unset_of",
]

#: Names the folder in which compiled programs are kept; ``off``, or unset or empty, for none.
CACHE_VARIABLE = "GALSHAPE_COMPILE_CACHE"

#: Options of glibc's ``mallopt`` and their values: freed memory is kept up to the first, arrays of any size
#: come from it, and all threads share it.
_MALLOC = {"trim_threshold": (-1, 2**30), "mmap_max": (-4, 0), "arena_max": (-8, 1)}


def unset_of(values):
    """Those of some environment variables, values by name, that the user has not set."""
    return {name: value for name, value in values.items() if name not in os.environ}


@contextmanager
def environment(values):
    """Set variables for a while, for libraries imported and processes started meanwhile.

    What the user has set stays.
    """
    new = unset_of(values)
    os.environ.update(new)
    try:
        yield
    finally:
        for name in new:
            os.environ.pop(name, None)


def named_folder(text):
    """The folder that a variable's text names, or None where it is ``off``, ``0``, ``no`` or empty."""
    text = text.strip()
    return None if text.lower() in ("", "off", "0", "no") else os.path.expanduser(text)


def end_with_parent():
    """Let this process end when the one that started it does, whatever ends that: a signal, or a kill.

    A worker waits for work from a parent that is gone, for ever, and keeps its memory.  Called once, first of
    all, in a process of `multiprocessing` or one that a command started.
    """
    import multiprocessing
    from multiprocessing import connection

    parent, first = multiprocessing.parent_process(), os.getppid()

    def watch():
        if parent is not None:
            connection.wait([parent.sentinel])
        while parent is None and os.getppid() == first:
            time.sleep(1)
        os._exit(1)  # nothing that it may still be doing is wanted

    threading.Thread(target=watch, name="galshape-parent", daemon=True).start()


def keep_freed_memory():
    """Let this process keep the memory of one batch for the next; it cannot be taken back.

    Batches and images need the same tens of MB again and again, and glibc hands them back to the system in
    between, above all in threads; Dask asks it to.  Cleared anew each time, they cost a quarter of the
    processor time.  For processes of the package's own only, and nothing where the C library is another.
    """
    if sys.platform != "linux":
        return
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        for option, value in _MALLOC.values():
            mallopt(option, value)


def keep_to_core(index, count):
    """Bind the process of this index, of a count, to one core, where there is one process for each core.

    Returns a function that lets the process use all its cores again. The threads of Python and of XLA take
    turns; moved between cores they find the caches cold, and a core now and then idle while two of them wait
    for the other: a sixth of the rate. With fewer processes than cores, or more, the system's own choice is
    better.
    """
    cores = sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_setaffinity") else []
    if count == 1 or len(cores) != count:
        return lambda: None
    _bind({cores[index]})
    return lambda: _bind(cores)


def _bind(cores):
    """Bind all threads of this process, as far as the system allows it."""
    with suppress(OSError):  # without /proc there is nothing to be done
        for thread in os.listdir("/proc/self/task"):
            with suppress(OSError):  # the thread has just ended, or a container forbids it
                os.sched_setaffinity(int(thread), cores)
