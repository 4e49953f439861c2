# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""Position of each stamp in its parent image and on the sky.

`Placement` carries positions, shapes and covariances from the pixel frame of a
stamp to the frame in which the catalogue reports them: the parent image, and
the sky when there is a WCS.
"""

from dataclasses import dataclass, fields

import astropy.units as u
import numpy as np
from astropy.coordinates import SkyCoord

from galshape_cnn.forward.galaxy_model import SINGLE
from galshape_cnn.geometry import (
    axis_ratio,
    frame_derivative,
    position_angle,
    semi_major_radius,
    transform_shape,
)
from galshape_cnn.linalg import quadratic_form

__all__ = ["Placement", "derived_columns", "derived_errors"]

#: Standard deviation of a position angle of which nothing is known, 180 / sqrt(12) degrees.
_UNKNOWN_ANGLE = 180 / np.sqrt(12)


@dataclass(frozen=True, eq=False)
class Placement:
    """Placement of N stamps.

    Attributes
    ----------
    origin : (N, 2) ndarray
        x, y of stamp pixel [0, 0] in the parent image.
    center : (N, 2) ndarray
        x, y in the stamp of the point whose sky position is known.
    skycoord : (N, 2) ndarray
        ICRS right ascension and declination of ``center`` in degrees; NaN without WCS.
    jacobian : (N, 2, 2) ndarray
        d(u, v)/d(x, y) at ``center``, arcsec per pixel, u west and v north.
    has_sky : bool
        Whether results are reported in the sky frame.
    """

    origin: np.ndarray
    center: np.ndarray
    skycoord: np.ndarray
    jacobian: np.ndarray
    has_sky: bool

    @classmethod
    def from_groups(cls, n, groups, has_sky):
        """Placement of n rows from groups of (row numbers, stamps); NaN where no group covers a row."""
        out = cls(
            np.full((n, 2), np.nan),
            np.full((n, 2), np.nan),
            np.full((n, 2), np.nan),
            np.tile(np.eye(2), (n, 1, 1)),
            bool(has_sky),
        )
        for index, stamps in groups:
            out.origin[index] = 0 if stamps.origin is None else stamps.origin
            out.center[index] = _center(stamps)
            if has_sky:
                out.skycoord[index] = np.nan if stamps.skycoord is None else stamps.skycoord
                out.jacobian[index] = np.eye(2) if stamps.jacobian is None else stamps.jacobian
        return out

    def __getitem__(self, rows):
        """Rows of the placement, chosen by a slice or an array."""
        parts = {f.name: getattr(self, f.name) for f in fields(self)}
        return Placement(**{k: v if k == "has_sky" else v[rows] for k, v in parts.items()})

    def image_position(self, x, y):
        """Position in the parent image, 0-based pixels, of positions (N,) in the stamps."""
        return self.origin[:, 0] + x, self.origin[:, 1] + y

    def sky_position(self, x, y):
        """Sky position, ICRS, of positions (N,) in the stamps, in pixels; None without a WCS.

        The offset from ``center`` is carried by the Jacobian to the tangent plane, so that no WCS is needed.
        """
        if not self.has_sky:
            return None
        offset = np.stack([x, y], -1) - self.center
        west, north = np.einsum("nij,nj->in", self.jacobian, offset)
        known = np.isfinite(self.skycoord).all(1) & np.isfinite(west + north)
        ra, dec = np.full((2, len(offset)), np.nan)
        if known.any():
            start = SkyCoord(self.skycoord[known], unit="deg", frame="icrs")
            moved = start.spherical_offsets_by(-west[known] * u.arcsec, north[known] * u.arcsec)
            ra[known], dec[known] = moved.ra.deg, moved.dec.deg
        return SkyCoord(ra, dec, unit="deg", frame="icrs")

    def shapes(self, parameters):
        """Carry flux, n, hlr, g1, g2, (N, 5) or S of each galaxy (N, S, 5), to the reported frame."""
        out = np.array(parameters, dtype=float)
        if self.has_sky:
            jacobian = self.jacobian if out.ndim == 2 else self.jacobian[:, None]
            with np.errstate(invalid="ignore"):  # rows that were not measured are NaN
                moved = transform_shape(out[..., SINGLE.hlr], *_shear(out), jacobian)
            out[..., SINGLE.hlr], out[..., SINGLE.shear] = moved[0], np.stack(moved[1:], -1)
        return out

    def covariances(self, parameters, covariance):
        """Carry covariances (N, 5, 5) of flux, n, hlr, g1, g2 to the reported frame: D C D^T.

        D is `galshape_cnn.geometry.frame_derivative`, at parameters in the pixel frame.
        """
        if not self.has_sky:
            return np.array(covariance, dtype=float)
        with np.errstate(invalid="ignore"):
            derivative = frame_derivative(*_shear(parameters), self.jacobian)
            return derivative @ covariance @ np.swapaxes(derivative, 1, 2)


def _shear(parameters):
    """g1, g2 of parameters (..., P)."""
    return np.moveaxis(parameters[..., SINGLE.shear], -1, 0)


def _center(stamps):
    """Believed position of each galaxy in its stamp, the middle by default."""
    if stamps.center is not None:
        return stamps.center
    ny, nx = stamps.data.shape[1:]
    return np.array([(nx - 1) / 2, (ny - 1) / 2])


def derived_columns(parameters, covariance):
    """Axis ratio, position angle, semi-major radius and their errors, of flux, n, hlr, g1, g2 (N, 5)."""
    hlr, g1, g2 = parameters[:, 2:].T
    out = {"q": axis_ratio(g1, g2), "pa": position_angle(g1, g2), "r_eff": semi_major_radius(hlr, g1, g2)}
    return out | derived_errors(parameters, covariance)


def derived_errors(parameters, covariance):
    """``q_err``, ``pa_err`` (degrees) and ``r_eff_err``, by name, to first order.

    Of flux, n, hlr, g1, g2 (N, 5) in the reported frame and their covariance. With g the absolute value of
    the shear and dg_t its change across itself, dq = -2 dg / (1 + g)^2, d(pa) = dg_t / (2 g) and d(ln r_eff)
    = d(ln hlr) + dg / (1 - g^2).
    """
    hlr, g1, g2 = parameters[:, 2:].T
    size = np.hypot(g1, g2)
    with np.errstate(invalid="ignore", divide="ignore"):
        along = np.where(size[:, None] > 0, parameters[:, 3:] / size[:, None], [1.0, 0.0])
        across = np.stack([-along[:, 1], along[:, 0]], -1)
        of_q = _sigma(-2 / (1 + size)[:, None] ** 2 * along, covariance[:, 3:, 3:])
        of_angle = _sigma(across, covariance[:, 3:, 3:]) / (2 * size)
        gradient = np.concatenate([1 / hlr[:, None], along / (1 - size**2)[:, None]], axis=1)
        ratio = hlr * np.sqrt((1 + size) / (1 - size))  # r_eff
        of_radius = ratio * _sigma(gradient, covariance[:, 2:, 2:])
    angle = np.fmin(np.degrees(of_angle), np.where(np.isnan(of_q), np.nan, _UNKNOWN_ANGLE))
    return {"q_err": of_q, "pa_err": angle, "r_eff_err": of_radius}


def _sigma(gradient, covariance):
    """Standard deviation of a linear combination; NaN where the covariance is none."""
    variance = quadratic_form(covariance, gradient)
    return np.sqrt(np.where(variance >= 0, variance, np.nan))
