# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""Observations: from the user's data to stamps (cutouts, noise, masks, WCS, centring)."""
