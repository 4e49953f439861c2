# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""Level and scatter of the sky between the sources of an image.

Statistics and mesh are those of `astropy.stats.sigma_clipped_stats` and `photutils.background.Background2D`.
What takes time in an image of many million pixels, clipping them, growing the sources and interpolating
the mesh, is done with one sort, and axis by axis.
"""

import numpy as np

__all__ = [
    "clipped_level",
    "grown",
    "sky_level",
    "sorted_values",
    "without_some",
]

_CLIP = 3.0  # standard deviations
#: Side of the background mesh in pixels, for images of at least twice that.
_BOX = 128
_ROUNDS = 10  # of clipping in a box
_LEAST_USED = 0.5  # of the pixels of a box, without which its neighbours speak for it
_NEIGHBOURS = 10
_MOST_HIDDEN = 0.9  # of the image, above which nothing is left to measure and the sources stay in


def clipped_level(ordered, maxiters=5):
    """Median and standard deviation without outliers, as `astropy.stats.sigma_clipped_stats` has them.

    Of `sorted_values`; in each of ``maxiters`` rounds those beyond three standard deviations from the median
    are left out.  What is left after each round is a part of them, and its median in the middle.  NaN without
    values.
    """
    kept, spread = _clipped(ordered, maxiters)
    return (float(_middle(kept)), float(spread())) if len(kept) else (np.nan, np.nan)


def sorted_values(values):
    """Sorted finite values; those of single precision, as most files have them, take half as long as such."""
    with np.errstate(over="ignore"):  # such numbers are not of single precision
        single = values.astype(np.float32)
    return np.sort(single).astype(values.dtype) if (single == values).all() else np.sort(values)


def without_some(ordered, values):
    """Sorted values without some of them, which takes less time than to sort the others again."""
    values = sorted_values(values)
    rank = np.arange(len(values)) - np.searchsorted(values, values)  # among equal ones
    return np.delete(ordered, np.searchsorted(ordered, values) + rank)


def _clipped(ordered, maxiters):
    """The sorted values that are left, and what gives their standard deviation.

    That is a sum of products, which takes a third of the time of `numpy.std` with its copies: about the
    median of all, near which the mean of those that are left lies.
    """
    centred = ordered - _middle(ordered) if len(ordered) else ordered
    first, last = 0, len(ordered)

    def spread():
        some = centred[first:last]
        return np.sqrt(max(np.einsum("i,i", some, some) / len(some) - some.mean() ** 2, 0.0))

    for _ in range(maxiters if last else 0):
        kept = ordered[first:last]
        level, reach = _middle(kept), _CLIP * spread()
        low, high = np.searchsorted(kept, level - reach), np.searchsorted(kept, level + reach, "right")
        if high - low in (0, len(kept)):
            break
        first, last = first + low, first + high
    return ordered[first:last], spread


def _middle(ordered):
    """Median of sorted values."""
    half = len(ordered) // 2
    return ordered[half] if len(ordered) % 2 else (ordered[half - 1] + ordered[half]) / 2


def grown(mask, radius):
    """Pixels within a radius of those of a mask, as `scipy.ndimage.binary_dilation` with a disc has it.

    Of one mask or several, (..., ny, nx).
    """
    *_, ny, nx = mask.shape
    most = int(radius)
    x = np.arange(nx, dtype=np.int32)
    before = np.maximum.accumulate(np.where(mask, x, np.int32(-nx - most)), axis=-1)
    after = np.minimum.accumulate(np.where(mask, x, np.int32(2 * nx + most))[..., ::-1], axis=-1)[..., ::-1]
    along = np.minimum(np.minimum(x - before, after - x), most + 1)
    along = along.astype(np.uint8 if most < 255 else np.int32)  # small numbers are compared faster
    out = np.zeros_like(mask)
    for shift in range(-min(most, ny - 1), min(most, ny - 1) + 1):
        reach = int(np.sqrt(radius**2 - shift**2))
        here, there = slice(max(shift, 0), ny + min(shift, 0)), slice(max(-shift, 0), ny - max(shift, 0))
        out[..., here, :] |= along[..., there, :] <= reach
    return out


def sky_level(image, bad, sources, margin, box):
    """Background of an image, finite where it counts, without the sources that are known.

    Pixels that are ``bad`` do not count, nor those within ``margin`` pixels of ``sources``. ``box`` is the
    side of the mesh; 0 takes the image as background-subtracted; by default it is 128, or one level for
    images too small for that.
    """
    if box == 0:
        return 0.0
    hidden = bad if sources is None else bad | grown(sources, margin)
    if hidden.mean() > _MOST_HIDDEN:
        hidden = bad
    if min(image.shape) >= 2 * _BOX or box is not None:
        sides = np.minimum(box or _BOX, image.shape)
        mesh = _mesh(image, hidden, sides)
        if np.isfinite(mesh).any():
            return _interpolated(_smoothed(_filled(mesh)), image.shape, sides)
    return clipped_level(sorted_values(image[~hidden]))[0]


def _mesh(image, hidden, sides):
    """Level of each box of an image; NaN where too few pixels are left."""
    ny, nx = (-(-length // side) for length, side in zip(image.shape, sides, strict=True))
    mesh = np.full((ny, nx), np.nan)
    for place in np.ndindex(ny, nx):
        box = tuple(slice(k * side, (k + 1) * side) for k, side in zip(place, sides, strict=True))
        kept, _ = _clipped(sorted_values(image[box][~hidden[box]]), _ROUNDS)
        if len(kept) > _LEAST_USED * np.prod(sides):
            mesh[place] = _middle(kept)
    return mesh


def _filled(mesh):
    """A mesh with the means of the nearest boxes, weighted by one over distance, where it is not known."""
    from scipy.spatial import cKDTree

    known = np.argwhere(np.isfinite(mesh))
    missing = np.argwhere(~np.isfinite(mesh))
    if not len(missing):
        return mesh
    nearest = np.arange(1, min(_NEIGHBOURS, len(known)) + 1)
    distance, near = cKDTree(known, leafsize=10).query(missing, k=nearest)
    values, weight = mesh[tuple(known[near].T)].T, 1 / distance
    out = mesh.copy()
    out[tuple(missing.T)] = (weight * values).sum(1) / weight.sum(1)
    return out


def _smoothed(mesh):
    """Median of each box and its neighbours."""
    ny, nx = mesh.shape
    around = np.pad(mesh, 1, constant_values=np.nan)
    return np.nanmedian([around[y : y + ny, x : x + nx] for y in range(3) for x in range(3)], axis=0)


def _interpolated(mesh, shape, sides):
    """A mesh of boxes on all pixels: cubic splines within its extremes, axis by axis."""
    along_y, along_x = (_spline(*one) for one in zip(mesh.shape, sides, shape, strict=True))
    return np.clip(along_y @ mesh @ along_x.T, mesh.min(), mesh.max())


def _spline(nodes, side, length):
    """(length, nodes) matrix that interpolates values at the middle of boxes."""
    from scipy.ndimage import zoom

    unit = np.eye(nodes)
    columns = [zoom(one, int(side), order=3, mode="reflect", grid_mode=True) for one in unit]
    return np.stack(columns, axis=1)[:length]
