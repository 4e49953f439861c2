# Licensed under a 3-clause BSD style license - see LICENSE.rst
r"""Stamps whose pixels are sheared on the sky, carried to a grid that is not.

A network that expects round galaxies in pixels is biased where pixels are not square on the sky: additively
in the shear S of the Jacobian, and in :math:`S^2` in its response too.  So the response is measured where no
direction is preferred: on a grid whose pixels, but for a rotation and a parity flip, are squares of the sky.
The measured model is drawn there anew, with its PSF; only what it leaves of the stamp, and the noise that is
added, are interpolated.  Both noises go the same way, so they keep the same covariance, which is all that
`galshape_cnn.infer.shear.response` asks of them.

Shears are rounded to multiples of 0.002, so that galaxies of a field share a grid and a WCS that hardly
shears changes nothing; `galshape_cnn.infer.shear.frames` follows the rest to first order.
"""

from functools import lru_cache

import numpy as np

from galshape_cnn.forward.galaxy_model import SINGLE
from galshape_cnn.forward.render import render_with_derivatives
from galshape_cnn.geometry import shear_matrix, transform_shape
from galshape_cnn.infer.network.features import SIDE
from galshape_cnn.infer.shear.generators import symmetrized_psf
from galshape_cnn.infer.shear.psf_arrays import normalised_psf, psf_arrays

__all__ = ["grid_jacobian", "grid_steps", "interpolated", "on_grids", "shear_part", "similarity"]

#: Step in each component of the shears of grids.
STEP = 0.002
_HLR, _SHEAR, _CENTRE = SINGLE.hlr, SINGLE.shear, SINGLE.centre
_MARGIN = 16  # samples in which sides of PSFs grow: each side is a program


def shear_part(matrix):
    """Components 1 and 2 of the symmetric traceless part of (..., 2, 2) matrices."""
    plus, cross = matrix[..., 0, 0] - matrix[..., 1, 1], matrix[..., 0, 1] + matrix[..., 1, 0]
    return np.stack([plus, cross], -1) / 2


def similarity(jacobian):
    """The similarity (with a parity flip where there is one) nearest to Jacobians, (..., 2, 2)."""
    flip = np.sign(np.linalg.det(jacobian))[..., None, None]
    adjoint = np.stack(
        [
            np.stack([jacobian[..., 1, 1], -jacobian[..., 1, 0]], -1),
            np.stack([-jacobian[..., 0, 1], jacobian[..., 0, 0]], -1),
        ],
        -2,
    )
    return (jacobian + flip * adjoint) / 2


def grid_steps(jacobian):
    """Shears of grids, from pixels to a similarity of the sky, in multiples of 0.002.

    Parameters
    ----------
    jacobian : (N, 2, 2) ndarray
        d(u, v)/d(x, y).

    Returns
    -------
    steps : (N, 2) ndarray
        Whole numbers; zero where pixels are less than 0.001 from squares.
    """
    return np.rint(shear_part(np.linalg.inv(similarity(jacobian)) @ jacobian) / STEP)


def grid_jacobian(jacobian):
    """Jacobians (N, 2, 2) of the grids that stamps of these Jacobians are measured on."""
    steps = grid_steps(jacobian)
    moved = steps.any(-1) & np.isfinite(steps).all(-1)
    shears = np.where(moved[..., None], steps, 0) * STEP
    return jacobian @ np.linalg.inv(shear_matrix(shears[..., 0], shears[..., 1]))


@lru_cache(maxsize=8)
def _two_passes(steps, inside, outside):
    """Matrices that interpolate along x and then along y, from squares of one side to another's.

    The position in the image of a pixel (x, y) of the grid is linear in both; along x it is written by x of
    the grid and y of the image.
    """
    (a, b), (c, d) = np.linalg.inv(shear_matrix(*np.multiply(steps, STEP)))
    x, y = (np.arange(side) - (side - 1) / 2 for side in (outside, inside))
    along_x = (a - b * c / d) * x[:, None] + (b / d) * y[:, None, None] - y  # y, x of the grid, x
    along_y = d * x[:, None] + c * x[:, None, None] - y  # x, y of the grid, y
    return np.sinc(along_x).astype(np.float32), np.sinc(along_y).astype(np.float32)


def interpolated(images, steps, side):
    """Band-limited images on a sheared grid, about their middle.

    Parameters
    ----------
    images : (K, p, p) ndarray
        Zero beyond their edges.
    steps : (int, int)
        Shear of the grid, see `grid_steps`.
    side : int
        Of the result; odd if p is.

    Returns
    -------
    images : (K, side, side) float32 ndarray
    """
    along_x, along_y = _two_passes(tuple(map(int, steps)), images.shape[-1], side)
    rows = along_x @ np.moveaxis(images, 0, -1).astype(np.float32)  # y, x of the grid, images
    return np.moveaxis(along_y @ np.swapaxes(rows, 0, 1), (2, 1, 0), (0, 1, 2))


@lru_cache(maxsize=64)
def _nearest(steps, low, high):
    """Index of the pixel of a stamp nearest to each of the grid, and which pixels of the grid are used.

    Those are in the stamp, from x, y ``low`` to ``high``, whatever symmetry of the square is applied to them:
    an edge that is missing on two sides only has a direction, and biases g additively by three per cent of
    the shear.
    """
    x = np.arange(SIDE) - (SIDE - 1) / 2
    back = np.linalg.inv(shear_matrix(*np.multiply(steps, STEP)))
    at = np.rint(np.tensordot(back, np.stack(np.meshgrid(x, x)), 1) + (SIDE - 1) / 2).astype(int)
    inside = ((at.T >= low) & (at.T <= high)).all(-1).T
    turned = [np.rot90(inside, quarter) for quarter in range(4)]
    inside = np.logical_and.reduce(turned + [one.T for one in turned])
    return np.clip(at, 0, SIDE - 1), inside


def _of_psfs(part, moved):
    """Arrays of the PSFs on the grids of some rows, each of (M, ...)."""
    own = moved if len(part.psf) > 1 else 0 * moved
    kinds, which = np.unique(np.column_stack([own, part.steps[moved]]), axis=0, return_inverse=True)
    found = []
    for index, *steps in kinds.astype(int):
        # one after the other: no number depends on how many there are
        psf = normalised_psf(_sheared_psf(part.psf[index], steps)[None])
        told = psf_arrays(np.asarray(symmetrized_psf(psf)), part.oversampling)
        found.append(told | {"filters": psf_arrays(psf, part.oversampling)["filters"]})
    return {name: np.concatenate([one[name] for one in found])[which.ravel()] for name in found[0]}


def _sheared_psf(psf, steps):
    """A PSF (p, p), odd-sized, on a sheared grid, with a margin for what moves over its edges."""
    over = np.sqrt(2) * np.hypot(*steps) * STEP * len(psf)
    return interpolated(psf[None], steps, len(psf) + _MARGIN * int(np.ceil(over / _MARGIN)))[0]


def on_grids(part, params):
    """A batch on the grids of its galaxies, with models of them.

    Parameters
    ----------
    part : CopyBatch
    params : (BATCH_SIZE, 8) ndarray
        flux, n, hlr, g1, g2, x, y, sky of the galaxies in the 64 x 64 pixels.

    Returns
    -------
    part : CopyBatch
        The same where all pixels are nearly squares of the sky.
    params : (BATCH_SIZE, 8) ndarray
        Of the galaxies on the grids.
    model : (BATCH_SIZE, 64, 64) array
        Their images.
    slopes : (BATCH_SIZE, 8, 64, 64) array
        Their derivatives by flux, n, hlr, g1, g2, x, y, sky.
    """
    model, slopes = render_with_derivatives(params.astype(np.float32), part.arrays["transfer"], part.grid)
    moved = np.flatnonzero(part.steps.any(1) & (part.arrays["ivar"] > 0).any((1, 2)))
    if not len(moved):
        return part, params, model, slopes
    of_psf, old = _of_psfs(part, moved), part.arrays
    new = old | {name: np.array(old[name]) for name in ("data", "ivar", "noise", "asymmetric", *of_psf)}
    for name, values in of_psf.items():
        new[name][moved] = values
    new["asymmetric"][moved] = 0
    params = _moved(params, part.steps, moved)
    at_first = np.asarray(model)
    model, slopes = render_with_derivatives(params.astype(np.float32), new["transfer"], part.grid)
    on_grid = np.asarray(model)
    for row in moved:
        one = {name: old[name][row] for name in ("data", "ivar", "noise", "inverse_gain")}
        found = _regridded(one, at_first[row], on_grid[row], part.steps[row])
        new["data"][row], new["ivar"][row], new["noise"][row] = found
    return part._replace(arrays=new), params, model, slopes


def _moved(params, steps, rows):
    """Parameters of galaxies on the grids."""
    out, middle = params.copy(), (SIDE - 1) / 2
    matrix = shear_matrix(*(steps[rows].T * STEP))
    hlr, shear, centre = (params[rows, which].astype(float) for which in (_HLR, _SHEAR, _CENTRE))
    out[rows, _HLR], *shear = transform_shape(hlr, *shear.T, matrix)
    out[rows, _SHEAR] = np.stack(shear, -1)
    out[rows, _CENTRE] = np.einsum("nij,nj->ni", matrix, centre - middle) + middle
    return out


def _regridded(stamp, model, new_model, steps):
    """Data, inverse variance and noise of a stamp on its grid."""
    used = stamp["ivar"] > 0
    sigma = _sigma(stamp, stamp["ivar"], model)
    rest = np.stack([np.where(used, stamp["data"] - model, 0), stamp["noise"] * sigma])
    rest, noise = interpolated(rest, steps, SIDE)
    filled = [np.flatnonzero(used.any(axis)) for axis in (0, 1)]  # columns and rows of the stamp
    low, high = (tuple(int(one[end]) for one in filled) for end in (0, -1))
    (x, y), inside = _nearest(tuple(map(int, steps)), low, high)
    ivar = np.where(inside, stamp["ivar"][y, x], 0)
    sigma = _sigma(stamp, ivar, new_model)
    return np.where(ivar > 0, new_model + rest, 0), ivar, noise / np.where(sigma > 0, sigma, np.inf)


def _sigma(stamp, ivar, model):
    """Noise of pixels; zero where they are not used."""
    used = ivar > 0
    variance = 1 / np.where(used, ivar, 1) + np.maximum(model, 0) * stamp["inverse_gain"]
    return np.where(used, np.sqrt(variance), 0)
