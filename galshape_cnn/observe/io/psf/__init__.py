# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""Point spread functions from files: arrays, PSFEx and Piff models."""
