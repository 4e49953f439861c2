# Licensed under a 3-clause BSD style license - see LICENSE.rst
r"""The smooth part of the sky's structure, fitted jointly with the galaxy.

Wings of bright sources and sources too faint to be found make the sky under a galaxy differ from the constant
that is fitted.  Where the residuals away from the galaxy show such bumps, they are a Gaussian field of the
variance found there and a Gaussian correlation of known width, so that its low waves (a cosine series) have
known prior variances, and galaxy and waves are estimated together (generalised least squares; kriging in
geostatistics): with the whitened derivatives of the galaxy D and waves A,

.. math:: \begin{pmatrix} D D^T & D A^T \\ A D^T & A A^T + \Lambda^{-1} \end{pmatrix} .

The estimate scatters less than with a constant sky, and what the waves leave unknown is its error.
"""

from functools import lru_cache
from typing import NamedTuple

import numpy as np

from galshape_cnn.forward.galaxy_model import SINGLE
from galshape_cnn.forward.render import render_with_derivatives
from galshape_cnn.forward.transfer import of_rows
from galshape_cnn.infer.likelihood.residuals import SKY_SCALE, inverse_gain
from galshape_cnn.infer.likelihood.structure import sky_level
from galshape_cnn.linalg import symmetric_root

__all__ = ["SkyField", "fit_sky_field"]

_SHORTEST = 8  # pixels: half of the shortest wave
_MOST_WAVES = 12  # along a side
_FLOOR = 1e-12  # of a prior variance: no wave
_RIDGE = 1e-9  # of the equilibrated products


class SkyField(NamedTuple):
    """Result of `fit_sky_field`; the first axis of each array is that of the galaxies.

    Attributes
    ----------
    found : (N,) ndarray of bool
        Whether the sky has significant structure.
    light : (N, size, size) ndarray
        The field, in the unit of the data; zero where none is found.
    stretch : (N, 5, 5) ndarray
        By what an error of flux, n, hlr, g1 and g2 grows as the field is unknown: M, for the covariance
        M C M^T; the identity where none is found.
    """

    found: np.ndarray
    light: np.ndarray
    stretch: np.ndarray


def fit_sky_field(
    params, data, ivar, transfer, grid, fit_sky=True, gain=None, correlation=None, nuisance=None
):
    """Fit the field to the residuals of galaxies without structure of their own.

    Parameters
    ----------
    params, data, ivar, transfer, grid, fit_sky, gain, correlation
        As for `galshape_cnn.infer.likelihood.structure.estimate_structure`.
    nuisance : (N, m, size, size) array_like, optional
        Images of unknown amplitude.

    Returns
    -------
    field : SkyField
    """
    params, data, ivar = (np.asarray(a, np.float32) for a in (params, data, ivar))
    inverse, size = inverse_gain(gain, len(data)), grid.size
    found, light = np.zeros(len(params), bool), np.zeros((len(params), size, size))
    stretch = np.tile(np.eye(5), (len(params), 1, 1))
    for k in range(len(params)):
        one = slice(k, k + 1)
        rendered = render_with_derivatives(params[one], of_rows(transfer, one), grid)
        rendered = (np.asarray(a)[0] for a in rendered)
        others = np.zeros((0, size, size)) if nuisance is None else np.asarray(nuisance[k])
        level, pixels = sky_level(params[k], *rendered, data[k], ivar[k], inverse[k], fit_sky, correlation)
        if level > 0:
            found[k] = True
            light[k], stretch[k] = _field_of(*pixels, others, level, fit_sky)
    return SkyField(found, light, stretch)


def _field_of(root, columns, residual, others, level, fit_sky):
    """Field of one galaxy, (size, size), and how its errors grow, (5, 5)."""
    size = len(root)
    waves, variance = _waves(size)
    typical = np.sqrt((root[root > 0].astype(float) ** 2).mean())
    columns = columns if fit_sky else np.delete(columns, SINGLE.sky, 0)
    known = np.concatenate([columns, (others * root).reshape(len(others), root.size)]).astype(float)
    number = len(known)
    whole = np.concatenate([known, (waves * (root / typical)).reshape(len(waves), -1)])
    products = whole @ whole.T
    unit = np.sqrt(np.maximum(np.diagonal(products), 1e-30))
    products = products / unit[:, None] / unit + _RIDGE * np.eye(len(unit))
    prior = np.zeros(len(unit))
    prior[number:] = 1 / (np.maximum(level * variance, _FLOOR) * unit[number:] ** 2)
    before = np.linalg.inv(products[:number, :number])
    joint = np.linalg.inv(products + np.diag(prior))
    amplitude = (joint @ ((whole @ residual) / unit) / unit)[number:]
    light = np.tensordot(amplitude, waves, 1) / typical
    covariances = [(one[:5, :5] / unit[:5, None] / unit[:5]) for one in (before, joint)]
    return light, _stretch(*covariances)


def _stretch(before, after):
    """M with M B M^T = A for covariances B and A, symmetric where B is the identity."""
    root = np.linalg.cholesky(before)
    inverse = np.linalg.inv(root)
    return root @ symmetric_root(inverse @ after @ inverse.T) @ inverse


@lru_cache(maxsize=8)
def _waves(size):
    """Cosines on a stamp, (K, size, size), and variances of their amplitudes in a field of variance one."""
    number = min(size // _SHORTEST, _MOST_WAVES)
    along = np.cos(np.arange(number)[:, None] * (np.arange(size) + 0.5) * np.pi / size)
    y, x = np.nonzero(np.add.outer(np.arange(number) ** 2, np.arange(number) ** 2) <= (number - 1) ** 2 + 1)
    y, x = y[1:], x[1:]  # the constant is the sky level
    square = (np.pi / size) ** 2 * (y**2 + x**2)
    norm = np.where(y > 0, 2, 1) * np.where(x > 0, 2, 1)
    variance = 4 * np.pi * SKY_SCALE**2 * np.exp(-square * SKY_SCALE**2) * norm / size**2
    return along[y, :, None] * along[x, None, :], variance
