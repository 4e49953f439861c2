# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""Validation: benchmarks, failure atlas, trust region and verdict."""
