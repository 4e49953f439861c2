# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""Bayesian inference: priors, mixture proposals, importance sampling."""
