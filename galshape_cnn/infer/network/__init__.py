# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""The networks: inputs, architecture, bundle, and the posterior they state."""
