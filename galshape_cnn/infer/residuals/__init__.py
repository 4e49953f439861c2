# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""What the residuals of a fit show: misfit, structure, the sky's waves, unlisted sources."""
