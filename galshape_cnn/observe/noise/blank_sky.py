# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""Noise measured on blank tiles of an image: scale of the noise map, and correlation.

Resampled images have correlated noise, and maps that say nothing of it; unresolved sources and flat
fields add scatter that no map contains.  The tiles lie on a fixed lattice, so that what is found
does not depend on which galaxies of the image are measured.
"""

from dataclasses import replace
from typing import NamedTuple

import numpy as np

from galshape_cnn.observe.cutting import workable_unit
from galshape_cnn.observe.noise.blank_pixels import combined, estimate_from_sums, sums_of_each
from galshape_cnn.observe.noise.correlation import EstimatedCorrelation
from galshape_cnn.observe.stamps import MINIMUM_STAMP_SIZE, Stamps

__all__ = ["AUTO", "MeasuredNoise", "measured_noise", "quiet"]

#: The word that asks for both to be measured, and used where they matter.
AUTO = "auto"

_TILE, _MOST_TILES = 64, 49
_SIGMAS = 4.5  # standard errors that a departure from white noise of the stated level must have
_LEAST_AREA = 1.04  # sum of the correlations below which errors are off by less than two per cent
_LEAST_SCALE = 0.02  # departure of the scale from one below which the map is taken as it is
_SCALES = 0.2, 5.0  # of the scatter over the map, outside of which that is not the noise of this image
_LEAST_BLANK = 500  # blank pixels of a tile that counts
_LEAST_PIXELS = 2000  # blank pixels that are taken, whatever they are like
_BUMPY = 2.5  # standard errors, which are somewhat too large
_TILE_PSF = np.exp(-np.add.outer(np.arange(-5.0, 6) ** 2, np.arange(-5.0, 6) ** 2) / (2 * 1.3**2))


class MeasuredNoise(NamedTuple):
    """What `measured_noise` has found; None where the noise map is right."""

    scale: float | None = None
    correlation: EstimatedCorrelation | None = None


def measured_noise(frame):
    """Scale and autocorrelation of the noise of an image, where they matter.

    Parameters
    ----------
    frame : galshape_cnn.observe.inputs.Frame
        The image.

    Returns
    -------
    noise : MeasuredNoise
        ``scale``, the scatter of the blank pixels in units of the noise map, or None if that is one within
        4.5 standard errors, or within two per cent; ``correlation``, or None if no lag differs from zero
        by 4.5 standard errors, or their sum is below 1.04.  Neither where the scatter is below a fifth of the
        map or above five times that, as in images without noise.
    """
    stamps = _tiles(frame)
    if stamps is None:
        return MeasuredNoise()
    tiles = _telling(sums_of_each(stamps))
    kept = quiet(tiles)
    sums = combined(kept)
    if not sums.enough or not _SCALES[0] < np.sqrt(sums.variance) < _SCALES[1]:
        return MeasuredNoise()
    # what is the same all over an image is noise; where tiles differ, the quiet ones have bumps as well
    array, excess = estimate_from_sums(sums, bumps=len(kept) < len(tiles))
    close = _significant_lags(sums) if len(array) > 1 else False
    area = array.sum() if close else 1.0
    correlation = EstimatedCorrelation(array, excess) if close and area > _LEAST_AREA else None
    error = np.sqrt((array**2).sum() / (2 * sums.used))  # of the excess
    changed = abs(excess - 1) > max(_SIGMAS * error, _LEAST_SCALE)
    return MeasuredNoise(excess if changed else None, correlation)


def quiet(tiles):
    """The tiles whose blank pixels are noise alone.

    Noise is the same all over an image, in units of its map; wings of bright sources and sources too faint
    to be found are not, and only add.  They are no noise: what they do is estimated for each galaxy.  So
    tiles are taken from the quietest on, until one is bumpier than those before by more than chance.

    Parameters
    ----------
    tiles : sequence of BlankPixelSums

    Returns
    -------
    tiles : list of BlankPixelSums
    """
    if len(tiles) < 2:
        return list(tiles)
    known = sorted([(*one.bumpiness, one) for one in tiles], key=lambda item: item[0])
    values, errors, areas = (np.array(part) for part in zip(*[item[:3] for item in known], strict=True))
    pixels, weights = np.cumsum([item[3].used for item in known]), errors**-2.0
    total = np.cumsum(weights)[:-1]
    before, area = (np.cumsum(part * weights)[:-1] / total for part in (values, areas))
    error = area * np.sqrt(errors[1:] ** 2 + 1 / total)  # were they alike
    bumpy = (values[1:] - before > _BUMPY * error) & (pixels[:-1] >= _LEAST_PIXELS)
    number = 1 + int(np.argmax(bumpy)) if bumpy.any() else len(known)
    return [item[3] for item in known[:number]]


def _telling(tiles):
    """The tiles with enough blank pixels to say what they are like; all, if none has."""
    return [one for one in tiles if one.used >= _LEAST_BLANK] or list(tiles)


def _significant_lags(sums):
    """Whether the correlation of adjacent pixels is more than noise has by chance."""
    raw, middle = sums.raw, len(sums.raw) // 2
    pairs = sums.pairs[middle, middle]
    lags = np.array([raw[middle, middle + 1], raw[middle + 1, middle], raw[middle + 1, middle + 1],
                     raw[middle + 1, middle - 1]])  # fmt: skip
    return max(np.abs(lags).max(), abs(lags.sum()) / 2) * np.sqrt(pairs) > _SIGMAS


def _tiles(frame):
    """Tiles of an image on a lattice, as stamps; None if the image is too small."""
    ny, nx = frame.shape
    side = min(_TILE, ny, nx) // 2 * 2
    if side < MINIMUM_STAMP_SIZE:
        return None
    number = [int(np.clip(length // side, 1, np.sqrt(_MOST_TILES))) for length in (ny, nx)]
    starts = [
        np.linspace(0, length - side, k).astype(int) for length, k in zip((ny, nx), number, strict=True)
    ]
    places = [(slice(y, y + side), slice(x, x + side)) for y in starts[0] for x in starts[1]]
    frame = _in_workable_units(frame, places)
    parts = [frame.read(*place)[:2] for place in places]
    data, ivar = (np.array(one) for one in zip(*parts, strict=True))
    known = (ivar > 0).any((1, 2))
    if not known.any():
        return None
    unit = np.float32(1 / np.sqrt(np.median(ivar[ivar > 0].astype(float))))
    return Stamps(data[known] / unit, ivar[known] * unit**2, (_TILE_PSF / _TILE_PSF.sum())[None])


def _in_workable_units(frame, places):
    """The frame with pixels that single precision holds, squared as well."""
    for place in places:
        ivar = np.asarray(frame.noise[place].inverse_variance(), float) / frame.factor**2
        if (ivar > 0).any():
            unit = workable_unit(ivar)
            return frame if unit == 1 else replace(frame, factor=frame.factor / unit)
    return frame
