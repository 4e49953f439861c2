# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""Level and scatter of the sky between the sources of an image.

The mesh is photutils' `~photutils.background.Background2D`; what takes time in an image of many million
pixels, clipping all of them, growing the sources and interpolating the mesh, is done here, with the same
results.
"""

import numpy as np

__all__ = ["clipped_level", "grown", "sky_level"]

_CLIP = 3.0  # standard deviations
#: Side of the background mesh in pixels, for images of at least twice that.
_BOX = 128
_MOST_HIDDEN = 0.9  # of the image, above which nothing is left to measure and the sources stay in


def clipped_level(values, maxiters=5):
    """Median and standard deviation without outliers, as `astropy.stats.sigma_clipped_stats` has them.

    Values are sorted once: what is left after each round is a part of them, and its median in the middle.

    Parameters
    ----------
    values : (K,) ndarray
        Finite.
    maxiters : int, optional
        Rounds in which values beyond three standard deviations from the median are left out.

    Returns
    -------
    level, sigma : float
        NaN without values.
    """
    kept = np.sort(values)
    if not len(kept):
        return np.nan, np.nan
    for _ in range(maxiters):
        level, reach = _middle(kept), _CLIP * kept.std()
        first, last = np.searchsorted(kept, level - reach), np.searchsorted(kept, level + reach, "right")
        if last - first in (0, len(kept)):
            break
        kept = kept[first:last]
    return float(_middle(kept)), float(kept.std())


def _middle(ordered):
    """Median of sorted values."""
    half = len(ordered) // 2
    return ordered[half] if len(ordered) % 2 else (ordered[half - 1] + ordered[half]) / 2


def grown(mask, radius):
    """Pixels within a distance of those of a mask.

    Parameters
    ----------
    mask : (ny, nx) ndarray of bool
    radius : int
        Pixels, at least 0 and below 255.

    Returns
    -------
    grown : (ny, nx) ndarray of bool
        As `scipy.ndimage.binary_dilation` with a disc of the radius has it.
    """
    ny, nx = mask.shape
    x = np.arange(nx, dtype=np.int32)
    before = np.maximum.accumulate(np.where(mask, x, np.int32(-nx - radius)), axis=1)
    after = np.minimum.accumulate(np.where(mask, x, np.int32(2 * nx + radius))[:, ::-1], axis=1)[:, ::-1]
    along = np.minimum(np.minimum(x - before, after - x), radius + 1).astype(np.uint8)
    out = np.zeros_like(mask)
    for shift in range(-min(radius, ny - 1), min(radius, ny - 1) + 1):
        reach = int(np.sqrt(radius**2 - shift**2))
        here, there = slice(max(shift, 0), ny + min(shift, 0)), slice(max(-shift, 0), ny - max(shift, 0))
        out[here] |= along[there] <= reach
    return out


def sky_level(image, bad, sources, margin, box):
    """Background of an image, without the sources that are known.

    Parameters
    ----------
    image : (ny, nx) ndarray
        Finite where it counts.
    bad : (ny, nx) ndarray of bool
        Pixels that do not count.
    sources : (ny, nx) ndarray of bool or None
        Pixels of sources.
    margin : int
        Pixels by which sources are larger than that.
    box : int or None
        Side of the mesh; 0 takes the image as background-subtracted; by default 128, or one level for
        images too small for that.

    Returns
    -------
    level : float or (ny, nx) ndarray
    """
    from photutils.background import Background2D, MedianBackground

    if box == 0:
        return 0.0
    hidden = bad if sources is None else bad | grown(sources, margin)
    if hidden.mean() > _MOST_HIDDEN:
        hidden = bad
    if min(image.shape) >= 2 * _BOX or box is not None:
        how = {"filter_size": 3, "exclude_percentile": 50, "bkg_estimator": MedianBackground()}
        try:
            mesh = Background2D(image, box or _BOX, mask=hidden, bkg_rms_estimator=_unused, **how)
        except ValueError:  # no box has enough pixels
            pass
        else:
            return _interpolated(mesh.background_mesh, image.shape, box or _BOX)
    return clipped_level(image[~hidden])[0]


def _unused(boxes, axis):
    """Scatter of the boxes of a mesh, which nobody asks for."""
    return np.zeros(() if axis is None else boxes.shape[:-1])


def _interpolated(mesh, shape, box):
    """A mesh of boxes on all pixels: cubic splines within its extremes, as photutils has it, axis by axis."""
    box = np.minimum(box, shape)
    along_y, along_x = (_spline(*one) for one in zip(mesh.shape, box, shape, strict=True))
    return np.clip(along_y @ mesh @ along_x.T, mesh.min(), mesh.max())


def _spline(nodes, box, side):
    """(side, nodes) matrix that interpolates values at the middle of boxes."""
    from scipy.ndimage import zoom

    unit = np.eye(nodes)
    columns = [zoom(one, int(box), order=3, mode="reflect", grid_mode=True) for one in unit]
    return np.stack(columns, axis=1)[:side]
