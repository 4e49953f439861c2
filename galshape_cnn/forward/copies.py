# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""The light of periodic copies, which a discrete Fourier transform folds into the stamp.

The copies are so far away that the PSF does not matter there, so their light is
evaluated in real space and subtracted: three rings of copies, smooth over the
stamp, at a few Chebyshev nodes, and the flux beyond them as a uniform level.
The first ring needs more nodes, since a sheared profile is narrow across.
"""

import jax
import jax.numpy as jnp
import numpy as np

from .interpolate import interpolate, rows_at
from .profile import sersic_table

__all__ = ["folded_light", "folded_with_derivatives"]

_RINGS = 3
_ALL = [(i, j) for i in range(-_RINGS, _RINGS + 1) for j in range(-_RINGS, _RINGS + 1) if i or j]
_NEAR = np.array([c for c in _ALL if max(np.abs(c)) == 1])
_FAR = np.array([c for c in _ALL if max(np.abs(c)) > 1])
_NEAR_NODES, _FAR_NODES = 16, 5


def _radius_squared(shape, dx, dy):
    """Squared elliptical radius over hlr, and its logarithm's derivatives by g1, g2, x, y."""
    _, hlr, g1, g2 = shape
    total, plus, cross = dx**2 + dy**2, dx**2 - dy**2, 2 * dx * dy
    norm = 1 - g1**2 - g2**2
    form = (2 - norm) * total - 2 * (g1 * plus + g2 * cross)
    scale = 2 / form
    by_g1 = scale * (g1 * total - plus) + 2 * g1 / norm
    by_g2 = scale * (g2 * total - cross) + 2 * g2 / norm
    by_x = -scale * ((2 - norm) * dx - 2 * (g1 * dx + g2 * dy))
    by_y = -scale * ((2 - norm) * dy - 2 * (g2 * dx - g1 * dy))
    return form / (norm * hlr**2), (by_g1, by_g2, by_x, by_y)


def _brightness(shape, dx, dy):
    """Unconvolved Sérsic profile of unit flux at offsets from its centre."""
    (b, ln_norm), _ = rows_at(shape[0], sersic_table(), sersic_table().profile)
    r_squared, _ = _radius_squared(shape, dx, dy)
    return (jnp.exp(ln_norm - b * r_squared ** (0.5 / shape[0])) / shape[1] ** 2)[None]


def _brightness_and_slopes(shape, dx, dy):
    """The profile and its derivatives by n, hlr, g1, g2, x, y."""
    n, hlr = shape[0], shape[1]
    (b, ln_norm), (b_n, ln_norm_n) = rows_at(n, sersic_table(), sersic_table().profile)
    r_squared, by_rest = _radius_squared(shape, dx, dy)
    ln_r_squared = jnp.log(r_squared)
    power = jnp.exp(0.5 / n * ln_r_squared)
    value = jnp.exp(ln_norm - b * power) / hlr**2
    radial = -0.5 * b / n * power  # d ln(value) / d ln(r^2)
    by_n = ln_norm_n - b_n * power - radial * ln_r_squared / n
    logarithmic = [by_n, -2 * (1 + radial) / hlr, *(radial * one for one in by_rest)]
    return jnp.stack([value, *(value * one for one in logarithmic)])


def _at_nodes(profile, copies, count, params, grid):
    """Light of some copies, and what else ``profile`` returns, at nodes of the stamp."""
    shift, nodes = copies * grid.fft_size, grid.nodes(count)
    dx = nodes[None, None, :] - shift[:, 0, None, None] - params[5]
    dy = nodes[None, :, None] - shift[:, 1, None, None] - params[6]
    return profile(params[1:5], dx, dy).sum(1)


def _level_beyond(shape, grid):
    """Flux beyond the rings, spread evenly."""
    n, hlr, g1, g2 = shape
    angle = np.pi * (np.arange(12) + 0.5) / 12
    c, s = np.cos(angle), np.sin(angle)
    reach = jnp.maximum(jnp.abs((1 + g1) * c + g2 * s), jnp.abs(g2 * c + (1 - g1) * s))
    half_side = (_RINGS + 0.5) * grid.fft_size
    ln_r = jnp.log(half_side * jnp.sqrt(1 - g1**2 - g2**2) / (reach * hlr))
    fraction, _, _ = interpolate(n, ln_r, sersic_table(), sersic_table().outside)
    return fraction.mean() / grid.fft_size**2


def _spread(profile, params, grid):
    """Interpolate the light of all copies from the nodes to the pixels."""
    total = 0.0
    for copies, count in ((_NEAR, _NEAR_NODES), (_FAR, _FAR_NODES)):
        weights = jnp.asarray(grid.node_weights(count))
        total = total + weights @ _at_nodes(profile, copies, count, params, grid) @ weights.T
    return total


def folded_light(params, grid):
    """Light of unit flux that folds into the stamp.

    Parameters
    ----------
    params : (8,) array
        Of the stamp, as for `galshape_cnn.forward.render.render`.
    grid : FourierGrid
        Size of the stamp and of the transform.

    Returns
    -------
    light : (size, size) jax array
    """
    return _spread(_brightness, params, grid)[0] + _level_beyond(params[1:5], grid)


def folded_with_derivatives(params, grid):
    """Light of unit flux that folds into the stamp, with its derivatives.

    Parameters
    ----------
    params, grid
        As for `folded_light`.

    Returns
    -------
    light : (7, size, size) jax array
        The light and its derivatives by n, hlr, g1, g2, x, y.
    """
    level, slopes = jax.value_and_grad(_level_beyond)(params[1:5], grid)
    levels = jnp.concatenate([level[None], slopes, jnp.zeros(2, slopes.dtype)])
    return _spread(_brightness_and_slopes, params, grid) + levels[:, None, None]
