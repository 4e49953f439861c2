# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""The kernel's searches for point sources in what is left of galaxies."""

import numpy as np

from galshape_cnn.forward.kernel.calls import lags_of, measured
from galshape_cnn.forward.kernel.library import call, double

__all__ = ["companions", "sources"]


def companions(params, data, ivar, transfer, grid, inverse_gain, fit_sky, width, limits):
    """The point source near the centre of each galaxy that lowers chi-square most: (N, 9) float64.

    What it moves flux, n, hlr, g1, g2 by, the decrease, that of the deepest dip, the squares left of the
    galaxy beyond those of noise, and their spread.  ``limits`` are listed in
    `galshape_cnn.infer.residuals.companions`.
    """
    out = np.empty((len(params), 9))
    arguments = measured(params, data, ivar, transfer, grid, inverse_gain, fit_sky)
    call("companions", *arguments, *map(double, (width, limits)), out)
    return out


def sources(
    params, data, ivar, transfer, grid, inverse_gain, fit_sky, scales, least, limits, correlation=None
):
    """Point sources that show in the residuals of each galaxy.

    Parameters
    ----------
    params, data, ivar, transfer, grid, inverse_gain, fit_sky, correlation
        As for `galshape_cnn.forward.kernel.calls.examination`.
    scales : (N, 4) array_like
        Pixels within which nothing is looked for, and within which the galaxy may have clumps; half the side
        of the square in which a place is the highest; spread of the noise.
    least : (N, 5) array_like
        What a source moves flux, n, hlr, g1, g2 by at least, one of them.
    limits : sequence of float
        As `galshape_cnn.infer.residuals.sources` lists them.

    Returns
    -------
    numbers : (N, 11) float64 ndarray
        How many there are, whether one is within the galaxy, and three amplitudes of each.
    images : (N, 9, size, size) float32 ndarray
        Of these amplitudes; zeros where there are fewer sources.
    """
    out = np.zeros((len(params), 11)), np.zeros((len(params), 9, grid.size, grid.size), np.float32)
    known = map(double, (scales, least, limits))
    arguments = measured(params, data, ivar, transfer, grid, inverse_gain, fit_sky)
    call("sources", *arguments, *known, *lags_of(correlation), *out)
    return out
