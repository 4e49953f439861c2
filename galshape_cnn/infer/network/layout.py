# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""Contents of the network's context, and shapes of the weights, from the configuration alone.

A bundle may come from anyone.  Its configuration says how large the network is, so that is bounded here, and
its weights are compared with it, without Keras, which takes seconds to import.
"""

import math

import numpy as np

from galshape_cnn.errors import InputError
from galshape_cnn.forward.galaxy_model import SINGLE_WITHOUT_SKY

__all__ = [
    "CONTEXT_SIZE",
    "LARGEST_NETWORK",
    "PSF_KX",
    "PSF_KY",
    "WINDOWS",
    "features_of_update",
    "network_shapes",
    "update_shapes",
]

_K = np.array([0.0, 0.1, 0.2, 0.35, 0.55, 0.85, 1.3, 2.0])
#: Wave numbers (radians per pixel) at which the network is told the PSF.
PSF_KY = np.concatenate([-_K[:0:-1], _K])
PSF_KX = _K
#: Widths of the windows, pixels, in which moments are measured.
WINDOWS = (1.5, 3.0, 6.0, 12.0)
#: Length of the context vector.
CONTEXT_SIZE = 2 * len(PSF_KY) * len(PSF_KX) + 7 * len(WINDOWS) + 4

#: Weights of both networks together; the package's own have two million.
LARGEST_NETWORK = 2 * 10**7
_WIDEST, _DEEPEST, _MOST_COMPONENTS = 4096, 64, 64
_DIM = SINGLE_WITHOUT_SKY.size
_OUTPUTS = 1 + _DIM + _DIM * (_DIM + 1) // 2
_PATCH, _CELLS = 48, 16  # channels of a patch; cells of the last feature map
_KEYS = {
    "architecture", "context", "patch_width", "middle_width", "middle_blocks",
    "deep_width", "deep_blocks", "dense", "components",
}  # fmt: skip


def network_shapes(config):
    """Shapes of the first network's weights, in their order, for the configuration of ``build_network``.

    ``InputError`` if an entry is missing, unknown, of another type or too large.
    """
    _check_keys(config, _KEYS, "network", optional={"update"})
    if config["architecture"] != "patch-film":
        raise InputError(f"network: architecture={config['architecture']!r}; allowed: 'patch-film'")
    context, dense = (_widths(config, key, "network") for key in ("context", "dense"))
    patch, middle, deep = (_whole(config, f"{key}_width", 1, _WIDEST) for key in ("patch", "middle", "deep"))
    blocks = [_whole(config, f"{key}_blocks", 0, _DEEPEST) for key in ("middle", "deep")]
    shapes, told = [(CONTEXT_SIZE,)] * 2, CONTEXT_SIZE
    for width in context:
        shapes += _dense(told, width)
        told = width
    shapes += _dense(told, 2 * patch) + _dense(_PATCH, patch)
    below = patch
    for width, count in zip((middle, deep), blocks, strict=True):
        shapes += [(2, 2, below, width), (width,)]
        block = [(width,)] * 2 + [(3, 3, width, width), (width,)] + _dense(width, width)
        shapes += count * (_dense(told, 2 * width) + block)
        below = width
    shapes += [(deep,)] * 2
    size = _CELLS * deep + told + CONTEXT_SIZE
    return _bounded(shapes + _stack(size, dense, _components(config)))


def update_shapes(config, size):
    """Shapes of the second network's weights, in their order, for a number of features.

    Configuration as for ``build_update``; ``InputError`` as for `network_shapes`.
    """
    _check_keys(config, {"dense", "components"}, "network.update")
    dense = _widths(config, "dense", "network.update")
    return _bounded([(size,)] * 2 + _stack(size, dense, _components(config)))


def features_of_update(components):
    """Number of features of the second network beside a first one of some components."""
    off = _DIM * (_DIM - 1) // 2
    return components * _OUTPUTS + CONTEXT_SIZE + 5 * _DIM + off + 1


def _check_keys(config, needed, name, optional=frozenset()):
    if not isinstance(config, dict):
        raise InputError(f"{name} is a {type(config).__name__}; allowed: a mapping")
    missing, unknown = needed - set(config), set(config) - needed - optional
    if missing or unknown:
        raise InputError(f"{name}: missing {sorted(missing)}, unknown {sorted(map(str, unknown))}")


def _whole(config, key, low, high):
    value = config[key]
    if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= high:
        raise InputError(f"network: {key}={str(value)[:40]}; allowed: a whole number from {low} to {high}")
    return value


def _components(config):
    return _whole(config, "components", 1, _MOST_COMPONENTS)


def _widths(config, key, name):
    widths = config[key]
    if not isinstance(widths, list | tuple) or len(widths) > _DEEPEST:
        raise InputError(f"{name}: {key} must be a list of at most {_DEEPEST} widths")
    return [_whole({key: width}, key, 1, _WIDEST) for width in widths]


def _dense(size, width):
    return [(size, width), (width,)]


def _stack(size, widths, components):
    """Dense layers, and one more for the mixture."""
    shapes = []
    for width in (*widths, components * _OUTPUTS):
        shapes += _dense(size, width)
        size = width
    return shapes


def _bounded(shapes):
    if (count := sum(map(math.prod, shapes))) > LARGEST_NETWORK:
        raise InputError(f"network: {count} weights; allowed: at most {LARGEST_NETWORK}")
    return shapes
