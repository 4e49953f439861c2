# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""Tests, one file per module of the package."""
