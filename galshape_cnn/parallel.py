# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""Batches of fixed size, threads and progress bar."""

import os
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import lru_cache

import numpy as np

__all__ = [
    "filled_up",
    "fixed_batches",
    "mapped",
    "one_blas_thread",
    "places_of",
    "progress_bar",
    "usable_cores",
]

_BLAS_LOCK = threading.Lock()
_BLAS_USERS, _BLAS_BEFORE = [], []  # who wants one thread, and what there was before the first


def usable_cores():
    """Number of cores this process may use, at least 1."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def fixed_batches(rows, sizes):
    """Yield rows in batches of fixed sizes: the next ones, and the same filled up by repeating the first.

    Of several sizes, largest first, the smallest is taken where fewer rows are left.
    """
    sizes, start = np.atleast_1d(sizes), 0
    while start < len(rows):
        size = next((s for s in sizes if len(rows) - start >= s), sizes[-1])
        part = rows[start : start + size]
        yield part, filled_up(part, size)
        start += size


def filled_up(rows, size):
    """Rows, the first of them repeated behind until their number is a multiple of a size."""
    return np.concatenate([rows, np.full(-len(rows) % size, rows[0])])


def places_of(rows, count):
    """(count,) int ndarray: at each of some rows its number among them, and -1 elsewhere."""
    place = np.full(count, -1)
    place[rows] = np.arange(len(rows))
    return place


def mapped(function, items, threads):
    """Yield the results of a function of one item, in order, computed by a number of threads.

    One thread is the calling one.
    """
    if threads == 1 or len(items) < 2:
        yield from map(function, items)
        return
    with ThreadPoolExecutor(min(threads, len(items))) as pool:
        yield from pool.map(function, items)


@lru_cache(maxsize=1)
def _blas_libraries():
    """What NumPy and SciPy have loaded; looking takes milliseconds."""
    import scipy.linalg  # noqa: F401  its library is to be found too
    from threadpoolctl import ThreadpoolController

    return ThreadpoolController().select(user_api="blas").lib_controllers


@contextmanager
def one_blas_thread():
    """Keep BLAS from starting threads of its own while batches are measured.

    Its products here are small, and threads of OpenBLAS that wait for the next one spin: they took a
    third of both cores from the batches.  Several callers may overlap in several threads.
    """
    with _BLAS_LOCK:
        if not _BLAS_USERS:
            _BLAS_BEFORE[:] = [one.num_threads for one in _blas_libraries()]
            _set_blas_threads([1] * len(_BLAS_BEFORE))
        _BLAS_USERS.append(None)
    try:
        yield
    finally:
        with _BLAS_LOCK:
            _BLAS_USERS.pop()
            if not _BLAS_USERS:
                _set_blas_threads(_BLAS_BEFORE)


def _set_blas_threads(counts):
    for library, count in zip(_blas_libraries(), counts, strict=True):
        # newer threadpoolctl does nothing in any thread but the first that ever set a number
        getattr(library, "_real_set_num_threads", library.set_num_threads)(count)


def progress_bar(total, wanted):
    """Function that advances a progress bar of a total by a count; does nothing if none is wanted."""
    if not wanted:
        return lambda count: None
    from astropy.utils.console import ProgressBar

    return _Advance(ProgressBar(total))


class _Advance:
    """Adds counts to an astropy progress bar."""

    def __init__(self, bar):
        self._bar, self._done = bar, 0

    def __call__(self, count):
        self._done += count
        self._bar.update(self._done)
