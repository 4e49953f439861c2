# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""Workers of a Dask cluster: their threads and cores, for the time of a job."""

import os
from types import SimpleNamespace

import pytest

from galshape_cnn.tests.standin import StandInEstimator


@pytest.mark.parametrize(
    ("nanny", "own", "expected"), [(None, None, None), ("tcp://a", None, 1), ("tcp://a", 2, 2)]
)
def test_dask_workers_keep_to_one_thread(monkeypatch, nanny, own, expected):
    pytest.importorskip("distributed")
    from galshape_cnn.scale.dask import _plugin
    from galshape_cnn.scale.workers import ONE_THREAD, Job, drop_job

    for name in ONE_THREAD:
        monkeypatch.setenv(name, "" if own is None else str(own))
        if own is None:
            monkeypatch.delenv(name)
    job = Job(StandInEstimator(), None, {}, None)
    _plugin(job, {}).setup(SimpleNamespace(nanny=nanny, address="tcp://a:1"))
    drop_job(job.token)
    seen = os.environ.get("OMP_NUM_THREADS")
    assert seen == (None if expected is None else str(expected))
    assert ("XLA_FLAGS" in os.environ) == (seen is not None)


def test_dask_workers_of_one_thread_are_counted_by_host():
    from galshape_cnn.scale.dask import _places

    threads = {"tcp://b:7": 1, "tcp://a:9": 1, "tcp://a:8": 1, "tcp://c:1": 1, "tcp://c:2": 4}
    assert _places(threads) == {"tcp://a:8": (0, 2), "tcp://a:9": (1, 2), "tcp://b:7": (0, 1)}


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="processes cannot be bound to cores here")
def test_dask_workers_are_bound_for_the_time_of_the_job(monkeypatch):
    pytest.importorskip("distributed")
    from galshape_cnn.scale import dask
    from galshape_cnn.scale.workers import ONE_THREAD, Job

    for name in ONE_THREAD:
        monkeypatch.setenv(name, "1")
    monkeypatch.setattr(dask, "keep_freed_memory", lambda: None)
    cores = os.sched_getaffinity(0)
    if len(cores) < 2:
        pytest.skip("one core")
    worker = SimpleNamespace(nanny="tcp://n:1", address="tcp://a:2")
    plugin = dask._plugin(Job(StandInEstimator(), None, {}, None), {"tcp://a:2": (1, len(cores))})
    plugin.setup(worker)
    try:
        assert os.sched_getaffinity(0) == {sorted(cores)[1]}
    finally:
        plugin.teardown(worker)
    assert os.sched_getaffinity(0) == cores
