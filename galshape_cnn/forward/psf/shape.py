# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""Width and shape of a PSF, from its transfer function.

The width is what a galaxy feels: wings count as well as the core, and an undersampled PSF has one too.  For
a Gaussian it is the FWHM; a Moffat profile of beta = 2 is 1.65 times as wide as its FWHM says.  The shape is
what there is beside it: ellipticity, wings and asymmetry.
"""

from functools import lru_cache

import numpy as np
from astropy.stats import gaussian_sigma_to_fwhm

from galshape_cnn.forward.kernel import psf_calls
from galshape_cnn.forward.kernel.library import with_kernel

__all__ = ["WAVES", "psf_shape", "psf_width", "width_from_levels"]

#: Wave numbers, radians per pixel, at which the half level is sought.
WAVES = np.linspace(0.02, 3.2, 160)
#: Wave numbers, over one by the PSF's width, at which its transfer function is looked at.
_CORE, _WINGS = 3.0, 1.2
_ANGLES = np.pi * np.arange(4) / 4


@lru_cache(maxsize=16)
def _waves(side, oversampling):
    """(2, K, side): cos and sin of the waves along one axis of a PSF array."""
    phase = np.outer(WAVES, (np.arange(side) - side // 2) / oversampling)
    return np.stack([np.cos(phase), np.sin(phase)])


def _width_by_kernel(psf, oversampling):
    waves = (_waves_from_middle(side, oversampling) for side in psf.shape[1:])
    return _widths()[psf_calls.psf_half_levels(psf, *waves)]


@lru_cache(maxsize=16)
def _waves_from_middle(side, oversampling):
    return np.ascontiguousarray(_waves(side, oversampling)[..., side // 2 :])


@with_kernel(_width_by_kernel, "psf", instead_of="numpy")
def psf_width(psf, oversampling):
    """FWHM, (N,) in pixels, of the Gaussian whose transfer function falls to 1/2 where the PSF's does.

    Of effective PSFs (N, py, px) at a number of samples per pixel; works for undersampled ones too.
    """
    level = 0.0
    for axis in (1, 2):
        # each by itself: a product of all rounds by their number
        profile = psf.sum(axis, dtype=float)[:, None]
        real, imag = (profile @ one.T for one in _waves(profile.shape[-1], oversampling))
        level = level + np.hypot(real, imag)[:, 0]
    return width_from_levels(level / (2 * np.maximum(psf.sum((1, 2), dtype=float), 1e-30)[:, None]))


def width_from_levels(level):
    """Width (N,), in pixels, of PSFs from their transfer functions.

    From the moduli (N, K) of these at `WAVES`, mean of both axes, in units of that at zero.
    """
    below = np.asarray(level) < 0.5
    first = np.where(below.any(1), below.argmax(1), len(WAVES) - 1)
    return _widths()[first]


def _widths():
    """(K,) widths of PSFs that fall to one half at the waves."""
    return gaussian_sigma_to_fwhm * np.sqrt(2 * np.log(2)) / WAVES


def psf_shape(psf, oversampling):
    """Numbers that tell kinds of PSFs apart.

    Parameters
    ----------
    psf : (N, py, px) ndarray
        Effective PSFs.
    oversampling : int
        Samples per pixel.

    Returns
    -------
    shape : (N, 3) ndarray
        Of the transfer function on circles of one by the width: its relative contrast between
        perpendicular directions; how much it falls towards the inner circle, as the outer wings have it; and
        its largest imaginary part, of lopsided PSFs and those off their centre.

    Examples
    --------
    >>> import numpy as np
    >>> from galshape_cnn.forward.psf.shape import psf_shape
    >>> y, x = np.mgrid[-15:16, -15:16]
    >>> round_one, long_one = np.exp(-(x**2 + y**2) / 8), np.exp(-(x**2 / 4 + y**2) / 4)
    >>> psf_shape(np.stack([round_one, long_one]), 1)[:, 0].round(2)
    array([0.  , 0.57])
    """
    psf = np.asarray(psf, float)
    width = psf_width(psf, oversampling)
    total = np.maximum(np.abs(psf.sum((1, 2))), 1e-30)
    core, wings = (_transfer(psf, wave / width, oversampling) / total[:, None] for wave in (_CORE, _WINGS))
    along = np.abs(core)
    contrast = along[:, :2] - along[:, 2:]
    elongation = np.hypot(*contrast.T) / np.maximum(along.sum(1) / 2, 1e-30)
    return np.column_stack([elongation, 1 - np.abs(wings).mean(1), np.abs(core.imag).max(1)])


def _transfer(psf, k, oversampling):
    """(N, 4) transfer function at wave numbers k (N,) radians per pixel in four directions."""
    y, x = ((np.arange(side) - side // 2) / oversampling for side in psf.shape[1:])
    out = np.empty((len(psf), len(_ANGLES)), complex)
    for column, angle in enumerate(_ANGLES):
        along_y = np.exp(-1j * np.sin(angle) * k[:, None] * y)
        along_x = np.exp(-1j * np.cos(angle) * k[:, None] * x)
        out[:, column] = np.einsum("ny,nyx,nx->n", along_y, psf, along_x, optimize=True)
    return out
