# Licensed under a 3-clause BSD style license - see LICENSE.rst
r"""Gaussian likelihood of stamps: chi-square, score and Fisher matrix, in blocks that stay in cache.

For residuals r = (data - model) and weights W = ivar, one evaluation gives

.. math:: \chi^2 = r^T W r, \qquad \mathbf g = D^T W r, \qquad F = D^T W D

with D the derivatives of the model: all that Fisher scoring needs, and a few
hundred bytes instead of the eight derivative images.

The compiled functions see one or two batch shapes only, so a batch of any other
size never compiles anything new.
"""

from dataclasses import dataclass, replace

import jax
import jax.numpy as jnp
import numpy as np

from galshape_cnn.compilation import compiled
from galshape_cnn.forward.galaxy_model import SINGLE
from galshape_cnn.forward.grid import FourierGrid
from galshape_cnn.forward.kernel import calls
from galshape_cnn.forward.kernel.library import batches, with_kernel
from galshape_cnn.forward.render import BLOCK, render, render_with_derivatives, unit_quadrants
from galshape_cnn.forward.synthesis import quartered
from galshape_cnn.forward.transfer import of_rows
from galshape_cnn.infer.likelihood.fisher import normal_block
from galshape_cnn.parallel import fixed_batches

__all__ = ["SHAPES", "StampLikelihood", "source_weights"]

#: Batch sizes that the evaluation of derivatives is compiled for, largest first; the
#: others, which are cheap, know the second one only.
SHAPES = (64, 2 * BLOCK, BLOCK)

_DRAWS_AT_ONCE = 32  # blocks


def _normal_block(params, data, ivar, transfer, grid):
    return normal_block(params, transfer, data, ivar, jnp.zeros_like(params[:, SINGLE.flux]), grid)


def _linear_block(params, data, ivar, transfer, grid):
    """Equations of flux and sky; data and ivar of one stamp serve a block of draws."""
    flux, sky = params[:, SINGLE.flux, None], params[:, SINGLE.sky, None]
    unit = unit_quadrants(params, transfer, grid, slopes=False)[0]
    data, weight = (jnp.moveaxis(quartered(a), 0, 2) for a in (data, ivar))
    sums = 0.0
    for image, pixels, w in zip(unit, data, weight, strict=True):
        residual = pixels - flux * image - sky
        weighted, pull = image * w, residual * w
        level = jnp.broadcast_to(w, image.shape)
        terms = (residual * pull, image * pull, pull, image * weighted, weighted, level)
        sums = sums + jnp.stack([one.sum(0) for one in terms])
    _, by_flux, by_sky, flux_flux, flux_sky, sky_sky = sums.sum(-1)
    fisher = jnp.stack([jnp.stack([flux_flux, flux_sky], -1), jnp.stack([flux_sky, sky_sky], -1)], -1)
    return sums[0], jnp.stack([by_flux, by_sky], -1), fisher


@compiled(static_argnames="grid")
def _draws_in_blocks(params, data, ivar, transfer, grid):
    """`_linear_block` of a block of draws for each stamp: its pixels and PSF are read once."""
    arrays = (params, data[:, None], ivar[:, None], transfer[:, None])
    return jax.lax.map(lambda a: _linear_block(*a, grid), arrays)


@compiled(static_argnames=("block", "grid"))
def _in_blocks(block, params, data, ivar, transfer, grid):
    """Apply a function of one block to a batch of several, one after the other."""
    shared = transfer.shape[0] == 1
    arrays = (params, data, ivar) if shared else (params, data, ivar, transfer)
    split = jax.tree.map(lambda a: a.reshape(-1, BLOCK, *a.shape[1:]), arrays)
    if shared:
        out = jax.lax.map(lambda a: block(*a, transfer, grid), split)
    else:
        out = jax.lax.map(lambda a: block(*a, grid), split)
    return jax.tree.map(lambda a: a.reshape(-1, *a.shape[2:]), out)


def _normal_by_kernel(likelihood, params, rows):
    return calls.normal_equations(params, rows, *likelihood.arrays)


def _linear_by_kernel(likelihood, params, rows):
    return calls.linear_equations(params, rows, *likelihood.arrays)


def _draws_by_kernel(likelihood, params, rows):
    found = _linear_by_kernel(likelihood, params.reshape(-1, 8), np.repeat(rows, BLOCK))
    return tuple(one.reshape(-1, BLOCK, *one.shape[1:]) for one in found)


@dataclass(frozen=True, eq=False)
class StampLikelihood:
    """Gaussian likelihood of a batch of stamps with fixed weights.

    Pixels are divided by each stamp's typical noise (``scale``), so that
    single precision serves any unit of flux; parameters and results are in the
    unit of the data.

    Parameters
    ----------
    data, ivar : (N, size, size) float32 ndarray
        Pixels and inverse variances, in units of ``scale``.
    transfer : (N or 1, 2 K, K) complex64 ndarray
        PSF transfer functions.
    grid : FourierGrid
        Grid of the transfer functions.
    scale : (N,) float64 ndarray
        Unit of flux of each stamp.
    """

    data: np.ndarray
    ivar: np.ndarray
    transfer: np.ndarray
    grid: FourierGrid
    scale: np.ndarray

    @classmethod
    def from_stamps(cls, data, ivar, transfer, grid):
        """Scale stamps (N, size, size) to their noise; zero inverse variance means masked."""
        data, ivar = np.asarray(data), np.asarray(ivar)
        used = ivar > 0
        total = np.where(used, ivar, 0).sum((1, 2), dtype=float)
        scale = np.sqrt(np.maximum(used.sum((1, 2)), 1) / np.where(total > 0, total, 1.0))
        scaled = np.where(used, data / scale[:, None, None], 0).astype(np.float32)
        weights = (ivar * scale[:, None, None] ** 2).astype(np.float32)
        return cls(scaled, weights, np.asarray(transfer, np.complex64), grid, scale)

    def __len__(self):
        return len(self.data)

    def __getitem__(self, rows):
        transfer = of_rows(self.transfer, rows)
        return StampLikelihood(self.data[rows], self.ivar[rows], transfer, self.grid, self.scale[rows])

    @property
    def n_data(self):
        """Number of pixels that count, (N,)."""
        return np.count_nonzero(self.ivar, axis=(1, 2))

    @property
    def arrays(self):
        """``data``, ``ivar``, ``transfer`` and ``grid``, as functions of the kernel take them."""
        return self.data, self.ivar, self.transfer, self.grid

    def images(self, params):
        """Models (N, size, size) of the first rows' stamps at parameters in units of ``scale``."""
        out = np.empty((len(params), *self.data.shape[1:]), np.float32)
        for rows, padded in batches(np.arange(len(params)), BLOCK):
            images = render(params[padded].astype(np.float32), of_rows(self.transfer, padded), self.grid)
            out[rows] = np.asarray(images)[: len(rows)]
        return out

    def images_and_derivatives(self, params, rows):
        """Models (M, size, size) and their derivatives (M, 8, size, size), in units of the data's scale.

        Arguments as for `normal_equations`.
        """
        side, m = self.grid.size, len(params)
        images, derivatives = np.empty((m, side, side)), np.empty((m, SINGLE.size, side, side))
        for some, inside in batches(np.arange(m), SHAPES[1]):
            transfer = of_rows(self.transfer, rows[inside])
            found = render_with_derivatives(params[inside].astype(np.float32), transfer, self.grid)
            images[some], derivatives[some] = (np.asarray(one)[: len(some)] for one in found)
        return images, derivatives

    @with_kernel(_normal_by_kernel)
    def normal_equations(self, params, rows):
        """Chi-square, gradient D^T W r and Fisher matrix D^T W D by the eight parameters.

        At parameters (M, 8) in units of ``scale``, each of the stamp that ``rows`` (M,) names; a stamp may
        occur often, or not at all.  In float64: row sums are taken in single, their sum in double precision,
        so that differences of 1e-3 of chi-square mean something.
        """
        row_sums, gradient, fisher = _in_batches(_normal_block, params, rows, self, SHAPES)
        return row_sums.sum(1), gradient, fisher

    @with_kernel(_linear_by_kernel)
    def linear_equations(self, params, rows):
        """As `normal_equations`, by flux and sky only, and six times cheaper; flux must not be zero."""
        row_sums, gradient, fisher = _in_batches(_linear_block, params, rows, self)
        return row_sums.sum(1), gradient, fisher

    @with_kernel(_draws_by_kernel)
    def linear_equations_of_draws(self, params, rows):
        """As `linear_equations`, for many parameter sets of each stamp: (M, BLOCK, 8), in (M, BLOCK, ...)."""
        results = []
        for some, inside in fixed_batches(np.arange(len(params)), _DRAWS_AT_ONCE):
            row = rows[inside]
            transfer = self.transfer[np.zeros_like(row) if len(self.transfer) == 1 else row]
            batch = (params[inside].astype(np.float32), self.data[row], self.ivar[row], transfer)
            results.append((_draws_in_blocks(*batch, self.grid), len(some)))
        parts = [[np.asarray(a, float)[:used] for a in out] for out, used in results]
        row_sums, gradient, fisher = (np.concatenate(p) for p in zip(*parts, strict=True))
        return row_sums.sum(-1), gradient, fisher


def _in_batches(block, params, rows, likelihood, shapes=SHAPES[1:2]):
    """Apply a function of one block to any number of parameter sets (M, P).

    ``block`` takes params, data, ivar, transfer and a grid, with `BLOCK` rows; ``rows`` (M,) are the stamps
    of the sets, ``shapes`` the sizes of batches, largest first. Returns float64 arrays of M rows each.
    """
    results = []
    for some, inside in fixed_batches(np.arange(len(params)), shapes):
        row = rows[inside]
        transfer = of_rows(likelihood.transfer, row)
        batch = (params[inside].astype(np.float32), likelihood.data[row], likelihood.ivar[row], transfer)
        # computed while the next batch is gathered
        results.append((jax.tree.leaves(_in_blocks(block, *batch, likelihood.grid)), len(some)))
    parts = [[np.asarray(a, float)[:used] for a in out] for out, used in results]
    return [np.concatenate(p) for p in zip(*parts, strict=True)]


def source_weights(likelihood, params, gain):
    """Likelihood whose weights include the Poisson noise of the light of models (N, 8), in its units.

    ``gain`` is in electrons per unit of data.
    """
    light = likelihood.images(SINGLE.with_sky(params))
    ivar = likelihood.ivar
    # in units of scale the gain is electrons per scaled unit
    per_unit = (np.broadcast_to(gain, len(params)) * likelihood.scale)[:, None, None]
    weights = ivar / (1 + ivar * np.maximum(light, 0) / per_unit)
    return replace(likelihood, ivar=weights.astype(np.float32))
