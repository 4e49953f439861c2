# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""Data, model and residual images of the rows of a catalogue."""

import numpy as np

from galshape_cnn.infer.likelihood.rendering import model_images

__all__ = ["Thumbnails", "exposure_thumbnails", "thumbnails"]

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

    def stretched(self):
        """Data and model on one asinh scale, 0 at the sky and 1 at the peak; NaN in bad pixels of the data.

        It turns from linear to logarithmic at twice sigma.
        """
        scale = 2 * self.sigma
        top = np.nanmax(np.where(np.isfinite(self.model), self.model, np.nan), initial=5 * self.sigma)
        low, high = np.arcsinh(-2 * self.sigma / scale), np.arcsinh(top / scale)
        return tuple((np.arcsinh(image / scale) - low) / (high - low) for image in (self.data, self.model))


def thumbnails(catalog):
    """Yield row numbers and images of a catalogue with its stamps; rows of equal stamp size come together."""
    yield from _of_stamps(catalog.stamps, catalog.location, catalog.measurement.params)


def exposure_thumbnails(catalog):
    """Yield the number of a row and of an exposure that shows it, together, and the images there.

    Those of an exposure come together; the catalogue needs its stamps.
    """
    for exposure in range(len(catalog.exposures)):
        location, params = catalog.location[:, exposure], catalog.by_exposure.params[:, exposure]
        for row, images in _of_stamps(catalog.stamps, location, params):
            yield row, exposure, images


def _of_stamps(all_stamps, location, params):
    """Row numbers and images of those that have a place in the stamps."""
    for group in np.unique(location[:, 0][location[:, 0] >= 0]):
        rows = np.flatnonzero(location[:, 0] == group)
        for start in range(0, len(rows), _BLOCK):
            some = rows[start : start + _BLOCK]
            stamps = all_stamps[group][location[some, 1]]
            models = model_images(stamps, params[some])
            for row, data, ivar, model in zip(some, stamps.data, stamps.ivar, models, strict=True):
                yield int(row), Thumbnails(data, ivar, model)
