# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""Options, markers and fixtures shared by the tests and the documentation.

They live in a plugin and not in ``conftest.py``: pytest reads the options of a
``conftest.py`` only if it lies in the folder pytest is started for, and the
installed package never does.  Both ``galshape_cnn/conftest.py`` and
``docs/conftest.py`` ask for this module, and pytest loads it once.
"""

import os
from pathlib import Path

import pytest
from hypothesis import settings

# the same examples on every run: a failure on one machine fails on all
settings.register_profile("galshape", derandomize=True, deadline=None)


def pytest_addoption(parser):
    """Add ``--real-data`` and ``--run-slow``."""
    group = parser.getgroup("galshape_cnn")
    group.addoption(
        "--real-data",
        metavar="DIR",
        default=None,
        help="folder with survey images; tests that need them are skipped without it",
    )
    group.addoption("--run-slow", action="store_true", default=False, help="run the tests marked slow too")


def pytest_configure(config):
    """Declare the markers; draw without a display; keep no programs; make Hypothesis repeatable."""
    config.addinivalue_line("markers", "slow: takes more than a few seconds; needs --run-slow")
    config.addinivalue_line("markers", "real_data: needs --real-data (set by using the fixture)")
    os.environ.setdefault("MPLBACKEND", "Agg")
    os.environ["GALSHAPE_COMPILE_CACHE"] = "off"  # the command would read and write the user's
    settings.load_profile("galshape")


def pytest_collection_modifyitems(config, items):
    """Mark the tests that use ``real_data``; skip the slow ones unless asked for."""
    run_slow = config.getoption("--run-slow", default=False)
    for item in items:
        if "real_data" in getattr(item, "fixturenames", ()):
            item.add_marker(pytest.mark.real_data)
        if not run_slow and item.get_closest_marker("slow"):
            item.add_marker(pytest.mark.skip(reason="slow: needs --run-slow"))


@pytest.fixture(scope="session")
def real_data(request):
    """Folder with survey images, as `pathlib.Path`."""
    folder = request.config.getoption("--real-data", default=None)
    if folder is None:
        pytest.skip("needs --real-data DIR")
    path = Path(folder).expanduser()
    if not path.is_dir():
        raise pytest.UsageError(f"--real-data {folder}: no such folder")
    return path.resolve()
