# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""Shear, axis ratio and position angle, and their transformation by a local Jacobian.

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
    "shear_derivative",
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

    Examples
    --------
    >>> from galshape_cnn.geometry import axis_ratio
    >>> round(float(axis_ratio(0.2, 0.0)), 3)
    0.667
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

    Examples
    --------
    >>> from galshape_cnn.geometry import semi_major_radius
    >>> round(float(semi_major_radius(3.0, 0.6, 0.0)), 6)
    6.0
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

    Examples
    --------
    A galaxy along North has g1 < 0; one from North-East to South-West has g2 < 0:

    >>> from galshape_cnn.geometry import position_angle
    >>> float(position_angle(-0.3, 0.0)), float(position_angle(0.0, -0.3))
    (0.0, 45.0)
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

    Examples
    --------
    >>> from galshape_cnn.geometry import shear_matrix
    >>> shear_matrix(0.6, 0.0)
    array([[2. , 0. ],
           [0. , 0.5]])
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

    Examples
    --------
    Its length is half the logarithm of the ratio of the axes:

    >>> import numpy as np
    >>> from galshape_cnn.geometry import axis_ratio, conformal_shear
    >>> eta1, eta2 = conformal_shear(0.0, 0.6)
    >>> bool(np.isclose(eta2, -0.5 * np.log(axis_ratio(0.0, 0.6))))
    True
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

    Examples
    --------
    >>> import numpy as np
    >>> from galshape_cnn.geometry import conformal_shear, reduced_shear
    >>> g1, g2 = reduced_shear(*conformal_shear(0.3, -0.4))
    >>> round(float(g1), 6), round(float(g2), 6)
    (0.3, -0.4)
    >>> bool(np.hypot(*reduced_shear(30.0, 40.0)) < 1)
    True
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

    Examples
    --------
    An image with east to the right and 0.2 arcsec per pixel:

    >>> from galshape_cnn.geometry import transform_shape
    >>> hlr, g1, g2 = transform_shape(5.0, 0.1, 0.2, [[-0.2, 0.0], [0.0, 0.2]])
    >>> round(float(hlr), 3), round(float(g1), 3), round(float(g2), 3)
    (1.0, 0.1, -0.2)
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

    Examples
    --------
    A quarter turn of the pixel grid changes the sign of the shear:

    >>> from galshape_cnn.geometry import frame_derivative
    >>> frame_derivative(0.1, 0.2, [[0, -1], [1, 0]]).diagonal()
    array([ 1.,  1.,  1., -1., -1.])
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


def shear_derivative(eta):
    """Derivative of the reduced shear by the conformal shear.

    Parameters
    ----------
    eta : (..., 2) ndarray
        Conformal shear, eta1, eta2.

    Returns
    -------
    derivative : (..., 2, 2) ndarray
        d(g1, g2) / d(eta1, eta2).

    Examples
    --------
    Along the shear it falls with its size, as ``|g| = tanh |eta|``; across it hardly does:

    >>> import numpy as np
    >>> from galshape_cnn.geometry import shear_derivative
    >>> shear_derivative(np.array([0.5, 0.0])).round(3)
    array([[0.786, 0.   ],
           [0.   , 0.924]])
    """
    size = np.hypot(eta[..., 0], eta[..., 1])
    safe = np.where(size > 1e-8, size, 1.0)
    direction = np.where((size > 1e-8)[..., None], eta / safe[..., None], [1.0, 0.0])
    across = np.where(size > 1e-8, np.tanh(size) / safe, 1.0)
    along = 1 / np.cosh(size) ** 2
    outer = direction[..., :, None] * direction[..., None, :]
    across, along = across[..., None, None], along[..., None, None]
    return across * np.eye(2) + (along - across) * outer
