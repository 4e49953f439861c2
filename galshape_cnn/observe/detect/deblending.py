# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""Sources of an image as segments, and segments divided into sources.

The algorithms and results are those of `photutils.segmentation.detect_sources` and
`photutils.segmentation.deblend_sources` (32 exponential levels, as in Bertin & Arnouts 1996, A&AS 117,
393) of photutils 3.0, which go through sources and levels one by one in Python.  Here the sources of an
image are told apart and counted together, and no level is looked at above the second highest peak of a
segment: there is at most one source there.  Levels of a segment that reaches below zero are linear (from
photutils 3.1 on, of a hyperbolic sine).
"""

import numpy as np
from scipy.ndimage import find_objects, label, maximum_filter, sum_labels

__all__ = ["deblended", "detected"]

_EIGHT = np.ones((3, 3), int)  # pixels that touch at a corner are connected
_LEVELS = 32
_MOST_SOURCES = 200  # of exponential levels, above which they are taken linearly: noise in faint wings


def detected(smooth, threshold, npixels, bad=None):
    """Labels 1, 2, ... of at least ``npixels`` connected pixels above a threshold, 0 where there is none.

    In the order of first pixels; ``bad`` pixels belong to none.
    """
    above = smooth > threshold
    if bad is not None:
        above &= ~bad
    labels, _ = label(above, _EIGHT)
    return _numbered(labels, _pixels(labels) >= npixels)


def _pixels(labels):
    """Number of pixels of each label, none of 0."""
    return np.append(0, np.bincount(labels.ravel())[1:])


def _numbered(labels, kept):
    """Labels that are kept, counted from 1; the others 0."""
    kept = np.asarray(kept, bool).copy()
    kept[0] = False
    if kept[1:].all():
        return labels
    return np.where(kept, np.cumsum(kept, dtype=labels.dtype), 0).astype(labels.dtype)[labels]


def deblended(smooth, labels, npixels, contrast):
    """Labels of segments 1, 2, ..., those divided that hold several sources: whole ones first, in order.

    ``npixels`` is the least number of pixels of a source at the level at which it separates, ``contrast`` the
    least share of the light of a segment that it has.
    """
    if contrast == 1:
        return labels
    peaks = _peaks(smooth, labels)
    size, out, last = _pixels(labels), labels.copy(), labels.max()
    boxes = find_objects(labels)
    for number in np.flatnonzero((np.bincount(peaks[0], minlength=len(size)) > 1) & (size >= 2 * npixels)):
        box = boxes[number - 1]
        inside = labels[box] == number
        second = np.sort(peaks[1][peaks[0] == number])[-2]
        sources = _sources(smooth[box], inside, second, npixels, contrast)
        if sources is not None:
            out[box][inside] = sources[inside] + last
            last += sources.max()
    return _numbered(out, _pixels(out) > 0)


def _peaks(smooth, labels):
    """Segment and height of each pixel that is as high as its neighbours in the segment."""
    inside = np.where(labels > 0, smooth, -np.inf)
    tops = (labels > 0) & (inside == maximum_filter(inside, size=3))
    return labels[tops], smooth[tops]


def _sources(smooth, inside, second, npixels, contrast):
    """Sources 1, 2, ... of a segment, or None if there is one; ``second`` is the second highest peak."""
    low, high, total = smooth[inside].min(), smooth[inside].max(), smooth[inside].sum()
    if low == high:
        return None
    steps = np.linspace(low, high, _LEVELS + 2)[1:-1]
    levels = steps
    if low > 0:
        levels = low * (high / low) ** ((np.linspace(low, high, _LEVELS + 2) - low) / (high - low))[1:-1]
    markers = _markers(smooth, inside, levels[levels < second], npixels)
    if markers is not None and low > 0 and markers.max() > _MOST_SOURCES:
        markers = _markers(smooth, inside, steps[steps < second], npixels)
    return None if markers is None else _watershed(smooth, inside, markers, total, contrast)


def _markers(smooth, inside, levels, npixels):
    """Pixels of the sources of a segment at the levels at which they separate, or None if none does."""
    markers = None
    for level in levels:
        labels = detected(smooth, level, npixels, ~inside)
        if labels.max() > 1:
            markers = labels if markers is None else _with_children(markers, labels)
    return markers


def _with_children(lower, upper):
    """Sources of a level, with those replaced that are several at the next."""
    width = upper.max() + 1
    pairs = np.flatnonzero(np.bincount((lower.astype(np.int64) * width + upper)[(lower > 0) & (upper > 0)]))
    divided = np.bincount(pairs // width, minlength=lower.max() + 1) > 1
    if not divided.any():
        return lower
    return label(np.where(divided[lower], upper > 0, lower > 0), _EIGHT)[0]


def _watershed(smooth, inside, markers, total, contrast):
    """Pixels of a segment to the source from which they are reached; sources with too little light go."""
    from skimage.segmentation import watershed

    while True:
        markers = watershed(-smooth, markers, _EIGHT, mask=inside)
        numbers = np.flatnonzero(_pixels(markers))
        if len(numbers) == 1:
            return None
        share = sum_labels(smooth, markers, index=numbers) / total
        if not (share < contrast).any():
            return _numbered(markers, _pixels(markers) > 0)
        markers[markers == numbers[np.argmin(share)]] = 0
