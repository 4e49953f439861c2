# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""The catalogue: measurements placed on image and sky, with names and units."""
