# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""From stamps to parameters: bounds, network, fit, posterior, catalogue."""
