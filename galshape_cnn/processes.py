# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""Worker processes: spawned, given a job once, ended with their parent."""

import pickle
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import current_process, get_context
from pathlib import Path
from tempfile import TemporaryDirectory

from galshape_cnn.environment import end_with_parent, keep_freed_memory

__all__ = ["NO_MAIN_GUARD", "JobFile", "check_main_guard", "worker_pool"]

#: What is wrong where worker processes end before they begin to work.
NO_MAIN_GUARD = (
    "the worker processes ended before they began to work.  Each imports the script that started them: "
    "there, what is not an import or a definition must stand under  if __name__ == '__main__':  "
    "(or use no workers)"
)


def check_main_guard():
    """End a worker process that runs the script which started it; its parent says what is wrong.

    To be called before worker processes are started, and before anything that takes long.
    """
    if getattr(current_process(), "_inheriting", False):
        raise SystemExit(1)


class JobFile:
    """An object written once for all worker processes, in a folder that no other user can read.

    Sent with the arguments of a process, what is more than a pipe holds blocks the parent for ever where the
    process ends before it has read it.

    Parameters
    ----------
    job : object
        Anything that can be pickled.

    Attributes
    ----------
    path : Path
        For `read`, in a worker.
    """

    def __init__(self, job):
        self._folder = TemporaryDirectory(prefix="galshape-")
        self.path = Path(self._folder.name) / "job"
        self.path.write_bytes(pickle.dumps(job))

    @staticmethod
    def read(path):
        """The object, in a worker process that was given the path."""
        return pickle.loads(path.read_bytes())

    def close(self):
        """Delete the file."""
        self._folder.cleanup()


def worker_pool(count, begin=None, arguments=()):
    """Processes with one interpreter each, which end when this one does, whatever ends it.

    Spawned, because a forked copy of a process in which JAX runs may hang. Each first calls ``begin``, found
    by its name at the top level of a module, with small ``arguments``, see `JobFile`.
    """
    check_main_guard()
    return ProcessPoolExecutor(count, get_context("spawn"), _begin, (begin, arguments))


def _begin(begin, arguments):
    end_with_parent()
    keep_freed_memory()
    if begin is not None:
        begin(*arguments)
