# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""Command-line options of the tests, registered wherever pytest is started."""

pytest_plugins = ["galshape_cnn.tests.options"]
