# Licensed under a 3-clause BSD style license - see LICENSE.rst
r"""Batched Sérsic renderer with analytic derivatives, in JAX.

The convolved image is a product in Fourier space,

.. math:: \tilde I(\mathbf k) = \mathrm{flux}\; F(n, |S\mathbf k|\,\mathrm{hlr})\;
          T(\mathbf k)\; e^{-i\mathbf k\cdot\mathbf x_0},

with F from `galshape_cnn.forward.profile`, the PSF's transfer function T (pixel
included) and the shear matrix S.  All derivatives share one interpolation of F:
x and y multiply by -ik, and hlr, g1, g2 are dF/dlnk times a factor.

A discrete transform renders a periodic image; the light that folds back into the
stamp is subtracted by `galshape_cnn.forward.copies`.

Functions take the dtype JAX is set to: float32 by default, float64 inside
``jax.enable_x64(True)``.
"""

from functools import partial

import jax
import jax.numpy as jnp

from galshape_cnn.forward.copies import folded_light, folded_with_derivatives
from galshape_cnn.forward.interpolate import interpolate
from galshape_cnn.forward.profile import sersic_table

__all__ = ["BLOCK", "PARAMETERS", "in_blocks", "one_with_derivatives", "render", "render_with_derivatives"]

#: The parameters of a stamp's model, in the order of every array.
PARAMETERS = ("flux", "n", "hlr", "g1", "g2", "x", "y", "sky")

#: Stamps rendered together: few enough that their transforms stay in cache.
BLOCK = 16


def _fold(modes, grid):
    """Fold modes beyond the stamp's Nyquist frequency onto the sampled ones."""
    if grid.bandwidth == 1:
        return modes
    m = grid.fft_size
    rows = modes[..., :m, :] + modes[..., m:, :]
    mirrored = jnp.roll(rows[..., ::-1, :], 1, axis=-2)[..., ::-1]
    return rows[..., : m // 2 + 1] + jnp.conj(mirrored)[..., : m // 2 + 1]


def _to_stamp(modes, grid):
    """Inverse transform, cut to the stamp."""
    image = jnp.fft.irfft2(_fold(modes, grid), s=(grid.fft_size, grid.fft_size))
    return image[..., : grid.size, : grid.size]


def _wave_number(params, grid):
    """ln(kappa), and d ln(kappa) / d(g1, g2), on the modes."""
    kx, ky = jnp.asarray(grid.kx)[None, :], jnp.asarray(grid.ky)[:, None]
    hlr, g1, g2 = params[2], params[3], params[4]
    total, plus, cross = kx**2 + ky**2, kx**2 - ky**2, 2 * kx * ky
    norm = 1 - g1**2 - g2**2
    form = (2 - norm) * total + 2 * (g1 * plus + g2 * cross)
    form = jnp.maximum(form, 1e-12)
    ln_kappa = 0.5 * jnp.log(form / norm) + jnp.log(hlr)
    by_g1 = g1 / norm + (g1 * total + plus) / form
    by_g2 = g2 / norm + (g2 * total + cross) / form
    return ln_kappa, by_g1, by_g2


def _shifted(params, transfer, grid):
    """Transfer function times the phase of the centroid."""
    phase_x = jnp.exp(-1j * jnp.asarray(grid.kx) * params[5])
    phase_y = jnp.exp(-1j * jnp.asarray(grid.ky) * params[6])
    return transfer * phase_x[None, :] * phase_y[:, None]


def _render_one(params, transfer, grid):
    table = sersic_table()
    ln_kappa, _, _ = _wave_number(params, grid)
    f, _, _ = interpolate(params[1], ln_kappa, table, table.coefficients)
    image = _to_stamp(f * _shifted(params, transfer, grid), grid)
    image = image - folded_light(params, grid) * transfer[0, 0].real
    return params[0] * image + params[7]


def one_with_derivatives(params, transfer, grid):
    """Image and derivatives of one stamp, to be used inside `in_blocks`.

    Parameters
    ----------
    params : (8,) array
        `PARAMETERS` of the stamp.
    transfer : (Ky, Kx) complex array
        Transfer function of its PSF.
    grid : FourierGrid
        Stamp size and bandwidth.

    Returns
    -------
    image : (size, size) jax array
        Flux per pixel.
    derivatives : (8, size, size) jax array
        d(image) / d(parameter).
    """
    table = sersic_table()
    ln_kappa, by_g1, by_g2 = _wave_number(params, grid)
    f, f_n, f_k = interpolate(params[1], ln_kappa, table, table.coefficients)
    moved = _shifted(params, transfer, grid)
    unit = f * moved
    kx, ky = jnp.asarray(grid.kx)[None, :], jnp.asarray(grid.ky)[:, None]
    radial = f_k * moved
    shape = [f_n * moved, radial / params[2], by_g1 * radial, by_g2 * radial]
    modes = jnp.stack([unit, *shape, -1j * kx * unit, -1j * ky * unit])
    images = _to_stamp(modes, grid)
    images = images - folded_with_derivatives(params, grid) * transfer[0, 0].real
    derivatives = jnp.concatenate([images[:1], params[0] * images[1:], jnp.ones_like(images[:1])])
    return params[0] * images[0] + params[7], derivatives


def in_blocks(one, params, transfer, grid, *rows):
    """Map a function over stamps in cache-sized blocks.

    Parameters
    ----------
    one : callable
        ``one(params, transfer, *rows, grid=grid)`` of a single stamp.
    params : (N, 8) array
        `PARAMETERS` of each stamp.
    transfer : (N, Ky, Kx) or (1, Ky, Kx) complex array
        A transfer function for each stamp, or one for all.
    grid : FourierGrid
        Stamp size and bandwidth.
    *rows : arrays with N rows
        Further arguments of ``one``.

    Returns
    -------
    result : pytree of arrays with N rows
        What ``one`` returns, stacked.
    """
    if transfer.shape[0] == 1:
        function, over = (lambda row: one(row[0], transfer[0], *row[1:], grid=grid)), (params, *rows)
    else:
        function, over = (lambda row: one(*row, grid=grid)), (params, transfer, *rows)
    return jax.lax.map(function, over, batch_size=BLOCK)


@partial(jax.jit, static_argnames="grid")
def render(params, transfer, grid):
    """Render PSF-convolved Sérsic profiles.

    Parameters
    ----------
    params : (N, 8) array
        `PARAMETERS` of each stamp: flux; n in [0.3, 6.2]; half-light radius in
        pixels, > 0; reduced shear, |g| < 1; centre in pixels from pixel [0, 0];
        sky level per pixel.
    transfer : (N, Ky, Kx) or (1, Ky, Kx) complex array
        From `galshape_cnn.forward.transfer.transfer_functions`, with the same grid.
    grid : FourierGrid
        Stamp size and bandwidth.

    Returns
    -------
    images : (N, size, size) jax array
        Flux per pixel.
    """
    return in_blocks(_render_one, params, transfer, grid)


@partial(jax.jit, static_argnames="grid")
def render_with_derivatives(params, transfer, grid):
    """Render profiles together with their derivatives.

    Parameters
    ----------
    params, transfer, grid
        As for `render`.

    Returns
    -------
    images : (N, size, size) jax array
        Flux per pixel.
    derivatives : (N, 8, size, size) jax array
        d(image) / d(parameter), in the order of `PARAMETERS`.
    """
    return in_blocks(one_with_derivatives, params, transfer, grid)
