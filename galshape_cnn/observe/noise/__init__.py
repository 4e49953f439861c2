# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""Noise of the pixels: uncertainties, detector, correlation, scale."""
