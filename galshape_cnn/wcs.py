# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""Local geometry of a celestial WCS at the positions of galaxies.

Behind this module nobody sees a WCS: a stamp carries its local Jacobian
d(u, v)/d(x, y) in arcsec/pixel, u towards west and v towards north, and the
ICRS position of its centre.
"""

import warnings

import numpy as np

from galshape_cnn.errors import InputError, PositionError

__all__ = ["celestial_part", "move_on_sky", "offset_on_sky", "pixel_positions", "sky_geometry"]

_ARCSEC = np.degrees(1.0) * 3600.0


def celestial_part(wcs, name="wcs"):
    """The two-dimensional celestial part of a WCS, or None for None.

    ``InputError``, naming the argument, if it is no WCS or has no celestial axes.
    """
    if wcs is None:
        return None
    low = getattr(wcs, "low_level_wcs", None)
    if low is None:
        raise InputError(f"{name} is a {type(wcs).__name__}; an astropy WCS (or any APE 14 WCS) is needed")
    if hasattr(wcs, "has_celestial"):
        if not wcs.has_celestial:
            raise InputError(f"{name} has no celestial axes, but {list(wcs.wcs.ctype)}; leave it out")
        wcs = wcs if wcs.naxis == 2 else wcs.celestial
        _check_frame(wcs, name)
        return wcs
    types = [str(one) for one in low.world_axis_physical_types]
    if low.pixel_n_dim != 2 or len(types) != 2 or not all(one.startswith("pos.") for one in types):
        raise InputError(f"{name} has axes {types}; a two-dimensional celestial WCS is needed")
    return wcs


def _check_frame(wcs, name):
    """Refuse coordinates that are not those of the sky, as of the Sun."""
    from astropy.wcs.utils import wcs_to_celestial_frame

    try:
        wcs_to_celestial_frame(wcs)
    except ValueError as error:
        raise InputError(
            f"{name} has axes {list(wcs.wcs.ctype)} and RADESYS {wcs.wcs.radesys!r}: no frame that is known"
        ) from error


def _radec(wcs, x, y):
    """ICRS right ascension and declination in degrees, NaN where undefined."""
    if hasattr(wcs, "wcs") and _is_icrs(wcs):
        world = wcs.all_pix2world(np.column_stack([x, y]), 0)
        return world[:, wcs.wcs.lng], world[:, wcs.wcs.lat]
    coords = wcs.pixel_to_world(x, y).icrs
    return np.atleast_1d(coords.ra.deg), np.atleast_1d(coords.dec.deg)


def _is_icrs(wcs):
    """Whether a FITS WCS is in ICRS, so that its numbers need no transformation."""
    from astropy.wcs.utils import wcs_to_celestial_frame

    return wcs_to_celestial_frame(wcs).name == "icrs"


def _basis(ra, dec):
    """Unit vectors towards a direction, and towards west and north of it."""
    ra, dec = np.radians(ra), np.radians(dec)
    zero = np.zeros_like(ra)
    toward = np.stack([np.cos(dec) * np.cos(ra), np.cos(dec) * np.sin(ra), np.sin(dec)], -1)
    west = np.stack([np.sin(ra), -np.cos(ra), zero], -1)
    north = np.stack([-np.sin(dec) * np.cos(ra), -np.sin(dec) * np.sin(ra), np.cos(dec)], -1)
    return toward, west, north


def sky_geometry(wcs, xy):
    """Local Jacobian (N, 2, 2) and ICRS ra, dec (N, 2) in degrees at 0-based pixel positions x, y.

    Of a WCS of `celestial_part`: d(u, v)/d(x, y) in arcsec/pixel, u west, v north; NaN where it is not
    defined. Offsets in the plane tangent at each position (gnomonic, so that nothing special happens at the
    poles) are differenced over one pixel.
    """
    xy = np.asarray(xy, float).reshape(-1, 2)
    n = len(xy)
    moves = np.array([[0, 0], [0.5, 0], [-0.5, 0], [0, 0.5], [0, -0.5]])
    points = (xy + moves[:, None, :]).reshape(-1, 2)
    ra, dec = (np.reshape(one, (5, n)) for one in _radec(wcs, points[:, 0], points[:, 1]))
    toward, west, north = _basis(ra[0], dec[0])
    around = _basis(ra[1:], dec[1:])[0]
    depth = np.sum(around * toward, -1)
    u = np.sum(around * west, -1) / depth * _ARCSEC
    v = np.sum(around * north, -1) / depth * _ARCSEC
    offsets = np.stack([u, v], -1)
    return np.stack([offsets[0] - offsets[1], offsets[2] - offsets[3]], -1), np.stack([ra[0], dec[0]], -1)


def move_on_sky(radec, jacobian, shift):
    """Sky position (N, 2), ICRS degrees, a shift of some pixels x, y away from known ones.

    The shift is short enough for the Jacobian d(u, v)/d(x, y) there to be constant.
    """
    u, v = np.einsum("nij,nj->in", jacobian, shift) / _ARCSEC
    toward, west, north = _basis(radec[:, 0], radec[:, 1])
    moved = toward + u[:, None] * west + v[:, None] * north
    x, y, z = moved.T
    return np.column_stack([np.degrees(np.arctan2(y, x)) % 360.0, np.degrees(np.arctan2(z, np.hypot(x, y)))])


def offset_on_sky(start, end):
    """Offsets u (west), v (north) in arcsec between pairs of ICRS positions (N, 2) in degrees.

    In the plane tangent at the first.
    """
    toward, west, north = _basis(*np.transpose(start))
    there = _basis(*np.transpose(end))[0]
    depth = np.sum(there * toward, -1)
    return np.stack([np.sum(there * axis, -1) / depth for axis in (west, north)], -1) * _ARCSEC


def pixel_positions(wcs, coords):
    """0-based pixel positions (N, 2) of sky coordinates in a WCS of `celestial_part`.

    NaN where the WCS does not reach: distortions are polynomials that go astray far outside the image, so
    positions that do not come back to their coordinates are refused.  ``PositionError``, which names the
    argument, if they cannot be brought to the frame of the WCS.
    """
    from astropy.coordinates import ConvertError
    from astropy.wcs import NoConvergence

    try:
        with warnings.catch_warnings():
            # astropy may warn or raise; positions that did not converge are found below
            warnings.filterwarnings("ignore", message="(?s).*failed to converge.*")
            x, y = wcs.world_to_pixel(coords)
    except NoConvergence as error:
        x, y = error.best_solution.T
    except ConvertError as error:
        raise PositionError(f"positions in frame {coords.frame.name} cannot be converted: {error}") from error
    xy = np.column_stack([np.atleast_1d(x), np.atleast_1d(y)]).astype(float)
    good = np.isfinite(xy).all(axis=1)
    if good.any():
        jacobian, radec = sky_geometry(wcs, xy[good])
        sky = np.atleast_1d(coords)[good].icrs
        toward = _basis(radec[:, 0], radec[:, 1])[0]
        miss = np.linalg.norm(toward - _basis(sky.ra.deg, sky.dec.deg)[0], axis=-1) * _ARCSEC
        scale = np.sqrt(np.abs(np.linalg.det(jacobian)))
        xy[np.flatnonzero(good)[~(miss < 0.1 * scale)]] = np.nan
    return xy
