# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""Point-source models: their images, and their chi-square beside the galaxy's."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np

from galshape_cnn.compilation import compiled
from galshape_cnn.forward.galaxy_model import SINGLE
from galshape_cnn.forward.kernel import calls
from galshape_cnn.forward.kernel.library import serves
from galshape_cnn.forward.render import in_blocks, point_block
from galshape_cnn.infer.likelihood.residuals import RIDGE, inverse_fisher, inverse_gain

__all__ = ["point_images", "point_source_chi2"]


def point_images(params, transfer, grid):
    """Point sources of unit flux at the galaxies' places, (N, size, size).

    Arguments as for `galshape_cnn.forward.render.render`.
    """
    if serves(params, transfer):
        return calls.images("point", params, transfer, grid)[:, 0]
    return np.asarray(_image_rows(params, transfer, grid))


@compiled(static_argnames="grid")
def _image_rows(params, transfer, grid):
    return in_blocks(point_block, params, transfer, grid)[:, 0]


def point_source_chi2(params, data, ivar, transfer, grid, fit_sky=True, gain=None):
    """Chi-square (N,) of the best point source near each galaxy.

    Flux, centre and sky are fitted to first order, from the galaxy's; arguments as for ``examine``.
    """
    numbers = [np.asarray(a, np.float32) for a in (params, data, ivar)]
    inverse = inverse_gain(gain, len(data))
    if serves(*numbers, transfer):
        return calls.point_chi2(*numbers, transfer, grid, inverse, fit_sky, RIDGE)
    result = _point_rows(*numbers, transfer, inverse, np.float32(fit_sky), grid)
    return np.asarray(result, float)


@compiled(static_argnames="grid")
def _point_rows(params, data, ivar, transfer, inverse_gain, fit_sky, grid):
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
