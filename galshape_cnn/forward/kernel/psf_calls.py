# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""The kernel's functions for sampled PSFs, each read once, with sums in double precision."""

import numpy as np

from galshape_cnn.forward.kernel.calls import odd_sized
from galshape_cnn.forward.kernel.library import call, double, integer, single

__all__ = ["psf_half_levels", "psf_offsets", "psf_rings", "psf_spectra", "psf_sums"]

_WAVES = 8  # of a spectrum along an axis, with one sign


def _odd(psf):
    return odd_sized(single(psf), "PSF arrays", "samples")


def psf_sums(psf):
    """Largest value, sum, and sum of squares of arrays (N, py, px), (3, N) float64."""
    psf, out = double(psf), np.empty((len(psf), 3))
    call("psf_sums", integer(len(psf)), integer(psf[0].size if len(psf) else 1), psf, out)
    return out.T


def psf_offsets(psf, level, peak, limits):
    """Centroids of PSFs in samples from the middle.

    Parameters
    ----------
    psf : (N, py, px) array_like
        Odd-sized samples.
    level : (N,) array_like
        What is to be subtracted.
    peak : (N,) array_like
        Largest samples.
    limits : sequence of float
        As `galshape_cnn.forward.psf.checks` lists them.

    Returns
    -------
    offsets : (N, 2) float64 ndarray
        x, y.
    """
    psf, out = double(psf), np.empty((len(psf), 2))
    how = map(double, (level, peak, limits))
    call("psf_offsets", integer(len(psf)), *psf.shape[1:], psf, *how, out)
    return out


def psf_rings(psf, rim, ring):
    """Medians of samples on the rim and on a ring, and the median distance of the first from theirs.

    Parameters
    ----------
    psf : (N, py, px) array_like
        PSFs.
    rim, ring : (M,), (K,) int64 ndarray
        Numbers of the samples in a flat array.

    Returns
    -------
    medians : (3, N) float64 ndarray
        Found in single precision.
    """
    psf, out = double(psf), np.empty((len(psf), 3))
    places = [one for at in (rim, ring) for one in (integer(len(at)), at)]
    call("psf_rings", integer(len(psf)), integer(psf[0].size), psf, *places, out)
    return out.T


def psf_half_levels(psf, waves_y, waves_x):
    """First wave at which each PSF's transfer function, mean of both axes, is below half of that at zero.

    Parameters
    ----------
    psf : (N, py, px) array_like
        PSFs, odd-sized.
    waves_y, waves_x : (2, K, py // 2 + 1), (2, K, px // 2 + 1) float64 ndarray
        cos and sin of the waves at the samples from the middle one on.

    Returns
    -------
    wave : (N,) int64 ndarray
        Number of the wave; that of the last where there is none.
    """
    psf, out = _odd(psf), np.empty(len(psf), np.int64)
    how = integer(len(psf)), *psf.shape[1:], waves_y.shape[1]
    call("psf_half_levels", *how, psf, *waves_y, *waves_x, out)
    return out


def psf_spectra(psf, waves_y, waves_x):
    """Fourier transforms of PSFs at eight wave numbers along x, and those of either sign along y.

    Parameters
    ----------
    psf : (N, py, px) array_like
        PSFs, odd-sized.
    waves_y, waves_x : (8, py), (8, px) complex128 ndarray
        Waves at the samples, whose first is constant.

    Returns
    -------
    spectra : (N, 15, 8) complex128 ndarray
        Along y from the most negative wave number on.
    """
    psf, out = _odd(psf), np.empty((len(psf), 2 * _WAVES - 1, _WAVES), complex)
    along_y, along_x = (double(np.concatenate([one.real, one.imag]).T) for one in (waves_y, waves_x))
    call("psf_spectra", integer(len(psf)), *psf.shape[1:], psf, along_y, along_x, out)
    return out
