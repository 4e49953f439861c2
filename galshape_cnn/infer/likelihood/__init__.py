# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""The Gaussian likelihood of stamps: Fisher matrices and the bounds they give."""
