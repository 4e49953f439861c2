# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""Positions of galaxies in each of several images."""

from dataclasses import dataclass, replace

import numpy as np
from astropy.table import Table

from galshape_cnn.errors import InputError, PositionError
from galshape_cnn.observe.cutting import DEFAULT_STAMP_SIZE, check_stamp_size, largest_stamp
from galshape_cnn.observe.positions import Positions, read_positions_argument
from galshape_cnn.wcs import pixel_positions, sky_geometry

__all__ = ["ExposurePositions", "exposure_positions"]

_ROUNDING = 0.01  # pixels: the same scale in two images but for distortions


@dataclass(frozen=True, eq=False)
class ExposurePositions:
    """Positions of N galaxies in each of E images, which may be a part of a longer list.

    Attributes
    ----------
    places : tuple of Positions
        One for each image; the first has the other columns of the user's table, the others its stamp sizes.
    listed : tuple of (M, 2) ndarray
        x, y of the whole list in each image: galaxies outside the part are neighbours of those in it.
    first : int
        Place of the first galaxy of the part in the list.
    """

    places: tuple
    listed: tuple
    first: int = 0

    @classmethod
    def of(cls, places):
        """Of a whole list."""
        return cls(tuple(places), tuple(one.xy for one in places))

    def __len__(self):
        return len(self.places[0].xy)

    def __getitem__(self, rows):
        """A part of the list; a slice with a start."""
        part = []
        for one in self.places:
            table = None if one.table is None else one.table[rows]
            part.append(replace(one, xy=one.xy[rows], table=table, sky=None))
        return ExposurePositions(tuple(part), self.listed, self.first + rows.start)

    def of_exposure(self, number):
        """Positions in an image, and the list as `galshape_cnn.observe.observation.prepare` takes it."""
        return self.places[number], (self.listed[number], self.first)


def exposure_positions(exposures, names, wcses, positions):
    """Positions of galaxies in each opened exposure; None for cutouts.

    ``wcses`` are theirs, or None; a list of them for cutouts. ``positions`` are on the sky, or x, y of the
    first exposure, or known already; a column ``stamp_size`` holds in all images, for as much of the sky in
    each. ``InputError`` if only some have a WCS, or none has and they are not
    aligned, cutouts as well; ``PositionError`` if positions are given for cutouts, cannot be used, or none
    lies inside any of the images.
    """
    if isinstance(positions, ExposurePositions):
        return positions
    if positions is None:
        _check_cutouts(exposures, names, wcses)
        return None
    have = [wcs is not None for wcs in wcses]
    for name, wcs in zip(names, wcses, strict=True):
        if isinstance(wcs, list):
            raise PositionError(f"positions are given, but exposure {name!r} holds cutouts; leave them out")
    _check_wcs(names, have)
    first = read_positions_argument(positions, wcses[0])
    shapes = [np.shape(getattr(one.data, "data", one.data)) for one in exposures]
    if any(have):
        coords = first.on_sky(wcses[0])
        others = [Positions(pixel_positions(wcs, coords)) for wcs in wcses[1:]]
        others = [
            replace(one, table=_sizes(first, wcses[0], one.xy, wcs, shape))
            for one, wcs, shape in zip(others, wcses[1:], shapes[1:], strict=True)
        ]
    else:
        _check_shapes(shapes)
        others = [replace(first, table=_sizes_of(first.table)) for _ in exposures[1:]]
    places = ExposurePositions.of([first, *others])
    _refuse_unseen(places, shapes)
    return places


def _check_wcs(names, have, what="images"):
    """Refuse exposures of which only some have a WCS."""
    if any(have) and not all(have):
        without, other = names[have.index(False)], names[have.index(True)]
        raise InputError(
            f"exposure {without!r} has no WCS, {other!r} has one; give one to all, or to none if the {what} "
            "are aligned pixel to pixel"
        )


def _check_shapes(shapes, what=""):
    """Refuse images without WCS of different shapes: it is not known which pixels show the same."""
    if len(set(shapes)) > 1:
        raise InputError(
            f"exposures without WCS must be aligned, but{what} have shapes {sorted(set(shapes))}"
        )


def _check_cutouts(exposures, names, wcses):
    """The same of the cutouts of each galaxy; their number is compared when they are read."""
    cutouts = zip(*(wcs if isinstance(wcs, list) else [wcs] for wcs in wcses), strict=False)
    shapes = zip(*(_shapes(one.data) for one in exposures), strict=False)
    for number, (wcs, sides) in enumerate(zip(cutouts, shapes, strict=False)):
        _check_wcs(names, [one is not None for one in wcs], "cutouts")
        if wcs[0] is None:
            _check_shapes(sides, f" cutouts {number}")


def _shapes(data):
    """Shapes of the cutouts of an exposure, in pixels."""
    if isinstance(data, (list, tuple)):
        return [np.shape(getattr(one, "data", one)) for one in data]
    *count, ny, nx = np.shape(getattr(data, "data", data))
    return [(ny, nx)] * (count[0] if count else 1)


def _sizes_of(table):
    """The column of stamp sizes alone; None without one."""
    return table[["stamp_size"]] if table is not None and "stamp_size" in table.colnames else None


def _sizes(first, wcs, xy, other, shape):
    """Stamp sizes that show in another image the sky that they show in the first; None without any.

    An image of larger pixels still gets as many of them as sources without a size.
    """
    table = _sizes_of(first.table)
    if table is None:
        return None
    own = np.asarray(table["stamp_size"])
    check_stamp_size(own)
    with np.errstate(invalid="ignore"):
        ratio = np.sqrt(_pixel_area(wcs, first.xy) / _pixel_area(other, xy))
    scaled = np.ceil(own * np.where(np.isfinite(ratio), ratio, 1.0) - _ROUNDING)
    scaled = np.clip(scaled, np.minimum(own, DEFAULT_STAMP_SIZE), largest_stamp(shape))
    return Table({"stamp_size": scaled.astype(int)})


def _pixel_area(wcs, xy):
    """Square arcsec of a pixel at positions (N, 2)."""
    return np.abs(np.linalg.det(sky_geometry(wcs, xy)[0]))


def _refuse_unseen(places, shapes):
    """Refuse positions of which no image shows any."""
    for xy, shape in zip(places.listed, shapes, strict=True):
        if ((xy >= -0.5) & (xy < np.array(shape[::-1]) - 0.5)).all(1).any():
            return
    raise PositionError(f"positions: none of the {len(places)} lies inside any of the {len(shapes)} images")
