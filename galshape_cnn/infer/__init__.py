# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""Inference: networks, fits, posteriors, bounds, catalogue."""
