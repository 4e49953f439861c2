# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""Networks: inputs, architecture, bundle, and the posteriors they state."""
