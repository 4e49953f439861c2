# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""Noise HDU of an image: its kind and unit."""

from astropy.nddata import InverseVariance, StdDevUncertainty, VarianceUncertainty

from galshape_cnn.errors import FileError, warn
from galshape_cnn.observe.io.fits_hdus import UNCERTAINTY_TYPES, companion, uncertainty_type
from galshape_cnn.observe.io.hdu_pixels import image_pixels, named_pixels
from galshape_cnn.observe.io.photometry import unit_of

__all__ = ["KINDS", "read_uncertainty", "uncertainty_unit"]

#: Kinds of noise by the names of the options.
KINDS = {"err": StdDevUncertainty, "var": VarianceUncertainty, "ivar": InverseVariance}
_POWERS = {"err": 1, "var": 2, "ivar": -2}
_WORDS = {"err": "1-sigma errors", "var": "variances", "ivar": "inverse variances"}


def read_uncertainty(hdus, index, named, path, unit):
    """Noise of an image, from the HDU ``named`` (kind, where) or found by what it is called, or None.

    In the unit that its own BUNIT states, if there is one. ``FileError`` if several HDUs would do, or the
    unit or the type that the HDU states contradict what it is taken for.
    """
    if named is not None:
        kind, choice = named
        pixels, header = named_pixels(hdus, index, choice, path, kind)
        _check_type(header, kind, f"{path}: {choice} is named for {kind} (--{kind})")
        return KINDS[kind](pixels, unit=_unit(header, kind, unit, f"{path}: {choice}", True), copy=False)
    for kind in KINDS:
        other = companion(hdus, index, kind, path)
        if other is None or _is_exposure_map(hdus, other, path):
            continue
        pixels, header = image_pixels(hdus, other, path)
        _check_type(header, kind, f"{path}: HDU {other} holds the noise")
        return KINDS[kind](pixels, unit=_unit(header, kind, unit, f"{path}: HDU {other}", False), copy=False)
    return None


def _check_type(header, kind, what):
    """Refuse noise of which `astropy.nddata.CCDData` has written that it is something else."""
    stated = uncertainty_type(header)
    if stated is None or UNCERTAINTY_TYPES.get(stated) == kind:
        return
    if stated in UNCERTAINTY_TYPES:
        right = UNCERTAINTY_TYPES[stated]
        raise FileError(f"{what}, but its UTYPE is {stated}; name it with {right} (--{right})")
    raise FileError(
        f"{what}, but its UTYPE is {stated}; {', '.join(UNCERTAINTY_TYPES)} are allowed: write the file with "
        "one of them, or give the noise with error (--error)"
    )


def _unit(header, kind, unit, what, is_named):
    """Unit that an HDU of noise states, None if it states none."""
    own = unit_of(header)
    return uncertainty_unit(own, kind, unit, what, is_named)


def uncertainty_unit(own, kind, unit, what, is_named=False):
    """Unit of noise, checked against that of the image; None if there is none, or the image has none.

    ``kind`` is "err", "var" or "ivar"; ``is_named`` says that the user called it so. ``FileError``, with file
    and HDU in ``what``, if it cannot be the unit of such noise.
    """
    if own is None or unit is None:
        return None
    wanted = unit ** _POWERS[kind]
    if own.is_equivalent(wanted):
        return own
    if is_named and own == unit:
        warn(
            f"{what} is said to hold {_WORDS[kind]}, but its BUNIT is that of the image, {own}: {wanted} is "
            "meant"
        )
        return None
    same = own == unit
    mend = f"; if its header is a copy of the image's, name the HDU with {kind} (--{kind})" if same else ""
    raise FileError(
        f"{what} holds {_WORDS[kind]} in {own}, which does not fit an image in {unit}; {wanted} is "
        f"needed{mend}"
    )


def _is_exposure_map(hdus, index, path):
    """Whether a weight is AstroDrizzle's, which is an exposure time unless the user chose otherwise."""
    drizzled = any(key in hdus[0].header for key in ("NDRIZIM", "D001VER"))
    if not (drizzled and hdus[index].name == "WHT"):
        return False
    warn(
        f"{path}: WHT of AstroDrizzle holds exposure times unless final_wht_type is IVM or ERR, and is not "
        "used; if it is an inverse variance, say so with ivar (--ivar WHT), otherwise give the noise"
    )
    return True
