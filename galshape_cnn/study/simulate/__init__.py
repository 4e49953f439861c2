# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""Simulation: labelled sets, training streams and fields of known truth."""
