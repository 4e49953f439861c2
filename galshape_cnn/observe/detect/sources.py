# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""Detection of the sources of an image, with photutils.

The image is divided by its noise, smoothed, and cut at a threshold; the
background is measured twice, the second time without the sources found in the
first, because a large galaxy lifts the background mesh below itself.
"""

import warnings
from dataclasses import dataclass

import numpy as np

from galshape_cnn.errors import InputError, NoiseError, PositionError
from galshape_cnn.observe.noise.uncertainty import NO_NOISE, noise_from_error, noise_from_uncertainty

__all__ = ["Detection", "background_noise", "find_galaxies", "pixels_and_noise", "segmented"]

#: Side of the background mesh in pixels, for images of at least twice that.
_BACKGROUND_BOX = 128
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
        for name, allowed in (
            ("threshold", self.threshold > 0),
            ("npixels", self.npixels >= 1),
            ("fwhm", self.fwhm > 0),
            ("box", self.box is None or self.box == 0 or self.box >= 8),
            ("contrast", 0 <= self.contrast <= 1),
        ):
            if not allowed:
                raise InputError(f"{name}={getattr(self, name)} makes no sense for a detection")


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
    from photutils.segmentation import SourceCatalog

    flat, smooth, bad, segments = segmented(data, error, detection)
    if segments is None:
        raise PositionError("no source found in the image; give positions (--positions)")
    sources = SourceCatalog(flat, segments, mask=bad, convolved_data=smooth)
    order = np.argsort(-np.asarray(sources.segment_flux))
    xy = np.column_stack([sources.x_centroid, sources.y_centroid])[order]
    side = _stamp_size(sources)[order]
    good = np.isfinite(xy).all(1)
    return QTable({"x": xy[good, 0], "y": xy[good, 1], "stamp_size": side[good]})


def _stamp_size(sources):
    """Side of a stamp in which the wings of a source and the sky beside them can be told apart.

    Twice what stands out of the noise, in steps that share programs and transforms.
    """
    extent = np.maximum(sources.bbox_xmax - sources.bbox_xmin + 1, sources.bbox_ymax - sources.bbox_ymin + 1)
    steps = np.array(_STAMP_SIZES)
    return steps[np.clip(np.searchsorted(steps, 2 * extent), 0, len(steps) - 1)]


def background_noise(data):
    """Noise of the pixels without sources, for images without a description of their noise.

    It holds for independent pixels and for sources fainter than the sky: a map from
    the survey is always better.

    Parameters
    ----------
    data : NDData
        Image, or cube of cutouts.

    Returns
    -------
    sigma : float or (N, 1, 1) ndarray
        Clipped standard deviation, of each plane of a cube.

    Raises
    ------
    NoiseError
        If no pixel is left, or they are all equal.
    """
    if np.ndim(data.data) == 3:
        masks = [None] * len(data.data) if data.mask is None else data.mask
        planes = zip(data.data, masks, strict=True)
        return np.array([_blank_scatter(*plane) for plane in planes])[:, None, None]
    return _blank_scatter(data.data, data.mask)


def _blank_scatter(image, mask):
    """Clipped standard deviation of one image outside its sources."""
    from astropy.stats import sigma_clipped_stats

    image = np.asarray(image, float)
    bad = ~np.isfinite(image) | (False if mask is None else np.asarray(mask, bool))
    image, sigma, hidden = np.where(bad, 0.0, image), 0.0, bad
    detection = Detection(threshold=3.0, box=0)
    for _ in range(3):
        if hidden.mean() > 0.95:
            break
        _, level, sigma = sigma_clipped_stats(image, mask=hidden, maxiters=20)
        if not (np.isfinite(sigma) and sigma > 0):
            raise NoiseError(
                "the background has no scatter to measure the noise from; give its level instead"
            )
        segments = _detected(
            _smoothed(np.where(bad, 0, image - level) / sigma, detection.fwhm), bad, detection
        )
        hidden = bad if segments is None else bad | (segments.data > 0)
    if not sigma > 0:
        raise NoiseError("no pixel of the image is unmasked: the noise cannot be measured")
    return sigma


def segmented(data, error=None, detection=None):
    """Image in units of its noise, and which of its pixels belong to which source.

    Parameters
    ----------
    data, error, detection
        As for `find_galaxies`.

    Returns
    -------
    flat, smooth : (ny, nx) ndarray
        Image without background over its noise; smoothed, again over its noise.
    bad : (ny, nx) ndarray of bool
        Pixels that do not count.
    segments : `photutils.segmentation.SegmentationImage` or None
        None if nothing was found.

    Raises
    ------
    NoiseError
        If the image has no noise.
    """
    detection = Detection() if detection is None else detection
    image, error, bad = pixels_and_noise(data, error)
    flat, smooth, segments = image, None, None
    for _ in range(2 if detection.box != 0 else 1):
        level = _background(image, bad, segments, detection)
        flat = np.where(bad, 0.0, (image - level) / error)
        smooth = _smoothed(flat, detection.fwhm)
        segments = _detected(smooth, bad, detection)
    if segments is not None and detection.contrast < 1:
        segments = _deblended(smooth, segments, detection)
    return flat, smooth, bad, segments


def pixels_and_noise(data, error):
    """Image and noise of an NDData as plain arrays.

    Parameters
    ----------
    data, error
        As for `find_galaxies`.

    Returns
    -------
    image, sigma : (ny, nx) float ndarray
        Zero and one where bad.
    bad : (ny, nx) ndarray of bool
        Masked, not finite, or without noise information.

    Raises
    ------
    NoiseError
        If the image has no noise, or no pixel counts.
    """
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


def _detected(smooth, bad, detection):
    """Segments above the threshold, or None."""
    from photutils.segmentation import detect_sources
    from photutils.utils.exceptions import NoDetectionsWarning

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", NoDetectionsWarning)  # the caller says so, with what to do about it
        return detect_sources(smooth, detection.threshold, detection.npixels, mask=bad)


def _deblended(smooth, segments, detection):
    """Segments, those divided that have several peaks; one with a single peak is whole at every level."""
    import photutils
    from astropy.utils import minversion
    from photutils.segmentation import deblend_sources

    several = _with_several_peaks(smooth, segments.data)
    if not len(several):
        return segments
    # photutils 3.0 shows a progress bar unless told not to; 3.1 has none, and a deprecated keyword.
    quiet = {} if minversion(photutils, "3.1") else {"progress_bar": False}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # sources too small or too steep to be deblended stay whole
        return deblend_sources(
            smooth, segments, detection.npixels, contrast=detection.contrast, labels=several, **quiet
        )


def _with_several_peaks(smooth, labels):
    """Labels of the segments in which more than one pixel is as high as its neighbours in the segment."""
    from scipy.ndimage import maximum_filter

    inside = np.where(labels > 0, smooth, -np.inf)
    tops = labels[(labels > 0) & (inside == maximum_filter(inside, size=3))]
    return np.flatnonzero(np.bincount(tops) > 1)


def _background(image, bad, segments, detection):
    """Background of an image, without the sources that are known."""
    from astropy.stats import sigma_clipped_stats
    from photutils.background import Background2D, MedianBackground
    from photutils.utils import circular_footprint

    if detection.box == 0:
        return 0.0
    sources = np.zeros_like(bad)
    if segments is not None:
        sources = segments.make_source_mask(footprint=circular_footprint(round(3 * detection.fwhm)))
    hidden = bad | sources
    if hidden.mean() > 0.9:  # nothing is left to measure: the sources stay in
        hidden = bad
    box = detection.box or _BACKGROUND_BOX
    if min(image.shape) < 2 * box and detection.box is None:
        return sigma_clipped_stats(image, mask=hidden)[1]
    try:
        return Background2D(
            image, box, mask=hidden, filter_size=3, exclude_percentile=50, bkg_estimator=MedianBackground()
        ).background
    except ValueError:  # no box has enough pixels
        return sigma_clipped_stats(image, mask=hidden)[1]
