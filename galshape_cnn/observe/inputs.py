# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""Image inputs of any form, read without touching their pixels.

A `Frame` is one two-dimensional image or cutout with all that belongs to it.
`read_frames` brings NDData, arrays, cubes and sequences of them to frames and
checks that the keywords of the call fit what the data carry.
"""

from dataclasses import dataclass, replace

import astropy.units as u
import numpy as np
from astropy.nddata import NDData, StdDevUncertainty

from galshape_cnn.errors import InputError, NoiseError
from galshape_cnn.masked import split_mask
from galshape_cnn.observe.io.lazy import is_lazy
from galshape_cnn.observe.io.photometry import is_logarithmic
from galshape_cnn.observe.noise.uncertainty import (
    NO_NOISE,
    Noise,
    noise_from_error,
    noise_from_uncertainty,
    same_noise,
)
from galshape_cnn.observe.pixels import Stack, read_pixels
from galshape_cnn.observe.stamps import MINIMUM_STAMP_SIZE
from galshape_cnn.quantities import flux_unit
from galshape_cnn.wcs import celestial_part

__all__ = ["Frame", "read_frames"]


@dataclass(frozen=True)
class Frame:
    """One image with its noise, mask, WCS and PSF.

    Attributes
    ----------
    data : (ny, nx) array_like
        The caller's pixels; only sliced.
    noise : Noise
        In the unit of the pixel values.
    mask : (ny, nx) array_like or None
        True, or not zero, is bad.
    wcs : celestial WCS or None
    psf : object or None
        Whatever `galshape_cnn.forward.psf.convert.psf_arrays` takes.
    factor : float
        Turns the pixel values into the unit of the batch.
    stack : Stack or None
        All frames of the call, where they can be read together.
    """

    data: object
    noise: Noise
    mask: object = None
    wcs: object = None
    psf: object = None
    factor: float = 1.0
    stack: Stack | None = None

    @property
    def shape(self):
        """(ny, nx)."""
        return self.data.shape

    def read(self, rows, columns):
        """Pixels and inverse variance of a part of the image, by slices inside it, and if its noise is known.

        Zero where masked or not finite; the noise may be known of masked pixels only.
        """
        part = (rows, columns)
        mask = None if self.mask is None else self.mask[part]
        return read_pixels(self.data[part], self.noise[part], mask, self.factor)

    def as_nddata(self, meta=None):
        """The image as `~astropy.nddata.NDData`, with its noise, its mask and a header ``meta``."""
        noise = StdDevUncertainty(np.broadcast_to(self.noise.standard_deviation(), self.shape), copy=False)
        mask = None if self.mask is None else np.asarray(self.mask, bool)
        return NDData(np.asarray(self.data), uncertainty=noise, mask=mask, meta=meta)


@dataclass(frozen=True)
class _Raw:
    """What one object of the caller carries, nothing converted."""

    array: object
    uncertainty: object = None
    mask: object = None
    wcs: object = None
    psf: object = None
    unit: object = None


def read_frames(data, *, error=None, mask=None, wcs=None, unit=None):
    """Frames of images, cutouts and cubes, and the unit of all of them.

    ``data`` is two-dimensional (one frame), three-dimensional (N frames), or a sequence of N two-dimensional
    objects of any sizes; ``error``, ``mask``, ``wcs`` are one for all, or a sequence of N. All are converted
    to ``unit``, that of the first without it.

    ``InputError`` if an object is of the wrong type, shape or unit, or contradicts a keyword; ``NoiseError``
    if noise information is missing or impossible.
    """
    stacked = _stacked_frames(data, error, mask, wcs, unit)
    if stacked is not None:
        return stacked
    raws = _raw_objects(data)
    n = len(raws)
    errors, masks, wcses = (
        _per_frame("error", error, n),
        _per_frame("mask", mask, n),
        _per_frame("wcs", wcs, n),
    )
    unit = raws[0].unit if unit is None else flux_unit(unit)
    known_wcs = {}
    frames = [
        _make_frame(raw, one_error, one_mask, one_wcs, unit, "data" if n == 1 else f"data[{row}]", known_wcs)
        for row, (raw, one_error, one_mask, one_wcs) in enumerate(
            zip(raws, errors, masks, wcses, strict=True)
        )
    ]
    return frames, unit


def _raw_objects(data):
    """One `_Raw` per frame."""
    if isinstance(data, (str, bytes, dict)) or data is None:
        raise InputError(
            f"data is a {type(data).__name__}; NDData, arrays or Stamps are needed (read files first)"
        )
    if _is_single(data):
        raw = _unpack(data, "data")
        ndim = np.ndim(raw.array)
        if ndim == 2:
            return [raw]
        if ndim == 3:
            return [_slice(raw, row) for row in range(len(raw.array))] or _refuse_empty()
        raise InputError(f"data has shape {np.shape(raw.array)}; (ny, nx) or (N, ny, nx) is needed")
    try:
        items = list(data)
    except TypeError as error:
        raise InputError(f"data is a {type(data).__name__}; NDData, arrays or Stamps are needed") from error
    raws = [_unpack(item, f"data[{row}]") for row, item in enumerate(items)] or _refuse_empty()
    for row, raw in enumerate(raws):
        if np.ndim(raw.array) != 2:
            raise InputError(f"data[{row}] has shape {np.shape(raw.array)}; a cutout (ny, nx) is needed")
    return raws


def _stacked_frames(data, error, mask, wcs, unit):
    """Frames of a plain cube, and their unit; None for anything else."""
    raw = _unpack(data, "data") if _is_single(data) else None
    if raw is None or not _is_cube(raw.array, raw.array) or min(raw.array.shape[1:]) < MINIMUM_STAMP_SIZE:
        return None
    noises = [one for one in (raw.uncertainty, error) if one is not None]
    masks = [one for one in (raw.mask, mask) if one is not None and one is not np.ma.nomask]
    masks = [one if is_lazy(one) else _plain_mask(one) for one in masks]
    one_wcs = wcs is None or hasattr(wcs, "low_level_wcs")
    if len(noises) != 1 or len(masks) > 1 or not all(_is_cube(m, raw.array) for m in masks) or not one_wcs:
        return None
    values = getattr(noises[0], "array", noises[0])
    if not (np.isscalar(values) or _is_cube(values, raw.array)):
        return None
    name = "error" if raw.uncertainty is None else "data.uncertainty"
    stack = Stack(raw.array, _one_noise(noises[0], raw.unit, name), *masks)
    if not (np.ndim(stack.noise.array) == 0 or _is_cube(stack.noise.array, raw.array)):
        return None
    if masks and masks[0].dtype.kind not in "bui":
        return None
    unit = raw.unit if unit is None else flux_unit(unit)
    shared = _merge_wcs(raw.wcs, wcs, "data[0]", {}), _unit_factor(raw.unit, unit, "data[0]")
    alone = replace(raw, uncertainty=None, mask=None)
    names = "error" if raw.uncertainty is None else "data.uncertainty"
    return _frames_of(stack, alone, names, *shared), unit


def _is_cube(array, like):
    """Whether something is a plain array of several images, of the shape of another."""
    return isinstance(array, np.ndarray) and array.ndim == 3 and len(array) > 1 and array.shape == like.shape


def _frames_of(stack, raw, name, wcs, factor):
    """The frames of a stack, each as it would be by itself."""
    noise, mask, n = stack.noise, stack.mask, len(raw.array)
    names = [name if name == "error" else name.replace("data", f"data[{row}]") for row in range(n)]
    if np.ndim(noise.array):
        noises = [Noise(noise.array[row], noise.kind, noise.factor, names[row]) for row in range(n)]
    else:
        noises = [noise if one == noise.name else replace(noise, name=one) for one in names]
    masks = [None] * n if mask is None else mask
    psfs = raw.psf if np.ndim(raw.psf) == 3 and len(raw.psf) == n else [raw.psf] * n
    each = zip(raw.array, noises, masks, psfs, strict=True)
    return [Frame(pixels, one, bad, wcs, psf, factor, stack) for pixels, one, bad, psf in each]


def _refuse_empty():
    raise InputError("data is empty; at least one cutout is needed")


def _is_single(data):
    """Whether data is one object (array or NDData), not a sequence of them."""
    listed = getattr(data, "dtype", None) == "object"
    return hasattr(data, "uncertainty") or (hasattr(data, "ndim") and not listed)


def _unpack(item, name):
    """Take an NDData, Quantity, masked array or array apart."""
    if hasattr(item, "uncertainty") and hasattr(item, "data"):
        inner = _unpack(item.data, name)
        mask = inner.mask if item.mask is None else item.mask
        raw = _Raw(inner.array, item.uncertainty, mask, item.wcs, getattr(item, "psf", None), item.unit)
    else:
        mask = getattr(item, "mask", None)
        array = getattr(item, "unmasked", item)
        array = array.data if isinstance(array, np.ma.MaskedArray) else array
        unit = getattr(array, "unit", None)
        array = array.value if isinstance(array, u.Quantity) else array
        raw = _Raw(array if hasattr(array, "dtype") else _as_numbers(array, name), None, mask, unit=unit)
    if raw.array.dtype.kind not in "uif":
        raise InputError(f"{name} has dtype {raw.array.dtype}; real numbers are needed")
    if is_logarithmic(raw.unit):
        raise InputError(f"{name} has unit {raw.unit}, which is one of logarithms; linear fluxes are needed")
    return raw


def _as_numbers(array, name):
    """Array from nested lists."""
    try:
        return np.asarray(array, float)
    except (TypeError, ValueError) as error:
        raise InputError(f"{name} is a {type(array).__name__}; an image is needed") from error


def _slice(raw, row):
    """Frame of a cube."""
    uncertainty = raw.uncertainty
    if uncertainty is not None and np.ndim(uncertainty.array) == 3:
        uncertainty = _SlicedUncertainty(uncertainty, row)
    mask = raw.mask if np.ndim(raw.mask) != 3 else raw.mask[row]
    psf = raw.psf[row] if np.ndim(raw.psf) == 3 and len(raw.psf) == len(raw.array) else raw.psf
    return _Raw(raw.array[row], uncertainty, mask, raw.wcs, psf, raw.unit)


@dataclass(frozen=True)
class _SlicedUncertainty:
    """One frame of the uncertainty of a cube."""

    whole: object
    row: int


def _per_frame(name, value, n):
    """One value per frame, from one for all or a sequence of N."""
    if value is None or hasattr(value, "low_level_wcs") or np.isscalar(value):
        return [value] * n
    if hasattr(value, "uncertainty_type"):
        if np.ndim(value.array) == 3:
            _check_count(name, value.array, n)
            return [_SlicedUncertainty(value, row) for row in range(n)]
        return [value] * n
    listed = isinstance(value, (list, tuple)) and not (n == 1 and np.ndim(value[:1]) == 2)
    if listed or np.ndim(value) == 3 or (np.ndim(value) == 1 and n > 1):
        _check_count(name, value, n)
        return [value[row] for row in range(n)]
    return [value] * n


def _check_count(name, value, n):
    if len(value) != n:
        raise InputError(f"{name} holds {len(value)} entries for {n} cutouts; give one for all, or {n}")


def _make_frame(raw, error, mask, wcs, unit, name, known_wcs):
    """Merge what an object carries with the keywords of the call."""
    shape = np.shape(raw.array)
    if min(shape) < MINIMUM_STAMP_SIZE:
        raise InputError(
            f"{name} has {shape[0]}x{shape[1]} pixels; at least {MINIMUM_STAMP_SIZE}x{MINIMUM_STAMP_SIZE} "
            "are needed to measure a galaxy"
        )
    return Frame(
        raw.array,
        _merge_noise(raw, error, shape, name),
        _merge_mask(raw.mask, mask, shape, name),
        _merge_wcs(raw.wcs, wcs, name, known_wcs),
        raw.psf,
        _unit_factor(raw.unit, unit, name),
    )


def _unit_factor(own, unit, name):
    """Factor from an object's unit to that of the batch."""
    if own == unit:
        return 1.0
    if own is None and name in ("data", "data[0]"):
        raise InputError(
            f"unit={str(unit)!r} is that of the results, to which pixels are converted, but {name} has no "
            "unit: give it one (data * unit, or an NDData), or leave unit out"
        )
    try:
        return (own or u.dimensionless_unscaled).to(unit or u.dimensionless_unscaled)
    except u.UnitConversionError as error:
        raise InputError(
            f"{name} has unit {own}, the first one {unit}; convertible units are needed"
        ) from error


def _merge_noise(raw, error, shape, name):
    """Noise from the uncertainty and the error keyword, which must agree."""
    given = None if error is None else _one_noise(error, raw.unit, "error")
    carried = (
        None if raw.uncertainty is None else _one_noise(raw.uncertainty, raw.unit, f"{name}.uncertainty")
    )
    for noise in (given, carried):
        if noise is not None and noise.shape not in ((), shape):
            raise InputError(f"{noise.name} has shape {noise.shape}, {name} has shape {shape}")
    if given is not None and carried is not None and not same_noise(given, carried):
        raise InputError(f"error contradicts {name}.uncertainty; give one of them")
    noise = carried if given is None else given
    if noise is None:
        raise NoiseError(NO_NOISE)
    return noise


def _one_noise(description, unit, name):
    """Noise of one frame, from an error or an uncertainty."""
    if isinstance(description, _SlicedUncertainty):
        return _one_noise(description.whole, unit, name)[description.row]
    if hasattr(description, "uncertainty_type"):
        return noise_from_uncertainty(description, unit, name)
    return noise_from_error(description, unit, name)


def _merge_mask(carried, given, shape, name):
    """The one mask, or an error if two differ."""
    masks = [mask for mask in (carried, given) if mask is not None and mask is not np.ma.nomask]
    masks = [mask if is_lazy(mask) else _plain_mask(mask) for mask in masks]
    for mask in masks:
        if mask.shape not in ((), shape):
            raise InputError(f"mask has shape {mask.shape}, {name} has shape {shape}")
        if mask.dtype.kind not in ("bui" if mask.shape else "b"):
            raise InputError(f"mask has dtype {mask.dtype}; bool is needed, True for bad pixels")
    masks = [mask if mask.shape else np.broadcast_to(mask, shape) for mask in masks]
    if len(masks) == 2 and not np.array_equal(*(np.asarray(mask, bool) for mask in masks)):
        raise InputError(f"mask contradicts {name}.mask; combine them with | and give one")
    return masks[0] if masks else None


def _plain_mask(mask):
    """A mask as an array; what is itself masked in it is bad."""
    values, unknown = split_mask(mask)
    values = np.asanyarray(values)
    return values if unknown is None else values.astype(bool) | unknown


def _merge_wcs(carried, given, name, known):
    """The one celestial WCS, or an error if two differ."""
    if carried is not None and given is not None and not _same_wcs(carried, given):
        raise InputError(f"wcs contradicts {name}.wcs; give one of them")
    wcs = given if carried is None else carried
    if wcs is not None and id(wcs) not in known:
        # The object is kept beside its celestial part, so that its id is not used again.
        known[id(wcs)] = (wcs, celestial_part(wcs, "wcs" if carried is None else f"{name}.wcs"))
    return None if wcs is None else known[id(wcs)][1]


def _same_wcs(one, two):
    """Whether two WCS are the same object or have equal FITS headers."""
    if one is two:
        return True
    if not (hasattr(one, "to_header") and hasattr(two, "to_header")):
        return False
    return one.to_header(relax=True) == two.to_header(relax=True)
