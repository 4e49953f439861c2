# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""Parameters and covariances of galaxies in several bands, rebuilt from a table.

Where the shape varies with wavelength a table has n, hlr or shear in each band, and the model has
polynomials.  With as many coefficients as bands every set of values is that of a polynomial, whichever
wavelengths the bands have.
"""

import numpy as np

from galshape_cnn.forward.varying import SHAPE_OF, polynomials, shape_index
from galshape_cnn.geometry import conformal_shear, reduced_shear, transform_shape
from galshape_cnn.infer.catalog.band_columns import by_band

__all__ = ["band_covariance", "band_params", "varying_in"]

_COLUMNS = {"n": "n", "hlr": "hlr", "g": "g1"}  # that tell whether something varies
_SHEAR = slice(2, 4)


def varying_in(table, bands):
    """What varies between bands in a table, with orders one below their number, as of `GalaxyModel`."""
    varies = [name for name in SHAPE_OF if f"{_COLUMNS[name]}_{bands[0]}" in table.colnames]
    return tuple((name, len(bands) - 1) for name in varies if _COLUMNS[name] not in table.colnames)


def band_params(values, model, inverse=None):
    """Reported parameters of a model.

    Parameters
    ----------
    values : (N, K) ndarray
        With the names of `galshape_cnn.forward.varying.shape_index`.
    model : GalaxyModel
        With R reported parameters; one shape for all bands, or as many coefficients as bands.
    inverse : (N, 2, 2) ndarray, optional
        Of the Jacobian of the frame of the values; None if they are in pixels.

    Returns
    -------
    params : (N, R) ndarray
        In pixels.  A band without values has the shape of one with some.
    """
    index = shape_index(model)[1]
    shapes = values[:, index]
    known = np.isfinite(shapes).all(-1)
    first = np.argmax(known, 1)
    shapes = np.where(known[..., None], shapes, shapes[np.arange(len(shapes)), first][:, None])
    with np.errstate(invalid="ignore", divide="ignore"):  # rows that were not measured are NaN
        if inverse is not None:
            framed = [np.stack(transform_shape(*shapes[:, k, 1:].T, inverse), -1) for k in range(len(index))]
            shapes[:, :, 1:] = np.stack(framed, 1)
        shapes[..., :2] = np.log(shapes[..., :2])
        shapes[..., _SHEAR] = np.stack(conformal_shear(*np.moveaxis(shapes[..., _SHEAR], -1, 0)), -1)
    coefficients, count = shapes, len(model.bands)
    if model.coefficients:
        basis = np.column_stack([np.ones(count), polynomials(model.wavelengths, count - 1)])
        coefficients = np.linalg.solve(basis, shapes)
    out = np.empty((len(values), model.reported.stop))
    out[:, model.fluxes] = values[:, model.fluxes]
    out[:, [model.n, model.hlr]] = np.exp(coefficients[:, 0, :2])
    out[:, model.shear] = np.stack(reduced_shear(*coefficients[:, 0, _SHEAR].T), -1)
    for column, (which, order) in enumerate(model.terms):
        out[:, model.varying.start + column] = coefficients[:, order, which]
    return out


def band_covariance(sigma, gradient_error, params, model, placement):
    """Covariance of the reported parameters (N, R, R) with the errors of a table.

    Parameters
    ----------
    sigma : (N, K) ndarray
        Of the values of `band_params`.
    gradient_error : (N,) ndarray
        Of ln hlr in the last band less that in the first, which tells how these are correlated; NaN where it
        is not known.  Nothing else of the correlations is.
    params : (N, P) ndarray
        All parameters.
    model : GalaxyModel
    placement : Placement
        Of the frame of the table.
    """
    values, derivative = by_band(params, model, placement)
    known = np.isfinite(sigma)
    table = np.where(known, sigma, 0)[:, :, None] ** 2 * np.eye(sigma.shape[1])
    first, last = shape_index(model)[1][[0, -1], 1]
    if first != last:
        with np.errstate(invalid="ignore", divide="ignore"):
            share = sigma[:, [first, last]] / values[:, [first, last]]
            common = ((share**2).sum(1) - gradient_error**2) / (2 * share.prod(1))
        common = np.clip(np.nan_to_num(common), -1, 1)
        both = np.where(known[:, first] & known[:, last], common * sigma[:, first] * sigma[:, last], 0)
        table[:, first, last] = table[:, last, first] = both
    stated = (known | ~np.isfinite(values)).all(1) & known.any(1)
    inverse = np.linalg.pinv(np.where(stated[:, None, None], derivative, 0))
    out = inverse @ table @ np.swapaxes(inverse, 1, 2)
    known = np.tile(stated[:, None], out.shape[1])
    known[:, model.fluxes] &= np.isfinite(values[:, model.fluxes])  # those of bands without data
    return np.where(known[:, :, None] & known[:, None, :], out, np.nan)
