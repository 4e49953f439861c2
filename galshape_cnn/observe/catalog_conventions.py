# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""Position columns and pixel conventions of common catalogue tools.

Tools differ in the names of their columns and in the number of the first pixel: those that follow FITS
(Source Extractor, SourceXtractor++) count from 1, those written in Python from 0, as this package does.
"""

import re
from dataclasses import dataclass

import astropy.units as u
import numpy as np

from galshape_cnn.errors import PositionError

__all__ = [
    "IDENTIFIERS",
    "PIXEL_COLUMNS",
    "READ_AS",
    "SKYCOORD_COLUMNS",
    "SKY_COLUMNS",
    "ColumnPair",
    "angles",
    "find_pair",
    "holds_positions",
]

#: What makes an angle of text one in degrees.
_DEGREE = re.compile("[dD°]")


@dataclass(frozen=True)
class ColumnPair:
    """Two columns that hold positions.

    Attributes
    ----------
    names : tuple of str
        Names of the columns, in lower case.
    tool : str
        What writes them; empty where the names are common ones that need no explanation.
    first : int
        Number of the first pixel; 0 for columns on the sky.
    own_image : bool
        True where the pixels are those of an image of the tool's own, which a cutout of it is not: then
        positions on the sky are preferred.
    """

    names: tuple
    tool: str = ""
    first: int = 0
    own_image: bool = False

    def describe(self, names):
        """What was understood, in one line; empty if that goes without saying."""
        if not self.tool:
            return ""
        counted = "" if self not in PIXEL_COLUMNS else f", counted from {self.first}"
        return f"{', '.join(names)} of {self.tool}{counted}"


_EXTRACTOR, _EXTRACTOR_2 = "Source Extractor", "SourceXtractor++"

#: Pixel columns; of a table that has several, the first pair in this list is used.  Those of SourceXtractor++
#: are missing: its versions number the first pixel differently, and its sky columns are always there.
PIXEL_COLUMNS = (
    ColumnPair(("x", "y")),
    ColumnPair(("x_centroid", "y_centroid")),
    ColumnPair(("xcentroid", "ycentroid")),
    ColumnPair(("x_fit", "y_fit"), "photutils"),
    ColumnPair(("x_peak", "y_peak"), "photutils"),
    ColumnPair(("xwin_image", "ywin_image"), _EXTRACTOR, 1),
    ColumnPair(("x_image", "y_image"), _EXTRACTOR, 1),
    ColumnPair(("xpsf_image", "ypsf_image"), _EXTRACTOR, 1),
    ColumnPair(("xmodel_image", "ymodel_image"), _EXTRACTOR, 1),
    ColumnPair(("bx", "by"), "the Legacy Surveys", 0, own_image=True),
)

#: Columns of right ascension and declination, ICRS or J2000 (which differ by 0.02 arcsec at most).
SKY_COLUMNS = (
    ColumnPair(("ra", "dec")),
    ColumnPair(("alphawin_j2000", "deltawin_j2000"), _EXTRACTOR),
    ColumnPair(("alpha_j2000", "delta_j2000"), _EXTRACTOR),
    ColumnPair(("alphapsf_j2000", "deltapsf_j2000"), _EXTRACTOR),
    ColumnPair(("alphamodel_j2000", "deltamodel_j2000"), _EXTRACTOR),
    ColumnPair(("world_centroid_alpha", "world_centroid_delta"), _EXTRACTOR_2),
    ColumnPair(("_raj2000", "_dej2000"), "VizieR"),
    ColumnPair(("ra_icrs", "de_icrs"), "VizieR"),
    ColumnPair(("raj2000", "dej2000"), "VizieR"),
    ColumnPair(("raj2000", "decj2000"), "KiDS"),
    ColumnPair(("right_ascension", "declination"), "Euclid"),
)

#: Columns that may hold a SkyCoord.
SKYCOORD_COLUMNS = ("sky_centroid", "skycoord")

#: Metadata of a table that says how a file of another kind was read.
READ_AS = "galshape_cnn read as"

#: Columns that number the galaxies, where there is no ``id``, by tool.
IDENTIFIERS = {_EXTRACTOR: "number", _EXTRACTOR_2: "source_id"}


def find_pair(names, pairs):
    """First pair, the preferred ones first, whose columns a table has, and their names as it spells them.

    ``names`` are the table's by their lower case; None and no names if there is no pair.
    """
    for pair in pairs:
        if all(one in names for one in pair.names):
            return pair, [names[one] for one in pair.names]
    return None, []


def holds_positions(colnames):
    """Whether a table with columns of these names, in any case, says where galaxies are."""
    names = {str(name).lower().removesuffix(".ra"): name for name in colnames}
    found = any(find_pair(names, pairs)[0] for pairs in (PIXEL_COLUMNS, SKY_COLUMNS))
    return found or any(name in names for name in SKYCOORD_COLUMNS)


def angles(column, name, is_ra):
    """A column of angles in degrees (N,), NaN where blank, and whether it was text, read as hours.

    Numbers without a unit are degrees.  Sexagesimal right ascension is in hours and declination in degrees,
    as everywhere, unless a text says otherwise (``188d44m``).  ``PositionError``, with the name of the
    column, if it holds no angles, or impossible ones.
    """
    unit = getattr(column, "unit", None)
    values = np.ma.asarray(getattr(column, "value", column))
    if values.ndim != 1:
        raise PositionError(f"column {name} of positions has shape {values.shape}; one angle a row is needed")
    in_hours = False
    if values.dtype.kind in "USO":
        values, unit, in_hours = _from_text(values, unit, name, is_ra)
    degrees = _with_unit(values, unit, name, is_ra)
    limits = (-360, 360) if is_ra else (-90, 90)
    bad = (degrees.value < limits[0]) | (degrees.value > limits[1])
    if bad.any():
        row = int(np.flatnonzero(bad)[0])
        raise PositionError(
            f"column {name} of positions is {degrees.value[row]:g} degrees in row {row}; "
            f"allowed: {limits[0]} to {limits[1]}"
        )
    return degrees, in_hours


def _with_unit(values, unit, name, is_ra):
    """Numbers as degrees; hours are those of right ascension."""
    try:
        values = np.ma.filled(values.astype(float), np.nan)
    except (TypeError, ValueError) as error:
        raise PositionError(f"column {name} of positions does not hold angles") from error
    unit = u.hourangle if is_ra and unit is not None and str(unit) in ("h", "hr", "hour") else unit
    try:
        return u.Quantity(values, unit or u.deg).to(u.deg)
    except (TypeError, ValueError, u.UnitConversionError) as error:
        raise PositionError(f"column {name} of positions has unit {unit}; an angle is needed") from error


def _from_text(values, unit, name, is_ra):
    """Numbers of a column of text, their unit, and whether they were hours."""
    blank = np.ma.getmaskarray(values)
    texts = ["" if is_blank else _text(one) for one, is_blank in zip(values.data, blank, strict=True)]
    numbers = [_number(text) for text in texts]
    others = [text for text, number in zip(texts, numbers, strict=True) if number is None]
    if not others:
        return np.array(numbers, float), unit, False
    plain = [text for text, number in zip(texts, numbers, strict=True) if text and number is not None]
    if plain:
        raise PositionError(
            f"column {name} of positions mixes {others[0]!r} with {plain[0]!r}; "
            "numbers or sexagesimal angles are needed"
        )
    in_hours = is_ra and not all(_DEGREE.search(text) for text in others)
    return np.array([_sexagesimal(text, name, is_ra) for text in texts], float), u.deg, in_hours


def _text(one):
    """Text of one entry, empty where there is none."""
    text = one.decode("utf-8", "replace") if isinstance(one, bytes) else "" if one is None else str(one)
    text = text.strip()
    return "" if text.lower() in ("nan", "null", "none", "<na>", "nat", "--") else text


def _number(text):
    """Number that a text stands for, NaN for a blank one, None if it is no number."""
    if not text:
        return np.nan
    try:
        return float(text)
    except ValueError:
        return None


def _sexagesimal(text, name, is_ra):
    """Degrees of one angle."""
    from astropy.coordinates import Angle

    if not text:
        return np.nan
    in_hours = is_ra and not _DEGREE.search(text)
    try:
        angle = Angle(text, unit=u.hourangle if in_hours else u.deg)
    except (TypeError, ValueError, u.UnitsError) as error:
        why = ": right ascension of this form is in hours, 0 to 24" if in_hours else ""
        raise PositionError(f"column {name} of positions holds {text!r}, which is no angle{why}") from error
    return angle.deg
