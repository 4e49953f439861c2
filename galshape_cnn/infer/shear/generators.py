# Licensed under a 3-clause BSD style license - see LICENSE.rst
r"""Derivatives of images by shear of the galaxy and by the shape of the PSF.

A galaxy with the transform :math:`G` seen through a PSF with the transform :math:`P` gives
:math:`\tilde I = G P`.  A small shear of the galaxy turns :math:`G(\mathbf k)` into
:math:`G(\mathbf k + \Gamma\mathbf k)` with :math:`\Gamma = \gamma_1 \sigma_z + \gamma_2 \sigma_x`, so with
:math:`D_1 = k_x\partial_{k_x} - k_y\partial_{k_y}` and :math:`D_2 = k_y\partial_{k_x} + k_x\partial_{k_y}`

.. math:: \frac{\partial\tilde I}{\partial\gamma_a} = P\, D_a\frac{\tilde I}{P}
          = D_a\tilde I - \tilde I\, D_a\ln P .

The first term is the shear of the whole image, the second takes back that of the PSF.  Neither
divides noise by a small number: the image is not deconvolved, it keeps its PSF and its noise.  For a
Gaussian PSF these are the derivatives of Li & Mandelbaum (2023, MNRAS 521, 4904).  A change of the PSF to
:math:`P + t\,\delta P` multiplies :math:`\tilde I` by :math:`1 + t\,\delta P/P`.

All are linear in the image.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from galshape_cnn.infer.network.features import SIDE

__all__ = ["Tangents", "filtered", "image_tangents", "psf_change", "psf_filters", "symmetrized_psf"]

_FFT = 96  # pixels: the stamps with a margin, so that opposite edges are apart
_KY, _KX = 2 * np.pi * np.fft.fftfreq(_FFT), 2 * np.pi * np.fft.rfftfreq(_FFT)
_FAINT = 0.003  # of the PSF's transfer function at zero: where it is less, its logarithm is of no use


class Tangents(NamedTuple):
    """Derivatives of images, each (N, 64, 64).

    Attributes
    ----------
    gamma1, gamma2 : array
        By the shear of the galaxy, about the middle of the stamp.
    psf : array
        By the part of the PSF that is not symmetric.
    """

    gamma1: jax.Array
    gamma2: jax.Array
    psf: jax.Array


def symmetrized_psf(psf):
    """Mean of PSFs over the eight symmetries of the square: no ellipticity, no skewness, no offset.

    Parameters
    ----------
    psf : (N, p, p) array
        Odd-sized.

    Returns
    -------
    psf : (N, p, p) jax array
    """
    turned = [jnp.rot90(psf, quarter, (1, 2)) for quarter in range(4)]
    return sum(turned + [jnp.swapaxes(one, 1, 2) for one in turned]) / 8


def psf_change(psf):
    """The part of PSFs that is not symmetric under the eight symmetries of the square."""
    return psf - symmetrized_psf(psf)


def psf_filters(psf, oversampling):
    """Factors of the modes of an image in the derivatives of `image_tangents`.

    Parameters
    ----------
    psf : (N, p, p) array
        Effective PSFs, odd-sized.
    oversampling : int
        PSF samples per pixel.

    Returns
    -------
    filters : (N, 3, 49, 96) complex jax array
        D_1 ln P, D_2 ln P and (P - symmetrized P) / P, by kx and ky.
    """
    change = psf_change(psf)
    return jax.lax.map(lambda one: _filters(*one, oversampling), (psf, change))


def _filters(psf, change, oversampling):
    x = ((np.arange(psf.shape[-1]) - psf.shape[-1] // 2) / oversampling).astype(np.float32)
    wave_x = jnp.asarray(np.exp(-1j * np.outer(_KX, x)), jnp.complex64).T
    wave_y = jnp.asarray(np.exp(-1j * np.outer(_KY, x)), jnp.complex64)
    along = psf @ wave_x
    p, p_x = wave_y @ along, -1j * (wave_y @ (psf @ (x[:, None] * wave_x)))
    p_y = -1j * ((wave_y * x) @ along)
    size = p.real**2 + p.imag**2
    inverse = jnp.conj(p) / (size + (_FAINT * psf.sum()) ** 2)
    kx, ky = _KX[None, :].astype(np.float32), _KY[:, None].astype(np.float32)
    other = wave_y @ (change @ wave_x)
    of_psf = jnp.stack([kx * p_x - ky * p_y, ky * p_x + kx * p_y, other]) * inverse
    return jnp.swapaxes(of_psf, 1, 2)


def image_tangents(images, filters):
    """Derivatives of images of which nothing is known but the pixels.

    Parameters
    ----------
    images : (N, 64, 64) array
        Small at the edges.
    filters : (N or 1, 3, 49, 96) complex array
        From `psf_filters`.

    Returns
    -------
    tangents : Tangents
    """
    of_psf = _pixels(filters * _modes(images)[:, None])
    x = (np.arange(SIDE, dtype=np.float32) - (SIDE - 1) / 2)[None, :]
    by_x, by_y = images @ _SLOPE, jnp.swapaxes(jnp.swapaxes(images, 1, 2) @ _SLOPE, 1, 2)
    gamma1 = x.T * by_y - x * by_x - of_psf[:, 0]
    gamma2 = -x.T * by_x - x * by_y - of_psf[:, 1]
    return Tangents(gamma1, gamma2, of_psf[:, 2])


def filtered(images, factor):
    """Images whose modes are multiplied by a factor, (N or 1, 49, 96)."""
    return _pixels(factor * _modes(images))


def _transforms():
    """Real matrices of the Fourier transforms along one axis, of stamps with a margin of zeros.

    Products with them take no longer than FFTs of this size, and a derivative along one axis is one product.
    """
    pixels = np.arange(SIDE)
    of_x, of_y = np.outer(pixels, _KX), np.outer(pixels, _KY)
    along_x = np.concatenate([np.cos(of_x), -np.sin(of_x)], 1)
    along_y = np.block([[np.cos(of_y), -np.sin(of_y)], [np.sin(of_y), np.cos(of_y)]])
    twice = np.where((_KX == 0) | (_KX > np.pi - 1e-6), 1, 2) / _FFT**2
    back_x = along_x.T * np.tile(twice, 2)[:, None]
    k = np.where(_KX > np.pi - 1e-6, 0, _KX)  # the Nyquist frequency has no sign
    real, imaginary = np.split(along_x, 2, 1)
    slope = np.concatenate([-k * imaginary, k * real], 1) @ (back_x * _FFT)
    return [matrix.astype(np.float32) for matrix in (along_x, along_y, along_y.T, back_x, slope)]


_ALONG_X, _ALONG_Y, _BACK_Y, _BACK_X, _SLOPE = _transforms()


def _modes(images):
    """Fourier modes (..., 49, 96) of images (..., 64, 64), by kx and ky."""
    lead = images.shape[:-2]
    along = jnp.reshape(images @ _ALONG_X, (*lead, SIDE, 2, len(_KX)))
    along = jnp.reshape(jnp.moveaxis(along, -3, -1), (*lead, 2, len(_KX), SIDE))
    both = jnp.concatenate([along[..., 0, :, :], along[..., 1, :, :]], -1) @ _ALONG_Y
    return jax.lax.complex(both[..., :_FFT], both[..., _FFT:])


def _pixels(modes):
    """Images (..., 64, 64) of Fourier modes."""
    lead = modes.shape[:-2]
    both = jnp.concatenate([modes.real, modes.imag], -1) @ _BACK_Y
    along = jnp.reshape(both, (*lead, len(_KX), 2, SIDE))
    along = jnp.reshape(jnp.moveaxis(along, -1, -3), (*lead, SIDE, len(_KX), 2))
    return jnp.concatenate([along[..., 0], along[..., 1]], -1) @ _BACK_X
