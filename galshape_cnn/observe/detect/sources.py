# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""Detection of the sources of an image: background, detection and deblending.

The image is divided by its noise, smoothed, and cut at a threshold; the
background is measured twice, the second time without the sources found in the
first, because a large galaxy lifts the background mesh below itself.
"""

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from galshape_cnn.errors import InputError, NoiseError, PositionError
from galshape_cnn.observe.detect.background import (
    clipped_level,
    sky_level,
    sorted_values,
    without_some,
)
from galshape_cnn.observe.detect.deblending import deblended, detected
from galshape_cnn.observe.noise.uncertainty import NO_NOISE, noise_from_error, noise_from_uncertainty

__all__ = ["Detection", "Segments", "background_noise", "find_galaxies", "pixels_and_noise", "segmented"]

#: Sides of the stamps of sources that were found.
_STAMP_SIZES = (64, 96, 128, 192, 256, 384, 512)


@dataclass(frozen=True)
class Detection:
    """How sources are told from noise and from each other.

    Attributes
    ----------
    threshold : float
        Standard deviations of the smoothed image above which a pixel belongs to a source.
    npixels : int
        Connected pixels that make a source.
    fwhm : float
        Of the Gaussian that smooths the image, in pixels.
    box : int or None
        Side of the background mesh in pixels; 0 takes the image as
        background-subtracted; by default 128, or one level for images too small for that.
    contrast : float
        Share of a blend's light that makes a peak a source of its own, see
        `photutils.segmentation.deblend_sources`; 1 keeps blends together.

    Examples
    --------
    >>> from galshape_cnn.observe.detect.sources import Detection
    >>> Detection(threshold=10).npixels
    8
    """

    threshold: float = 4.0
    npixels: int = 8
    fwhm: float = 3.0
    box: int | None = None
    contrast: float = 0.005

    def __post_init__(self):
        for name, fits, allowed in (
            ("threshold", 0 < self.threshold < np.inf, "a number above 0"),
            ("npixels", self.npixels >= 1, "a whole number above 0"),
            ("fwhm", 0 < self.fwhm < np.inf, "a number above 0"),
            ("box", self.box is None or self.box == 0 or self.box >= 8, "0, or at least 8"),
            ("contrast", 0 <= self.contrast <= 1, "0 to 1"),
        ):
            if not fits:
                raise InputError(f"{name}={getattr(self, name)}; allowed: {allowed}")


def find_galaxies(data, error=None, detection=None):
    """Centroids of the sources of an image, by segmentation.

    Stars are found too: the measurement flags them as ``UNRESOLVED``.

    Parameters
    ----------
    data : NDData
        Image with uncertainty, unless ``error`` is given.
    error : float or (ny, nx) array_like, optional
        1 sigma per pixel.
    detection : Detection, optional
        Thresholds.

    Returns
    -------
    positions : `~astropy.table.QTable`
        Columns ``x``, ``y``, 0-based pixels, and ``stamp_size``, pixels enough for the
        wings of each, brightest first.

    Raises
    ------
    NoiseError
        If the image has no noise.
    PositionError
        If nothing is found.

    Examples
    --------
    >>> import numpy as np
    >>> from astropy.nddata import NDData
    >>> from galshape_cnn.observe.detect.sources import find_galaxies
    >>> y, x = np.mgrid[:200, :200]
    >>> image = 30 * np.exp(-((x - 80) ** 2 + (y - 60) ** 2) / 20)
    >>> found = find_galaxies(NDData(image + np.random.default_rng(1).normal(size=(200, 200))), error=1.0)
    >>> [round(float(found[name][0])) for name in ("x", "y")]
    [80, 60]
    """
    from astropy.table import QTable

    found = segmented(data, error, detection)
    if not found.count:
        raise PositionError("no source found in the image; give positions (--positions)")
    order = np.argsort(-found.light(found.flat))
    xy, side = found.centroids()[order], _stamp_size(found.labels)[order]
    return QTable({"x": xy[:, 0], "y": xy[:, 1], "stamp_size": side})


def _stamp_size(labels):
    """Side of a stamp in which the wings of a source and the sky beside them can be told apart.

    Twice what stands out of the noise, in steps that share programs and transforms.
    """
    from scipy.ndimage import find_objects

    extent = np.array([max(side.stop - side.start for side in box) for box in find_objects(labels)])
    steps = np.array(_STAMP_SIZES)
    return steps[np.clip(np.searchsorted(steps, 2 * extent), 0, len(steps) - 1)]


def background_noise(data):
    """Noise of the pixels without sources, for images without a description of their noise.

    Clipped standard deviation of an image, or (N, 1, 1) of the planes of a cube. It holds for independent
    pixels and for sources fainter than the sky: a map from the survey is always better.  ``NoiseError`` if no
    pixel is left, or they are all equal.
    """
    if np.ndim(data.data) == 3:
        masks = [None] * len(data.data) if data.mask is None else data.mask
        planes = zip(data.data, masks, strict=True)
        return np.array([_blank_scatter(*plane) for plane in planes])[:, None, None]
    return _blank_scatter(data.data, data.mask)


def _blank_scatter(image, mask):
    """Clipped standard deviation of one image outside its sources."""
    image = np.asarray(image, float)
    bad = ~np.isfinite(image) | (False if mask is None else np.asarray(mask, bool))
    image, sigma, hidden = np.where(bad, 0.0, image), 0.0, bad
    detection, ordered = Detection(threshold=3.0, box=0), sorted_values(image[~bad])
    for _ in range(3):
        if hidden.mean() > 0.95:
            break
        level, sigma = clipped_level(without_some(ordered, image[hidden & ~bad]), maxiters=20)
        if not (np.isfinite(sigma) and sigma > 0):
            raise NoiseError(
                "the background has no scatter to measure the noise from; give its level instead"
            )
        smooth = _smoothed(np.where(bad, 0, image - level) / sigma, detection.fwhm)
        hidden = bad | (detected(smooth, detection.threshold, detection.npixels, bad) > 0)
    if not sigma > 0:
        raise NoiseError("no pixel of the image is unmasked: the noise cannot be measured")
    return sigma


class Segments(NamedTuple):
    """An image in units of its noise, and which of its pixels belong to which source.

    Attributes
    ----------
    flat, smooth : (ny, nx) ndarray
        Image without background over its noise; smoothed, again over its noise.
    sigma : (ny, nx) ndarray
        Noise; one where ``bad``.
    bad : (ny, nx) ndarray of bool
        Pixels that do not count.
    labels : (ny, nx) int ndarray
        Sources 1, 2, ... and 0 for sky.
    """

    flat: np.ndarray
    smooth: np.ndarray
    sigma: np.ndarray
    bad: np.ndarray
    labels: np.ndarray

    @property
    def count(self):
        """Number of sources."""
        return int(self.labels.max())

    def light(self, image):
        """(count,) ndarray: sum of an image over the pixels of each source."""
        return np.bincount(self.labels.ravel(), image.ravel(), self.count + 1)[1:]

    def centroids(self):
        """(count, 2) ndarray: x, y of each source in the smoothed image."""
        at = np.flatnonzero(self.labels)
        y, x = np.divmod(at, self.labels.shape[1])
        number, light = self.labels.ravel()[at], self.smooth.ravel()[at]
        total, *moments = (np.bincount(number, light * one)[1:] for one in (1.0, x, y))
        return np.column_stack(moments) / total[:, None]


def segmented(data, error=None, detection=None):
    """Find the pixels of the sources of an image; arguments as of `find_galaxies`.

    ``NoiseError`` if the image has no noise, or no pixel counts.
    """
    detection = Detection() if detection is None else detection
    image, sigma, bad = pixels_and_noise(data, error)
    labels, margin = None, round(3 * detection.fwhm)
    for _ in range(2 if detection.box != 0 else 1):
        level = sky_level(image, bad, None if labels is None else labels > 0, margin, detection.box)
        flat = np.where(bad, 0.0, (image - level) / sigma)
        smooth = _smoothed(flat, detection.fwhm)
        labels = detected(smooth, detection.threshold, detection.npixels, bad)
    labels = deblended(smooth, labels, detection.npixels, detection.contrast)
    return Segments(flat, smooth, sigma, bad, labels)


def pixels_and_noise(data, error):
    """Image and noise of an NDData as plain arrays, zero and one where bad, and which pixels are bad."""
    image = np.asarray(data.data, float)
    if error is None and data.uncertainty is None:
        raise NoiseError(NO_NOISE.replace("no noise information", "the image has no noise"))
    if error is None:
        noise = noise_from_uncertainty(data.uncertainty, data.unit)
    else:
        noise = noise_from_error(error, data.unit)
    error = np.broadcast_to(noise.standard_deviation(), image.shape)
    with np.errstate(invalid="ignore"):
        bad = ~np.isfinite(image) | ~np.isfinite(error) | (error <= 0)
    if data.mask is not None:
        bad |= np.asarray(data.mask, bool)
    if bad.all():
        raise NoiseError("no pixel of the image is unmasked and has noise information")
    return np.where(bad, 0.0, image), np.where(bad, 1.0, error), bad


def _smoothed(flat, fwhm):
    """Smoothed image over its noise, had the pixels independent noise; zero beyond the edges."""
    from astropy.convolution import Gaussian1DKernel
    from astropy.stats import gaussian_fwhm_to_sigma
    from scipy.ndimage import convolve1d

    kernel = Gaussian1DKernel(fwhm * gaussian_fwhm_to_sigma).array
    kernel = kernel / kernel.sum()
    smooth = flat
    for axis in (0, 1):
        smooth = convolve1d(smooth, kernel, axis=axis, mode="constant")
    return smooth / np.sum(kernel**2)
