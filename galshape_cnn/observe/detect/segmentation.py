# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""Segmentation: which pixels of a stamp belong to which source.

Sources are segments of the smoothed stamp (as `photutils.segmentation.detect_sources` has them).
A segment is divided at peaks that stand above the saddle towards the galaxy and towards
each other: the test that sets ``NEIGHBOR``, which at high S/N separates closer pairs
than thresholds do and does not take noise on the flank of a bright galaxy for a source.
Positions that the user gave for other galaxies count as peaks without a test.  The pixels
of a segment go to the peak from which they are reached downhill.

Clumps of the galaxy itself are no neighbours (`own_clumps`): several peaks inside its extent, each with a
small part of the light, that rise from a body which is bright between them.
"""

from dataclasses import dataclass

import numpy as np
from scipy.ndimage import find_objects, label

from galshape_cnn.forward.kernel import detection_calls
from galshape_cnn.forward.kernel.library import with_kernel
from galshape_cnn.forward.psf.convert import PSFArrays
from galshape_cnn.observe.detect.background import grown
from galshape_cnn.observe.detect.centroids import alike_chunks, psf_sigma
from galshape_cnn.observe.detect.levels import lowest_between, neighbor_peaks, values
from galshape_cnn.observe.detect.scale_space import build_levels

__all__ = ["TARGET", "UNMODELLED", "Scene", "find_scenes", "masks", "own_clumps"]

#: Label of the pixels of the galaxy itself; neighbours follow as 2, 3, ...
TARGET = 1
#: Label of sources without a peak of their own: masked, never fitted.
UNMODELLED = 255

_SEGMENT_HEIGHT = 2.5  # in units of the smoothed noise
_SEGMENT_PIXELS = 5
_EIGHT = np.ones((3, 3), int)  # pixels that touch at a corner are connected
_LEAST_PEAK = 4.0  # of a separate segment, below which it is noise
_SAME_SOURCE = 2.0  # pixels, or the width of the PSF, within which two positions are one source
_MOST_PEAKS = 200
_MOST_NEIGHBOURS = UNMODELLED - TARGET - 1  # that have a label; what is farther away is masked as unmodelled
_MASK_MARGIN = 1.5  # of neighbours' masks, in widths of the PSF
_FEWEST_CLUMPS = 3  # of a clumpy galaxy, beside the one at its centre
_CLUMP_EXTENT = 2.0  # half-light radii about its centre in which they lie
_CLUMP_SHARE = 0.25  # of its light that one of them may have at most
_CLUMP_GROUND = 0.15  # of a clump's height that the light between it and the centre has at least
_CORE = 1.5  # pixels around the galaxy's centre that are never masked

#: What the kernel needs to know of the above.
_LIMITS = (
    *(_SEGMENT_HEIGHT, _SEGMENT_PIXELS, _LEAST_PEAK, _MOST_PEAKS),
    *(_FEWEST_CLUMPS, _CLUMP_EXTENT, _CLUMP_SHARE, _CLUMP_GROUND),
)


@dataclass(frozen=True)
class Scene:
    """The sources of one stamp.

    Attributes
    ----------
    labels : (ny, nx) uint8 ndarray
        0 for sky, `TARGET`, 2 and so on for the neighbours in the order of
        ``peaks``, `UNMODELLED` for what has no peak.
    peaks : (K, 2) ndarray
        x, y of the neighbours in the stamp, the nearest first.
    center : (2,) ndarray
        x, y of the galaxy.
    sigma : float
        Gaussian width of the PSF in pixels.
    """

    labels: np.ndarray
    peaks: np.ndarray
    center: np.ndarray
    sigma: float


def masks(scenes, kept=None):
    """Pixels of other sources in scenes of one size, with a margin for wings, but nothing of the galaxy.

    (N, ny, nx) bool. Neighbours of the indices ``kept`` into the ``peaks`` of each scene are not masked.
    """
    if not len(scenes):
        return np.zeros((0, 0, 0), bool)
    wanted = np.zeros((len(scenes), UNMODELLED + 1), bool)
    wanted[:, TARGET] = True
    for row, some in enumerate([] if kept is None else kept):
        wanted[row, [TARGET + 1 + k for k in some]] = True
    labels, center = (np.array([getattr(one, name) for one in scenes]) for name in ("labels", "center"))
    margin = np.array([np.ceil(_MASK_MARGIN * scene.sigma) + 0.5 for scene in scenes])
    return _around(labels, wanted, center, margin, _CORE)


@with_kernel(detection_calls.masks, instead_of="numpy")
def _around(labels, wanted, center, margin, core):
    wanted = np.array([table[one] for table, one in zip(wanted, labels, strict=True)])
    others = (labels > 0) & ~wanted
    for radius in np.unique(margin):
        rows = np.flatnonzero((margin == radius) & others.any((1, 2)))
        x, y = center[rows].T[..., None, None]
        along_y, along_x = np.arange(labels.shape[1])[:, None] - y, np.arange(labels.shape[2]) - x
        near = np.hypot(along_x, along_y) <= core
        others[rows] = grown(others[rows], radius) & ~wanted[rows] & ~near
    return others


def find_scenes(stamps, known=None):
    """Find the sources of each stamp; ``known`` has x, y (K, 2) of other galaxies listed in it."""
    sigma = psf_sigma(PSFArrays(stamps.psf, stamps.psf_oversampling))
    scenes = [None] * len(stamps)
    for chunk, width in alike_chunks(stamps.ivar, sigma):
        part = stamps[chunk]
        level = build_levels(part.data, part.ivar, width, coarser=False)[0]
        rows, xy, threshold = neighbor_peaks(level, part.center)
        height = values(level.amplitude, xy, rows)
        order = np.lexsort([-height, rows])  # the highest of a stamp first
        found = rows[order], xy[order], threshold[order]
        listed = [np.zeros((0, 2)) if known is None else np.asarray(known[number], float) for number in chunk]
        apart = np.maximum(_SAME_SOURCE, level.sigma)
        labels, peaks = _sources(level.amplitude, level.noise, part.center, found, listed, apart)
        for number, *one in zip(chunk, labels, peaks, part.center, level.sigma.tolist(), strict=True):
            scenes[number] = Scene(*one)
    return scenes


def _by_kernel(amplitude, noise, center, found, listed, apart):
    return detection_calls.scenes(amplitude, noise, center, found, listed, apart, _LIMITS)


@with_kernel(_by_kernel, "amplitude", instead_of="numpy")
def _sources(amplitude, noise, center, found, listed, apart):
    """Labels (N, ny, nx) and peaks of the sources of stamps; see `detection_calls.scenes`."""
    rows, xy, threshold = found
    labels, peaks = [], []
    for row, one in enumerate(zip(amplitude, noise, center, listed, apart, strict=True)):
        own = rows == row
        for out, what in zip((labels, peaks), _sources_of_one(*one, xy[own], threshold[own]), strict=True):
            out.append(what)
    return np.array(labels), peaks


def _sources_of_one(amplitude, noise, center, listed, apart, found, threshold):
    """Labels and peaks of the sources of one stamp."""
    significance = np.where(np.isfinite(noise), amplitude / noise, 0)
    peaks = _accepted(amplitude, found, threshold)
    peaks = _with_listed(peaks, listed, center, significance, apart)
    peaks = peaks[np.argsort(np.hypot(*(peaks - center).T), kind="stable")][:_MOST_NEIGHBOURS]
    labels = _labels(significance, center, peaks)
    own = own_clumps(amplitude, labels, center, peaks)
    own &= (peaks[:, None] == found).all(2).any(1)  # what the user listed is another galaxy
    if own.any():
        peaks = peaks[~own]
        labels = _labels(significance, center, peaks)
    return labels, peaks


def own_clumps(amplitude, labels, center, peaks):
    """Peaks (K, 2) that are clumps of the galaxy, not neighbours: (K,) bool, False unless there are three.

    ``amplitude`` is the smoothed stamp above its background; ``labels`` are `TARGET` on the pixels of the
    galaxy, then of each peak in turn.
    """
    none = np.zeros(len(peaks), bool)
    if len(peaks) < _FEWEST_CLUMPS:
        return none
    light = np.maximum(amplitude, 0).astype(float)
    flux = np.bincount(labels[labels < UNMODELLED].ravel(), light[labels < UNMODELLED], len(peaks) + 2)[1:]
    at, middle = np.round(peaks).astype(int), np.round(center).astype(int)
    height = values(np.broadcast_to(amplitude, (len(at), *amplitude.shape)), at)
    ends = np.broadcast_to(middle, at.shape)
    ground = lowest_between(amplitude[None], np.zeros(len(at), int), at, ends)
    body = np.isin(labels, TARGET + np.flatnonzero(np.append(True, ground > _CLUMP_GROUND * height)))
    y, x = np.nonzero(body)
    radius = np.hypot(x - center[0], y - center[1])
    order = np.argsort(radius)
    growth = np.cumsum(light[y, x][order])
    if not len(growth) or growth[-1] <= 0:
        return none
    half = radius[order][np.searchsorted(growth, growth[-1] / 2)]
    inside = np.hypot(*(peaks - center).T) < _CLUMP_EXTENT * half
    small = flux[1:] < _CLUMP_SHARE * growth[-1]
    own = inside & small & (ground > _CLUMP_GROUND * height)
    return own if own.sum() >= _FEWEST_CLUMPS else none


def _accepted(amplitude, found, threshold):
    """Of the peaks beside the galaxy, the highest first, those that stand apart from each other."""
    kept = np.zeros((0, 2), int)
    for peak, height in zip(found[:_MOST_PEAKS], threshold[:_MOST_PEAKS], strict=True):
        zero, ends = np.zeros(len(kept), int), np.broadcast_to(peak, kept.shape)
        saddle = lowest_between(amplitude[None], zero, ends, kept) if len(kept) else np.zeros(0)
        if (amplitude[peak[1], peak[0]] - saddle > height).all():
            kept = np.concatenate([kept, peak[None]])
    return kept.astype(float)


def _with_listed(peaks, listed, center, significance, apart):
    """Peaks, and listed galaxies in the stamp that show and are none of them."""
    x, y = np.round(listed).astype(int).T
    inside = (x >= 0) & (x < significance.shape[1]) & (y >= 0) & (y < significance.shape[0])
    shows = significance[y[inside], x[inside]] >= _SEGMENT_HEIGHT
    for xy in listed[inside][shows]:
        others = np.concatenate([center[None], peaks])
        if np.hypot(*(others - xy).T).min() > apart:
            peaks = np.concatenate([peaks, xy[None]])
    return peaks


def _labels(significance, center, peaks):
    """Segments, divided among the peaks in them."""
    segments, count = label(significance > _SEGMENT_HEIGHT, _EIGHT)
    pixels = np.bincount(segments.ravel(), minlength=count + 1)
    markers = np.zeros(significance.shape, np.int16)
    x, y = np.round(np.concatenate([center[None], peaks])).astype(int).T
    y, x = (np.clip(one, 0, side - 1) for one, side in zip((y, x), markers.shape, strict=True))
    markers[y, x] = np.arange(TARGET, TARGET + len(x))  # of two in one pixel the last
    shows = np.bincount(segments[significance > _LEAST_PEAK], minlength=count + 1) > 0
    owner, at, own = np.where(shows, UNMODELLED, 0).astype(np.uint8), segments[y, x], markers[y, x]
    owner[at] = own
    divided = np.bincount(at, owner[at] != own, count + 1) > 0
    owner[divided | (pixels < _SEGMENT_PIXELS)] = owner[0] = 0
    out = owner[segments]
    divided = np.flatnonzero(divided[1:] & (pixels[1:] >= _SEGMENT_PIXELS))
    boxes = find_objects(segments) if len(divided) else []
    for segment in divided:
        box = boxes[segment]
        inside = segments[box] == segment + 1
        out[box][inside] = _divided(significance[box], markers[box], inside)
    return out


def _divided(significance, markers, inside):
    """Labels of the pixels of one segment with several peaks, in the box around it."""
    from skimage.segmentation import watershed

    return watershed(-significance, markers, _EIGHT, mask=inside)[inside]
