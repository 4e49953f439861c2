# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""Aliased light: periodic copies that a discrete Fourier transform folds into the stamp.

The copies are so far away that the PSF does not matter there, so their light is
evaluated in real space and subtracted: three rings of copies, smooth over the
stamp, at a few Chebyshev nodes, and the flux beyond them as a uniform level.
The first ring needs more nodes, since a sheared profile is narrow across.

What is returned are the even and odd parts that `galshape_cnn.forward.synthesis` makes
images of.
"""

import jax
import jax.numpy as jnp
import numpy as np

from galshape_cnn.compilation import compiled
from galshape_cnn.forward.galaxy_model import SINGLE
from galshape_cnn.forward.grid import chebyshev_nodes
from galshape_cnn.forward.sersic import sersic_table
from galshape_cnn.forward.splines import interpolate, rows_at

__all__ = ["folded_parts"]

_RINGS = 3
_ALL = [(i, j) for i in range(-_RINGS, _RINGS + 1) for j in range(-_RINGS, _RINGS + 1) if i or j]
_NEAR = np.array([c for c in _ALL if max(np.abs(c)) == 1])
_FAR = np.array([c for c in _ALL if max(np.abs(c)) > 1])
_NEAR_NODES, _FAR_NODES = 14, 4


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
    value = jnp.exp(ln_norm - b * jnp.exp(0.5 / shape[0] * jnp.log(r_squared))) / shape[1] ** 2
    return [jax.lax.optimization_barrier(value)]


def _brightness_and_slopes(shape, dx, dy):
    """The profile and its derivatives by n, ln hlr, g1, g2, x, y."""
    n, hlr = shape[0], shape[1]
    (b, ln_norm), (b_n, ln_norm_n) = rows_at(n, sersic_table(), sersic_table().profile)
    r_squared, by_rest = _radius_squared(shape, dx, dy)
    ln_r_squared = jnp.log(r_squared)
    power = jnp.exp(0.5 / n * ln_r_squared)
    value = jnp.exp(ln_norm - b * power) / hlr**2
    radial = -0.5 * b / n * power  # d ln(value) / d ln(r^2)
    by_n = ln_norm_n - b_n * power - radial * ln_r_squared / n
    # stored, lest each of the seven sums over copies compute the profile again
    value, by_n, radial, by_rest = jax.lax.optimization_barrier((value, by_n, radial, by_rest))
    logarithmic = [by_n, -2 * (1 + radial), *(radial * one for one in by_rest)]
    return [value, *(value * one for one in logarithmic)]


def _at_nodes(profile, copies, count, params, grid):
    """Light of some copies, and what else ``profile`` returns, at nodes of the stamp."""
    # one long axis, which vectorises
    shift, (y, x) = copies * grid.fft_size, np.meshgrid(*[grid.nodes(count)] * 2, indexing="ij")
    dx = np.ravel(x.ravel() - shift[:, :1]) - params[SINGLE.centre][0]
    dy = np.ravel(y.ravel() - shift[:, 1:]) - params[SINGLE.centre][1]
    sums = [one.reshape(len(copies), -1).sum(0) for one in profile(params[SINGLE.shape], dx, dy)]
    return jnp.stack(sums).reshape(-1, count, count)


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


def _levels_beyond(params, grid, slopes):
    """`_level_beyond` of one stamp and its derivatives, as the profile's."""
    if not slopes:
        return _level_beyond(params[SINGLE.shape], grid)[None]
    level, by_shape = jax.value_and_grad(_level_beyond)(params[SINGLE.shape], grid)
    by_shape = by_shape * jnp.stack([1.0, params[SINGLE.hlr], 1.0, 1.0])
    return jnp.concatenate([level[None], by_shape, jnp.zeros(2, level.dtype)])


def _interpolated(weights, nodes, other_weights):
    """Values at positions y, x from (nodes, C, B, nodes), by two large products."""
    along_y = jax.lax.dot_general(weights, nodes, (((1,), (0,)), ((), ())))
    return jax.lax.dot_general(along_y, other_weights, (((3,), (1,)), ((), ())))


def _light_at_nodes(params, grid, slopes):
    """Light of all copies at the nodes of the first ring, (nodes, 7 or 1, B, nodes)."""
    profile = _brightness_and_slopes if slopes else _brightness

    def light(copies, count):
        found = jax.vmap(lambda row: _at_nodes(profile, copies, count, row, grid))(params)
        return jnp.moveaxis(found, (2, 1), (0, 1))

    near, far = light(_NEAR, _NEAR_NODES), light(_FAR, _FAR_NODES)
    weights = jnp.asarray(grid.node_weights(_FAR_NODES, chebyshev_nodes(_NEAR_NODES)), params.dtype)
    levels = jax.vmap(lambda row: _levels_beyond(row, grid, slopes), out_axes=1)(params)
    near, far = jax.lax.optimization_barrier((near, far))
    return near + _interpolated(weights, far, weights) + levels[None, :, :, None]


# Traced once, though several compiled functions contain it
@compiled(static_argnames=("grid", "slopes"))
def folded_parts(params, grid, slopes=True):
    """Light of unit flux that folds into the stamps, and its derivatives: even and odd parts.

    Arguments and parts (size / 2, 7 or 1, B, size / 2) as of `galshape_cnn.forward.synthesis.wave_parts`.
    """
    nodes = _light_at_nodes(params, grid, slopes)
    side = (2 * np.arange(grid.size // 2) + 1) / (grid.size - 1)
    right, left = (grid.node_weights(_NEAR_NODES, at) for at in (side, -side))
    even, odd = (jnp.asarray(w, params.dtype) for w in ((right + left) / 2, (right - left) / 2))
    return [_interpolated(along_y, nodes, along_x) for along_y in (even, odd) for along_x in (even, odd)]
