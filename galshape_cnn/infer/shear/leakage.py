# Licensed under a 3-clause BSD style license - see LICENSE.rst
r"""PSF leakage: dependence of measured shapes on the PSF's ellipticity.

The slope :math:`\alpha` of :math:`\hat g = \alpha\,e_\mathrm{PSF} + c`, fitted to both components of all
galaxies, :math:`\hat g = (R + R_S)^{-1} g`.  Without leakage it is zero within its error.
"""

import numpy as np

from galshape_cnn.errors import InputError
from galshape_cnn.forward.galaxy_model import SINGLE

__all__ = ["leakage_slope", "psf_shapes"]


def psf_shapes(psf_shape, table):
    """Shapes of the PSFs, checked.

    Parameters
    ----------
    psf_shape : (str, str) or (N, 2) array_like
        Names of two columns, or numbers: the components of the PSF's ellipticity at each galaxy, in the
        frame of g1 and g2.
    table : `~astropy.table.Table`
        Of N galaxies.

    Returns
    -------
    shapes : (N, 2) ndarray

    Raises
    ------
    InputError
        If it is neither, or not finite.
    """
    if isinstance(psf_shape, tuple | list) and all(isinstance(one, str) for one in psf_shape):
        missing = [one for one in psf_shape if one not in table.colnames]
        if missing:
            raise InputError(f"psf_shape: {missing} are no columns; allowed: {table.colnames}")
        psf_shape = np.stack([np.asarray(table[one], float) for one in psf_shape], -1)
    shapes = np.asarray(psf_shape, float)
    if shapes.shape != (len(table), 2) or not np.isfinite(shapes).all():
        raise InputError(
            f"psf_shape has shape {shapes.shape}; needed: two columns, or finite numbers of shape "
            f"{(len(table), 2)}"
        )
    return shapes


def leakage_slope(views, shapes, blocks, calibration, member):
    """Slope of calibrated shapes on the PSF's, and its error by leaving out blocks.

    Parameters
    ----------
    views : ShearedViews
        Of N galaxies.
    shapes : (N, 2) ndarray
        Of the PSF.
    blocks : (N,) int ndarray
        Block of each row.
    calibration : (2, 2) ndarray
        Response of shapes and selection.
    member : callable
        Takes a table and returns the rows that count.

    Returns
    -------
    slope, error : float
        NaN where the PSF is the same everywhere.
    """
    terms = 0.0
    for copy in range(2):
        weight = views.weight[copy][0] * member(views.tables[copy][0])
        g = np.where(views.usable[:, None], views.columns.values[:, copy, SINGLE.shear], 0)
        both = (shapes[:, :, None] * g[:, None, :]).reshape(-1, 4)
        parts = [np.ones((len(g), 1)), shapes, g, both, (shapes**2).sum(1, keepdims=True)]
        terms = terms + weight[:, None] * np.concatenate(parts, 1)
    number = blocks.max(initial=0) + 1
    sums = np.stack([np.bincount(blocks, column, number) for column in terms.T], 1)
    sums = sums[sums[:, 0] > 0]
    if not len(sums) or not np.isfinite(calibration).all() or np.linalg.det(calibration) == 0:
        return np.nan, np.nan
    inverse = np.linalg.inv(calibration)
    slope = _slope(sums.sum(0), inverse)
    if len(sums) < 2:
        return slope, np.nan
    left = _slope(sums.sum(0) - sums, inverse)
    return slope, np.sqrt((len(sums) - 1) / len(sums) * ((left - left.mean()) ** 2).sum())


def _slope(sums, inverse):
    """Of sums (..., 10): 1, e (2), g (2), e g (4), e e."""
    total, e, g = sums[..., :1], sums[..., 1:3], sums[..., 3:5]
    with np.errstate(invalid="ignore", divide="ignore"):
        both = (
            sums[..., 5:9].reshape(sums.shape[:-1] + (2, 2))
            - e[..., :, None] * g[..., None, :] / total[..., None]
        )
        spread = sums[..., 9] - (e**2).sum(-1) / total[..., 0]
        known = spread > 1e-10 * sums[..., 9]
        return np.where(known, np.einsum("ij,...ij->...", inverse, both) / spread, np.nan)
