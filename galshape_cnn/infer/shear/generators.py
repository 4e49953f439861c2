# Licensed under a 3-clause BSD style license - see LICENSE.rst
r"""Derivatives of images by a shear of the galaxy, and by the shape of the PSF.

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
_EDGE = (_FFT - SIDE) // 2
_MARGIN = ((0, 0), (_EDGE, _EDGE), (_EDGE, _EDGE))
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
    filters : (N, 3, 96, 49) complex jax array
        D_1 ln P, D_2 ln P and (P - symmetrized P) / P.
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
    return jnp.stack([kx * p_x - ky * p_y, ky * p_x + kx * p_y, other]) * inverse


def image_tangents(images, filters):
    """Derivatives of images of which nothing is known but the pixels.

    Parameters
    ----------
    images : (N, 64, 64) array
        Small at the edges.
    filters : (N or 1, 3, 96, 49) complex array
        From `psf_filters`.

    Returns
    -------
    tangents : Tangents
    """
    modes = jnp.fft.rfft2(jnp.pad(images, _MARGIN))
    x = (np.arange(SIDE, dtype=np.float32) - (SIDE - 1) / 2)[None, :]
    by_x = _pixels(1j * _slope(_KX)[None, :] * modes)
    by_y = _pixels(1j * _slope(_KY)[:, None] * modes)
    gamma1 = x.T * by_y - x * by_x - _pixels(filters[:, 0] * modes)
    gamma2 = -x.T * by_x - x * by_y - _pixels(filters[:, 1] * modes)
    return Tangents(gamma1, gamma2, _pixels(filters[:, 2] * modes))


def filtered(images, factor):
    """Images whose modes are multiplied by a factor, (N or 1, 96, 49)."""
    return _pixels(factor * jnp.fft.rfft2(jnp.pad(images, _MARGIN)))


def _pixels(modes):
    return jnp.fft.irfft2(modes, (_FFT, _FFT))[:, _EDGE : _EDGE + SIDE, _EDGE : _EDGE + SIDE]


def _slope(k):
    """Wave numbers, without the Nyquist frequency, which has no sign."""
    return np.where(np.abs(k) > np.pi - 1e-6, 0, k).astype(np.float32)
