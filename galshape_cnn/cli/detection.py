# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""Find the galaxies of an image when no positions are given."""

import warnings

import numpy as np

from galshape_cnn.errors import NoiseError, PositionError

__all__ = ["CUTOUT_LIMIT", "find_galaxies", "is_cutout"]

#: An image up to this side, in pixels, is the cutout of one galaxy.
CUTOUT_LIMIT = 128
#: Pixels above this many standard deviations, after smoothing, belong to a source.
THRESHOLD = 4.0
MINIMUM_PIXELS = 8


def is_cutout(data):
    """Whether the input is cutouts with one galaxy each, and not an image of many.

    Parameters
    ----------
    data : NDData or list of NDData
        As read from a file.

    Returns
    -------
    is_cutout : bool
        True for a list, for a cube, and for an image of up to `CUTOUT_LIMIT` pixels.
    """
    if isinstance(data, list):
        return True
    shape = np.shape(data.data)
    return len(shape) != 2 or max(shape) <= CUTOUT_LIMIT


def find_galaxies(data, error=None):
    """Centroids of the sources of an image, by segmentation.

    A background mesh is subtracted, the image is divided by the noise and
    smoothed with a Gaussian of 3 pixels FWHM; eight connected pixels above
    four standard deviations make a source, and blends are separated.

    Parameters
    ----------
    data : NDData
        Image with uncertainty, unless ``error`` is given.
    error : float, optional
        1 sigma of every pixel.

    Returns
    -------
    positions : `~astropy.table.QTable`
        Columns ``x``, ``y``, 0-based pixels, brightest first.

    Raises
    ------
    NoiseError
        If the image has no noise.
    PositionError
        If nothing is found.
    """
    import photutils
    from astropy.table import QTable
    from astropy.utils import minversion
    from photutils.segmentation import SourceCatalog, deblend_sources, detect_sources
    from photutils.utils.exceptions import NoDetectionsWarning

    image, smooth, bad = _significance(data, error)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", NoDetectionsWarning)  # said below, with what to do about it
        segments = detect_sources(smooth, THRESHOLD, MINIMUM_PIXELS, mask=bad)
    if segments is None:
        raise PositionError("no source found in the image; give --positions")
    # photutils 3.0 shows a progress bar unless told not to; 3.1 has none, and a deprecated keyword.
    quiet = {} if minversion(photutils, "3.1") else {"progress_bar": False}
    segments = deblend_sources(smooth, segments, MINIMUM_PIXELS, **quiet)
    sources = SourceCatalog(image, segments, mask=bad, convolved_data=smooth)
    order = np.argsort(-np.asarray(sources.segment_flux))
    xy = np.column_stack([sources.x_centroid, sources.y_centroid])[order]
    xy = xy[np.isfinite(xy).all(1)]
    return QTable({"x": xy[:, 0], "y": xy[:, 1]})


def _significance(data, error):
    """Image and smoothed image in units of their noise, and the mask of bad pixels."""
    from astropy.convolution import Gaussian2DKernel, convolve
    from astropy.nddata import StdDevUncertainty

    image = np.asarray(data.data, float)
    if error is None and data.uncertainty is None:
        raise NoiseError(
            "the image has no noise: name its HDU with --err, --var or --ivar, or give --error SIGMA"
        )
    if error is None:
        with np.errstate(divide="ignore", invalid="ignore"):  # no weight: no information
            error = data.uncertainty.represent_as(StdDevUncertainty).array
    error = np.broadcast_to(np.asarray(error, float), image.shape)
    bad = ~np.isfinite(image) | ~np.isfinite(error) | (error <= 0)
    if data.mask is not None:
        bad |= np.asarray(data.mask, bool)
    flat = (image - _background(image, bad)) / np.where(bad, 1.0, error)
    flat[bad] = 0.0
    kernel = Gaussian2DKernel(3 / 2.3548)
    smooth = convolve(flat, kernel, normalize_kernel=True)
    return flat, smooth / np.sqrt(np.sum((kernel.array / kernel.array.sum()) ** 2)), bad


def _background(image, bad):
    """Smooth background of an image."""
    from photutils.background import Background2D, MedianBackground

    box = int(np.clip(min(image.shape) // 4, 32, 128))
    return Background2D(
        np.where(bad, 0.0, image), box, mask=bad, filter_size=3, bkg_estimator=MedianBackground()
    ).background
