# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""Mean shear: how measurements respond to a shear of the sky, and averages calibrated by it."""
