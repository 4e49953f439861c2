# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""A job without galaxies: what a worker is, without what it computes."""

import os
import signal
import sys
import time

from galshape_cnn.scale.workers import ProcessWorkers


class Sleeper:
    """Answers with the number of its process, after a while."""

    token, seconds = "sleeper", 0.5

    def __init__(self, size=0):
        self.content = bytes(size)

    def measure(self, start, stop):
        time.sleep(self.seconds)
        return os.getpid()


def hear():
    """Let signals end this process, also where the one that runs the tests ignores them (nohup)."""
    for name in ("SIGHUP", "SIGTERM"):
        signal.signal(getattr(signal, name), signal.SIG_DFL)


def main(count=2):
    """Start workers, say which they are, and leave them idle."""
    hear()
    pool = ProcessWorkers(Sleeper(), count)
    futures = [pool.submit(0, 1) for _ in range(count)]
    print(*{pool.result(future, 0, 1) for future in futures}, flush=True)
    time.sleep(600)


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
