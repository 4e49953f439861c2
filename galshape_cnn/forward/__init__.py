# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""From parameters to pixels: Sérsic profile, PSF, renderer and its derivatives."""
