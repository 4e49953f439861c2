# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""Options that commands share, by subject."""
