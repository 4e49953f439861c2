# Licensed under a 3-clause BSD style license - see LICENSE.rst
r"""Coordinates in which the likelihood of a galaxy is close to Gaussian.

The parameters ``flux, n, hlr, g1, g2, x, y, sky`` become

.. math:: \mathrm{flux},\; \ln n,\; \ln\mathrm{hlr},\;
          \boldsymbol\eta = \frac{\mathbf g}{|g|}\,\mathrm{artanh}|g|,\; x,\; y,\; \mathrm{sky}

so that no step can make hlr negative or \|g\| exceed one.  The conformal shear
:math:`2\boldsymbol\eta` is that of Bernstein & Jarvis (2002, AJ 123, 583).  The
Sérsic index keeps its honest bounds (`N_RANGE`): hiding them behind a logistic
function sends the optimizer to infinity whenever the likelihood prefers a bound,
and at low S/N it often does.
"""

import numpy as np

from galshape_cnn.forward.sersic import N_RANGE
from galshape_cnn.geometry import conformal_shear, reduced_shear

__all__ = [
    "ETA_MAX",
    "HLR_MIN",
    "clip_coordinates",
    "from_coordinates",
    "parameter_derivative",
    "to_coordinates",
]

#: Smallest half-light radius in pixels: far below what any PSF lets through.
HLR_MIN = 0.05
#: Largest conformal shear: |g| = 0.9, an axis ratio of 1:19, thinner than any disc seen edge-on.
ETA_MAX = float(np.arctanh(0.9))


def to_coordinates(params):
    """Coordinates of parameters.

    Parameters
    ----------
    params : (..., 8) array_like
        flux, n, hlr, g1, g2, x, y, sky.

    Returns
    -------
    theta : (..., 8) float64 ndarray
        flux, ln n, ln hlr, eta1, eta2, x, y, sky.

    Examples
    --------
    >>> from galshape_cnn.infer.likelihood.coordinates import from_coordinates, to_coordinates
    >>> theta = to_coordinates([10.0, 1.0, 2.0, 0.3, -0.2, 8.0, 8.0, 0.0])
    >>> from_coordinates(theta).round(6)
    array([10. ,  1. ,  2. ,  0.3, -0.2,  8. ,  8. ,  0. ])
    """
    theta = np.array(params, float)
    theta[..., 1:3] = np.log(theta[..., 1:3])
    theta[..., 3], theta[..., 4] = conformal_shear(theta[..., 3], theta[..., 4])
    return theta


def from_coordinates(theta):
    """Parameters of coordinates; the inverse of `to_coordinates`.

    Parameters
    ----------
    theta : (..., 8) array_like
        flux, ln n, ln hlr, eta1, eta2, x, y, sky.

    Returns
    -------
    params : (..., 8) float64 ndarray
        flux, n, hlr, g1, g2, x, y, sky.
    """
    params = np.array(theta, float)
    params[..., 1:3] = np.exp(params[..., 1:3])
    params[..., 1] = np.clip(params[..., 1], *N_RANGE)
    params[..., 3], params[..., 4] = reduced_shear(params[..., 3], params[..., 4])
    return params


def parameter_derivative(theta):
    """Derivative d(parameters) / d(coordinates).

    Parameters
    ----------
    theta : (N, 8) ndarray
        Coordinates.

    Returns
    -------
    derivative : (N, 8, 8) ndarray
        The identity but for n, hlr (diagonal) and the shear (a 2x2 block).
    """
    derivative = np.broadcast_to(np.eye(8), (*theta.shape[:-1], 8, 8)).copy()
    derivative[..., [1, 2], [1, 2]] = np.exp(theta[..., 1:3])
    eta = np.hypot(theta[..., 3], theta[..., 4])
    safe = np.where(eta > 1e-8, eta, 1.0)
    direction = np.where((eta > 1e-8)[..., None], theta[..., 3:5] / safe[..., None], [1.0, 0.0])
    across = np.where(eta > 1e-8, np.tanh(eta) / safe, 1.0)
    along = 1 / np.cosh(eta) ** 2
    outer = direction[..., :, None] * direction[..., None, :]
    across, along = across[..., None, None], along[..., None, None]
    derivative[..., 3:5, 3:5] = across * np.eye(2) + (along - across) * outer
    return derivative


def clip_coordinates(theta, size):
    """Bring coordinates inside their bounds.

    Parameters
    ----------
    theta : (N, 8) ndarray
        Coordinates.
    size : int
        Side of the stamp in pixels: the largest half-light radius, and the
        limit of the centroid.

    Returns
    -------
    theta : (N, 8) ndarray
        A clipped copy.
    """
    out = theta.copy()
    out[:, 1] = np.clip(out[:, 1], *np.log(N_RANGE))
    out[:, 2] = np.clip(out[:, 2], np.log(HLR_MIN), np.log(size))
    eta = np.hypot(out[:, 3], out[:, 4])
    out[:, 3:5] *= np.minimum(1, ETA_MAX / np.maximum(eta, 1e-12))[:, None]
    out[:, 5:7] = np.clip(out[:, 5:7], -0.5, size - 0.5)
    return out
