# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""From the user's data to stamps: cutouts, noise, masks, world coordinates, centring."""
