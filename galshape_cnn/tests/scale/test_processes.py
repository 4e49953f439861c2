# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""Worker processes end with their parent, and say what is wrong where they cannot begin."""

import os
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
from astropy.io import fits
from astropy.table import Table

from galshape_cnn.scale.workers import Processes

pytestmark = pytest.mark.skipif(os.name == "nt", reason="signals and forks of POSIX")


def variables():
    return os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))}


def is_alive(pid):
    try:
        with open(f"/proc/{pid}/stat", encoding="utf-8") as file:
            return file.read().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        if os.path.isdir("/proc/self"):
            return False
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def gone_within(pids, seconds):
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        if not any(map(is_alive, pids)):
            return True
        time.sleep(0.05)
    return False


@pytest.mark.parametrize("how", ["SIGTERM", "SIGKILL", "SIGHUP"])
def test_workers_end_with_their_parent(how):
    command = [sys.executable, "-m", "galshape_cnn.tests.scale.sleeper", "2"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=variables()) as parent:
        try:
            workers = [int(pid) for pid in parent.stdout.readline().split()]
            assert workers
            assert all(map(is_alive, workers))
            parent.send_signal(getattr(signal, how))
            parent.wait(60)
            assert gone_within(workers, 60)
        finally:
            parent.kill()


UNGUARDED = """
import sys
from galshape_cnn.tests.scale.sleeper import Sleeper
from galshape_cnn.scale.workers import ProcessWorkers
pool = ProcessWorkers(Sleeper({}), 2)
print(pool.result(pool.submit(0, 8), 0, 8))
"""


@pytest.mark.parametrize("size", [0, 2**22])  # the second is more than a pipe holds
def test_a_script_without_main_guard_gets_one_clear_error(tmp_path, size):
    script = tmp_path / "script.py"
    script.write_text(UNGUARDED.format(size))
    done = subprocess.run(
        [sys.executable, script], capture_output=True, text=True, env=variables(), check=False, timeout=300
    )
    assert done.returncode == 1
    assert done.stderr.count("Traceback") == done.stderr.count("errors.InputError: ") == 1, done.stderr
    assert "if __name__ == '__main__'" in done.stderr


FORKED = """
import os, sys
import numpy as np
from galshape_cnn.compilation import Program
from galshape_cnn.errors import ForkedError
program = Program(lambda: lambda x: 2 * x)
assert program(np.ones(3))[0] == 2
child = os.fork()
if not child:
    try:
        program(np.ones(3))
    except ForkedError as error:
        os._exit(7 if "spawn" in str(error) else 1)
    os._exit(2)
assert program(np.ones(3))[0] == 2
sys.exit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs os.fork")
def test_a_forked_copy_says_that_it_cannot_compute():
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", FORKED], env=variables(), check=False, timeout=300
    )
    assert done.returncode == 7


def test_a_function_is_called_in_another_process():
    processes = Processes(1)
    try:
        assert processes.call(os.getpid) != os.getpid()
        with pytest.raises(ValueError, match="invalid literal"):
            processes.call(int, "seven")
        large = np.arange(300_000.0)  # more than a pipe holds
        assert processes.call(np.sum, large) == large.sum()
        for process in processes.pool._processes.values():
            process.kill()
        assert processes.call(os.getpid) == os.getpid()
    finally:
        processes.close()


UNGUARDED_IMAGE = """
import sys
from galshape_cnn.cli import main, measure
measure._MANY_OF_IMAGE = 3
sys.exit(main(["measure", *sys.argv[1:]]))
"""


def test_processes_that_cannot_begin_leave_an_image_to_threads(tmp_path):
    """A script without main guard, which never asked for processes, gets its numbers all the same."""
    y, x = np.mgrid[:1100, :1100]
    places = [(250, 250), (750, 250), (250, 750), (750, 750)]
    light = sum(200 * np.exp(-((x - x0) ** 2 + (y - y0) ** 2) / 18) for x0, y0 in places)
    image = light + np.random.default_rng(3).normal(size=light.shape)
    fits.writeto(tmp_path / "image.fits", image.astype(np.float32))
    guarded = [sys.executable, "-m", "galshape_cnn.tests.scale.image_command"]
    script, psf = tmp_path / "script.py", ["--psf", "gaussian:fwhm=3", "--error", "1"]
    script.write_text(UNGUARDED_IMAGE)
    tables = []
    for command in (guarded, [sys.executable, script]):
        out = tmp_path / f"{len(tables)}.fits"
        run = [*command, tmp_path / "image.fits", *psf, "-o", out]
        done = subprocess.run(run, capture_output=True, text=True, env=variables(), check=False, timeout=300)
        assert done.returncode == 0, done.stderr
        assert "Traceback" not in done.stderr
        tables.append(Table.read(out))
    assert len(tables[0]) == 4
    assert all(
        (tables[0][name] == tables[1][name]).all() for name in ("flux", "n", "hlr", "g1", "g2", "n_err")
    )
