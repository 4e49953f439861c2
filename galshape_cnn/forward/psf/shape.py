# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""Shape of a PSF apart from its width: ellipticity, wings and asymmetry."""

import numpy as np

from galshape_cnn.forward.psf.width import psf_width

__all__ = ["psf_shape"]

#: Wave numbers, over one by the PSF's width, at which its transfer function is looked at.
_CORE, _WINGS = 3.0, 1.2
_ANGLES = np.pi * np.arange(4) / 4


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
