# Licensed under a 3-clause BSD style license - see LICENSE.rst
r"""Shear measurements and responses, from the pixel frame to the sky frame.

A shear :math:`\Gamma` of the sky is :math:`J^{-1}\Gamma J` in pixels, a shear and, where the Jacobian
itself shears, a rotation, under which g turns by twice the angle.  A network that expects round galaxies in
pixels is additively biased where pixels are not square on the sky.  Most of that is gone where copies are
measured, on the grids of `galshape_cnn.infer.shear.grids`.  What is left of the shear of the Jacobian, and
the PSF, are followed, to first order, to a similarity and a symmetric PSF, where no direction is preferred,
and what g changes on this way is subtracted.
"""

from typing import NamedTuple

import numpy as np

from galshape_cnn.forward.galaxy_model import SINGLE
from galshape_cnn.geometry import frame_derivative, transform_shape
from galshape_cnn.infer.shear.grids import shear_part, similarity

__all__ = ["ShearedColumns", "reported_columns"]

_STEP = 1e-4
_SKY_SHEARS = np.array([[[1.0, 0.0], [0.0, -1.0]], [[0.0, 1.0], [1.0, 0.0]]])


class ShearedColumns(NamedTuple):
    """Measured copies of N galaxies in the frame of the catalogue.

    Attributes
    ----------
    values : (N, 2, 6) ndarray
        Of the two copies: flux, n, hlr, g1, g2, S/N; the influence of an asymmetric PSF on g1, g2 is
        subtracted.
    slopes : (N, 2, 6, 2) ndarray
        Their derivatives by gamma1, gamma2.
    """

    values: np.ndarray
    slopes: np.ndarray

    @classmethod
    def from_rows(cls, rows):
        """From the column ``shear_copies``, (N, 36)."""
        parts = np.asarray(rows, float).reshape(-1, 2, 6, 3)
        return cls(parts[..., 0], parts[..., 1:])

    @classmethod
    def from_slots(cls, sheared):
        """From values and derivatives of `galshape_cnn.infer.shear.response.shear_response`, as they are."""
        return cls(sheared[:, :, 0].copy(), np.moveaxis(sheared[:, :, 1:3], 2, -1).copy())

    @property
    def slots(self):
        """(N, 2, 4, 6) ndarray that `from_slots` takes; without influence of the PSF, which is subtracted."""
        return np.stack([self.values, *np.moveaxis(self.slopes, -1, 0), 0 * self.values], 2)

    @property
    def rows(self):
        """(N, 36) ndarray: the column ``shear_copies``: by copy, quantity, and value or derivative."""
        return np.concatenate([self.values[..., None], self.slopes], -1).reshape(-1, 36)

    @property
    def shear(self):
        """(N, 2) ndarray: g1, g2, the mean of the copies."""
        return self.values[:, :, SINGLE.shear].mean(1)

    @property
    def response(self):
        """(N, 2, 2) ndarray: d(g1, g2) / d(gamma1, gamma2), the mean of the copies."""
        return self.slopes[:, :, SINGLE.shear].mean(1)


def reported_columns(sheared, jacobian):
    """Carry measured copies to the frame of Jacobians.

    Parameters
    ----------
    sheared : (N, 2, 4, 6) ndarray
        From `galshape_cnn.infer.shear.response.shear_response`.
    jacobian : (N, 2, 2) ndarray or None
        d(u, v)/d(x, y) of the grids that they were measured on, see
        `galshape_cnn.infer.shear.grids.grid_jacobian`; None where the catalogue is in the pixel frame.

    Returns
    -------
    columns : ShearedColumns
    """
    (values, slopes), leak = ShearedColumns.from_slots(sheared), sheared[:, :, 3, SINGLE.shear]
    if jacobian is None:
        values[..., SINGLE.shear] -= leak
        return ShearedColumns(values, slopes)
    jacobian = np.broadcast_to(jacobian[:, None], values.shape[:2] + (2, 2))
    in_pixels = np.linalg.inv(jacobian)[..., None, :, :] @ _SKY_SHEARS @ jacobian[..., None, :, :]
    shears, turn = shear_part(in_pixels), (in_pixels[..., 1, 0] - in_pixels[..., 0, 1]) / 2
    slopes = slopes @ np.swapaxes(shears, -1, -2)
    g = values[..., SINGLE.shear]
    across = np.stack([-g[..., 1], g[..., 0]], -1)
    slopes[..., SINGLE.shear, :] += 2 * across[..., None] * turn[..., None, :]
    moved = np.stack(transform_shape(values[..., SINGLE.hlr], g[..., 0], g[..., 1], jacobian), -1)
    derivative = frame_derivative(g[..., 0], g[..., 1], jacobian)
    additive = _additive_change(values, sheared, leak, jacobian, derivative)
    values[..., SINGLE.hlr : SINGLE.shear.stop] = moved
    slopes[..., SINGLE.reported, :] = derivative @ slopes[..., SINGLE.reported, :]
    values[..., SINGLE.shear] -= additive
    return ShearedColumns(values, slopes)


def _additive_change(values, sheared, leak, jacobian, derivative):
    """What g1, g2 gain, to first order, from the shear of the Jacobian and from the PSF."""
    g, similar = values[..., SINGLE.shear], similarity(jacobian)
    moved = [
        np.stack(transform_shape(1.0, g[..., 0], g[..., 1], similar + t * (jacobian - similar))[1:], -1)
        for t in (1 + _STEP, 1 - _STEP)
    ]
    of_frame = (moved[0] - moved[1]) / (2 * _STEP)
    shear = shear_part(np.linalg.inv(similar) @ jacobian)
    shear = shear / (1 - (shear**2).sum(-1, keepdims=True))
    of_pixels = leak - np.einsum("nca,ncai->nci", shear, sheared[:, :, 1:3, SINGLE.shear])
    return of_frame + np.einsum("ncij,ncj->nci", derivative[..., SINGLE.shear, SINGLE.shear], of_pixels)
