# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""Command-line options shared by several commands, by subject."""
