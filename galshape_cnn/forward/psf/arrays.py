# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""Arrays of effective PSFs: checked, trimmed, stacked."""

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from galshape_cnn.errors import PSFError
from galshape_cnn.forward.kernel import psf_calls
from galshape_cnn.forward.kernel.library import with_kernel
from galshape_cnn.masked import split_mask

__all__ = [
    "FORMS",
    "LARGEST_SUM",
    "PSFArrays",
    "as_final",
    "check_oversampling",
    "check_psf",
    "pad_psf",
    "psf_and_sum",
    "psf_sums",
    "stack_psfs",
    "trim_even",
]

#: What a PSF may be, for messages.
FORMS = (
    "an odd-sized array (py, px) or (N, py, px), a galsim.GSObject, a photutils ImagePSF or "
    "GriddedPSFModel, a callable psf(x, y) returning one of these, or a sequence of N of these"
)
#: A PSF that holds more light than there is was never normalised.
LARGEST_SUM = 1.1


@dataclass(frozen=True)
class PSFArrays:
    """Effective PSF arrays.

    Attributes
    ----------
    array : (N, py, px) or (1, py, px) float64 ndarray
        One PSF per galaxy, or one for all; odd-sized and centred.
    oversampling : int
        Samples per pixel along each axis.
    """

    array: np.ndarray
    oversampling: int = 1

    @cached_property
    def sums(self):
        """Largest value, sum, and sum of squares of each, (3, N)."""
        return psf_sums(self.array)


def check_oversampling(oversampling, name="psf_oversampling"):
    """An oversampling factor as an int; ``PSFError``, naming the argument, if it is no whole number >= 1."""
    try:
        whole = int(oversampling)
    except (TypeError, ValueError, OverflowError):
        whole = 0
    if whole < 1 or whole != oversampling:
        raise PSFError(f"{name}={oversampling!r}; a whole number >= 1 is needed")
    return whole


def check_psf(psf, name="psf", n_expected=None, largest_sum=LARGEST_SUM):
    """Check PSF arrays and return them as a read-only (N, py, px) float64 array that nobody else changes.

    ``n_expected`` is the number of galaxies: there must be one PSF or this many. The largest sum allowed is
    infinite when the PSF is going to be normalised. ``PSFError``, which names the argument, if the PSF has a
    wrong shape, an even size, masked values or some that are not finite, or a sum that is not positive or too
    large.
    """
    array, _ = psf_and_sum(psf, name, n_expected, largest_sum)
    return array if _is_final(array) else as_final(array.copy())


def psf_and_sum(psf, name="psf", n_expected=None, largest_sum=LARGEST_SUM):
    """The same, not copied, and the sums (N,)."""
    psf, mask = split_mask(psf)
    if mask is not None:
        raise PSFError(
            f"{name} has {np.count_nonzero(mask)} masked values; replace them (with zeros where the PSF is "
            "unknown)"
        )
    if np.iscomplexobj(psf):
        raise PSFError(f"{name} has complex values; {FORMS} is needed")
    try:
        array = np.asarray(psf, np.float64)
    except (TypeError, ValueError) as error:
        raise PSFError(f"{name} is a {type(psf).__name__}; {FORMS} is needed") from error
    if array.ndim == 2:
        array = array[None]
    if array.ndim != 3 or array.size == 0 and array.shape[0] != 0:
        raise PSFError(f"{name} has shape {np.shape(psf)}; (py, px) or (N, py, px) is needed")
    if n_expected is not None and len(array) not in (1, n_expected):
        raise PSFError(f"{name} holds {len(array)} PSFs for {n_expected} galaxies; give one or {n_expected}")
    _check_odd(array, name)
    return array, _checked_sum(array, name, largest_sum)


def as_final(array):
    """The same array, which nobody is going to change any more."""
    array.setflags(write=False)
    return array


def _is_final(psf):
    """Whether an array is one `as_final`, or a part of such: it needs no copy to be kept."""
    base = psf if psf.base is None else psf.base
    return type(base) is np.ndarray and not base.flags.writeable and psf.flags.c_contiguous


@with_kernel(psf_calls.psf_sums, instead_of="numpy")
def psf_sums(psf):
    """Largest value, sum, and sum of squares of arrays (N, py, px), (3, N) float64."""
    psf = np.asarray(psf, float)
    axes = (1, 2)
    with np.errstate(over="ignore"):  # of what is not a PSF yet
        return np.stack([psf.max(axes), psf.sum(axes), np.square(psf).sum(axes)])


def _check_odd(array, name):
    """Refuse even sizes, whose middle lies between the samples."""
    ny, nx = array.shape[1:]
    if ny % 2 == 0 or nx % 2 == 0:
        raise PSFError(
            f"{name} is even-sized ({ny}x{nx}): its middle falls between the pixels and would shift every "
            "galaxy by half a pixel. Crop, pad or resample it to odd sizes, its peak on the central pixel"
            + _mend_of_even(array, name)
        )


def _mend_of_even(array, name):
    """How to make an even-sized PSF odd-sized, where its light says it."""
    cuts = _even_cuts(array)
    if cuts is None:
        return f": here {name} has its peak between the pixels, so that it must be shifted by interpolation"
    return f": here {name}[..., {', '.join(cuts)}] does it (--trim-psf on the command line)"


def _even_cuts(array):
    """Slices of y and x that put the peak on the central sample, None if none do."""
    light = np.where(np.isfinite(array), array, 0).sum(axis=0)
    if not light.max() > 0:
        return None
    core = np.where(light > 0.5 * light.max(), light, 0)
    cuts = []
    for axis, side in enumerate(light.shape):
        middle = (np.arange(side) * core.sum(axis=1 - axis)).sum() / core.sum()
        offset = middle - (side - 1) / 2  # half a sample when the peak is on the one beside the middle
        between = side % 2 == 0 and abs(offset) < 0.25
        cuts.append(None if between else ":" if side % 2 else "1:" if offset > 0 else ":-1")
    return None if None in cuts else cuts


def trim_even(psf):
    """Drop the row and column that make a PSF even-sized, so that its peak is in the middle.

    One PSF (py, px) or N of them; odd-sized ones come back as they came. ``PSFError`` if the
    peak lies between the pixels.
    """
    if psf.ndim not in (2, 3) or all(side % 2 for side in psf.shape[-2:]):
        return psf
    cuts = _even_cuts(psf[None] if psf.ndim == 2 else psf)
    if cuts is None:
        raise PSFError(
            f"psf is even-sized ({psf.shape[-2]}x{psf.shape[-1]}) with its peak between the pixels: it "
            "cannot be trimmed and must be shifted by interpolation"
        )
    slices = {":": slice(None), "1:": slice(1, None), ":-1": slice(None, -1)}
    return psf[(..., *(slices[cut] for cut in cuts))]


def _checked_sum(array, name, largest_sum):
    """Sums of PSFs; those without light or with impossible values are refused."""
    total = psf_sums(array)[1]
    # that of a PSF with any value that is not finite is not finite
    finite = np.isfinite(total) if np.isfinite(total).all() else np.isfinite(array).all(axis=(1, 2))
    if not finite.all():
        which = "" if len(array) == 1 else f" in rows {_first(~finite)}"
        kind = "only NaN" if np.isnan(array).all() else "values that are not finite"
        raise PSFError(f"{name} holds {kind}{which}; replace them (with zeros where the PSF is unknown)")
    if (total <= 0).any():
        row = np.argmin(total)
        raise PSFError(f"{name} has a sum of {total[row]:.4g} (row {row}); a PSF must have a positive sum")
    if (total > largest_sum).any():
        row = np.argmax(total)
        raise PSFError(
            f"{name} has a sum of {total[row]:.4g} (row {row}), more than all light; divide it by its sum"
        )
    return total


def _first(selected):
    """The first few rows selected, for messages."""
    rows = np.flatnonzero(selected)
    return ", ".join(map(str, rows[:5])) + (", ..." if rows.size > 5 else "")


def stack_psfs(arrays, name="psf"):
    """One `PSFArrays` of several that hold one PSF each, padded with zeros to the largest.

    ``PSFError``, naming the argument, if there is none, or their oversampling differs.
    """
    factors = {one.oversampling for one in arrays}
    if len(factors) != 1:
        raise PSFError(f"{name} has PSFs of oversampling {sorted(factors)}; one factor for all is needed")
    sides = np.max([one.array.shape[1:] for one in arrays], axis=0)
    return PSFArrays(np.concatenate([pad_psf(one.array, sides) for one in arrays]), factors.pop())


def pad_psf(array, sides):
    """Pad PSFs (N, py, px) of odd size with zeros to larger odd sides (y, x), keeping the centre."""
    margins = [(int(side) - have) // 2 for side, have in zip(sides, array.shape[1:], strict=True)]
    return np.pad(array, ((0, 0),) + tuple((margin, margin) for margin in margins))
