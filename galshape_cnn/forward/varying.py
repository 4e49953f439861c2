# Licensed under a 3-clause BSD style license - see LICENSE.rst
r"""Shapes that vary with wavelength: polynomials in ln(wavelength) of ln n, ln hlr and the shear.

With :math:`t_b` the logarithm of a band's wavelength, shifted and scaled so that the bands span -1 to 1, the
shape in a band has the coordinates of `galshape_cnn.forward.coordinates`

.. math:: u_b = u + \sum_{k=1}^{K} c_k\, T_k(t_b)

with Chebyshev polynomials :math:`T_k` and coefficients :math:`c_k`, parameters of the model; u is that of its
n, hlr, g1, g2.  A line in these coordinates is a power law of n and hlr with the wavelength, positive
whatever the coefficients (the idea is that of GALFITM; Haeussler et al. 2013, MNRAS 430, 330).
"""

from collections.abc import Mapping

import numpy as np
from numpy.polynomial import chebyshev

from galshape_cnn.errors import InputError
from galshape_cnn.forward.sersic import N_RANGE
from galshape_cnn.geometry import conformal_shear, reduced_shear, shear_derivative
from galshape_cnn.quantities import whole_number

__all__ = [
    "LARGEST_COEFFICIENT",
    "SHAPE_OF",
    "band_shape",
    "checked_orders",
    "polynomials",
    "shape_index",
]

#: Which of n, hlr, g1, g2 the name of something that varies stands for.
SHAPE_OF = {"n": (0,), "hlr": (1,), "g": (2, 3)}
#: Of each polynomial in ln n, ln hlr and eta: a factor of seven on either side.
LARGEST_COEFFICIENT = 2.0
_SHEAR = slice(2, 4)


def checked_orders(vary):
    """Names and orders above zero, as `GalaxyModel` keeps them, of what varies between bands.

    Given a mapping with the orders of ``n``, ``hlr``, ``g``, or None; ``InputError`` if it is no mapping, or
    a name or an order is not allowed.
    """
    if vary is None:
        return ()
    if not isinstance(vary, Mapping):
        raise InputError(f"vary={vary!r}; allowed: a mapping such as {{'hlr': 1, 'n': 1}}")
    unknown = [name for name in vary if name not in SHAPE_OF]
    if unknown:
        raise InputError(f"vary={{{unknown[0]!r}: ...}}; allowed: {', '.join(map(repr, SHAPE_OF))}")
    orders = {name: whole_number(vary[name], f"vary[{name!r}]", 0) for name in SHAPE_OF if name in vary}
    return tuple((name, order) for name, order in orders.items() if order)


def shape_index(model):
    """Names of the columns of a table that hold the shape in each of B bands, and their places.

    The names are those of the fluxes and n, hlr, g1, g2, those that vary with wavelength for each band; the
    places (B, 4) of n, hlr, g1, g2 are by band.
    """
    names, index = list(model.names[model.fluxes]), np.zeros((len(model.bands), 4), int)
    varying = {which for which, _ in model.terms}
    for which, name in enumerate(("n", "hlr", "g1", "g2")):
        ends = [f"_{band}" for band in model.bands] if which in varying else [""]
        index[:, which] = len(names) + np.arange(len(model.bands)) % len(ends)
        names += [name + end for end in ends]
    return tuple(names), index


def polynomials(wavelengths, order):
    """Chebyshev polynomials, up to an order, of ln(wavelength), which the bands span from -1 to 1.

    (B, order), without the constant; wavelengths > 0 in any unit, not all equal.
    """
    t = np.log(np.asarray(wavelengths, float))
    t = (2 * t - t.min() - t.max()) / (t.max() - t.min())
    return chebyshev.chebvander(t, order)[:, 1:]


def band_shape(params, model, band, held=True):
    """n, hlr, g1, g2 in a band (N, 4), n inside its range, and their derivative (N, 4, 4 + S).

    The derivative is by n, hlr, g1, g2 and the S coefficients of the model, whose shape varies.  That of an n
    held at the end of its range is zero, or what it was without the range if ``held`` is false.
    """
    shape = np.array(params[:, model.shape], float)
    rate = np.zeros((len(shape), 4, model.coefficients))  # of the coordinates, by the coefficients
    for column, (which, order) in enumerate(model.terms):
        rate[:, which, column] = model.polynomials[band, order - 1]
    change = (rate @ params[:, model.varying, None])[..., 0]
    derivative = np.concatenate([np.tile(np.eye(4), (len(shape), 1, 1)), rate], 2)
    ratio = np.exp(change[:, :2])
    shape[:, :2] *= ratio
    free = (shape[:, 0] >= N_RANGE[0]) & (shape[:, 0] <= N_RANGE[1])
    derivative[:, [0, 1], [0, 1]] = ratio
    derivative[:, :2, 4:] *= shape[:, :2, None]
    shape[:, 0] = np.clip(shape[:, 0], *N_RANGE)
    if held:
        derivative[:, 0] *= free[:, None]  # what is held at a limit does not move
    if any(which >= _SHEAR.start for which, _ in model.terms):
        _add_shear(shape, derivative, change[:, _SHEAR])
    return shape, derivative


def _add_shear(shape, derivative, change):
    """Change the conformal shear of shapes and their derivatives, in place."""
    eta = np.stack(conformal_shear(*shape[:, _SHEAR].T), -1)
    there = eta + change
    shape[:, _SHEAR] = np.stack(reduced_shear(*there.T), -1)
    outward = shear_derivative(there)
    derivative[:, _SHEAR, _SHEAR] = outward @ np.linalg.inv(shear_derivative(eta))
    derivative[:, _SHEAR, 4:] = outward @ derivative[:, _SHEAR, 4:]
