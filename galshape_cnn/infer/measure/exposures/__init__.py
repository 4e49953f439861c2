# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""Measurement of galaxies in several images together: the same chain, over exposures."""
