# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""Forward model: Sérsic profile, PSF, renderer and its derivatives."""
