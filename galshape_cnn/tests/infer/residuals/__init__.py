# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""Tests of the modules of the same name."""
