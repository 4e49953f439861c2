# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""Compiled C kernel for CPUs: rendering, normal equations, residual statistics, networks."""
