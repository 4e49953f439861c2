# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""Mean shear: shear response of measurements, and averages calibrated by it."""
