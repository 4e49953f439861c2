# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""Tables from files: catalogues in FITS, text and other formats, and positions in them."""
