# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""Checks of PSF arrays: pedestals, truncation, off-centre peaks; corrected where possible.

A PSF that is cut where it still has light makes galaxies too large, one on a pedestal (a sky level that was
not subtracted from a star) too small, one on a negative pedestal (too high a sky) too large, and one that is
not on its central sample shifts positions.
"""

from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from galshape_cnn.errors import PSFError, warn
from galshape_cnn.forward.kernel import psf_calls
from galshape_cnn.forward.kernel.library import with_kernel
from galshape_cnn.forward.medians import row_medians
from galshape_cnn.forward.psf.arrays import PSFArrays, as_final

__all__ = ["MendedPSF", "mended_psf"]

_CUT = 0.03  # of the light, missing outside of the array
_RING = 0.75  # radius of the ring inside the rim, of the rim's
_LEAST_SLOPE = 0.2  # beyond that of a profile whose light does not converge
_PEDESTAL = 1.5e-4  # of the peak, at the rim
_FLAT = 0.8  # rim over the ring inside it: light falls off, a pedestal does not
_SIGMAS = 6.0  # of the rim's scatter, that a pedestal must have
_OFF = 0.12  # pixels off the central sample
_LARGEST_OFF = 0.25  # of the array's shorter side: farther, it is cut on one side
#: Of the centroid, in a window as wide as the PSF: share of the peak above which a sample counts for the
#: first guess; how far the window reaches, in its widths, and a whole number of what samples; rounds, and the
#: step, in samples, after which there is no other.
_LIMITS = 0.2, 6.5, 8, 12, 1e-6
_SIGMA_OF_MEDIAN = 1.4826  # of normal deviates over the median of their moduli
_TOGETHER = 2**19  # samples that are looked at together, as many as a cache holds
_SMALLEST = 7  # samples of a side, below which there is no rim to look at


@dataclass(frozen=True)
class MendedPSF:
    """Result of `mended_psf`.

    Attributes
    ----------
    psf : PSFArrays
        Centred and without pedestal; the same object if nothing was to be done.
    cut : (M,) bool ndarray
        PSFs that are cut where they still have light; one for each array.
    mended : (M,) bool ndarray
        PSFs that were changed.
    """

    psf: PSFArrays
    cut: np.ndarray
    mended: np.ndarray


def mended_psf(psf, normalize=True):
    """Find faults of PSF arrays, say so once, and mend what can be mended.

    Parameters
    ----------
    psf : PSFArrays
        As the user gave them, one for all galaxies or one for each.
    normalize : bool, optional
        Whether their sum is to be one.

    Returns
    -------
    result : MendedPSF

    Raises
    ------
    PSFError
        If one lies so far off the middle of its array that a part of it must be missing.

    Warns
    -----
    GalshapeWarning
        With what is wrong, of how many, and what to do about it.

    Examples
    --------
    >>> import numpy as np
    >>> from galshape_cnn.forward.psf.arrays import PSFArrays
    >>> from galshape_cnn.forward.psf.checks import mended_psf
    >>> r2 = np.sum(np.mgrid[-10:11, -10:11] ** 2.0, axis=0)
    >>> good = PSFArrays(np.exp(-r2 / 4)[None] / np.exp(-r2 / 4).sum())
    >>> mended_psf(good).psf is good
    True
    """
    array, none = np.asarray(psf.array), np.zeros(len(psf.array), bool)
    if min(array.shape[1:]) < _SMALLEST or not len(array):
        return MendedPSF(psf, none, none)
    count = max(1, _TOGETHER // array[0].size)
    slices = [slice(k, k + count) for k in range(0, len(array), count)]
    parts = [_faults(array[some], *psf.sums[:2, some]) for some in slices]
    level, cut, shift = (np.concatenate(part) for part in zip(*parts, strict=True))
    pedestal, distance = level != 0, np.hypot(*shift.T) / psf.oversampling
    off = (distance > _OFF) & ~cut
    _check_inside(shift, off, array.shape[1:])
    mended = pedestal | off
    _say(cut, pedestal, off)
    if not mended.any():
        return MendedPSF(psf, cut, mended)
    array = np.asarray(array, float)
    out = array - level[:, None, None]
    for row in np.flatnonzero(off):
        out[row] = _shifted(out[row], -shift[row])
    if normalize:
        total = out.sum((1, 2), keepdims=True)
        out = np.where(mended[:, None, None], out / total, array)
    return MendedPSF(PSFArrays(as_final(out), psf.oversampling), cut, mended)


def _check_inside(shift, off, shape):
    """Refuse PSFs whose place in the array is no matter of a shift: positions and sizes would be wrong."""
    far = off & (np.hypot(*shift.T) > _LARGEST_OFF * min(shape))
    if far.any():
        row = np.flatnonzero(far)[0]
        raise PSFError(
            f"psf (row {row}) is {shift[row, 0]:+.1f}, {shift[row, 1]:+.1f} samples (x, y) off the middle of "
            f"its array of {shape[0]}x{shape[1]}; cut the array so that the PSF is in the middle"
        )


def _faults(array, peak, total):
    """Level of the pedestal, zero without one, whether it is cut, and offset of each array."""
    rim, inner, error, ring = _rings(array)
    flat = (rim < 0) | (rim > _FLAT * inner)  # no PSF is negative
    size = np.abs(rim)
    pedestal = flat & (size > _PEDESTAL * peak) & (size > _SIGMAS * error) & (size < 0.1 * peak)
    level, rows = np.zeros(len(array)), np.flatnonzero(pedestal)
    if len(rows):  # what is subtracted is known to more than single precision
        rim_at = _ring_places(*array.shape[1:])[0]
        level[rows] = np.median(array[rows].reshape(len(rows), -1)[:, rim_at], axis=1)
    cut = (_missing(rim, inner, ring, total, min(array.shape[1:])) > _CUT) & ~pedestal
    return level, cut, _offsets(array, level, peak, _LIMITS)


def _rings(array):
    """Median of the rim and of a ring inside it, error of the first, radius of the second in the rim's."""
    rim_at, ring_at, ring = _ring_places(*array.shape[1:])
    rim, inner, spread = _medians_on(array, rim_at, ring_at)
    return rim, inner, _SIGMA_OF_MEDIAN * spread / np.sqrt(max(len(rim_at) / 4, 1)), ring


@with_kernel(psf_calls.psf_rings, instead_of="numpy")
def _medians_on(array, rim, ring):
    """Medians on the rim and the ring, and of the distance of the first from theirs, (3, N)."""
    flat = array.reshape(len(array), -1)
    rims, inner = (np.take(flat, at, axis=1).astype(np.float32) for at in (rim, ring))
    middle = row_medians(rims)
    spread = row_medians(np.abs(rims - middle[:, None]))
    return np.stack([middle, row_medians(inner), spread]).astype(float)


@lru_cache(maxsize=16)
def _ring_places(ny, nx):
    """Samples of a flat array on its rim and on the ring inside it, and the mean radius of the second."""
    y, x = np.mgrid[:ny, :nx]
    radius = np.maximum(np.abs(y - ny // 2) / (ny // 2), np.abs(x - nx // 2) / (nx // 2)).ravel()
    ring = np.abs(radius - _RING) <= max(0.51 / (min(ny, nx) // 2), 0.05)
    return np.flatnonzero(radius >= 1), np.flatnonzero(ring), radius[ring].mean()


def _missing(rim, inner, ring, total, side):
    r"""Share of the light outside of each array, if the profile falls on as from the ring to the rim.

    A power law :math:`p \propto r^{-s}` has :math:`2\pi R^2 p(R) / (s - 2)` outside of R, here the
    radius of the circle with the area of the array.  Gaussian wings, which fall faster, have less.
    """
    with np.errstate(divide="ignore", invalid="ignore"):
        slope = np.log(inner / rim) / np.log(1 / ring)
        level = rim * ((side - 1) / side) ** slope  # of the outer edge of the samples
        missing = 2 * side**2 * level / np.maximum(slope - 2, _LEAST_SLOPE) / total
    return np.where(rim > 0, missing, 0)


@with_kernel(psf_calls.psf_offsets, instead_of="numpy")
def _offsets(array, level, peak, limits):
    """Centroids in a window as wide as the PSF, x, y in samples from the central one, for `_LIMITS`."""
    share, reach_, step_, *ends = limits
    array = array - level[:, None, None]
    middle = np.array(array.shape[:0:-1]) // 2
    y, x = (np.arange(side) - side // 2.0 for side in array.shape[1:])
    core = np.where(array > share * np.maximum(peak - level, 0)[:, None, None], array, 0)
    rows, columns = core.sum(2), core.sum(1)
    total = rows.sum(1)
    width2 = (rows @ y**2 + columns @ x**2) / total / 2 + 0.5
    at = np.stack([columns @ x, rows @ y], 1) / total[:, None]
    at, width2 = np.nan_to_num(at), np.nan_to_num(width2)
    # nothing is seen beyond the window's reach: wide arrays are cut there, by rules for each PSF alone
    reach = reach_ * np.sqrt(width2) + np.abs(at).max(1)
    steps = np.minimum(np.ceil(reach / step_), np.ceil(middle.max() / step_)).astype(int)
    for step in np.unique(steps):
        of, half = np.flatnonzero(steps == step), step * step_
        (x0, x1), (y0, y1) = ((max(c - half, 0), c + half + 1) for c in middle)
        at[of] = _centred(array[of, y0:y1, x0:x1], x[x0:x1], y[y0:y1], at[of], width2[of], *ends)
    return np.where(np.isfinite(at), at, 0)


def _centred(array, x, y, at, width2, rounds, settled):
    """Centroids in windows that follow them, from a first guess (N, 2)."""
    at, moving = at.copy(), np.arange(len(at))
    for _ in range(rounds):
        here, width = at[moving], width2[moving]
        (x0, x1), (y0, y1) = (_window(one - here[:, [k]], width) for k, one in enumerate((x, y)))
        sums = np.stack([y0, y1], 1) @ array[moving] @ np.stack([x0, x1], 2)  # (N, 2, 2): by y, by x
        step = 2 * np.stack([sums[:, 0, 1], sums[:, 1, 0]], 1) / np.maximum(sums[:, 0, :1], 1e-30)
        at[moving] += step
        moving = moving[(np.abs(step) > settled).any(1)]
        if not len(moving):
            break
    return at


def _window(distance, width2):
    """Gaussian window along an axis, and the same times the distance."""
    window = np.exp(-0.5 * distance**2 / width2[:, None])
    return window, distance * window


def _shifted(image, by):
    """Image moved by a fraction of a sample, x, y, as a band-limited function."""
    shape = [2 * side for side in image.shape]
    ky, kx = np.fft.fftfreq(shape[0])[:, None], np.fft.rfftfreq(shape[1])
    wave = np.exp(-2j * np.pi * (kx * by[0] + ky * by[1]))
    return np.fft.irfft2(np.fft.rfft2(image, shape) * wave, shape)[: image.shape[0], : image.shape[1]]


def _say(cut, pedestal, off):
    """One warning of all faults, the same for each part of a run; how many there are the flags tell."""
    some, was = ("the array is", "was") if len(cut) == 1 else ("some arrays are", "were")
    parts = []
    if pedestal.any():
        parts.append(f"{some} on a pedestal, which was subtracted (subtract the sky from stars)")
    if off.any():
        parts.append(
            f"{some} not on the central sample and {was} shifted there by interpolation (give odd-sized "
            "arrays with the peak in the middle)"
        )
    if cut.any():
        parts.append(
            f"{some} cut where the PSF still has light, so that galaxies come out too large (give a "
            "larger array)"
        )
    if parts:
        warn(f"psf: {'; '.join(parts)}")
