# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""`measure_dask`: measurement on a Dask cluster."""

import os
from contextlib import contextmanager

from galshape_cnn.environment import keep_freed_memory, keep_to_core, unset_of
from galshape_cnn.errors import InputError
from galshape_cnn.parallel import usable_cores
from galshape_cnn.processes import check_main_guard
from galshape_cnn.scale.blocks import join_rows, probe
from galshape_cnn.scale.run import BLOCK_ROWS, begin_run, fill_folder, recording
from galshape_cnn.scale.workers import ONE_THREAD, Job, drop_job, measure_of_job, take_job

__all__ = ["DaskWorkers", "connected", "measure_dask"]

__doctest_requires__ = {"measure_dask": ["distributed"]}  # an extra


class DaskWorkers:
    """The workers of a cluster.

    Parameters
    ----------
    job : Job
        Sent to each worker once, those that join later too.
    client : ``distributed.Client``
        Connected to the cluster.
    """

    def __init__(self, job, client):
        self._job, self._client = job, client
        client.register_plugin(_plugin(job, _places(client.nthreads())))

    @property
    def count(self):
        """Threads of the cluster at this moment; at least one, for a cluster still starting."""
        return max(1, sum(self._client.nthreads().values()))

    def submit(self, start, stop):
        """Begin a range of rows; returns a future."""
        return self._client.submit(measure_of_job, self._job.token, start, stop, pure=False)

    def result(self, future, start, stop):
        """Rows of a range that was begun; a lost worker's is begun anew by Dask."""
        from distributed import KilledWorker

        try:
            return future.result()
        except KilledWorker as error:  # several workers died of it
            if stop - start == 1:
                return self._job.give_up(start, stop, f"the workers that measured it died: {error}")
            middle = (start + stop) // 2
            halves = [(start, middle), (middle, stop)]
            return join_rows([self.result(self.submit(*half), *half) for half in halves])

    def close(self):
        """Take the job from the workers."""
        self._client.unregister_worker_plugin(self._job.token)


def _places(threads):
    """Number of a worker on its host, and of all there, by address; not where one has several threads."""
    hosts = {}
    for address in sorted(threads):
        hosts.setdefault(address.rpartition(":")[0], []).append(address)
    single = (group for group in hosts.values() if all(threads[one] == 1 for one in group))
    return {address: (index, len(group)) for group in single for index, address in enumerate(group)}


def _plugin(job, places):
    """Dask's way to give something to all workers, present and future."""
    from distributed import WorkerPlugin

    class JobPlugin(WorkerPlugin):
        name = job.token

        def setup(self, worker):
            self.free = lambda: None
            if worker.nanny:  # a process of its own, in which XLA has not started yet
                os.environ.update(unset_of(ONE_THREAD))
                keep_freed_memory()
                self.free = keep_to_core(*places.get(worker.address, (0, 1)))
            take_job(job)

        def teardown(self, worker):
            drop_job(job.token)
            self.free()

    return JobPlugin()


@contextmanager
def connected(address=None):
    """Client of a running scheduler (``tcp://node17:8786``), or of a cluster on this machine.

    The latter has one worker of one thread for each core, and is stopped in the end. ``InputError`` if Dask
    is not installed, or nothing answers at the address.
    """
    try:
        from distributed import Client, LocalCluster
    except ImportError as error:
        raise InputError("Dask is not installed: pip install 'galshape-cnn[dask]'") from error
    if address is None:
        check_main_guard()
        alone = {"threads_per_worker": 1, "dashboard_address": None, "env": unset_of(ONE_THREAD)}
        with LocalCluster(usable_cores(), **alone) as cluster, Client(cluster) as client:
            yield client
        return
    try:
        client = Client(address, timeout="20s")
    except (OSError, ValueError) as error:
        raise InputError(f"scheduler={address!r}: no Dask scheduler answers there ({error})") from error
    with client:
        yield client


def measure_dask(
    estimator, data, output, client=None, *, block_rows=BLOCK_ROWS, progress=False, settings=None, **options
):
    """Measure galaxies on a Dask cluster into a folder of Parquet files.

    As `~galshape_cnn.scale.run.measure_stream`, with the same numbers and the same folder, which one
    may begin and the other finish.  Workers read the input for themselves, so its paths must mean
    the same there; only this process writes.  The estimator is sent to each worker once.

    Parameters
    ----------
    estimator : ShapeEstimator
        With its network.
    data : Source or object
        As `~galshape_cnn.scale.sources.open_source` takes it.
    output : path-like
        Folder; an unfinished run of the same configuration in it is continued.
    client : ``distributed.Client``, optional
        Connected to the cluster; without it one is started on this machine.
    block_rows : int, optional
        Rows of a file.
    progress : bool, optional
        Show a progress bar.
    settings : dict, optional
        Further things that decide the numbers, to be compared when a run goes on.
    **options
        As for `~galshape_cnn.scale.run.measure_stream`.

    Returns
    -------
    summary : dict
        ``rows``, ``clean`` (of quality 0), ``errors`` and ``flags`` (name to count).

    Raises
    ------
    InputError
        If the folder holds a run of another configuration, or the input cannot be used at all.
    FileError
        If a block cannot be written.

    Examples
    --------
    >>> import tempfile
    >>> import numpy as np
    >>> from galshape_cnn import ShapeEstimator
    >>> from galshape_cnn.scale import measure_dask, read_blocks
    >>> y, x = np.mgrid[-31.5:32, -31.5:32]
    >>> galaxy = 100 * np.exp(-np.hypot(x, y) / 3)
    >>> images = galaxy + np.random.default_rng(1).normal(size=(3, 64, 64))
    >>> psf = np.exp(-np.sum(np.mgrid[-6:7, -6:7] ** 2, axis=0) / 4)
    >>> from distributed import Client
    >>> here = {"processes": False, "n_workers": 1, "dashboard_address": None}
    >>> with tempfile.TemporaryDirectory() as folder, Client(**here) as client:
    ...     summary = measure_dask(ShapeEstimator(), images, folder, client, error=1.0, psf=psf)
    ...     table = read_blocks(folder)
    >>> summary["rows"], len(table)
    (3, 3)
    """
    if client is None:
        with connected() as own:
            keywords = {"block_rows": block_rows, "progress": progress, "settings": settings}
            return measure_dask(estimator, data, output, own, **keywords, **options)
    source, how, folder = begin_run(estimator, data, output, block_rows, settings, options)
    if folder.missing():
        with folder.begun():
            pool = DaskWorkers(Job(estimator, source, how, probe(estimator, source, how)), client)
            try:
                fill_folder(folder, pool, progress, recording(options))
            finally:
                pool.close()
    return folder.finish()
