# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""What measuring copies of stamps takes from their PSFs."""

import jax
import jax.numpy as jnp
import numpy as np

from galshape_cnn.compilation import compiled
from galshape_cnn.forward.psf.arrays import pad_psf
from galshape_cnn.forward.transfer import grid_for, transfer_at, transfer_functions
from galshape_cnn.infer.network.features import PSF_KX, PSF_KY, SIDE
from galshape_cnn.infer.shear.generators import psf_change, psf_filters

__all__ = ["normalised_psf", "psf_arrays"]


def normalised_psf(psf):
    """PSFs (N, py, px) as squares (N, p, p) of sum 1."""
    side = max(psf.shape[1:])
    psf = pad_psf(psf, (side, side))
    return (psf / psf.sum((1, 2), keepdims=True, dtype=float)).astype(np.float32)


def psf_arrays(psf, oversampling):
    """What depends on PSFs alone.

    Parameters
    ----------
    psf : (N, p, p) ndarray
        Normalised, odd-sized.
    oversampling : int
        PSF samples per pixel.

    Returns
    -------
    arrays : dict of str to ndarray
        N of each of ``transfer``, ``view``, ``change`` and ``filters``, see
        `galshape_cnn.infer.shear.copies.CopyBatch`.
    """
    transfer = transfer_functions(psf, grid_for(SIDE, oversampling), oversampling)
    view, change, filters = _psf_functions(psf, oversampling)
    arrays = {"transfer": transfer, "view": view, "change": change, "filters": filters}
    return {name: np.asarray(array) for name, array in arrays.items()}


@compiled(static_argnames="oversampling")
def _psf_functions(psf, oversampling):
    """What the network is told of PSFs and of their asymmetric parts, and the filters of images.

    The first two are (N, 2, 15, 8): as they are, and after a quarter turn.
    """

    def view(arrays):
        return jax.lax.map(lambda one: transfer_at(one, PSF_KY, PSF_KX, oversampling), arrays)

    turned = jnp.rot90(psf, 1, (1, 2))
    views = jnp.stack([view(psf), view(turned)], 1)
    changes = jnp.stack([view(psf_change(psf)), view(psf_change(turned))], 1)
    return views, changes, psf_filters(psf, oversampling)
