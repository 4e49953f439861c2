# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""The chunks of an injection, on threads, processes or a cluster."""

import warnings
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor, as_completed
from contextlib import contextmanager
from multiprocessing import get_context

from astropy.table import vstack

from galshape_cnn.environment import keep_freed_memory
from galshape_cnn.errors import GalshapeWarning, InputError
from galshape_cnn.parallel import progress_bar, usable_cores
from galshape_cnn.study.inject.realisation import run_chunk

__all__ = ["run_all"]

_JOB = []  # of this process, where it is one of several


def run_all(job, *, output=None, workers=None, executor=None, progress=False):
    """Do all chunks of a job.

    Parameters
    ----------
    job : Job
        What to do.
    output, workers, executor, progress
        As for `galshape_cnn.inject`.

    Returns
    -------
    table : `~astropy.table.QTable`
        All rows in the order of the galaxies.

    Raises
    ------
    InputError
        If ``workers`` is below one, or no galaxy found a place.
    """
    if workers is not None and workers < 1:
        raise InputError(f"workers={workers}; at least one is needed")
    numbers = range(len(job.chunks()))
    tables, bar = {}, progress_bar(len(job.galaxies), progress)
    with _submitter(job, workers, executor) as submit, _quiet():
        waiting = {submit(number): number for number in numbers}
        for future in as_completed(waiting):
            tables[waiting[future]] = future.result()
            bar(_count(job, waiting[future]))
    parts = [tables[number] for number in numbers if tables[number] is not None]
    if not parts:
        raise InputError("no galaxy found a free place in the image; allow a smaller clearance")
    return vstack(parts, metadata_conflicts="silent")


def _count(job, number):
    """Galaxies of a chunk."""
    return sum(int((job.realisation == one).sum()) for one in job.chunks()[number])


@contextmanager
def _submitter(job, workers, executor):
    """A function that begins a chunk and returns a future."""
    if executor is not None:
        yield lambda number: executor.submit(run_chunk, job, number)
    elif workers is None:
        with ThreadPoolExecutor(usable_cores()) as pool:
            yield lambda number: pool.submit(run_chunk, job, number)
    else:
        with ProcessPoolExecutor(workers, get_context("spawn"), _begin, (job,)) as pool:
            yield lambda number: pool.submit(_of_this_process, number)


def _begin(job):
    """What a process does first."""
    keep_freed_memory()
    _JOB[:] = [job]


def _of_this_process(number):
    return run_chunk(_JOB[0], number)


@contextmanager
def _quiet():
    """Without a warning for every chunk that holds a galaxy that could not be measured."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=r"\d+ of \d+ galaxies could", category=GalshapeWarning)
        yield
