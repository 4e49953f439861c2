# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""Make a network, and prove what it does: mocks, training, validation, reports."""
