# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""Point-source models: their images, and their chi-square beside the galaxy's."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np

from galshape_cnn.compilation import compiled
from galshape_cnn.forward.galaxy_model import SINGLE
from galshape_cnn.forward.kernel import calls
from galshape_cnn.forward.kernel.library import with_kernel
from galshape_cnn.forward.render import in_blocks, point_block
from galshape_cnn.infer.likelihood.fisher import inverse_gain
from galshape_cnn.infer.residuals.examination import RIDGE, inverse_fisher

__all__ = ["point_images", "point_source_chi2", "reach_of"]

_NOTHING = 1e-5  # of its peak: fainter pixels of a point source are not told from none


def _images_by_kernel(params, transfer, grid):
    return calls.images("point", params, transfer, grid)[:, 0]


@with_kernel(_images_by_kernel, "params", "transfer")
@compiled(static_argnames="grid")
def point_images(params, transfer, grid):
    """Point sources of unit flux at the galaxies' places, (N, size, size).

    Arguments as for `galshape_cnn.forward.render.render`; of NumPy where the kernel computes them, else of
    JAX.
    """
    return in_blocks(point_block, params, transfer, grid)[:, 0]


def reach_of(point):
    """Pixels along x or y that a point source (size, size) reaches from its highest one."""
    seen = np.abs(point) > _NOTHING * point.max()
    y, x = np.unravel_index(point.argmax(), point.shape)
    rows, columns = np.flatnonzero(seen.any(1)), np.flatnonzero(seen.any(0))
    return int(max(y - rows[0], rows[-1] - y, x - columns[0], columns[-1] - x))


def point_source_chi2(params, data, ivar, transfer, grid, fit_sky=True, gain=None):
    """Chi-square (N,) of the best point source near each galaxy.

    Flux, centre and sky are fitted to first order, from the galaxy's; arguments as for ``examine``.
    """
    numbers = [np.asarray(a, np.float32) for a in (params, data, ivar)]
    result = _point_rows(*numbers, transfer, grid, inverse_gain(gain, len(data)), np.float32(fit_sky))
    return np.asarray(result, float)


def _rows_by_kernel(*numbers):
    return calls.point_chi2(*numbers, RIDGE)


@with_kernel(_rows_by_kernel, "transfer")
@compiled(static_argnames="grid")
def _point_rows(params, data, ivar, transfer, grid, inverse_gain, fit_sky):
    def block(params, transfer, *rows):
        *rows, grid = rows
        images = point_block(params, transfer, grid)
        return jax.vmap(partial(_point_one, fit_sky=fit_sky))(params, images, *rows)

    return in_blocks(block, params, transfer, grid, data, ivar, inverse_gain)


def _point_one(params, images, data, ivar, inverse_gain, fit_sky):
    light = params[SINGLE.flux] * images[0]
    root = jnp.sqrt(ivar / (1 + ivar * jnp.maximum(light, 0.0) * inverse_gain))
    residual = ((data - light - params[SINGLE.sky]) * root).ravel()
    columns = (jnp.concatenate([images, jnp.ones_like(images[:1])]) * root).reshape(4, -1)
    score = columns @ residual
    return residual @ residual - score @ inverse_fisher(columns @ columns.T, fit_sky, sky=3) @ score
