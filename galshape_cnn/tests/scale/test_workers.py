# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""Worker processes have one thread and a core of their own."""

import os
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from functools import partial

import pytest

POOLS = """
import os
import jax
jax.numpy.ones(3).block_until_ready()
names = [open(f"/proc/self/task/{task}/comm").read() for task in os.listdir("/proc/self/task")]
print(sum(name.startswith("tf_XLAEigen") for name in names))
"""


@pytest.mark.skipif(sys.platform != "linux", reason="names of threads are read from /proc")
def test_xla_has_one_thread_in_a_worker():
    """With the flag for Eigen alone a worker took 1.4 cores."""
    from galshape_cnn.scale.workers import ONE_THREAD

    run = [sys.executable, "-c", POOLS]
    found = subprocess.run(run, env=os.environ | ONE_THREAD, capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "1"


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="processes cannot be bound to cores here")
def test_processes_for_all_cores_share_them_out_with_one_thread_each():
    from galshape_cnn.scale.workers import ONE_THREAD, Processes

    usual = os.sched_getaffinity(0)
    if len(usual) < 2:
        pytest.skip("one core")
    cores, found, end = set(sorted(usual)[:2]), [], time.monotonic() + 120
    os.sched_setaffinity(0, cores)  # however many there are
    pool = Processes(2)
    try:
        while set().union(*found) != cores and time.monotonic() < end:  # one may start later than the other
            done = [one.result() for one in [pool.submit(_own_cores_and_limits, 0.2) for _ in range(4)]]
            found += [own for own, _ in done]
            assert all(limits == ONE_THREAD for _, limits in done)
    finally:
        pool.close()
        os.sched_setaffinity(0, usual)
    assert set().union(*found) == cores
    assert all(len(one) == 1 for one in found)


def _own_cores_and_limits(seconds):
    from galshape_cnn.scale.workers import ONE_THREAD

    time.sleep(seconds)  # so that no process does all the work
    return os.sched_getaffinity(0), {name: os.environ.get(name) for name in ONE_THREAD}


def test_a_core_is_spared_while_processes_import(monkeypatch):
    """They import one after the other, beside a parent that has work of its own."""
    from multiprocessing import get_context

    from galshape_cnn.scale import workers

    context, under_way, most = get_context("spawn"), [], []
    monkeypatch.setattr(workers, "keep_to_core", lambda *which: None)

    def slow(name):
        under_way.append(name)
        most.append(len(under_way))
        time.sleep(0.05)
        under_way.pop()

    monkeypatch.setattr(workers, "import_module", slow)
    for places, expected in ((1, 1), (3, 3)):
        numbers, turns = context.Value("i", 0), context.Semaphore(places)
        most.clear()
        with ThreadPoolExecutor(3) as pool:
            assert not any(pool.map(partial(workers._begin, numbers, 3), [turns] * 3))
        assert max(most) == expected


@pytest.mark.parametrize("n", [1, 63, 500, 3876])
@pytest.mark.parametrize("workers", [1, 2, 16])
def test_chunks_cover_all_rows_and_are_small_in_the_end(n, workers):
    from galshape_cnn.scale.run import _LAST_ROWS, _shrinking_chunks

    chunks = _shrinking_chunks(n, 256, workers)
    assert [row for start, stop in chunks for row in range(start, stop)] == list(range(n))
    sizes = [stop - start for start, stop in chunks]
    assert sizes == sorted(sizes, reverse=True)
    assert max(sizes) <= 256
    assert sizes[-1] <= _LAST_ROWS
