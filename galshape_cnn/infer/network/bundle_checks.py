# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""Checks of a bundle: its parts, and whether its weights fit its network."""

import math

import numpy as np

from galshape_cnn.errors import BundleError, InputError
from galshape_cnn.infer.network.layout import features_of_update, network_shapes, update_shapes
from galshape_cnn.infer.network.safe_asdf import ArrayPlace
from galshape_cnn.infer.network.trust import AXES, check_region
from galshape_cnn.infer.posterior.prior import Prior

__all__ = ["check_bundle", "check_weights", "places_of"]

_RANGES = ("snr", "hlr", "n", "g", "psf_width", "psf_fwhm")
_LIMITS = ("context", "offset", "noise_spread")
_MOST_PARTS, _MOST_CELLS = 64, 10**6


def check_bundle(network, domain, prior, provenance, trust):
    """Shapes of the weights that a bundle's network needs; parts that cannot be used are refused.

    The parts are dicts as a file holds them; ``InputError`` or ``BundleError`` says what is wrong.
    """
    parts = {"network": network, "domain": domain, "prior": prior, "provenance": provenance, "trust": trust}
    for name, part in parts.items():
        if not isinstance(part, dict):
            raise BundleError(f"its {name} is a {type(part).__name__}; allowed: a mapping")
        _check_plain(part, name)
    shapes = network_shapes(network)
    if "update" in network:
        shapes = shapes + update_shapes(network["update"], features_of_update(network["components"]))
    _check_domain(domain)
    _check_prior(prior)
    for method, cells in trust.items():
        if not isinstance(cells, dict) or math.prod(len(_listed(cells, axis)) for axis in AXES) > _MOST_CELLS:
            raise BundleError(f"its region of trust of {method[:40]!r} is malformed")
    check_region(trust)
    return shapes


def places_of(nodes, shapes):
    """Places of the weights in a file, from what its tree says of them and the shapes of `check_bundle`.

    ``BundleError`` if there are more, fewer or others.
    """
    if not isinstance(nodes, list) or not all(isinstance(node, ArrayPlace) for node in nodes):
        raise BundleError("its weights are no list of arrays")
    if len(nodes) != len(shapes):
        raise BundleError(f"it has {len(nodes)} arrays of weights; its network needs {len(shapes)}")
    for number, (node, shape) in enumerate(zip(nodes, shapes, strict=True)):
        flat = (math.prod(shape[:-1]), shape[-1]) if len(shape) == 4 else shape  # of older versions
        if node.shape not in (shape, flat):
            raise BundleError(f"weights {number} have the shape {node.shape}; its network needs {shape}")
    return nodes


def check_weights(weights):
    """Refuse weights that are no numbers, or a negative variance, with a ``BundleError``."""
    with np.errstate(over="ignore"):
        for number, array in enumerate(weights):
            if not np.isfinite(array.astype(np.float32)).all():
                raise BundleError(f"weights {number} are not finite")
    if (weights[1] < 0).any():
        raise BundleError("a variance of its context is negative")


def _check_plain(node, name):
    """Refuse arrays where numbers and text are meant."""
    children = node.values() if isinstance(node, dict) else node if isinstance(node, list) else ()
    if isinstance(node, ArrayPlace):
        raise BundleError(f"its {name} holds an array")
    for child in children:  # files are not nested deep
        _check_plain(child, name)


def _is_number(value):
    """Whether it is a real number in reach of double precision, or infinite."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return False
    return abs(value) < 1e300 or abs(value) == np.inf


def _is_range(value):
    return (
        isinstance(value, list) and len(value) == 2 and all(map(_is_number, value)) and value[0] <= value[1]
    )


def _check_domain(domain):
    """Refuse a domain that the flags could not use."""
    good = all(_is_range(domain[key]) for key in _RANGES if key in domain)
    good = good and all(_is_number(domain[key]) for key in _LIMITS if key in domain)
    shape = domain.get("psf_shape", [[0, 1]] * 3)
    good = good and isinstance(shape, list) and len(shape) == 3 and all(map(_is_range, shape))
    if not good or not isinstance(domain.get("prior_limits", True), bool):
        raise BundleError("its domain is malformed: a range is no pair of increasing numbers")


def _check_prior(prior):
    """Refuse a prior that cannot be evaluated."""
    for name, spec in prior.items():
        parts = spec.get("parts", []) if isinstance(spec, dict) else []
        if not isinstance(parts, list) or len(parts) > _MOST_PARTS:
            raise BundleError(f"its prior of {name[:40]!r} has too many parts")
    _check_finite(prior)
    try:
        with np.errstate(all="raise"):
            Prior(prior)
    except (InputError, TypeError, ValueError, LookupError, ArithmeticError, AttributeError) as error:
        raise BundleError(f"its prior cannot be used: {error}") from error


def _check_finite(node):
    if isinstance(node, dict | list):
        for child in node.values() if isinstance(node, dict) else node:
            _check_finite(child)
    elif isinstance(node, int | float) and not abs(node) < 1e30:
        raise BundleError("its prior holds a number that is not finite")


def _listed(cells, axis):
    edges = cells.get(axis)
    if not isinstance(edges, list):
        raise BundleError("its region of trust is malformed")
    return edges
