# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""Cutting of stamps from images."""

from dataclasses import dataclass, replace

import numpy as np

from galshape_cnn.errors import InputError, NoiseError, PositionError
from galshape_cnn.flags import Flag
from galshape_cnn.observe.noise.uncertainty import NO_NOISE
from galshape_cnn.observe.stamps import MINIMUM_STAMP_SIZE
from galshape_cnn.wcs import sky_geometry

__all__ = [
    "DEFAULT_STAMP_SIZE",
    "FAR_AWAY",
    "Rows",
    "bucket_size",
    "check_stamp_size",
    "cut_stamps",
    "largest_stamp",
    "make_rows",
    "rows_in_units_of",
    "stamp_origin",
    "workable_unit",
    "working_unit",
]

_BUCKETS = (64, 96, 128, 192, 256, 384, 512)
#: Side of the stamps cut from an image, in pixels, when the user does not say.
DEFAULT_STAMP_SIZE = 64
#: Side that a stamp may have even where it is more than twice that of the image.
_LARGEST_STAMP = 1024
#: Pixel positions beyond this are as good as infinitely far away.
FAR_AWAY = 10**9
#: Pixel scales, in arcsec, that a WCS may have, and the least ratio of them in two directions.
_PIXEL_SCALES, _FLATTEST_PIXEL = (1e-6, 1e6), 1e-3
#: Frames of a stack that are read at a time: few enough to stay in the processor's cache.
_READ_TOGETHER = 16
#: Noise per pixel for which stamps are cut as they are.
_WORKABLE_NOISE = (1e-12, 1e12)


def bucket_size(side):
    """Side of the stamps that hold cutouts of a given longest side in pixels.

    Few different sizes mean that few programs need to be compiled for them: 64, 96, 128, 192, 256, 384, 512,
    or a multiple of 256.
    """
    fitting = [size for size in _BUCKETS if size >= side]
    return fitting[0] if fitting else -(-int(side) // 256) * 256


def check_stamp_size(stamp_size):
    """Refuse a stamp size, or an array of them, that is neither None nor a whole number >= 8."""
    if stamp_size is None:
        return
    if isinstance(stamp_size, np.ndarray) and stamp_size.ndim:
        if stamp_size.dtype.kind not in "iu" or (stamp_size < MINIMUM_STAMP_SIZE).any():
            raise InputError(
                f"column stamp_size of positions must hold whole numbers of pixels >= {MINIMUM_STAMP_SIZE}"
            )
        return
    whole = isinstance(stamp_size, (int, np.integer)) and not isinstance(stamp_size, bool)
    if not whole or stamp_size < MINIMUM_STAMP_SIZE:
        raise InputError(
            f"stamp_size={stamp_size!r}; a whole number of pixels >= {MINIMUM_STAMP_SIZE} is needed"
        )


@dataclass(frozen=True)
class Rows:
    """One galaxy per row: its frame, position, and stamp.

    Attributes
    ----------
    frames : list of Frame
    frame : (N,) ndarray of int
        Index into ``frames``.
    xy : (N, 2) ndarray
        Position in the frame; the frame's middle where ``off`` and unknown.
    off : (N,) ndarray of bool
        Position outside the frame.
    is_image : bool
        Positions in an image, not cutouts.
    side : (N,) ndarray of int
        Pixels to use around the galaxy.
    size : (N,) ndarray of int
        Side of the stamp that holds them.
    jacobian : (N, 2, 2) ndarray
    radec : (N, 2) ndarray or None
        ICRS degrees of ``xy``.
    """

    frames: list
    frame: np.ndarray
    xy: np.ndarray
    off: np.ndarray
    is_image: bool
    side: np.ndarray
    size: np.ndarray
    jacobian: np.ndarray
    radec: np.ndarray | None

    def __len__(self):
        return len(self.xy)


def largest_stamp(shape):
    """Largest side of a stamp that may be cut from images of given sides."""
    return max(_LARGEST_STAMP, 2 * int(np.max(shape)))


def make_rows(frames, xy, is_image, stamp_size, strict=True):
    """Lay out the rows of a call: one image, or one cutout for each row, and positions x, y (N, 2) in them.

    The middle of each cutout without positions; ``stamp_size`` pixels are used around each galaxy.
    ``PositionError`` if all are outside and this is ``strict``, ``InputError`` if only some of the frames
    have a WCS, or stamps are far larger than them.
    """
    shapes = [one.shape for one in frames]
    middle = np.array([[(nx - 1) / 2, (ny - 1) / 2] for ny, nx in shapes])
    xy = middle if xy is None else np.asarray(xy, float)
    n = len(xy)
    frame = np.zeros(n, int) if is_image else np.arange(n)
    limits = np.array(shapes)[frame, ::-1]
    off = ~((xy >= -0.5) & (xy < limits - 0.5)).all(axis=1)
    if strict and off.all():
        raise PositionError(
            f"positions: none of the {n} lies inside the image; the first is x, y = "
            f"{xy[0, 0]:.7g}, {xy[0, 1]:.7g} and the image has {limits[0, 0]}x{limits[0, 1]} (x, y) pixels"
        )
    largest = largest_stamp(limits)
    if stamp_size is not None and np.max(stamp_size) > largest:
        raise InputError(
            f"stamp_size={np.max(stamp_size)}; allowed: up to {largest} pixels, twice the side of the image"
        )
    known = np.where(
        np.isfinite(xy).all(axis=1, keepdims=True), np.clip(xy, -FAR_AWAY, FAR_AWAY), middle[frame]
    )
    default = DEFAULT_STAMP_SIZE if is_image else None
    if stamp_size is None or np.ndim(stamp_size) == 0:
        side = np.array([stamp_size or default or max(shape) for shape in shapes])[frame]
    else:
        side = np.asarray(stamp_size)
    sides, kind = np.unique(side, return_inverse=True)
    size = np.array([bucket_size(one) for one in sides])[kind]
    if stamp_size is None and not is_image:
        side = size  # nothing of a cutout is left out, wherever in it the galaxy is
    jacobian, radec = _geometry(frames, frame, known)
    if radec is not None:
        radec[~np.isfinite(xy).all(axis=1)] = np.nan
    return Rows(frames, frame, known, off, is_image, side, size, jacobian, radec)


def _geometry(frames, frame, xy):
    """Jacobian and sky position of every row, with one call for each distinct WCS."""
    with_wcs = np.array([one.wcs is not None for one in frames])
    jacobian, radec = np.broadcast_to(np.eye(2), (len(xy), 2, 2)).copy(), np.full((len(xy), 2), np.nan)
    if not with_wcs.any():
        return jacobian, None
    if not with_wcs.all():
        raise InputError(
            f"data[{np.argmin(with_wcs)}] has no WCS but others have; give one to all or to none"
        )
    rows_of = {}
    for row, index in enumerate(frame):
        rows_of.setdefault(id(frames[index].wcs), []).append(row)
    for rows in rows_of.values():
        wcs = frames[frame[rows[0]]].wcs
        jacobian[rows], radec[rows] = sky_geometry(wcs, xy[rows])
    return _mend_undefined(jacobian), radec


def _mend_undefined(jacobian):
    """Where the WCS is not defined nothing is measured, but arrays stay finite."""
    low, high = _PIXEL_SCALES
    bad = ~np.isfinite(jacobian).all(axis=(1, 2))
    largest, smallest = np.linalg.svd(jacobian[~bad], compute_uv=False).T
    bad[~bad] = ~((smallest > low) & (largest < high) & (smallest > _FLATTEST_PIXEL * largest))
    if bad.all():
        raise InputError("wcs is not defined at any of the positions, or its pixel scale is absurd")
    jacobian[bad] = np.median(jacobian[~bad], axis=0)
    return jacobian


def working_unit(rows):
    """Unit in which single precision can hold the pixels and their inverse variances.

    One for noise between 1e-12 and 1e12; otherwise the power of two nearest to the noise around the first
    galaxy that has any.
    """
    for row in np.flatnonzero(~rows.off):
        frame, side = rows.frames[rows.frame[row]], int(rows.side[row])
        origin = stamp_origin(rows.xy[row], side)
        y, x = (_overlap(int(origin[axis]), side, side, frame.shape[1 - axis])[1] for axis in (1, 0))
        ivar = frame.noise[y, x].inverse_variance() / frame.factor**2
        if (ivar > 0).any():
            return workable_unit(ivar)
    return 1.0


def workable_unit(ivar):
    """One, or the power of two nearest to the noise where that is not between 1e-12 and 1e12.

    Of double-precision inverse variances, some of them above zero.
    """
    sigma = 1 / np.sqrt(np.median(ivar[ivar > 0]))
    low, high = _WORKABLE_NOISE
    return 1.0 if low < sigma < high else float(2.0 ** np.round(np.log2(sigma)))


def rows_in_units_of(rows, unit):
    """The same rows with pixel values counted in the number of their unit that `working_unit` gives."""
    if unit == 1:
        return rows
    return replace(rows, frames=[replace(one, factor=one.factor / unit) for one in rows.frames])


def stamp_origin(xy, size):
    """Frame pixel (N, 2) that becomes stamp pixel [0, 0]; x, y land within half a pixel of (size - 1) / 2."""
    return np.floor(xy - (size - 1) / 2 + 0.5).astype(np.int64)


def cut_stamps(rows, selected, origin):
    """Cut the stamps, from their pixels [0, 0] (M, 2) on, of selected rows (M,) that have one size.

    Pixels and inverse variances (M, size, size), zero outside the frame and outside the side asked for;
    OFF_IMAGE, EDGE; and whether the noise description says anything there, (M,) bool.
    """
    size = int(rows.size[selected[0]])
    data = np.zeros((len(selected), size, size), np.float32)
    ivar = np.zeros_like(data)
    flags = np.where(rows.off[selected], Flag.OFF_IMAGE, 0).astype(np.int64)
    informed = np.zeros(len(selected), bool)
    for some in _alike(rows, selected, origin):
        which = rows.frame[selected[some]]
        frame, side = rows.frames[which[0]], int(rows.side[selected[some[0]]])
        (in_y, y), (in_x, x) = (
            _overlap(int(origin[some[0], axis]), size, side, frame.shape[1 - axis]) for axis in (1, 0)
        )
        data[some, in_y, in_x], ivar[some, in_y, in_x], informed[some] = _read(rows.frames, which, y, x)
        if _is_cut(frame.shape, (y, x), side, origin[some[0]] + (size - 1) / 2, rows.is_image):
            flags[some] |= Flag.EDGE
    return data, ivar, flags, informed


def _alike(rows, selected, origin):
    """Indices of rows that are cut alike: single ones, or several of a stack."""
    live = np.flatnonzero(~rows.off[selected])
    if not len(live) or rows.frames[0].stack is None:
        yield from live[:, None]
        return
    corners = np.column_stack([origin[live], rows.side[selected[live]]])
    _, kind = np.unique(corners, axis=0, return_inverse=True)
    for value in range(kind.max() + 1):
        group = live[kind.ravel() == value]
        for start in range(0, len(group), _READ_TOGETHER):
            yield group[start : start + _READ_TOGETHER]


def _read(frames, which, y, x):
    """The same part of one frame, or of several of a stack."""
    stack, factor = frames[which[0]].stack, frames[which[0]].factor
    if stack is None:
        return frames[which[0]].read(y, x)
    whole = len(which) == which[-1] - which[0] + 1  # of rows one after the other nothing is copied
    try:
        return stack.read(slice(which[0], which[-1] + 1) if whole else which, y, x, factor)
    except NoiseError:
        for one in which:  # says in which
            frames[one].read(y, x)
        raise


def _overlap(origin, size, side, length):
    """Slices of the stamp and of the frame that show the same pixels."""
    margin = max(size - side, 0) // 2
    start = max(origin + margin, 0)
    stop = max(min(origin + size - margin, length, origin + margin + side), start)
    return slice(start - origin, stop - origin), slice(start, stop)


def _is_cut(shape, used, side, middle, is_image):
    """Whether the edge of the image takes away pixels that a stamp should have.

    In an image every pixel of the side asked for should be there.  A cutout is
    as large as its maker wanted: it is cut when the galaxy is twice as near to
    an edge as it would be in the middle.
    """
    if is_image:
        return any(one.stop - one.start < side for one in used)
    nearest = min(min(m, length - 1 - m) for m, length in zip(middle, shape[::-1], strict=True))
    return nearest < (min(*shape, side) - 1) / 4


def check_informed(rows, informed):
    """Refuse a call in which the noise says nothing at all: ``NoiseError``.

    That is, if it is zero, NaN or infinite everywhere, not only under the galaxies of an image. ``informed``,
    (N,) bool, is from `cut_stamps`.
    """
    if informed.any():
        return
    for frame in rows.frames if not rows.is_image else rows.frames[:1]:
        frame.noise.check_usable()
    if not rows.is_image:
        raise NoiseError(f"error is zero, NaN or infinite in every pixel used. {NO_NOISE}")
