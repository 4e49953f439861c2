# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""Lists of positions, in pixels or on the sky, as the user may hold them."""

from dataclasses import dataclass

import astropy.units as u
import numpy as np
from astropy.table import Table

from galshape_cnn.errors import PositionError
from galshape_cnn.wcs import pixel_positions, sky_geometry

__all__ = ["Positions", "read_positions_argument", "sky_positions"]

_ALLOWED = "a Table with columns x, y (0-based pixels) or ra, dec, a SkyCoord, or an (N, 2) array of x, y"
#: Column pairs with one meaning only. photutils' and this package's centroids are 0-based.
_PIXEL_COLUMNS = (("x", "y"), ("x_centroid", "y_centroid"), ("xcentroid", "ycentroid"))
_SKY_COLUMNS = (("ra", "dec"),)
_SKYCOORD_COLUMNS = ("sky_centroid", "skycoord")
#: Largest disagreement, in pixels, between pixel and sky columns of one table.
_LARGEST_DISAGREEMENT = 2.0


@dataclass(frozen=True)
class Positions:
    """Where galaxies are believed to be, in pixels.

    Attributes
    ----------
    xy : (N, 2) ndarray
        0-based pixels; NaN where the WCS does not reach.
    table : Table or None
        The other columns of the user's table.
    """

    xy: np.ndarray
    table: Table | None = None


def read_positions_argument(positions, wcs=None):
    """Understand the ``positions`` argument.

    Parameters
    ----------
    positions : Table, SkyCoord, or (N, 2) array_like
        Positions; see the message of the exception.
    wcs : celestial WCS, optional
        Needed by sky positions.

    Returns
    -------
    positions : Positions

    Raises
    ------
    PositionError
        If they cannot be understood, or are sky positions without a WCS.
    """
    if isinstance(positions, Positions):
        return positions
    if hasattr(positions, "colnames"):
        return _from_table(positions, wcs)
    if hasattr(positions, "iloc") and hasattr(positions, "columns"):
        return _from_table(Table.from_pandas(positions), wcs)
    if hasattr(positions, "icrs"):
        return Positions(_from_sky(positions, wcs))
    return Positions(_from_array(positions))


def _from_array(positions):
    """(N, 2) numbers; one pair is a list of one."""
    if isinstance(positions, u.Quantity):
        positions = _in_pixels(positions, "positions")
    try:
        xy = np.array(positions, float)
    except (TypeError, ValueError) as error:
        raise PositionError(f"positions is a {type(positions).__name__}; {_ALLOWED} is needed") from error
    if xy.ndim == 1 and xy.shape == (2,):
        xy = xy[None]
    if xy.ndim != 2 or xy.shape[1] != 2:
        raise PositionError(f"positions has shape {xy.shape}; {_ALLOWED} is needed")
    _refuse_empty(xy)
    return xy


def _refuse_empty(values):
    if len(values) == 0:
        raise PositionError("positions is empty; at least one galaxy is needed")


def _from_sky(coords, wcs):
    """Pixel positions of sky coordinates."""
    if wcs is None:
        raise PositionError(
            "positions are on the sky, but the image has no WCS: give wcs=, or x, y in pixels"
        )
    coords = coords.reshape(1) if coords.isscalar else coords
    _refuse_empty(coords)
    return pixel_positions(wcs, coords)


def _in_pixels(values, name):
    """Numbers of a Quantity in pixels."""
    if values.unit not in (u.pix, u.dimensionless_unscaled):
        raise PositionError(f"{name} has unit {values.unit}; 0-based pixels are needed")
    return np.asarray(values.value, float)


def _from_table(table, wcs):
    """Positions and the other columns of a table."""
    _refuse_empty(table)
    names = {name.lower(): name for name in reversed(table.colnames)}
    pixel, sky = _pixel_columns(table, names), _sky_columns(table, names)
    used = []
    xy = from_sky = None
    if pixel is not None:
        xy, columns = pixel
        used += columns
    if sky is not None:
        coords, columns = sky
        used += columns
        from_sky = _from_sky(coords, wcs) if wcs is not None or xy is None else None
    if xy is None and from_sky is None:
        raise PositionError(_unknown_columns(table, names))
    if xy is not None and from_sky is not None:
        _check_agreement(xy, from_sky)
    rest = Table(table, copy=True)
    rest.remove_columns(used)
    return Positions(from_sky if xy is None else xy, rest)


def _number_column(table, name):
    """A column as plain floats, NaN where masked."""
    column = table[name]
    if isinstance(column, u.Quantity) or getattr(column, "unit", None) not in (None, ""):
        return _in_pixels(u.Quantity(column), f"column {name} of positions")
    try:
        return np.ma.filled(np.ma.asarray(column).astype(float), np.nan)
    except (TypeError, ValueError) as error:
        raise PositionError(f"column {name} of positions does not hold numbers") from error


def _pixel_columns(table, names):
    """(xy, column names), or None."""
    for pair in _PIXEL_COLUMNS:
        if all(one in names for one in pair):
            used = [names[one] for one in pair]
            return np.column_stack([_number_column(table, name) for name in used]), used
    return None


def _sky_columns(table, names):
    """(SkyCoord, column names), or None."""
    from astropy.coordinates import SkyCoord

    for name in _SKYCOORD_COLUMNS:
        if name in names and isinstance(table[names[name]], SkyCoord):
            return table[names[name]], [names[name]]
    for pair in _SKY_COLUMNS:
        if all(one in names for one in pair):
            used = [names[one] for one in pair]
            angles = [_angle_column(table[name], name) for name in used]
            return SkyCoord(*angles, frame="icrs"), used
    return None


def _angle_column(column, name):
    """A column of angles; degrees if it has no unit."""
    unit = getattr(column, "unit", None)
    values = np.ma.filled(np.ma.asarray(getattr(column, "value", column)).astype(float), np.nan)
    try:
        return u.Quantity(values, unit or u.deg).to(u.deg)
    except (TypeError, ValueError, u.UnitConversionError) as error:
        raise PositionError(f"column {name} of positions has unit {unit}; an angle is needed") from error


def _unknown_columns(table, names):
    """Message for a table without columns of a known meaning."""
    message = f"positions has columns {', '.join(table.colnames)}; {_ALLOWED} is needed"
    one_based = [names[one] for one in ("x_image", "xwin_image", "y_image", "ywin_image") if one in names]
    if one_based:
        message += (
            f". {' and '.join(one_based)} of SExtractor count from 1: "
            f"add columns x = {one_based[0]} - 1 and y = {one_based[-1]} - 1"
        )
    elif "alpha_j2000" in names:
        message += ". Rename ALPHA_J2000, DELTA_J2000 to ra, dec"
    return message


def _check_agreement(xy, from_sky):
    """Refuse a table whose pixel and sky columns mean different places."""
    distance = np.hypot(*(xy - from_sky).T)
    if np.isfinite(distance).any() and np.nanmedian(distance) > _LARGEST_DISAGREEMENT:
        raise PositionError(
            f"positions has x, y and ra, dec, which differ by {np.nanmedian(distance):.1f} pixels (median): "
            "x, y may count from 1 or belong to another image; remove one pair"
        )


def sky_positions(positions, wcs=None):
    """Positions on the sky, for use with several images.

    Parameters
    ----------
    positions : Table, SkyCoord, or (N, 2) array_like
        As for `read_positions_argument`.
    wcs : celestial WCS, optional
        Of the image that x, y belong to, where nothing else says where on the sky the galaxies are.

    Returns
    -------
    coords : SkyCoord or None
        None for x, y without a WCS.
    """
    from astropy.coordinates import SkyCoord

    if hasattr(positions, "iloc") and not hasattr(positions, "colnames"):
        positions = Table.from_pandas(positions)
    coords = positions if hasattr(positions, "icrs") else None
    if hasattr(positions, "colnames"):
        names = {name.lower(): name for name in reversed(positions.colnames)}
        coords, _ = _sky_columns(positions, names) or (None, None)
    if coords is not None:
        return coords.reshape(1) if coords.isscalar else coords
    if wcs is None:
        return None
    radec = sky_geometry(wcs, read_positions_argument(positions, wcs).xy)[1]
    return SkyCoord(*radec.T, unit="deg", frame="icrs")
