# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""A compiled kernel for processors: images, normal equations, residuals of one galaxy after the other."""
