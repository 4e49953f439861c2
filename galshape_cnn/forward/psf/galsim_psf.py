# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""Effective PSF arrays of GalSim profiles (imports GalSim when called)."""

import galsim
import numpy as np

from galshape_cnn.errors import PSFError

__all__ = ["draw_effective_psf"]


def draw_effective_psf(psf, jacobian, oversampling, side, folding_threshold):
    """Convolve a GalSim profile with the pixel and draw it finely.

    Parameters
    ----------
    psf : galsim.GSObject
        PSF without the pixel, in the frame (u, v) of the Jacobian.
    jacobian : (2, 2) array_like
        d(u, v)/d(x, y).
    oversampling : int
        Samples per pixel.
    side : int
        Odd side of the array, in samples.
    folding_threshold : float
        Share of the light that may fold back into the array, see `galsim.GSParams`.

    Returns
    -------
    array : (side, side) float64 ndarray
        Its sum is the flux inside the array: it is not renormalised, because
        the light beyond it exists.

    Raises
    ------
    PSFError
        If GalSim cannot draw the profile.
    """
    wcs = galsim.JacobianWCS(*np.ravel(jacobian))
    fine = galsim.JacobianWCS(*np.ravel(jacobian) / oversampling)
    effective = galsim.Convolve(psf, wcs.toWorld(galsim.Pixel(1.0)))
    # GalSim's default lets 0.5 % of the light fold back into the array, where it would count as inside.
    folding = min(folding_threshold, effective.gsparams.folding_threshold)
    careful = effective.withGSParams(folding_threshold=folding)
    options = {"nx": side, "ny": side, "wcs": fine, "method": "no_pixel", "dtype": float}
    try:
        try:
            image = careful.drawImage(**options)
        except galsim.GalSimFFTSizeError:
            image = effective.drawImage(**options)
    except (galsim.GalSimError, MemoryError) as error:
        raise PSFError(f"psf cannot be drawn by GalSim: {error}") from error
    return image.array.copy()
