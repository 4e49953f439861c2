# Licensed under a 3-clause BSD style license - see LICENSE.rst
r"""Batched Sérsic renderer with analytic derivatives, in JAX.

The convolved image is a product in Fourier space,

.. math:: \tilde I(\mathbf k) = \mathrm{flux}\; F(n, |S\mathbf k|\,\mathrm{hlr})\;
          T(\mathbf k)\; e^{-i\mathbf k\cdot\mathbf x_0},

with F from `galshape_cnn.forward.sersic`, the PSF's transfer function T (pixel
included) and the shear matrix S.  All derivatives share one interpolation of F:
x and y multiply by -ik, and hlr, g1, g2 are dF/dlnk times a factor.

A discrete transform renders a periodic image; the light that folds back into the
stamp is subtracted by `galshape_cnn.forward.folding`.

Functions take the dtype JAX is set to: float32 by default, float64 inside
``jax.enable_x64(True)``.  In single precision on a processor the compiled kernel does their work
(``forward/kernel``), where it is there.
"""

import jax
import jax.numpy as jnp
import numpy as np

from galshape_cnn.compilation import compiled
from galshape_cnn.forward.folding import folded_parts
from galshape_cnn.forward.galaxy_model import SINGLE
from galshape_cnn.forward.kernel import calls
from galshape_cnn.forward.kernel.library import with_kernel
from galshape_cnn.forward.synthesis import assembled, natural, point_parts, wave_parts

__all__ = [
    "BLOCK",
    "PARAMETERS",
    "derivatives_block",
    "in_blocks",
    "point_block",
    "render",
    "render_with_derivatives",
    "unit_quadrants",
]

#: The parameters of a stamp's model, in the order of every array.
PARAMETERS = SINGLE.names

#: Stamps rendered together: few enough that their transforms stay in cache.
BLOCK = 8


def unit_quadrants(params, transfer, grid, slopes=True):
    """Images of unit flux without sky, and their derivatives, of a block of B stamps.

    Arguments as of `galshape_cnn.forward.synthesis.wave_parts`. One, or 7, lists of four quadrants (size / 2,
    B, size / 2), in the order of `galshape_cnn.forward.synthesis.assembled`.
    """
    waves = wave_parts(params, transfer, grid, slopes)
    folded = folded_parts(params, grid, slopes)
    light = transfer[:, 0, 0].real[:, None]
    unfolded = [
        [wave - part[:, i] * light for wave, part in zip(parts, folded, strict=True)]
        for i, parts in enumerate(waves)
    ]
    return [assembled(parts) for parts in unfolded]


def _images(quadrants):
    return natural([jnp.moveaxis(q, 1, 0) for q in quadrants])


def _render_block(params, transfer, grid):
    image = _images(unit_quadrants(params, transfer, grid, slopes=False)[0])
    return params[:, SINGLE.flux, None, None] * image + params[:, SINGLE.sky, None, None]


def derivatives_block(params, transfer, grid):
    """Images (B, size, size) and derivatives (B, 8, size, size) of a block, to be used inside `in_blocks`.

    Arguments as for `unit_quadrants`.
    """
    unit, *slopes = (_images(q) for q in unit_quadrants(params, transfer, grid))
    flux = params[:, SINGLE.flux, None, None]
    slopes[1] = slopes[1] / params[:, SINGLE.hlr, None, None]
    derivatives = jnp.stack([unit, *(flux * one for one in slopes), jnp.ones_like(unit)], 1)
    return flux * unit + params[:, SINGLE.sky, None, None], derivatives


def point_block(params, transfer, grid):
    """Point sources of unit flux at the centres of a block of stamps, and their derivatives by x and y.

    (B, 3, size, size); arguments as for `unit_quadrants`, of which only the centres count.
    """
    return jnp.stack([_images(assembled(parts)) for parts in point_parts(params, transfer, grid)], 1)


def in_blocks(block, params, transfer, grid, *rows):
    """Apply a function of few stamps to N, in cache-sized blocks.

    ``block(params, transfer, *rows, grid)`` takes up to `BLOCK` stamps; ``transfer`` has one for each stamp,
    or one for all. The result is a tree of arrays with N rows.
    """
    shared = transfer.shape[0] == 1
    arrays = (params, *rows) if shared else (params, transfer, *rows)

    def apply(some):
        return block(some[0], transfer, *some[1:], grid) if shared else block(*some, grid)

    count = len(params)
    whole = count - count % BLOCK
    results = []
    if whole:
        split = [a[:whole].reshape(-1, BLOCK, *a.shape[1:]) for a in arrays]
        done = jax.lax.map(apply, tuple(split))
        results.append(jax.tree.map(lambda a: a.reshape(whole, *a.shape[2:]), done))
    if count > whole or not count:
        results.append(apply(tuple(a[whole:] for a in arrays)))
    return jax.tree.map(lambda *parts: jnp.concatenate(parts), *results)


def _image_by_kernel(params, transfer, grid):
    params = np.asarray(params, np.float32)
    unit = calls.images("image", params, transfer, grid)[:, 0]
    return params[:, SINGLE.flux, None, None] * unit + params[:, SINGLE.sky, None, None]


@with_kernel(_image_by_kernel, "params", "transfer")
@compiled(static_argnames="grid")
def render(params, transfer, grid):
    """Render PSF-convolved Sérsic profiles.

    Parameters
    ----------
    params : (N, 8) array
        `PARAMETERS` of each stamp: flux; n in [0.3, 6.2]; half-light radius in
        pixels, > 0; reduced shear, |g| < 1; centre in pixels from pixel [0, 0];
        sky level per pixel.
    transfer : (N, 2 K, K) or (1, 2 K, K) complex array
        From `galshape_cnn.forward.transfer.transfer_functions`, with the same grid.
    grid : FourierGrid
        Stamp size and bandwidth.

    Returns
    -------
    images : (N, size, size) array
        Flux per pixel; of NumPy where the kernel computes it, else of JAX.
    """
    return in_blocks(_render_block, params, transfer, grid)


def _derivatives_by_kernel(params, transfer, grid):
    params = np.asarray(params, np.float32)
    out = np.empty((len(params), SINGLE.size, grid.size, grid.size), np.float32)
    out[:, SINGLE.without_sky] = calls.images("slopes", params, transfer, grid)
    flux = params[:, SINGLE.flux, None, None]
    images = flux * out[:, SINGLE.flux] + params[:, SINGLE.sky, None, None]
    out[:, SINGLE.searched] *= flux[:, None]
    out[:, SINGLE.hlr] /= params[:, SINGLE.hlr, None, None]  # the kernel's slope is that by ln hlr
    out[:, SINGLE.sky] = 1
    return images, out


@with_kernel(_derivatives_by_kernel, "params", "transfer")
@compiled(static_argnames="grid")
def render_with_derivatives(params, transfer, grid):
    """Render profiles together with their derivatives (N, 8, size, size), in the order of `PARAMETERS`.

    As `render`.
    """
    return in_blocks(derivatives_block, params, transfer, grid)
