# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""Worker processes have one thread and a core of their own."""

import os
import subprocess
import sys
import time

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
