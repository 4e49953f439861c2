# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""The kernel's closer look at what galaxies leave: structure of their own and of the sky."""

import ctypes

import numpy as np

from galshape_cnn.forward.grid import FourierGrid
from galshape_cnn.forward.kernel import calls
from galshape_cnn.forward.kernel.library import call, double, integer, single
from galshape_cnn.forward.kernel.plan import plan_of

__all__ = ["structure"]

_CLUMP_SIZE = 96  # pixels: of a stamp that is large enough for most clumps


def structure(params, data, ivar, transfer, grid, inverse_gain, fit_sky, smoothers, reach, roots, limits):
    """Numbers of `galshape_cnn.infer.residuals.structure.Structure`, one after the other.

    Parameters
    ----------
    params, data, ivar, transfer, grid, inverse_gain, fit_sky
        As for `galshape_cnn.forward.kernel.calls.examination`.
    smoothers : (2, size, size) array_like
        Matrices that smooth the sky along an axis, to be taken as they are and squared.
    reach : int
        How many pixels from the diagonal they are different from zero.
    roots : (K, size) array_like
        Root of the correlation of the sky's structure along an axis.
    limits : sequence of float
        As `galshape_cnn.infer.residuals.structure` lists them.

    Returns
    -------
    covariances : (N, 4, 8, 8) float64 ndarray
        Of the parameters by structure of galaxy and sky, and of the score by both.
    numbers : (N, 5) float64 ndarray
        Significance of structure of galaxy and sky, clump, white, sky level.
    """
    out = np.empty((len(params), 4 * 64 + 5))
    smoothers, roots = map(single, (smoothers, roots))
    how = smoothers, int(reach), integer(len(roots)), roots, double(limits)
    few, coarse = _coarser(np.asarray(transfer), grid)
    arguments = calls.measured(params, data, ivar, transfer, grid, inverse_gain, fit_sky)
    clumps = ctypes.byref(plan_of(coarse)), np.ascontiguousarray(few, np.complex64)
    call("structure", *arguments, *how, *clumps, out)
    return out[:, :256].reshape(-1, 4, 8, 8), out[:, 256:]


def _coarser(transfer, grid):
    """Fewer modes of PSFs, and their grid: that of a smaller stamp, large enough for most clumps."""
    transfer = transfer[: 1 if transfer.strides[0] == 0 else None]  # one for all
    steps = [step for step in (4, 2) if grid.size >= step * _CLUMP_SIZE]
    coarse = [FourierGrid(grid.size // step // 2 * 2, grid.bandwidth) for step in steps]
    for step, one in zip(steps, coarse, strict=True):
        if one.fft_size * step == grid.fft_size:
            both = transfer.reshape(len(transfer), 2, -1, transfer.shape[-1])[:, :, ::step, ::step]
            return both.reshape(len(transfer), -1, both.shape[-1]), one
    return transfer, grid
