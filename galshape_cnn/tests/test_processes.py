# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""Worker processes: their job, and what is said where they cannot begin."""

import os
import subprocess
import sys

import pytest

from galshape_cnn.processes import JobFile, worker_pool

UNGUARDED = """
import numpy as np
from concurrent.futures.process import BrokenProcessPool
from galshape_cnn.processes import JobFile, worker_pool
job = JobFile(np.zeros(10**6))
pool = worker_pool(2, JobFile.read, (job.path,))
try:
    pool.submit(abs, 1).result()
except BrokenProcessPool:
    print("broken")
finally:
    job.close()
"""


def test_a_large_job_reaches_the_workers_and_its_file_is_deleted():
    job = JobFile({"data": bytes(2**21)})
    assert job.path.stat().st_mode & 0o077 == 0 or job.path.parent.stat().st_mode & 0o077 == 0
    with worker_pool(1) as pool:
        assert len(pool.submit(JobFile.read, job.path).result()["data"]) == 2**21
    job.close()
    assert not job.path.parent.exists()


@pytest.mark.skipif(os.name == "nt", reason="processes of POSIX")
def test_a_large_job_does_not_block_where_the_workers_end_at_once(tmp_path):
    script = tmp_path / "script.py"
    script.write_text(UNGUARDED)
    variables = os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    done = subprocess.run(
        [sys.executable, script], capture_output=True, text=True, env=variables, check=False, timeout=300
    )
    assert done.stdout == "broken\n", done.stderr
