# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""Commands whose output is closed, or that are interrupted."""

import io
import os
import signal
import subprocess
import sys
import time

import pytest

from galshape_cnn.cli import main, report, simulate
from galshape_cnn.cli.options.common import progress_wanted
from galshape_cnn.cli.streams import standard_streams

RUN = "import sys; from galshape_cnn.cli import main; sys.exit(main({}))"


@pytest.mark.parametrize("closed", ["stdout", "stderr"])
def test_a_stream_that_is_missing_takes_what_is_written(monkeypatch, closed):
    monkeypatch.setattr(sys, closed, None)
    with standard_streams():
        print("lost", file=getattr(sys, closed))
        assert not getattr(sys, closed).isatty()
        from types import SimpleNamespace

        assert progress_wanted(SimpleNamespace(progress=False)) is False
    assert getattr(sys, closed) is None


def test_streams_that_are_there_are_left_alone():
    before = sys.stdout, sys.stderr
    with standard_streams():
        assert (sys.stdout, sys.stderr) == before


@pytest.mark.parametrize("redirection", [">&-", "2>&-", ">&- 2>&-"])
def test_closed_by_the_shell(tmp_path, redirection):
    """The mocks must be a file without any stray line in it, whatever number the file has."""
    output = tmp_path / "mocks.fits"
    code = RUN.format(["simulate", "seed", "-n", "4", "-o", str(output), "--workers", "1"])
    done = subprocess.run(
        ["/bin/sh", "-c", f'exec "{sys.executable}" -c "$CODE" {redirection}'],
        env={**os.environ, "CODE": code},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    assert output.read_bytes().startswith(b"SIMPLE  =")
    assert output.stat().st_size % 2880 == 0


def test_interrupt_is_one_line(monkeypatch, capsys):
    def interrupted(args):
        raise KeyboardInterrupt

    monkeypatch.setattr(simulate, "run", interrupted)
    assert main(["simulate", "-n", "1", "-o", "a.fits"]) == 130
    assert capsys.readouterr().err.split("\n") == ["", "galshape simulate: interrupted", ""]


@pytest.mark.skipif(sys.platform == "win32", reason="signals")
def test_interrupt_by_the_keyboard_ends_the_process_with_one_line(tmp_path):
    code = RUN.format(["simulate", "-n", "400000", "-o", str(tmp_path / "a.fits"), "--engine", "fast"])
    heard = "import signal; signal.signal(signal.SIGINT, signal.default_int_handler); "  # even under nohup
    process = subprocess.Popen(
        [sys.executable, "-c", heard + code], stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    until = time.monotonic() + 120
    while not list(tmp_path.iterdir()) and time.monotonic() < until:  # the folder of finished parts
        time.sleep(0.2)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=120)
    assert process.returncode == 130
    assert err.strip() == "galshape simulate: interrupted"
    # finished parts may lie in a hidden folder, with which the same command goes on
    assert [path for path in tmp_path.iterdir() if not path.name.startswith(".")] == []


def test_a_pipe_that_is_closed_is_no_error(monkeypatch, capsys):
    class Closed(io.StringIO):
        def write(self, text):
            raise BrokenPipeError(32, "Broken pipe")

    monkeypatch.setattr(report, "run", lambda args: print("a line"))
    monkeypatch.setattr(sys, "stdout", Closed())
    assert main(["report", "a.ecsv", "a.fits", "-o", "a.html"]) == 0
    assert capsys.readouterr().err == ""
