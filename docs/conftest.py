# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""Hand the options of the tests to pytest, wherever it is started."""

pytest_plugins = ["galshape_cnn.tests.options"]
# scripts: Sphinx runs the first two, a developer the third
collect_ignore_glob = ["examples/*", "figures/*", "*/make_*.py"]
