# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""Input files: images, PSFs and positions in FITS, ASDF and the formats of common tools."""
