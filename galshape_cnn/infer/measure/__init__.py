# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""Measurement of a batch of stamps: the chain, its options, its quality flags."""
