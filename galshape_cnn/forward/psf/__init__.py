# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""Point-spread functions: from any form the user holds to effective PSF arrays."""
