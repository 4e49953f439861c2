# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""Transfer functions of PSF arrays on the modes of a Fourier grid.

The Fourier sum over the samples is evaluated at exactly the wave numbers that
the renderer uses (two matrix products), so a PSF array of any odd size, larger
than the stamp or smaller, at any integer oversampling, is used without
resampling, cropping or wrap-around.
"""

import jax
import jax.numpy as jnp
import numpy as np

from galshape_cnn.compilation import compiled
from galshape_cnn.forward.grid import FourierGrid
from galshape_cnn.forward.kernel import calls
from galshape_cnn.forward.kernel.library import with_kernel

__all__ = ["grid_for", "of_rows", "transfer_at", "transfer_functions"]


def grid_for(size, oversampling):
    """Fourier grid for a stamp's side, of twice its bandwidth when the PSF is known that far."""
    return FourierGrid(size, 2 if oversampling >= 2 else 1)


def _waves(k, samples, oversampling):
    """exp(-i k x) of the samples' positions about the central one."""
    x = (np.arange(samples) - samples // 2) / oversampling
    phase = np.outer(k, x)
    return np.cos(phase), -np.sin(phase)


def of_rows(transfer, rows):
    """Transfer functions of some stamps; one for all stays one, repeated without a copy."""
    if len(transfer) == 1:
        return transfer
    if isinstance(transfer, np.ndarray) and not transfer.strides[0]:
        number = len(np.arange(len(transfer))[rows])
        return np.broadcast_to(transfer[:1], (number, *transfer.shape[1:]))
    return transfer[rows]


def transfer_at(psf, ky, kx, oversampling=1, xp=jnp):
    """Fourier transform (..., Ky, Kx) of odd-sized PSF arrays on a rectangular grid of wave numbers.

    These are in radians per image pixel. Equal to the sum of the samples at zero wave number; ``xp`` is
    `jax.numpy` or `numpy`.
    """
    cos_y, sin_y = _waves(ky, psf.shape[-2], oversampling)
    cos_x, sin_x = _waves(kx, psf.shape[-1], oversampling)
    rows = xp.asarray(psf) @ np.concatenate([cos_x, sin_x]).T  # in one pass over wide arrays
    real, imag = rows[..., : len(kx)], rows[..., len(kx) :]
    return (cos_y @ real - sin_y @ imag) + 1j * (cos_y @ imag + sin_y @ real)


@with_kernel(calls.transfer, "psf")
@compiled(static_argnames=("grid", "oversampling"))
def transfer_functions(psf, grid, oversampling=1):
    """Transfer functions (N, 2 K, K) of odd-sized effective PSF arrays on the modes of a grid.

    Of NumPy where the kernel computes them, else of JAX.
    """
    # One at a time: the rounding of a product of all depends on their number.
    return jax.lax.map(lambda one: transfer_at(one, grid.ky, grid.kx, oversampling), psf)
