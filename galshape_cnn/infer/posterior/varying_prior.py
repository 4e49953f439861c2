# Licensed under a 3-clause BSD style license - see LICENSE.rst
r"""Prior of how shapes change with wavelength.

The slopes of ln hlr, ln n and the conformal shear with ln(wavelength) are Gaussian about zero.  From g to K,
1.5 in ln(wavelength), half-light radii of galaxies shrink by 25 per cent (discs) to 38 per cent (spheroids)
and indices grow by 52 and 30 per cent (Kelvin et al. 2012, MNRAS 421, 1007): slopes of -0.2 to -0.3 and +0.2
to +0.3, which one standard deviation holds.  A polynomial of order k has coefficients k times smaller, and of
no order do they depend on the unit of the wavelengths or on how many bands there are.
"""

import numpy as np

from galshape_cnn.forward.varying import SHAPE_OF

__all__ = ["SLOPES", "coefficient_widths"]

#: Standard deviation of the slopes of ln n, ln hlr and each component of the conformal shear.
SLOPES = {"n": 0.4, "hlr": 0.3, "g": 0.1}


def coefficient_widths(model):
    """Standard deviation of each coefficient of what varies.

    Parameters
    ----------
    model : GalaxyModel
        With K coefficients.

    Returns
    -------
    sigma : (K,) ndarray
        Of the coefficients of Chebyshev polynomials between the shortest and the longest wavelength.
    """
    if not model.coefficients:
        return np.zeros(0)
    of_shape = {which: SLOPES[name] for name, shape in SHAPE_OF.items() for which in shape}
    half = 0.5 * np.ptp(np.log(model.wavelengths))
    return np.array([of_shape[which] * half / order for which, order in model.terms])
