# Licensed under a 3-clause BSD style license - see LICENSE.rst
r"""Products of whitened derivatives, for independent and for correlated noise: H and V of the sandwich.

See `galshape_cnn.infer.likelihood.sandwich`; :math:`H = \tilde D \tilde D^T` and
:math:`V = \tilde D R \tilde D^T` with the whitened derivatives :math:`\tilde D` and the correlations R.
"""

import numpy as np
from scipy import fft

from galshape_cnn.forward.galaxy_model import SINGLE
from galshape_cnn.forward.kernel import calls
from galshape_cnn.forward.kernel.library import batches, with_kernel
from galshape_cnn.forward.render import BLOCK, render_with_derivatives
from galshape_cnn.forward.transfer import of_rows
from galshape_cnn.infer.likelihood.nuisance_images import projected

__all__ = ["correlation_spectrum", "products_in_correlated_noise", "rendered_products"]


def _products(columns, weight, nuisance, spectrum):
    """H and V of derivatives (N, 8, size, size) and the roots of the weights (N, size, size)."""
    columns = columns * weight[:, None]
    n, k = columns.shape[:2]
    if nuisance is not None:
        flat = nuisance.reshape(n, nuisance.shape[1], -1) * weight.reshape(n, 1, -1)
        columns = projected(columns.reshape(n, k, -1), flat).reshape(columns.shape)
    flat = columns.reshape(n, k, -1)
    naive = flat @ np.swapaxes(flat, 1, 2)
    if spectrum is None:
        return naive, naive
    # Parseval's theorem saves the way back; the padded columns are zero where the grid has no pixels.
    waves = fft.rfft2(columns, s=(len(spectrum),) * 2).reshape(n, k, -1)
    waves = waves.view(waves.real.dtype)
    return naive, (waves * _power(spectrum)) @ np.swapaxes(waves, 1, 2)


def rendered_products(params, ivar, transfer, grid, inverse_gain, correlation, nuisance=None):
    """H and V, (N, 8, 8), in NumPy: no program is compiled for each size.

    Parameters
    ----------
    params, ivar, transfer, grid, inverse_gain
        As for `galshape_cnn.forward.kernel.calls.correlated_products`.
    correlation : (ky, kx) array_like or None
        Odd-sized autocorrelation of the noise; V is H without.
    nuisance : (N, m, size, size) array_like, optional
        Images of unknown amplitude, which the derivatives are freed of.
    """
    spectrum = correlation_spectrum(correlation, grid.size)
    naive, actual = np.empty((2, len(params), SINGLE.size, SINGLE.size), np.float32)
    for rows, padded in batches(np.arange(len(params)), BLOCK, of_kernel=1):
        rendered = render_with_derivatives(params[padded], of_rows(transfer, padded), grid)
        images, derivatives = map(np.asarray, rendered)
        light = np.maximum(images - params[padded, SINGLE.sky, None, None], 0)
        weight = np.sqrt(ivar[padded] / (1 + ivar[padded] * light * inverse_gain[padded, None, None]))
        others = None if nuisance is None else nuisance[padded]
        both = _products(derivatives, weight, others, spectrum)
        naive[rows], actual[rows] = (one[: len(rows)] for one in both)
    return naive, actual


@with_kernel(calls.correlated_products, "transfer")
def products_in_correlated_noise(params, ivar, transfer, grid, inverse_gain, correlation):
    """The same of galaxies without nuisance images."""
    return rendered_products(params, ivar, transfer, grid, inverse_gain, correlation)


def correlation_spectrum(correlation, size):
    """Transform of a correlation kernel on a grid without wrap-around."""
    if correlation is None:
        return None
    half_y, half_x = (side // 2 for side in correlation.shape)
    side = size + 2 * max(half_y, half_x)
    padded = np.zeros((side, side))
    padded[: correlation.shape[0], : correlation.shape[1]] = correlation
    return np.fft.rfft2(np.roll(padded, (-half_y, -half_x), (0, 1))).astype(np.complex64)


def _power(spectrum):
    """Weights of real and imaginary parts of a transform, the sum over which is that over the pixels."""
    side = len(spectrum)
    power = spectrum.real / np.float32(side**2)
    power[:, 1 : (side + 1) // 2] *= 2  # the other half of the plane
    return np.repeat(power.ravel(), 2)
