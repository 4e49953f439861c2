# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""Chunks of an injection on threads, processes or a cluster; an interrupted run is resumed.

::

    OUT/
      injected.ecsv, injected.fits     truth and measurement, once all is done
      .chunks/00000.ecsv               the galaxies of some realisations, until then
      .chunks/run.json                 what these belong to
"""

import hashlib
import json
import shutil
import warnings
from concurrent.futures import ThreadPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from pathlib import Path

from astropy.table import QTable

from galshape_cnn.errors import InputError, LostRowsWarning
from galshape_cnn.files import check_writable_folder, made_folder, written_whole
from galshape_cnn.fingerprint import fingerprint
from galshape_cnn.infer.catalog.tables import stacked, write_table
from galshape_cnn.parallel import progress_bar, usable_cores
from galshape_cnn.processes import NO_MAIN_GUARD, JobFile, worker_pool
from galshape_cnn.quantities import whole_number
from galshape_cnn.study.inject.realisation import run_chunk

__all__ = ["TABLE", "ChunkFolder", "run_all"]

#: Name of the table of a finished run.
TABLE = "injected.ecsv"
_CHUNKS, _MANIFEST = ".chunks", "run.json"
_VERSION = 1  # of what a chunk holds; a change makes earlier ones void
_JOB = []  # of this process, where it is one of several


def run_all(job, *, output=None, workers=None, executor=None, progress=False):
    """Do all chunks of a job: a table of all rows, in the order of the galaxies.

    ``output`` is the folder for chunks and table, other options are as for `galshape_cnn.inject`.
    ``InputError`` if ``workers`` is below one, the folder holds another run, or no galaxy found a place;
    ``FileError`` if the folder cannot be written.
    """
    workers = None if workers is None else whole_number(workers, "workers", 1)
    folder = None if output is None else ChunkFolder(output, _key(job))
    table = None if folder is None else folder.finished()
    if table is not None:
        return table
    numbers = range(len(job.chunks()))
    tables = {} if folder is None else folder.read(numbers)
    bar = progress_bar(sum(map(job.galaxies_in, numbers)), progress)
    bar(sum(map(job.galaxies_in, tables)))
    with _submitter(job, workers, executor) as submit, warnings.catch_warnings():
        warnings.simplefilter("ignore", LostRowsWarning)
        waiting = {submit(number): number for number in numbers if number not in tables}
        for future in as_completed(waiting):
            number = waiting[future]
            tables[number] = future.result()
            if folder is not None:
                folder.write(number, tables[number])
            bar(job.galaxies_in(number))
    parts = [tables[number] for number in numbers if tables[number] is not None]
    if not parts:
        raise InputError("no galaxy found a free place in the image; allow a smaller clearance")
    table = stacked(parts)
    table.meta["injection"] = job.record()
    return table if folder is None else folder.finish(table)


class ChunkFolder:
    """Finished chunks of a run.

    Parameters
    ----------
    path : path-like
        Folder; made if missing.
    key : str
        Changes with everything that decides the numbers.

    Raises
    ------
    InputError
        If the folder holds a run of another key.
    FileError
        If it cannot be written.
    """

    def __init__(self, path, key):
        self.path, self.key = Path(path), key
        self._chunks = self.path / _CHUNKS
        if (self.path / TABLE).exists():
            self._refuse_another(QTable.read(self.path / TABLE).meta.get("key"))
        elif (self._chunks / _MANIFEST).exists():
            self._refuse_another(json.loads((self._chunks / _MANIFEST).read_text())["key"])
        made_folder(self._chunks)
        check_writable_folder(self.path, "the injection")
        with written_whole(self._chunks / _MANIFEST) as beside:
            beside.write_text(json.dumps({"key": key}))

    def _refuse_another(self, key):
        if key != self.key:
            raise InputError(
                f"output {str(self.path)!r} holds an injection with another image or other options; repeat "
                "that command to go on, or choose another name"
            )

    def finished(self):
        """The table of a run that is done, or None."""
        path = self.path / TABLE
        return QTable.read(path) if path.exists() else None

    def _file(self, number):
        return self._chunks / f"{number:05d}.ecsv"

    def read(self, numbers):
        """Chunks that are done, by their numbers; None for one without a galaxy."""
        there = {number: self._file(number) for number in numbers if self._file(number).exists()}
        return {n: QTable.read(path) if path.stat().st_size else None for n, path in there.items()}

    def write(self, number, table):
        """Keep a chunk; the file of one without a galaxy is empty."""
        if table is None:
            self._file(number).touch()
        else:
            write_table(table, self._file(number), overwrite=True)

    def finish(self, table):
        """Write the whole table, with the run's key in its metadata, and drop the chunks."""
        table.meta["key"] = self.key
        write_table(table, self.path / "injected.fits", overwrite=True)
        write_table(table, self.path / TABLE, overwrite=True)
        shutil.rmtree(self._chunks)
        return table


def _key(job):
    """Text that changes with everything that decides the numbers of a job."""
    from galshape_cnn import __version__

    image, network = job.image, getattr(getattr(job.estimator, "bundle", None), "sha256", None)
    network = type(job.estimator).__name__ if network is None else network
    parts = [__version__, _VERSION, network, image.data, image.uncertainty.array, image.mask, image.unit]
    parts += [
        None if image.wcs is None else job.jacobian_at(job.middle),
        job.drawn_psf.arrays(job.middle, job.jacobian_at(job.middle)).array,
    ]
    parts += [job.galaxies, job.realisation, job.xy, job.room, job.record()]
    parts += [{name: value for name, value in job.cutting.items() if name != "psf"}, job.call]
    return hashlib.sha256(fingerprint(parts).encode()).hexdigest()[:16]


@contextmanager
def _submitter(job, workers, executor):
    """A function that begins a chunk and returns a future."""
    if executor is not None:
        yield lambda number: executor.submit(run_chunk, job, number)
        return
    file = None if workers is None else JobFile(job)
    if file is None:
        pool = ThreadPoolExecutor(usable_cores(), "galshape")
        begin = lambda number: pool.submit(run_chunk, job, number)  # noqa: E731
    else:
        pool = worker_pool(workers, _begin, (file.path,))
        begin = lambda number: pool.submit(_of_this_process, number)  # noqa: E731
    try:
        yield begin
    except BrokenProcessPool as error:
        reason = f"workers={workers}: {NO_MAIN_GUARD}; or one was killed, for want of memory"
        raise InputError(reason) from error
    finally:
        pool.shutdown(cancel_futures=True)  # after an error or an interruption nothing more is begun
        if file is not None:
            file.close()


def _begin(job_file):
    """What a process does first."""
    _JOB[:] = [JobFile.read(job_file)]


def _of_this_process(number):
    return run_chunk(_JOB[0], number)
