# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""Studies: simulation, training, validation, injection, reports."""
