# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""Units and magnitude zero points that headers state."""

import warnings
from dataclasses import dataclass

import astropy.units as u
import numpy as np

from galshape_cnn.errors import FileError

__all__ = ["ZeroPoint", "header_zeropoint", "is_logarithmic", "linear_unit_of", "unit_of"]

#: Keywords with a zero point, by how specific they are.
_KEYWORDS = ("MAGZERO", "MAGZPT", "MAGZP", "MAG_ZERO", "PHOTZP", "ZEROPNT", "ZP", "ZPT", "MAG0", "SEXMGZPT")
_ALIASES = {"electrons": "electron", "counts": "count", "nanomaggies": "nanomaggy", "dn": "DN"}


@dataclass(frozen=True)
class ZeroPoint:
    """Magnitude of one unit of flux.

    Attributes
    ----------
    magnitude : float
        mag = magnitude - 2.5 log10(flux).
    source : str
        Where it was found.
    exact : bool
        True if it follows from the unit of the pixels, or from keywords that are
        defined for that unit; False for a keyword of the MAGZERO kind, which may
        hold for one second or for the whole exposure.
    """

    magnitude: float
    source: str
    exact: bool


def unit_of(header):
    """Unit in BUNIT; None when it is missing, empty, or not a unit astropy knows."""
    text = str(header.get("BUNIT", "")).strip()
    lower = text.lower()
    for word, unit in _ALIASES.items():
        lower = lower.replace(word, unit)
    for spelling in (text, text.lower(), lower):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            try:
                unit = u.Unit(spelling)
            except (TypeError, ValueError):
                continue
        return None if unit == u.dimensionless_unscaled else unit
    return None


def is_logarithmic(unit):
    """Whether a unit is one of logarithms, such as magnitudes."""
    if unit is None:
        return False
    bases = getattr(unit, "bases", ())
    return isinstance(unit, u.function.FunctionUnitBase) or any(one in (u.mag, u.dex, u.dB) for one in bases)


def linear_unit_of(header, what):
    """Unit, as `unit_of`, of pixels that can be measured; ``FileError`` if they are logarithms."""
    unit = unit_of(header)
    if is_logarithmic(unit):
        raise FileError(f"{what} holds pixels in {unit}, which are logarithms; linear fluxes are needed")
    return unit


def header_zeropoint(header, unit=None):
    """Zero point that a header states, AB where it follows from a unit.

    Parameters
    ----------
    header : mapping
        Of the image.
    unit : astropy unit, optional
        Of the pixels.

    Returns
    -------
    zeropoint : ZeroPoint or None
        None if the header states none.

    Examples
    --------
    >>> import astropy.units as u
    >>> from galshape_cnn.observe.io.photometry import header_zeropoint
    >>> round(header_zeropoint({}, u.nJy).magnitude, 2)
    31.4
    """
    for search in (_of_unit, _of_surface_brightness, _of_fluxmag0, _of_photflam, _of_keyword):
        found = search(header, unit)
        if found is not None and np.isfinite(found.magnitude):
            return found
    return None


def _number(header, key):
    """Positive number of a keyword, or None."""
    value = header.get(key)
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return None
    return float(value) if np.isfinite(value) and value > 0 else None


def _of_unit(header, unit):
    """Spectral flux density per frequency, as in nJy or nanomaggies."""
    survey = str(header.get("SURVEY", "")).strip()
    if unit is None and survey in ("DECaLS", "LegacySurvey", "BASS MzLS") and "BRICK" in header:
        return ZeroPoint(22.5, "nanomaggies of the Legacy Surveys", True)
    try:
        if unit.is_equivalent(u.mgy):
            return ZeroPoint(-2.5 * np.log10(unit.to(u.mgy)), f"unit {unit}", True)
        return ZeroPoint(float((1 * unit).to_value(u.ABmag)), f"unit {unit}", True)
    except (AttributeError, TypeError, u.UnitConversionError):
        return None


def _of_surface_brightness(header, unit):
    """JWST and Roman: MJy/sr with the area of the pixel."""
    area = _number(header, "PIXAR_SR")
    try:
        per_pixel = (1 * unit).to(u.MJy / u.sr) * area * u.sr
        return ZeroPoint(float(per_pixel.to_value(u.ABmag)), f"unit {unit} and PIXAR_SR", True)
    except (TypeError, u.UnitConversionError):
        return None


def _of_fluxmag0(header, unit):
    """HSC and Rubin: the flux of magnitude zero."""
    flux = _number(header, "FLUXMAG0")
    return None if flux is None else ZeroPoint(2.5 * np.log10(flux), "FLUXMAG0", True)


def _of_photflam(header, unit):
    """HST: AB zero point of one count per second (ACS Data Handbook, section 5.1)."""
    flam, pivot = _number(header, "PHOTFLAM"), _number(header, "PHOTPLAM")
    if flam is None or pivot is None:
        return None
    magnitude = -2.5 * np.log10(flam) - 5 * np.log10(pivot) - 2.408
    text = str(header.get("BUNIT", "")).upper().replace(" ", "")
    if text.endswith(("/S", "/SEC")):
        return ZeroPoint(magnitude, "PHOTFLAM and PHOTPLAM", True)
    exposure = _number(header, "EXPTIME")
    if text and exposure is not None:
        return ZeroPoint(magnitude + 2.5 * np.log10(exposure), "PHOTFLAM, PHOTPLAM and EXPTIME", True)
    return None


def _of_keyword(header, unit):
    """A keyword of the MAGZERO kind."""
    for key in _KEYWORDS:
        value = _number(header, key)
        if value is not None:
            return ZeroPoint(value, key, False)
    return None
