# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""Executors of a run: threads, processes, Dask workers.

A `Job` reaches every worker once; after that a chunk is two numbers there and a few hundred
kilobytes back.  A worker that dies is replaced and its chunk tried again; a chunk that kills
workers is halved until the galaxy that does it is alone, and that becomes a row of errors.
"""

import secrets
import warnings
from concurrent.futures import ThreadPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from dataclasses import dataclass, field
from importlib import import_module
from multiprocessing import get_context
from os import getpid

from galshape_cnn.environment import environment, keep_to_core
from galshape_cnn.errors import InputError, LostRowsWarning
from galshape_cnn.parallel import usable_cores
from galshape_cnn.processes import NO_MAIN_GUARD, JobFile, check_main_guard, worker_pool
from galshape_cnn.quantities import whole_number
from galshape_cnn.scale.blocks import Schema, failed_rows, join_rows, measure_rows

__all__ = [
    "ONE_THREAD",
    "Job",
    "ProcessWorkers",
    "Processes",
    "ThreadWorkers",
    "drop_job",
    "local_workers",
    "measure_of_job",
    "take_job",
]

#: Jobs this process has been sent.
_JOBS = {}
_LONGEST_TURN = 30.0  # seconds that a process waits for others to import: one of them may have died
#: A worker computes on one thread; BLAS and XLA are told so.  The last sets the size of all pools that XLA
#: starts: it splits small operations among them, and takes a tenth more processor time for it.
ONE_THREAD = {
    "OMP_NUM_THREADS": "1",
    "OPENBLAS_NUM_THREADS": "1",
    "MKL_NUM_THREADS": "1",
    "XLA_FLAGS": "--xla_cpu_multi_thread_eigen=false",
    "NPROC": "1",
}


@dataclass(frozen=True, eq=False)
class Job:
    """What to measure and how.

    Attributes
    ----------
    estimator : ShapeEstimator
        With its network.
    source : Source
        The galaxies.
    how : dict
        Options of the measurement.
    schema : Schema
        What all rows have in common.
    token : str
        Name of the job among those of a worker.
    """

    estimator: object
    source: object
    how: dict
    schema: Schema
    token: str = field(default_factory=lambda: secrets.token_hex(8))

    def measure(self, start, stop):
        """Measure a range of rows."""
        return measure_rows(self.estimator, self.source, start, stop, self.how, self.schema)

    def give_up(self, start, stop, reason):
        """Blank rows for a range that cannot be measured."""
        return failed_rows(self.source, start, stop, self.schema, reason)


def take_job(job):
    """Keep a job in this process, to be found again by its token."""
    _JOBS[job.token] = job


def _begin(numbers, count, turns):
    """What a process of its own does first: whatever it will need is imported before it has a job."""
    with numbers.get_lock():
        index, numbers.value = numbers.value, numbers.value + 1
    keep_to_core(index, count)
    warnings.simplefilter("ignore", LostRowsWarning)  # the parent says how many there were
    turn = turns.acquire(timeout=_LONGEST_TURN)
    try:
        import_module("galshape_cnn.infer.measure.pipeline")
    finally:
        if turn:
            turns.release()


def _call_of_file(path):
    """Call a function that was written to a file with its arguments."""
    function, arguments = JobFile.read(path)
    return function(*arguments)


def _measure_of_file(path, token, start, stop):
    """The same as `measure_of_job`, of the job in a file, which each process reads once."""
    if token not in _JOBS:
        take_job(JobFile.read(path))
    return measure_of_job(token, start, stop)


def drop_job(token):
    """Forget a job."""
    _JOBS.pop(token, None)


def measure_of_job(token, start, stop):
    """Measure a range of the job, of a token, that this process was sent."""
    return _JOBS[token].measure(start, stop)


class ThreadWorkers:
    """Threads of this process.

    Parameters
    ----------
    job : Job
        What to measure.
    count : int
        Number of threads.
    """

    def __init__(self, job, count):
        self._job, self.count = job, count
        self._pool = ThreadPoolExecutor(count, "galshape")

    def submit(self, start, stop):
        """Begin a range of rows; returns a future."""
        return self._pool.submit(self._job.measure, start, stop)

    def result(self, future, start, stop):
        """Rows of a range that was begun."""
        return future.result()

    def close(self):
        """Let the threads go."""
        self._pool.shutdown(cancel_futures=True)


class Processes:
    """Processes with one thread each, which begin to import while nobody has a job for them yet.

    Parameters
    ----------
    count : int
        Number of processes.
    spared : int, optional
        Cores that are left alone while they import, for what this process does meanwhile.
    """

    def __init__(self, count, spared=0):
        check_main_guard()
        self.count, self._spared = count, spared
        self._begun = False  # whether any process ever came so far
        self.renew()
        self._first = [self.submit(getpid) for _ in range(count)]  # a submission starts a process

    def renew(self):
        """Let new processes take the place of a pool that broke."""
        context = get_context("spawn")
        self._numbers = context.Value("i", 0)
        turns = context.Semaphore(max(min(self.count, usable_cores()) - self._spared, 1))
        self.pool = worker_pool(self.count, _begin, (self._numbers, self.count, turns))

    def submit(self, function, *arguments):
        """Begin a call in one of them; returns a future."""
        with environment(ONE_THREAD):  # a submission starts a process where none is idle
            return self.pool.submit(function, *arguments)

    def call(self, function, *arguments):
        """What a function returns, called in one of them; here where they cannot begin."""
        file = JobFile((function, arguments))
        try:
            return self.submit(_call_of_file, file.path).result()
        except BrokenProcessPool:
            return function(*arguments)
        finally:
            file.close()

    def check_begun(self):
        """Refuse to try again where no process has ever come to its work."""
        self._begun = self._begun or self._numbers.value > 0
        if not self._begun:
            raise InputError(NO_MAIN_GUARD) from None

    def are_ready(self):
        """Whether they have come to their work; waits for it."""
        try:
            return all(one.result() for one in self._first)
        except BrokenProcessPool:
            return False

    def close(self):
        """End them; at once where they have not come to any work, or have done all of it."""
        at_work = self.pool._pending_work_items and all(one.done() for one in self._first)
        processes = {} if at_work else self.pool._processes or {}  # None once they have ended
        for process in list(processes.values()):  # public from Python 3.14: kill_workers
            process.kill()
        self.pool.shutdown(cancel_futures=True)


class ProcessWorkers:
    """Processes that measure a job.

    Parameters
    ----------
    job : Job
        Sent to each process once.
    processes : Processes or int
        Or how many to start.
    """

    def __init__(self, job, processes):
        self._processes = processes if isinstance(processes, Processes) else Processes(processes)
        self._job, self._futures = job, {}
        self._file = JobFile(job)

    @property
    def count(self):
        """Number of processes."""
        return self._processes.count

    def submit(self, start, stop):
        """Begin a range of rows; returns a future."""
        task = _measure_of_file, self._file.path, self._job.token, start, stop
        try:
            future = self._processes.submit(*task)
        except BrokenProcessPool:
            self._processes.check_begun()
            self._processes.renew()
            future = self._processes.submit(*task)
        self._futures[future] = self._processes.pool
        return future

    def result(self, future, start, stop):
        """Rows of a range that was begun; where its process died, of another try."""
        try:
            return future.result()
        except BrokenProcessPool:
            self._processes.check_begun()
            # One dead process breaks the pool, and with it chunks that did no harm.
            if self._futures.pop(future) is self._processes.pool:
                self._processes.renew()
            return self._alone(start, stop)
        finally:
            self._futures.pop(future, None)

    def _alone(self, start, stop):
        """Try a range with nothing else in the pool, and its halves if that dies again."""
        try:
            return self.submit(start, stop).result()
        except BrokenProcessPool as error:
            self._processes.renew()
            if stop - start == 1:
                return self._job.give_up(start, stop, f"the process that measured it died: {error}")
            middle = (start + stop) // 2
            return join_rows([self._alone(start, middle), self._alone(middle, stop)])

    def close(self):
        """End the processes."""
        self._processes.close()
        self._file.close()


@contextmanager
def local_workers(job, workers=None):
    """Yield threads of this process, one for each core it may use, or other processes.

    ``workers`` is their number, or `Processes`; ``InputError`` if it is below one.
    """
    if workers is not None and not isinstance(workers, Processes):
        workers = whole_number(workers, "workers", 1)
    pool = ThreadWorkers(job, usable_cores()) if workers is None else ProcessWorkers(job, workers)
    try:
        yield pool
    finally:
        pool.close()
