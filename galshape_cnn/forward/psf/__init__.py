# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""Point-spread functions: any form the user may hold, as effective PSF arrays."""
