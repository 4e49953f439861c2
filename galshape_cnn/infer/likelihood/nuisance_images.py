# Licensed under a 3-clause BSD style license - see LICENSE.rst
r"""Likelihood marginalised over the amplitudes of nuisance images.

With whitened residuals r and whitened nuisance images A, flat priors on their amplitudes
leave the Gaussian with the projected weights

.. math:: \chi^2 = r^T (1 - P)\, r, \qquad P = A^T (A A^T)^{-1} A ,

and derivatives D enter as :math:`D (1 - P) D^T`.  For the neighbours of a galaxy, A holds
the derivatives of their models: their parameters are marginalised to first order.  With an orthonormal basis
Q of the rows of A, P is :math:`Q^T Q`, and sums over pixels lose those of products with Q only.
"""

from dataclasses import dataclass, fields
from functools import cached_property

import numpy as np

from galshape_cnn.forward.galaxy_model import SINGLE
from galshape_cnn.forward.kernel.library import batches
from galshape_cnn.forward.render import BLOCK, render, render_with_derivatives
from galshape_cnn.forward.transfer import of_rows
from galshape_cnn.infer.likelihood.gaussian import StampLikelihood

__all__ = ["MarginalLikelihood", "projected"]

_RIDGE = 1e-6  # of the nuisance images' equilibrated products


def projected(columns, nuisance):
    """Whitened images (..., k, pixels) without their part along the nuisance images (..., m, pixels).

    Nuisance images of zeros count for none.
    """
    unit, products = _equilibrated(nuisance)
    along = columns @ np.swapaxes(unit, -1, -2)
    amplitude = np.linalg.solve(products, np.swapaxes(along, -1, -2))
    return columns - np.swapaxes(amplitude, -1, -2) @ unit


def _equilibrated(nuisance):
    """Whitened images of unit square, and their products with a ridge; images of zeros count for none."""
    norm = np.sqrt(np.sum(nuisance**2, -1, keepdims=True))
    unit = nuisance / np.maximum(norm, 1e-20)
    ridge = np.where(norm[..., 0] > 1e-20, _RIDGE, 1.0)
    return unit, unit @ np.swapaxes(unit, -1, -2) + ridge[..., None] * np.eye(unit.shape[-2])


@dataclass(frozen=True, eq=False)
class MarginalLikelihood(StampLikelihood):
    """`StampLikelihood` with nuisance images integrated out.

    Parameters
    ----------
    data, ivar, transfer, grid, scale
        As for `galshape_cnn.infer.likelihood.gaussian.StampLikelihood`.
    nuisance : (N, m, size, size) float32 ndarray
        Images of unknown amplitude.
    """

    nuisance: np.ndarray

    @classmethod
    def of(cls, likelihood, nuisance):
        """The likelihood of N stamps with nuisance images (N, m, size, size) of unknown amplitude added."""
        parts = {f.name: getattr(likelihood, f.name) for f in fields(StampLikelihood)}
        return cls(**parts, nuisance=np.asarray(nuisance, np.float32))

    def __getitem__(self, rows):
        return MarginalLikelihood.of(super().__getitem__(rows), self.nuisance[rows])

    @cached_property
    def _basis(self):
        """Orthonormal whitened nuisance images, (N, m, pixels); zeros for those that count for none."""
        n, m = self.nuisance.shape[:2]
        whitened = (self.nuisance * np.sqrt(self.ivar)[:, None]).reshape(n, m, -1).astype(float)
        unit, products = _equilibrated(whitened)
        return np.linalg.solve(np.linalg.cholesky(products), unit)

    def normal_equations(self, params, rows):
        """As that of the parent, with the nuisance images integrated out."""
        m, size = len(params), SINGLE.size
        chi2, gradient, fisher = np.empty(m), np.empty((m, size)), np.empty((m, size, size))
        for some, inside in batches(np.arange(m), BLOCK, of_kernel=1):
            rendered = render_with_derivatives(
                params[inside].astype(np.float32), of_rows(self.transfer, rows[inside]), self.grid
            )
            for k, image, derivatives in zip(some, *map(np.asarray, rendered), strict=False):
                row = rows[k]
                columns = np.concatenate([derivatives, self.data[None, row] - image])
                columns = (columns * np.sqrt(self.ivar[row])).reshape(size + 1, -1).astype(float)
                along = columns @ self._basis[row].T
                sums = columns @ columns.T - along @ along.T
                chi2[k], gradient[k], fisher[k] = sums[size, size], sums[size, :size], sums[:size, :size]
        return chi2, gradient, fisher

    def linear_equations_of_draws(self, params, rows):
        """As that of the parent, with the nuisance images integrated out."""
        m, block = params.shape[:2]
        chi2, gradient, fisher = np.empty((m, block)), np.empty((m, block, 2)), np.empty((m, block, 2, 2))
        flux, sky = params[..., SINGLE.flux], params[..., SINGLE.sky]
        for k, row in enumerate(rows):
            own = self.transfer if len(self.transfer) == 1 else self.transfer[row : row + 1]
            images = np.asarray(render(params[k].astype(np.float32), own, self.grid), float)
            unit = (images - sky[k, :, None, None]) / flux[k, :, None, None]
            columns = np.stack([self.data[row] - images, unit, np.ones_like(unit)]) * np.sqrt(self.ivar[row])
            columns = columns.reshape(3, block, -1)
            along = columns @ self._basis[row].T
            sums = np.einsum("ibp,jbp->bij", columns, columns) - np.einsum("ibm,jbm->bij", along, along)
            chi2[k], gradient[k], fisher[k] = sums[:, 0, 0], sums[:, 0, 1:], sums[:, 1:, 1:]
        return chi2, gradient, fisher
