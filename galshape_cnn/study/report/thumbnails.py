# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""Data, model and residual images of the rows of a catalogue."""

import numpy as np

from galshape_cnn.infer.likelihood.rendering import model_images

__all__ = ["Thumbnails", "thumbnails"]

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
