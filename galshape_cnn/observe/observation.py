# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""`prepare`: from the user's data to `Stamps`."""

from dataclasses import dataclass

import numpy as np
from astropy.table import Table

from galshape_cnn.errors import InputError, PositionError, PSFError
from galshape_cnn.flags import Flag
from galshape_cnn.forward.psf.arrays import FORMS
from galshape_cnn.forward.psf.checks import mended_psf
from galshape_cnn.forward.psf.convert import PSFArrays, is_galsim, psf_arrays
from galshape_cnn.observe.cutting import (
    FAR_AWAY,
    bucket_size,
    check_informed,
    check_stamp_size,
    cut_stamps,
    make_rows,
    rows_in_units_of,
    stamp_origin,
    working_unit,
)
from galshape_cnn.observe.detect.centroids import find_centers, mask_flags, psf_sigma
from galshape_cnn.observe.detect.star_psf import EstimatedPSF, psf_from_stars
from galshape_cnn.observe.inputs import read_frames
from galshape_cnn.observe.positions import Positions, nearer_to_another, read_positions_argument
from galshape_cnn.observe.stamps import Stamps
from galshape_cnn.quantities import truth_value, whole_number
from galshape_cnn.wcs import move_on_sky, sky_geometry

__all__ = ["Observation", "bucket_size", "prepare"]

#: Relative change of the Jacobian over an image below which one PSF is drawn for all of it.
_CONSTANT_JACOBIAN = 1e-3
#: Side in pixels above which an image without positions is not taken for the cutout of one galaxy.
LARGEST_CUTOUT = 512


@dataclass(frozen=True)
class Observation:
    """Every galaxy of one call, as stamps.

    Attributes
    ----------
    groups : tuple of (ndarray of int, Stamps)
        Input rows and their stamps; each row is in exactly one group, and the
        stamps of a group have one size.
    n : int
        Number of rows.
    table : Table or None
        Columns of the positions that are passed through.
    unit : astropy unit or None
        Unit of the pixel values.
    has_sky : bool
        Whether sky positions are known.
    is_image : bool
        Whether all stamps are from one image.
    listed : (M, 2) ndarray or None
        x, y in the image of every galaxy that the user listed; those of the rows are part of it.
    first : int
        Place of the first row in ``listed``; the others follow.
    image : Frame or None
        The image, if there is one.
    understood : str
        By which convention the positions were read; empty if that goes without saying.
    """

    groups: tuple
    n: int
    table: Table | None = None
    unit: object = None
    has_sky: bool = False
    is_image: bool = False
    listed: np.ndarray | None = None
    first: int = 0
    image: object = None
    understood: str = ""

    def __len__(self):
        return self.n


def prepare(
    data,
    *,
    psf=None,
    error=None,
    mask=None,
    wcs=None,
    positions=None,
    stamp_size=None,
    recenter=True,
    psf_oversampling=1,
    psf_includes_pixel=True,
    normalize_psf=True,
    unit=None,
    listed=None,
    strict=True,
):
    """Turn the user's data into stamps, one per galaxy, in the user's order.

    Parameters
    ----------
    data : NDData, array_like, sequence of them, Stamps, or Observation
        An image (with ``positions``); N cutouts of any sizes with a galaxy
        near each centre, as a sequence or as an ``(N, ny, nx)`` array; one
        cutout; or `Stamps` or an `Observation`, which pass through.  ``uncertainty``, ``mask``,
        ``wcs``, ``psf`` and ``unit`` of NDData are used.
    psf : optional
        Anything `galshape_cnn.forward.psf.convert.psf_arrays` takes; or ``"stars"``, to
        estimate it from the stars of the image, see
        `galshape_cnn.observe.detect.star_psf.psf_from_stars`.  Without it a column ``psf`` of ``positions``
        with an image in each row is used.
    error : float, array_like, Quantity or NDUncertainty, optional
        1 sigma per pixel; for cutouts also a sequence of N.
    mask : array_like of bool, optional
        True for bad pixels.
    wcs : celestial WCS, optional
        One, or a sequence of N.
    positions : Table, SkyCoord or (N, 2) array_like, optional
        Columns x, y (0-based pixels) or ra, dec; other columns pass through.
        With N cutouts, one position in each.
    stamp_size : int, optional
        Pixels used around each galaxy, at least 8; without it, the column
        ``stamp_size`` of ``positions``; else 64 for an image, whole cutouts otherwise.
    recenter : bool, optional
        Find the centroid near each position; otherwise positions are kept.  One that would move to another
        of the list is kept too (``RECENTER_FAILED``).
    psf_oversampling, psf_includes_pixel, normalize_psf : optional
        See `galshape_cnn.forward.psf.convert.psf_arrays`.
    unit : astropy unit, optional
        Unit of the results, to which pixels are converted; that of the first cutout without it.
    listed : ((M, 2) ndarray, int), optional
        When ``positions`` are a part of a longer list: x, y of the whole list, and the place
        of the first of them.  Galaxies outside the part are neighbours of those in it.
    strict : bool, optional
        Refuse a call in which no position lies inside the image, or no pixel has noise;
        otherwise such rows are only flagged, as they are in other company.

    Returns
    -------
    observation : Observation

    Raises
    ------
    InputError
        If data, mask, WCS or stamp size cannot be used or contradict.
    NoiseError, PSFError, PositionError
        If noise, PSF or positions are missing or cannot be used.

    Examples
    --------
    >>> import numpy as np
    >>> from galshape_cnn.observe.observation import prepare
    >>> psf = np.ones((3, 3)) / 9
    >>> observation = prepare(np.zeros((200, 200)), positions=[[100, 90], [5, 7]], error=1.0, psf=psf)
    >>> [(rows.tolist(), stamps.data.shape) for rows, stamps in observation.groups]
    [([0, 1], (2, 64, 64))]
    """
    if isinstance(data, Observation):
        return data
    if isinstance(data, Stamps):
        keywords = {"psf": psf, "error": error, "mask": mask, "wcs": wcs, "positions": positions}
        return _pass_through(data, {**keywords, "stamp_size": stamp_size})
    check_stamp_size(stamp_size)
    recenter = truth_value(recenter, "recenter")
    frames, unit = read_frames(data, error=error, mask=mask, wcs=wcs, unit=unit)
    if positions is None and stamp_size is None:
        _check_cutouts(frames)
    positions, is_image = _read_positions(frames, positions)
    stamp_size, table = _own_size(stamp_size, positions.table)
    rows = make_rows(frames, positions.xy, is_image, stamp_size, strict)
    options = {
        "oversampling": psf_oversampling,
        "includes_pixel": truth_value(psf_includes_pixel, "psf_includes_pixel"),
        "normalize": truth_value(normalize_psf, "normalize_psf"),
    }
    psf, table = _own_psf(psf, frames, getattr(data, "meta", None), table)
    psfs = _row_psfs(rows, psf, options)
    psfs, about_psf = _mended(psfs, psf, frames, options["normalize"])
    listed, first = (positions.xy if is_image else None, 0) if listed is None else _whole_list(listed)
    listed = None if listed is None else _reachable(listed)
    about_psf = np.broadcast_to(about_psf, len(rows))
    groups = _make_groups(rows, psfs, listed if recenter else None, recenter, unit, about_psf, strict)
    image = frames[0] if is_image else None
    has_sky = rows.radec is not None
    return Observation(
        groups, len(rows), table, unit, has_sky, is_image, listed, first, image, positions.understood
    )


def _whole_list(listed):
    """Places of a longer list, and the place of the first position in it, checked."""
    try:
        xy, first = listed
        xy = None if xy is None else np.asarray(xy, float).reshape(-1, 2)
    except (TypeError, ValueError) as error:
        raise InputError("listed is not understood; allowed: ((M, 2) array of x, y, a number)") from error
    return xy, whole_number(first, "listed[1]", 0)


def _reachable(xy):
    """Listed places as finite numbers; unknown ones are where no stamp reaches."""
    xy = np.asarray(xy, float)
    return np.clip(np.where(np.isfinite(xy), xy, -FAR_AWAY), -FAR_AWAY, FAR_AWAY)


def _pass_through(stamps, keywords):
    """Stamps hold everything already."""
    given = [name for name, value in keywords.items() if value is not None]
    if given:
        raise InputError(
            f"{', '.join(given)} given beside Stamps, which hold their own; leave out or rebuild them"
        )
    groups = ((np.arange(len(stamps)), stamps.as_even_squares()),)
    return Observation(groups, len(stamps), unit=stamps.unit, has_sky=stamps.skycoord is not None)


def _check_cutouts(frames):
    """Refuse whole images where cutouts are meant: one galaxy would be fitted to all of their pixels."""
    for row, frame in enumerate(frames):
        ny, nx = frame.shape
        if max(ny, nx) > LARGEST_CUTOUT:
            raise PositionError(
                f"positions is missing for an image of {ny}x{nx} pixels (number {row}); give them, or "
                f"stamp_size for its middle; allowed as a cutout: up to {LARGEST_CUTOUT} pixels a side"
            )


def _read_positions(frames, positions):
    """Positions of the rows, and whether they are in one image."""
    if positions is None:
        return Positions(None), False
    if len(frames) == 1:
        return read_positions_argument(positions, frames[0].wcs), True
    wcs = frames[0].wcs if all(one.wcs is frames[0].wcs for one in frames) else None
    found = read_positions_argument(positions, wcs)
    if len(found.xy) != len(frames):
        raise PositionError(
            f"positions has {len(found.xy)} rows for {len(frames)} cutouts; give one for each, or one image"
        )
    return found, False


def _own_size(stamp_size, table):
    """Sizes of the stamps that a column of the positions holds, and the other columns."""
    if table is None or "stamp_size" not in table.colnames:
        return stamp_size, table
    sizes = np.asarray(table["stamp_size"])
    rest = table.copy()
    rest.remove_column("stamp_size")
    if stamp_size is None:
        check_stamp_size(sizes)
    return sizes if stamp_size is None else stamp_size, rest if rest.colnames else None


def _own_psf(psf, frames, header, table):
    """PSF to be estimated from stars or held by a column of the positions, and the other columns."""
    if isinstance(psf, str):
        if psf != "stars":
            raise PSFError(f"psf={psf!r}; {FORMS}, or 'stars' is needed (read files first)")
        if len(frames) > 1:
            raise PSFError("psf='stars' needs one image with stars; these are cutouts")
        return psf_from_stars(frames[0].as_nddata(header)), table
    if table is None or "psf" not in table.colnames or np.ndim(table["psf"]) != 3:
        return psf, table
    if psf is not None:
        raise InputError("psf is given beside the column psf of positions; give one of them")
    rest = table.copy()
    rest.remove_column("psf")
    return np.ma.filled(np.ma.asarray(table["psf"], float), np.nan), rest if rest.colnames else None


def _row_psfs(rows, psf, options):
    """PSF arrays, one for all rows or one for each."""
    carried = [one.psf for one in rows.frames]
    if psf is not None and any(one is not None for one in carried):
        _check_same_psf(psf, carried)
    largest = int(rows.size.max())
    if psf is None and len({id(one) for one in carried}) == 1:
        psf = carried[0]
    elif psf is None:
        missing = [row for row, one in enumerate(carried) if one is None]
        if missing:
            raise PSFError(
                f"psf is missing in data[{missing[0]}]; give psf= for all, or set it in every NDData"
            )
        psf = carried
    inside = np.clip(rows.xy, 0, np.array([one.shape[::-1] for one in rows.frames])[rows.frame] - 1)
    jacobian = None if rows.radec is None else rows.jacobian
    if jacobian is not None and rows.is_image and is_galsim(psf):
        jacobian = _image_jacobian(rows.frames[0], jacobian)
    return psf_arrays(psf, positions=inside, jacobian=jacobian, stamp_size=largest, **options)


def _mended(psfs, psf, frames, normalize):
    """PSFs without the faults that sampled ones may have, and what flags say of them."""
    if isinstance(psf, EstimatedPSF):
        return psfs, np.array(Flag.PSF_ESTIMATED)
    given = frames[0].psf if psf is None else psf
    first = given[0] if isinstance(given, (list, tuple)) and len(given) else given
    if not isinstance(first, (np.ndarray, PSFArrays)):
        return psfs, np.array(0)
    found = mended_psf(psfs, normalize)
    return found.psf, np.where(found.cut, Flag.PSF_CUT, 0) | np.where(found.mended, Flag.PSF_MENDED, 0)


def _image_jacobian(frame, each):
    """One Jacobian for a PSF profile, if it hardly changes over the whole image.

    A part in a thousand is less than a profile that is the same everywhere can
    be good to.  The image decides and not the galaxies, so that the answer for
    one galaxy does not depend on the others.
    """
    ny, nx = frame.shape
    points = [[x, y] for y in (0, (ny - 1) / 2, ny - 1) for x in (0, (nx - 1) / 2, nx - 1)]
    around, _ = sky_geometry(frame.wcs, points)
    middle = around[4]
    change = np.abs(around - middle).max()
    return middle if change <= _CONSTANT_JACOBIAN * np.sqrt(np.abs(np.linalg.det(middle))) else each


def _check_same_psf(psf, carried):
    """Refuse a PSF that differs from the one the data carry."""
    for row, own in enumerate(carried):
        if own is None or own is psf:
            continue
        given = psf[row] if np.ndim(psf) == 3 and len(psf) == len(carried) else psf
        same = isinstance(given, np.ndarray) and isinstance(own, np.ndarray) and np.array_equal(given, own)
        if not same:
            raise InputError(f"psf contradicts the one that data[{row}] carries; give one of them")


def _make_groups(rows, psfs, listed, recenter, unit, flag, strict):
    """Stamps of every size, and the rows they belong to."""
    groups, informed = [], np.zeros(len(rows), bool)
    pixel_unit = working_unit(rows)
    rows = rows_in_units_of(rows, pixel_unit)
    for size in np.unique(rows.size):
        selected = np.flatnonzero(rows.size == size)
        whole = len(psfs.array) == 1 or len(selected) == len(rows)
        psf = psfs if whole else PSFArrays(psfs.array[selected], psfs.oversampling)
        parts, informed[selected] = _make_stamps(rows, selected, psf, listed, recenter)
        data, ivar = parts.pop("data"), parts.pop("ivar")
        if pixel_unit != 1:
            data, ivar = data.astype(float) * pixel_unit, ivar.astype(float) / pixel_unit**2
        parts["flags"] |= flag[selected]
        stamps = Stamps(data, ivar, psf.array, psf_oversampling=psf.oversampling, unit=unit, **parts)
        groups.append((selected, stamps))
    if strict:
        check_informed(rows, informed)
    return tuple(groups)


def _make_stamps(rows, selected, psf, listed, recenter):
    """Cut, recentre and cut again the rows of one stamp size: arrays of `Stamps`."""
    xy, size = rows.xy[selected], int(rows.size[selected[0]])
    origin = stamp_origin(xy, size)
    data, ivar, flags, informed = cut_stamps(rows, selected, origin)
    sigma = np.broadcast_to(psf_sigma(psf), len(xy))
    found = find_centers(data, ivar, xy - origin, sigma, move=recenter)
    lost = np.flatnonzero(nearer_to_another(found.center + origin, xy, listed))
    if lost.size:
        kept = find_centers(data[lost], ivar[lost], (xy - origin)[lost], sigma[lost], move=False)
        found.center[lost], found.flags[lost] = kept.center, kept.flags | Flag.RECENTER_FAILED
    center = found.center + origin
    moved = stamp_origin(center, size)
    again = np.flatnonzero((moved != origin).any(axis=1) & ~rows.off[selected])
    if again.size:
        data[again], ivar[again], flags[again], _ = cut_stamps(rows, selected[again], moved[again])
        origin[again] = moved[again]
    skycoord = rows.radec
    if skycoord is not None:
        skycoord = move_on_sky(rows.radec[selected], rows.jacobian[selected], center - xy)
    flags |= found.flags | mask_flags(ivar, center - origin)
    parts = {"data": data, "ivar": ivar, "jacobian": rows.jacobian[selected], "origin": origin}
    given = xy - origin
    if not rows.is_image:  # the middle of a cutout is nobody's word, unless the galaxy is far from it
        given = np.where((found.flags & Flag.FAR_CENTROID > 0)[:, None], given, np.nan)
    return parts | {"center": center - origin, "given": given, "skycoord": skycoord, "flags": flags}, informed
