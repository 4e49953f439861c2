# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""Training of the networks, and the bundles made of them."""
