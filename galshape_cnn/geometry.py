# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""Shear, axis ratio, position angle and their change under a local Jacobian.

Conventions (those of GalSim): the galaxy is a circular profile of half-light
radius ``hlr`` sheared by the area-preserving matrix

.. math:: S = (1-|g|^2)^{-1/2} \\begin{pmatrix}1+g_1 & g_2\\\\ g_2 & 1-g_1\\end{pmatrix},

``g1 > 0`` stretches along +x and ``g2 > 0`` at 45 degrees from +x to +y.  The
Jacobian is :math:`J = \\partial(u, v)/\\partial(x, y)` with u towards west and v
towards north, so that on an image with north up and east left both frames
agree.

With complex notation z = x + iy a linear map is z -> alpha z + beta conj(z); a
shear is a map with beta/alpha = g.  Composition then acts on g as a Möbius
transformation, which is exact for any Jacobian and holomorphic in g (Bernstein
& Jarvis 2002, AJ 123, 583, Section 2).
"""

import numpy as np

__all__ = [
    "axis_ratio",
    "conformal_shear",
    "frame_derivative",
    "position_angle",
    "reduced_shear",
    "semi_major_radius",
    "shear_matrix",
    "transform_shape",
]


def axis_ratio(g1, g2):
    """Axis ratio q = (1 - |g|) / (1 + |g|) of a sheared circle.

    Parameters
    ----------
    g1, g2 : array_like
        Reduced shear.

    Returns
    -------
    q : ndarray or float
        Minor over major axis, in (0, 1].
    """
    g = np.hypot(g1, g2)
    return (1 - g) / (1 + g)


def semi_major_radius(hlr, g1, g2):
    """Semi-major half-light radius r_eff = hlr / sqrt(q).

    Parameters
    ----------
    hlr : array_like
        Circularised half-light radius, any unit.
    g1, g2 : array_like
        Reduced shear.

    Returns
    -------
    r_eff : ndarray or float
        In the unit of ``hlr``.
    """
    return hlr / np.sqrt(axis_ratio(g1, g2))


def position_angle(g1, g2):
    """Position angle of the major axis, East of North.

    pa = atan2(g2, g1)/2 - 90 degrees, modulo 180 degrees.

    Parameters
    ----------
    g1, g2 : array_like
        Reduced shear in the sky frame (u west, v north).

    Returns
    -------
    pa : ndarray or float
        Degrees in [0, 180).
    """
    return np.mod(0.5 * np.degrees(np.arctan2(g2, g1)) - 90.0, 180.0)


def shear_matrix(g1, g2):
    """Area-preserving shear matrices.

    Parameters
    ----------
    g1, g2 : array_like, shape (...)
        Reduced shear, ``|g| < 1``.

    Returns
    -------
    S : (..., 2, 2) ndarray
        Symmetric, with unit determinant.
    """
    g1, g2 = np.broadcast_arrays(np.asarray(g1, float), np.asarray(g2, float))
    matrix = np.stack([np.stack([1 + g1, g2], -1), np.stack([g2, 1 - g1], -1)], -2)
    return matrix / np.sqrt(1 - g1**2 - g2**2)[..., None, None]


#: Largest |g| that `reduced_shear` returns: a shear of one, which rounding would give, has no area.
_LARGEST_SHEAR = 1 - 1e-6


def conformal_shear(g1, g2):
    """Unbounded coordinate eta = g artanh(|g|) / |g| of a reduced shear.

    Half the conformal shear of Bernstein & Jarvis (2002, AJ 123, 583).

    Parameters
    ----------
    g1, g2 : array_like
        Reduced shear, ``|g| < 1``.

    Returns
    -------
    eta1, eta2 : ndarray or float
        Components of eta.
    """
    g = np.hypot(g1, g2)
    bounded = np.minimum(g, 1 - 1e-12)
    ratio = np.where(g > 1e-8, np.arctanh(bounded) / np.where(g > 1e-8, g, 1.0), 1.0)
    return g1 * ratio, g2 * ratio


def reduced_shear(eta1, eta2):
    """Reduced shear of an unbounded eta; the inverse of `conformal_shear`.

    Parameters
    ----------
    eta1, eta2 : array_like
        Components of eta.

    Returns
    -------
    g1, g2 : ndarray or float
        Reduced shear, with ``|g| < 1`` whatever eta.
    """
    eta = np.hypot(eta1, eta2)
    g = np.minimum(np.tanh(eta), _LARGEST_SHEAR)
    ratio = np.where(eta > 1e-8, g / np.where(eta > 1e-8, eta, 1.0), 1.0)
    return eta1 * ratio, eta2 * ratio


def _complex_map(jacobian):
    """Coefficients (alpha, beta) of z -> alpha z + beta conj(z)."""
    a, b = jacobian[..., 0, 0], jacobian[..., 0, 1]
    c, d = jacobian[..., 1, 0], jacobian[..., 1, 1]
    return 0.5 * (a + d + 1j * (c - b)), 0.5 * (a - d + 1j * (c + b))


def _oriented(jacobian, g):
    """Write a parity flip as a conjugation of g followed by a proper map."""
    alpha, beta = _complex_map(jacobian)
    flip = np.linalg.det(jacobian) < 0
    return (
        np.where(flip, beta, alpha),
        np.where(flip, alpha, beta),
        np.where(flip, np.conj(g), g),
        flip,
    )


def transform_shape(hlr, g1, g2, jacobian):
    """Carry size and shear from the pixel frame to the frame of a Jacobian.

    Parameters
    ----------
    hlr : array_like, shape (N,)
        Circularised half-light radius in pixels.
    g1, g2 : array_like, shape (N,)
        Reduced shear in the pixel frame.
    jacobian : array_like, shape (N, 2, 2) or (2, 2)
        d(u, v)/d(x, y).

    Returns
    -------
    hlr, g1, g2 : ndarray
        In the unit and the frame of (u, v).  Use the inverse Jacobian to go
        back.
    """
    jacobian = np.asarray(jacobian, float)
    g = np.asarray(g1) + 1j * np.asarray(g2)
    alpha, beta, g, _ = _oriented(jacobian, g)
    out = (alpha * g + beta) / (np.conj(alpha) + np.conj(beta) * g)
    scale = np.sqrt(np.abs(np.linalg.det(jacobian)))
    return np.asarray(hlr) * scale, out.real, out.imag


def frame_derivative(g1, g2, jacobian):
    """Derivative of the five parameters under `transform_shape`.

    Parameters
    ----------
    g1, g2 : array_like, shape (N,)
        Reduced shear in the pixel frame.
    jacobian : array_like, shape (N, 2, 2) or (2, 2)
        d(u, v)/d(x, y).

    Returns
    -------
    derivative : (N, 5, 5) ndarray
        d(flux, n, hlr, g1, g2)_sky / d(flux, n, hlr, g1, g2)_pixel, so that a
        covariance transforms as D C D^T.
    """
    jacobian = np.asarray(jacobian, float)
    alpha, beta, g, flip = _oriented(jacobian, np.asarray(g1) + 1j * np.asarray(g2))
    slope = (np.abs(alpha) ** 2 - np.abs(beta) ** 2) / (np.conj(alpha) + np.conj(beta) * g) ** 2
    sign = np.where(flip, -1.0, 1.0)
    out = np.zeros(np.shape(g) + (5, 5))
    out[..., 0, 0] = out[..., 1, 1] = 1.0
    out[..., 2, 2] = np.sqrt(np.abs(np.linalg.det(jacobian)))
    out[..., 3, 3], out[..., 3, 4] = slope.real, -slope.imag * sign
    out[..., 4, 3], out[..., 4, 4] = slope.imag, slope.real * sign
    return out
