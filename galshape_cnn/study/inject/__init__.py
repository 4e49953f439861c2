# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""Injection: known galaxies drawn into the user's own image, and measured there."""
