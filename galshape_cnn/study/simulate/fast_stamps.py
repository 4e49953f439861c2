# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""Galaxies and PSFs drawn by the package's renderer, in the form of `galsim_stamps`."""

from functools import partial

import jax
import numpy as np

from galshape_cnn.forward.galaxy_model import SINGLE
from galshape_cnn.forward.grid import FourierGrid
from galshape_cnn.forward.render import render
from galshape_cnn.study.simulate.psf_families import PSF_ARRAYS, transfer_on_modes

__all__ = ["draw_block"]

_GRID = FourierGrid(64, 2)
_SAMPLES, _SIDE = 255, 127
_K = 2 * 2 * np.pi * np.fft.fftfreq(_SAMPLES)  # two samples per pixel


@jax.jit
def _transfers(*psfs):
    grid = partial(transfer_on_modes, ky=_GRID.ky, kx=_GRID.kx)
    array = partial(transfer_on_modes, ky=_K, kx=_K[: _SAMPLES // 2 + 1])
    return jax.lax.map(lambda psf: (grid(*psf), array(*psf)), psfs, batch_size=8)


def draw_block(params, psfs):
    """Stamps (N, 64, 64) of unit flux and effective PSFs (N, 127, 127), two samples per pixel, in float32.

    Of parameters (N, 8), their first column ignored, and PSFs of
    `~galshape_cnn.study.simulate.psf_families.draw_psfs`.
    """
    params = np.asarray(params, np.float32).copy()
    params[:, SINGLE.flux], params[:, SINGLE.sky] = 1.0, 0.0
    transfer, fine = _transfers(*(np.asarray(psfs[key], np.float32) for key in PSF_ARRAYS))
    images = np.asarray(render(params, transfer, _GRID))
    arrays = np.fft.fftshift(np.fft.irfft2(fine, (_SAMPLES, _SAMPLES)), axes=(1, 2))
    window = slice((_SAMPLES - _SIDE) // 2, (_SAMPLES + _SIDE) // 2)
    return images, arrays[:, window, window].astype(np.float32)
