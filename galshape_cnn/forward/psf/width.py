# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""Width of a PSF, from its transfer function.

It is what a galaxy feels: wings count as well as the core, and an undersampled PSF has one too.
For a Gaussian it is the FWHM; a Moffat profile of beta = 2 is 1.65 times as wide as its FWHM says.
"""

from functools import lru_cache

import numpy as np

__all__ = ["WAVES", "psf_width", "width_from_levels"]

#: Wave numbers, radians per pixel, at which the half level is sought.
WAVES = np.linspace(0.02, 3.2, 160)


@lru_cache(maxsize=16)
def _waves(side, oversampling):
    """(side, K) waves along one axis of a PSF array."""
    offset = (np.arange(side) - side // 2) / oversampling
    return np.exp(-1j * np.outer(offset, WAVES))


def psf_width(psf, oversampling):
    """FWHM, (N,) in pixels, of the Gaussian whose transfer function falls to 1/2 where the PSF's does.

    Of effective PSFs (N, py, px) at a number of samples per pixel; works for undersampled ones too.
    """
    level = 0.0
    for axis in (1, 2):
        # each by itself: a product of all rounds by their number
        profile = psf.sum(axis, dtype=float)[:, None]
        level = level + np.abs(profile @ _waves(profile.shape[-1], oversampling))[:, 0]
    return width_from_levels(level / (2 * np.maximum(psf.sum((1, 2)), 1e-30)[:, None]))


def width_from_levels(level):
    """Width (N,), in pixels, of PSFs from their transfer functions.

    From the moduli (N, K) of these at `WAVES`, mean of both axes, in units of that at zero.
    """
    below = np.asarray(level) < 0.5
    first = np.where(below.any(1), below.argmax(1), len(WAVES) - 1)
    return 2.354820045 * np.sqrt(2 * np.log(2)) / WAVES[first]
