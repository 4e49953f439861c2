# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""Noise maps rescaled by a constant factor."""

from dataclasses import replace

import numpy as np

from galshape_cnn.errors import InputError
from galshape_cnn.observe.noise.correlation import estimate_correlation

__all__ = ["checked_scale", "scaled_noise"]


def checked_scale(value):
    """Scale of the noise: a number above 0, also as text, or 'estimate'; else ``InputError``."""
    if isinstance(value, str) and value == "estimate":
        return value
    try:
        factor = float(value)
    except (TypeError, ValueError):
        factor = np.nan
    if not 0 < factor < np.inf:
        raise InputError(f"noise_scale={value!r}; allowed: a number above 0, 'auto', 'estimate' or None")
    return factor


def scaled_noise(value, observation):
    """The stamps with their noise maps multiplied by a factor.

    Parameters
    ----------
    value : float or 'estimate'
        The factor, > 0; or the scatter of the blank pixels of all stamps in units of their noise maps.
    observation : Observation
        The stamps of the call.

    Returns
    -------
    observation : Observation
    factor : float

    Raises
    ------
    InputError
        If it is neither.
    NoiseError
        If there are too few blank pixels for an estimate.
    """
    factor = checked_scale(value)
    if factor == "estimate":
        factor = estimate_correlation(observation.groups)[1]
    groups = tuple((index, _scaled(stamps, factor)) for index, stamps in observation.groups)
    return replace(observation, groups=groups), factor


def _scaled(stamps, factor):
    ivar = (stamps.ivar / factor**2).astype(stamps.ivar.dtype)
    return stamps.with_pixels(stamps.data, ivar, stamps.nuisance)
