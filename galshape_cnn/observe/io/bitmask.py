# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""Bad-pixel values of mask and data-quality arrays."""

import numpy as np
from astropy.nddata.bitmask import extend_bit_flag_map, interpret_bit_flags

from galshape_cnn.errors import FileError
from galshape_cnn.observe.io.lazy import LARGE, BadBits

__all__ = ["bad_pixels"]

#: Mask planes (of the Rubin and HSC pipelines) that do not make a pixel bad, by how they begin.
_HARMLESS = ("DETECT", "NOT_DEBLENDED", "BRIGHT_OBJECT", "CLIPPED", "INEXACT_PSF", "SENSOR_EDGE")
#: DO_NOT_USE is bit 0; the others tell what was done to the pixel, not that it is bad.
_DO_NOT_USE_ONLY = ("JWST", "ROMAN")


def bad_pixels(field, header, bad_bits=None, what="mask"):
    """Mask made of a bit field.

    Parameters
    ----------
    field : (ny, nx) or (N, ny, nx) array_like
        Mask or bit field.
    header : mapping
        Named planes (``MP_NAME`` = number of the bit), and the telescope.
    bad_bits : int, str or sequence of int or str, optional
        Bits that mean bad: values (4, 8), or names of planes (``"SAT,CR"``);
        ``"~4"`` or ``"~DETECTED"``: all others.  By default, of named planes those that mean bad
        pixels; of JWST and Roman ``DO_NOT_USE``; otherwise every value but zero.
    what : str, optional
        Of what the mask is, for messages.

    Returns
    -------
    mask : array_like of bool or int
        Not zero is bad.

    Raises
    ------
    FileError
        If the bits cannot be understood or the array holds no whole numbers.
    """
    planes = {str(key)[3:]: 1 << int(header[key]) for key in header if str(key).startswith("MP_")}
    bits = _bits(bad_bits, planes, str(header.get("TELESCOP", "")).strip().upper(), what)
    if bits is None:
        return field if field.dtype.kind in "iub" else np.asarray(field) != 0
    if field.dtype.kind not in "iu":
        raise FileError(f"{what} holds {field.dtype} and no bits; leave out bad_bits (--bad-bits)")
    limits = np.iinfo(field.dtype)
    if not limits.min <= bits <= limits.max:
        raise FileError(f"{what} has {limits.bits} bits; bad_bits={bad_bits!r} (--bad-bits) is beyond them")
    mask = BadBits(field, bits)
    return mask if mask.size > LARGE else np.asarray(mask)


def _bits(bad_bits, planes, telescope, what):
    """Bits that mean bad, None for any."""
    if bad_bits is None:
        if planes:
            return sum(value for name, value in planes.items() if not name.startswith(_HARMLESS))
        return 1 if telescope in _DO_NOT_USE_ONLY else None
    if isinstance(bad_bits, str) and not any(one.isalpha() for one in bad_bits):
        planes = {}  # numbers, although there are names
    try:
        names = extend_bit_flag_map("MaskPlanes", **planes) if planes else None
        return interpret_bit_flags(bad_bits, flag_name_map=names)
    except (AttributeError, TypeError, ValueError, KeyError) as error:
        known = f"; its planes are {', '.join(planes)}" if planes else ""
        raise FileError(
            f"{what}: bad_bits={bad_bits!r} (--bad-bits) is not understood: {error}. Powers of two, or "
            f"names of planes, separated by commas, are needed{known}"
        ) from error
