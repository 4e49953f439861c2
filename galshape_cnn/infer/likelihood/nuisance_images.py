# Licensed under a 3-clause BSD style license - see LICENSE.rst
r"""Likelihood marginalised over the amplitudes of nuisance images.

With whitened residuals r and whitened nuisance images A, flat priors on their amplitudes
leave the Gaussian with the projected weights

.. math:: \chi^2 = r^T (1 - P)\, r, \qquad P = A^T (A A^T)^{-1} A ,

and derivatives D enter as :math:`D (1 - P) D^T`.  For the neighbours of a galaxy, A holds
the derivatives of their models: their parameters are marginalised to first order.
"""

from dataclasses import dataclass, fields

import jax
import jax.numpy as jnp
import numpy as np

from galshape_cnn.compilation import compiled
from galshape_cnn.forward.galaxy_model import SINGLE
from galshape_cnn.forward.render import render
from galshape_cnn.infer.likelihood.gaussian import StampLikelihood
from galshape_cnn.parallel import fixed_batches

__all__ = ["MarginalLikelihood", "projected"]

_DRAWS_AT_ONCE = 4  # blocks
_RIDGE = 1e-6  # of the nuisance images' equilibrated products


def projected(columns, nuisance, xp=jnp):
    """Whitened images (..., k, pixels) without their part along the nuisance images (..., m, pixels).

    Nuisance images of zeros count for none; ``xp`` is `jax.numpy`, or `numpy` for arrays of NumPy.
    """
    norm = xp.sqrt(xp.sum(nuisance**2, -1, keepdims=True))
    unit = nuisance / xp.maximum(norm, 1e-20)
    ridge = xp.where(norm[..., 0] > 1e-20, _RIDGE, 1.0)
    products = unit @ xp.swapaxes(unit, -1, -2) + ridge[..., None] * xp.eye(unit.shape[-2])
    along = columns @ xp.swapaxes(unit, -1, -2)
    amplitude = xp.linalg.solve(products, xp.swapaxes(along, -1, -2))
    return columns - xp.swapaxes(amplitude, -1, -2) @ unit


@compiled(static_argnames="grid")
def _draws_in_blocks(params, data, ivar, transfer, nuisance, grid):
    """Linear equations of blocks of draws, one stamp to each block."""

    def one(arrays):
        draws, pixels, weights, psf, others = arrays
        weight = jnp.sqrt(weights).reshape(-1)
        images = render(draws, psf[None], grid).reshape(len(draws), -1)
        unit = (images - draws[:, SINGLE.sky, None]) / draws[:, SINGLE.flux, None]
        residual = (pixels.reshape(-1) - images) * weight
        columns = jnp.concatenate([residual, unit * weight, weight[None]])
        columns = projected(columns, others.reshape(len(others), -1) * weight)
        n = len(draws)
        residual, unit, sky = (
            columns[:n],
            columns[n : 2 * n],
            jnp.broadcast_to(columns[2 * n :], (n, len(weight))),
        )
        both = jnp.stack([unit, sky], 1)
        fisher = jnp.einsum("bik,bjk->bij", both, both)
        return jnp.sum(residual**2, -1), jnp.einsum("bik,bk->bi", both, residual), fisher

    return jax.lax.map(one, (params, data, ivar, transfer, nuisance))


@dataclass(frozen=True, eq=False)
class MarginalLikelihood(StampLikelihood):
    """`StampLikelihood` of draws with nuisance images integrated out.

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

    def linear_equations_of_draws(self, params, rows):
        """As that of the parent, with the nuisance images integrated out."""
        results = []
        for some, inside in fixed_batches(np.arange(len(params)), _DRAWS_AT_ONCE):
            row = rows[inside]
            transfer = self.transfer[np.zeros_like(row) if len(self.transfer) == 1 else row]
            batch = (params[inside].astype(np.float32), self.data[row], self.ivar[row], transfer)
            results.append((_draws_in_blocks(*batch, self.nuisance[row], self.grid), len(some)))
        parts = [[np.asarray(a, float)[:used] for a in out] for out, used in results]
        return tuple(np.concatenate(p) for p in zip(*parts, strict=True))
