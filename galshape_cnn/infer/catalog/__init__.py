# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""`ShapeCatalog`: measurements with positions, sky frame, names and units."""
