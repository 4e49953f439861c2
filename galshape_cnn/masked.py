# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""Masked arrays: `numpy.ma` and `astropy.utils.masked.Masked`.

`numpy.asarray` drops such a mask without a word, so that what it hides counts.  Every argument that may
carry one is taken apart here.
"""

import numpy as np

__all__ = ["as_masked_array", "filled", "hidden_mask", "split_mask"]


def split_mask(array):
    """Values of an array with any unit, and its mask, True where masked; None if nothing is.

    Masks are those of NumPy and astropy; anything else has none.
    """
    if hasattr(array, "unmasked"):
        mask = np.asarray(array.mask, bool)
        return array.unmasked, mask if mask.any() else None
    if isinstance(array, np.ma.MaskedArray):
        mask = np.ma.getmaskarray(array)
        return np.asarray(array), mask if mask.any() else None
    return array, None


def filled(array, value=np.nan):
    """Plain numbers, without a unit, with one value in place of all that is masked."""
    values, mask = split_mask(array)
    values = np.asarray(values, np.float64)
    return values if mask is None else np.where(mask, value, values)


def as_masked_array(values, mask):
    """`numpy.ma` view of values, not copied, or the values themselves where the mask is None."""
    return values if mask is None else np.ma.MaskedArray(values, mask=mask, copy=False)


def hidden_mask(array):
    """Mask of the masked array that an array is a plain view of; None where nothing is masked or known.

    `astropy.nddata.NDUncertainty` keeps masked arrays as plain views, which still know of what. An array that
    a user made plain on purpose must not be asked.
    """
    base = getattr(array, "base", None) if isinstance(array, np.ndarray) else None
    while isinstance(base, np.ndarray):
        values, mask = split_mask(base)
        if mask is not None:
            return _same_part(array, np.asarray(values), mask)
        base = base.base
    return None


def _same_part(array, whole, mask):
    """Part of a mask that belongs to a view of the array with that mask."""
    size = whole.itemsize
    if array.itemsize != size or not whole.flags.c_contiguous or any(step % size for step in array.strides):
        return None
    first = array.__array_interface__["data"][0] - whole.__array_interface__["data"][0]
    steps = [step // size for step in array.strides]
    last = first // size + sum((side - 1) * step for side, step in zip(array.shape, steps, strict=True))
    if array.size == 0 or not 0 <= first // size < whole.size or not 0 <= last < whole.size:
        return None
    flat = np.ascontiguousarray(mask).reshape(-1)
    where = first // size + sum(
        step * index for step, index in zip(steps, np.ogrid[tuple(map(slice, array.shape))], strict=True)
    )
    part = flat[where]
    return part if part.any() else None
