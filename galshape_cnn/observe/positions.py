# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""Position lists, in pixels or on the sky."""

import logging
from collections.abc import Mapping
from dataclasses import dataclass

import astropy.units as u
import numpy as np
from astropy.table import MaskedColumn, Row, Table

from galshape_cnn.errors import PositionError
from galshape_cnn.observe.catalog_conventions import (
    IDENTIFIERS,
    PIXEL_COLUMNS,
    READ_AS,
    SKY_COLUMNS,
    SKYCOORD_COLUMNS,
    angles,
    find_pair,
)
from galshape_cnn.observe.region_positions import are_regions, table_of_regions
from galshape_cnn.wcs import pixel_positions, sky_geometry

__all__ = ["Positions", "nearer_to_another", "read_positions_argument"]

_log = logging.getLogger(__name__)
_ALLOWED = "a Table with columns x, y (0-based pixels) or ra, dec, a SkyCoord, or an (N, 2) array of x, y"
#: Largest disagreement, in pixels, between pixel and sky columns of one table.
_LARGEST_DISAGREEMENT = 2.0
#: Pixels within which two of a list are the same galaxy.
_SAME = 1.0


@dataclass(frozen=True)
class Positions:
    """Where galaxies are believed to be, in pixels.

    Attributes
    ----------
    xy : (N, 2) ndarray
        0-based pixels; NaN where the WCS does not reach.
    table : Table or None
        The other columns of the user's table; identifiers are in ``id``.
    understood : str
        By which convention the columns of a tool were read; empty for x, y and ra, dec.
    sky : SkyCoord or None
        Where they are on the sky, if that was given.
    """

    xy: np.ndarray
    table: Table | None = None
    understood: str = ""
    sky: object = None

    def on_sky(self, wcs):
        """SkyCoord of the positions: as given, or of their pixels in the image of a WCS."""
        from astropy.coordinates import SkyCoord

        if self.sky is not None:
            return self.sky.reshape(1) if self.sky.isscalar else self.sky
        return SkyCoord(*sky_geometry(wcs, self.xy)[1].T, unit="deg", frame="icrs")


def nearer_to_another(moved, own, listed):
    """Rows that moved to where another listed galaxy is.

    They moved, from ``own`` (N, 2), by more than a pixel and are nearer to another of the list (M, 2), which
    is not the same galaxy again (given within a pixel), than to their own position. The list is None if
    nothing is known of others.
    """
    nearer, distance = np.zeros(len(own), bool), np.hypot(*(moved - own).T)
    rows = np.flatnonzero(distance > _SAME)
    if listed is None or not rows.size:
        return nearer
    from scipy.spatial import KDTree

    to_listed, which = KDTree(listed).query(moved[rows])
    again = np.hypot(*(listed[which] - own[rows]).T) <= _SAME
    nearer[rows] = (to_listed < distance[rows]) & ~again
    return nearer


def read_positions_argument(positions, wcs=None):
    """Understand the ``positions`` argument; sky positions need a WCS.

    Tables of common tools are read by the convention of `galshape_cnn.observe.catalog_conventions`. The
    message of the ``PositionError`` says what is allowed.
    """
    if isinstance(positions, Positions):
        return positions
    if hasattr(positions, "icrs"):
        return Positions(_from_sky(positions, wcs), sky=positions)
    if are_regions(positions):
        positions = table_of_regions(positions)
    table = _as_table(positions)
    if table is not None:
        return _from_table(table, wcs)
    if isinstance(positions, (list, tuple)) and positions and all(hasattr(one, "icrs") for one in positions):
        from astropy.coordinates import SkyCoord

        sky = SkyCoord([one.icrs for one in positions])
        return Positions(_from_sky(sky, wcs), sky=sky)
    return Positions(_from_array(positions))


def _as_table(positions):
    """Table of whatever has named columns, or None."""
    if isinstance(positions, Row):
        return Table(positions)
    if hasattr(positions, "colnames"):
        return positions
    if hasattr(positions, "iloc") and hasattr(positions, "columns"):
        return _from_frame(positions)
    named = getattr(getattr(positions, "dtype", None), "names", None)
    if named or isinstance(positions, Mapping):
        try:
            return Table(positions if isinstance(positions, Mapping) else np.atleast_1d(positions))
        except (TypeError, ValueError) as error:
            raise PositionError(f"positions cannot be read as a table: {error}") from error
    return None


def _from_frame(frame):
    """Table of a DataFrame; None for two columns without names, which are as good as an array."""
    if len(frame.columns) == 2 and all(isinstance(name, (int, np.integer)) for name in frame.columns):
        return None
    if any(name is not None for name in frame.index.names):  # identifiers are often the index
        frame = frame.reset_index(names=_unused(frame.index.names, frame.columns))
    names = [str(name) for name in frame.columns]
    if len(set(names)) < len(names):
        twice = next(name for name in names if names.count(name) > 1)
        raise PositionError(f"positions has two columns {twice!r}; each name may occur once")
    try:
        return Table.from_pandas(frame.set_axis(names, axis=1))
    except (KeyError, TypeError, ValueError) as error:
        raise PositionError(f"positions cannot be read as a table: {error}") from error


def _unused(names, columns):
    """Names of an index that no column has, a number after those that one has."""
    names = ["index" if name is None else name for name in names]
    return [f"{name}_index" if name in columns else name for name in names]


def _from_array(positions):
    """(N, 2) numbers; one pair is a list of one."""
    if isinstance(positions, u.Quantity):
        positions = _in_pixels(positions, "positions")
    try:
        xy = np.ma.filled(np.ma.array(positions, dtype=float), np.nan)
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
    return np.asarray(np.ma.filled(np.ma.asarray(_masked(values.value)), np.nan), float)


def _masked(values):
    """A masked array of numpy, of one of astropy."""
    if hasattr(values, "unmasked"):
        return np.ma.array(values.unmasked, float, mask=values.mask)
    return np.ma.asarray(values, float)


def _from_table(table, wcs):
    """Positions and the other columns of a table."""
    _refuse_empty(table)
    # of names that differ in case only, the one in lower case, else the first
    names = {name.lower(): name for name in reversed(table.colnames)}
    names |= {name: name for name in table.colnames if name == name.lower()}
    pair, pixel_names = find_pair(names, PIXEL_COLUMNS)
    sky, sky_names, understood, tool = _sky_columns(table, names)
    if sky is not None and wcs is not None and pair is not None and pair.own_image:
        pair, pixel_names = None, []  # they pass through
    if pair is None and sky is None:
        raise PositionError(f"positions has columns {', '.join(table.colnames)}; {_ALLOWED} is needed")
    xy = from_sky = None
    if pair is not None:
        xy = np.column_stack([_number_column(table, name) for name in pixel_names]) - pair.first
        understood, tool = pair.describe(pixel_names), pair.tool
    if sky is not None and (wcs is not None or xy is None):
        from_sky = _from_sky(sky, wcs)
    if xy is not None and from_sky is not None:
        given = np.isfinite(sky.spherical.lon) & np.isfinite(sky.spherical.lat)
        from_sky[given & ~np.isfinite(from_sky).all(axis=1)] = np.inf  # the WCS does not reach there
        _check_agreement(xy, from_sky, pixel_names, sky_names, pair.first)
    rest = Table(table, copy=True)
    _settle_objects(rest)
    _name_identifiers(rest, names, tool)
    rest.remove_columns([*pixel_names, *sky_names])
    notes = [note for note in (rest.meta.pop(READ_AS, ""), understood) if note]
    if notes:
        _log.info("positions: %s", "; ".join(notes))
    return Positions(from_sky if xy is None else xy, rest, "; ".join(notes), sky)


def _name_identifiers(table, names, tool):
    """Give the identifiers the name ``id``, whatever their case, or whatever the tool calls them."""
    if "id" in names:
        if "id" not in table.colnames:
            table.rename_column(names["id"], "id")
        return
    own = names.get(IDENTIFIERS.get(tool))
    if own is not None:
        table["id"] = table[own]


def _settle_objects(table):
    """Give columns of Python objects, as pandas has them, a type where they hold but one besides gaps."""
    for name in table.colnames:
        if getattr(getattr(table[name], "dtype", None), "kind", "") != "O" or table[name].ndim != 1:
            continue
        values = np.asarray(table[name])
        known = np.array([not (one is None or (isinstance(one, float) and np.isnan(one))) for one in values])
        kinds = {type(one) for one in values[known]}
        if len(kinds) == 1 and next(iter(kinds)) in (str, int, float, bool):
            column = MaskedColumn(np.where(known, values, next(iter(values[known]))).tolist(), mask=~known)
            table.replace_column(name, column)


def _number_column(table, name):
    """A column as plain floats, NaN where masked."""
    column = table[name]
    if np.ndim(column) != 1:
        raise PositionError(
            f"column {name} of positions has shape {np.shape(column)}; one number a row is needed"
        )
    unit = getattr(column, "unit", None)
    if unit not in (None, "") and str(unit).lower() in ("pixel", "pix", "pixels"):
        unit = u.pix
    if isinstance(column, u.Quantity) or unit not in (None, ""):
        values = _masked(getattr(column, "value", column))
        return _in_pixels(u.Quantity(np.ma.filled(values, np.nan), unit), f"column {name} of positions")
    try:
        return np.ma.filled(np.ma.asarray(column).astype(float), np.nan)
    except (TypeError, ValueError) as error:
        raise PositionError(f"column {name} of positions does not hold numbers") from error


def _sky_columns(table, names):
    """SkyCoord or None, the names of its columns, what was understood, and the tool that wrote them."""
    from astropy.coordinates import SkyCoord

    for name in SKYCOORD_COLUMNS:
        if name in names and isinstance(table[names[name]], SkyCoord):
            return table[names[name]], [names[name]], "", ""
    pair, used = find_pair(names, SKY_COLUMNS)
    if pair is None:
        return None, [], "", ""
    (ra, hours), (dec, _) = (
        angles(table[name], name, is_ra) for name, is_ra in zip(used, (True, False), strict=True)
    )
    understood = pair.describe(used)
    if hours:
        understood = f"{understood or ', '.join(used)}, sexagesimal (right ascension in hours)"
    return SkyCoord(ra, dec, frame="icrs"), used, understood, pair.tool


def _check_agreement(xy, from_sky, pixel_names, sky_names, first):
    """Refuse a table whose pixel and sky columns mean different places."""
    distance = np.hypot(*(xy - from_sky).T)
    distance = distance[~np.isnan(distance)]
    if distance.size and np.median(distance) > _LARGEST_DISAGREEMENT:
        other = "may count from 1 or belong" if first == 0 else "belong"
        raise PositionError(
            f"positions has {', '.join(pixel_names)} and {', '.join(sky_names)}, which differ by "
            f"{np.median(distance):.1f} pixels (median): {', '.join(pixel_names)} {other} to another "
            "image; remove one pair"
        )
