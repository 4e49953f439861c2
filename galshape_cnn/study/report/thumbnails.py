# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""Data, model and residual images of the rows of a catalogue."""

import numpy as np

from galshape_cnn.forward.render import render
from galshape_cnn.forward.transfer import grid_for, transfer_functions

__all__ = ["Thumbnails", "model_images", "thumbnails"]

# Every call renders as many stamps, so that JAX compiles once for each stamp size.
_BLOCK = 64


class Thumbnails:
    """Images of one galaxy.

    Attributes
    ----------
    data, model : (ny, nx) ndarray
        Pixel values; bad pixels of the data are NaN.
    residual : (ny, nx) ndarray
        (data - model) / sigma; bad pixels are NaN.
    sigma : float
        Typical 1-sigma error of a pixel.
    """

    def __init__(self, data, ivar, model):
        good = ivar > 0
        self.data, self.model = np.where(good, data, np.nan), model
        self.residual = np.where(good, (data - model) * np.sqrt(ivar), np.nan)
        self.sigma = 1 / np.sqrt(np.median(ivar[good])) if good.any() else 1.0

    def stretched(self, softening=2.0):
        """Data and model on an asinh scale, 0 at the sky and 1 at the peak.

        Parameters
        ----------
        softening : float, optional
            Where the scale turns from linear to logarithmic, in sigma.

        Returns
        -------
        data, model : (ny, nx) ndarray
            Same scale for both; NaN in bad pixels of the data.
        """
        scale = softening * self.sigma
        top = np.nanmax(np.where(np.isfinite(self.model), self.model, np.nan), initial=5 * self.sigma)
        low, high = np.arcsinh(-2 * self.sigma / scale), np.arcsinh(top / scale)
        return tuple((np.arcsinh(image / scale) - low) / (high - low) for image in (self.data, self.model))


def model_images(stamps, params):
    """Model images of stamps.

    Parameters
    ----------
    stamps : Stamps
        N stamps, of which size, PSF and its sampling are used.
    params : (N, 8) array_like
        flux, n, hlr, g1, g2, x, y, sky in the pixel frame of each stamp.

    Returns
    -------
    images : (N, ny, nx) ndarray
        Zero for rows with parameters that are not finite.
    """
    params = np.asarray(params, float)
    images = np.zeros(stamps.data.shape)
    good = np.flatnonzero(np.isfinite(params).all(1))
    ny, nx = images.shape[1:]
    size = max(ny, nx) + max(ny, nx) % 2
    grid = grid_for(size, stamps.psf_oversampling)
    for start in range(0, len(good), _BLOCK):
        rows = good[start : start + _BLOCK]
        padded = np.resize(rows, _BLOCK)
        psf = stamps.psf if len(stamps.psf) == 1 else stamps.psf[padded]
        transfer = transfer_functions(psf, grid, stamps.psf_oversampling)
        images[rows] = np.asarray(render(params[padded], transfer, grid))[: len(rows), :ny, :nx]
    return images


def thumbnails(catalog):
    """Images of each row of a catalogue.

    Parameters
    ----------
    catalog : ShapeCatalog
        With its stamps.

    Yields
    ------
    row : int
        Row number; rows of equal stamp size come together.
    images : Thumbnails
        Data, model and residual.
    """
    for group in np.unique(catalog.location[:, 0]):
        rows = np.flatnonzero(catalog.location[:, 0] == group)
        for start in range(0, len(rows), _BLOCK):
            some = rows[start : start + _BLOCK]
            stamps = catalog.stamps[group][catalog.location[some, 1]]
            models = model_images(stamps, catalog.measurement.params[some])
            for row, data, ivar, model in zip(some, stamps.data, stamps.ivar, models, strict=True):
                yield int(row), Thumbnails(data, ivar, model)
