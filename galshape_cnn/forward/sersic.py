# Licensed under a 3-clause BSD style license - see LICENSE.rst
r"""Fourier transform of the Sérsic profile, tabulated.

The profile of unit flux and unit half-light radius is

.. math:: I(r) = \frac{b^{2n}}{2\pi n\,\Gamma(2n)} \exp(-b\,r^{1/n}),

with b the median of a Gamma(2n) distribution (Ciotti & Bertin 1999, A&A 352,
447).  Its Hankel transform :math:`F(k) = 2\pi\int r I(r) J_0(kr)\,dr`
oscillates on the real axis.  With :math:`J_0 = \mathrm{Re}\,H_0^{(1)}` the path
can be turned into the complex plane, :math:`r = s\,e^{i\theta}`, where the Hankel
function and the profile both decay, so that the trapezoidal rule in ln s converges
exponentially.  On grids with commensurate steps in ln s and ln k the Hankel
function is needed once per diagonal, and the whole table takes a fraction of a
second.

Between nodes the table is a cubic B-spline in (ln n, ln k), so F and its
derivatives are continuous to second order.
"""

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from scipy.ndimage import spline_filter1d
from scipy.special import gammaincc, gammaincinv, gammaln, hankel1

__all__ = ["N_RANGE", "SersicTable", "sersic_b", "sersic_hankel", "sersic_table"]

#: Sérsic indices the package accepts: the range GalSim renders.
N_RANGE = (0.3, 6.2)

_STEP = 0.02  # step of the quadrature in ln s
_LN_S = np.arange(-20.0, 10.0, _STEP)
_K_EVERY = 2  # the table's step in ln k, in quadrature steps
_LN_K = np.arange(-9.0, 8.5, _K_EVERY * _STEP)
_LN_N_STEP = 0.05
_MARGIN = 12  # knots beyond N_RANGE, where the spline's end condition dies out


def sersic_b(n):
    """Coefficient b of the Sérsic profile of index n > 0: the median of the Gamma(2n) distribution."""
    return gammaincinv(2 * np.asarray(n, float), 0.5)


def _ln_norm(n):
    """Logarithm of the central surface brightness at unit flux and radius."""
    return 2 * n * np.log(sersic_b(n)) - np.log(2 * np.pi * n) - gammaln(2 * n)


def sersic_hankel(n):
    """Fourier transform F(k), with F(0) = 1, of the unit Sérsic profile of index n > 0 on the table's grid.

    Its first result is the grid: ln of wave number times half-light radius.
    """
    # The profile decays along the path while theta / n < pi / 2.
    theta = min(np.pi / 2, 0.6 * n * np.pi / 2)
    turn = np.exp(1j * theta)
    profile = np.exp(2 * _LN_S + _ln_norm(n) - sersic_b(n) * np.exp((_LN_S + 1j * theta) / n))
    n_sum = len(_LN_S) + _K_EVERY * (len(_LN_K) - 1)
    argument = np.exp(_LN_S[0] + _LN_K[0] + _STEP * np.arange(n_sum)) * turn
    with np.errstate(over="ignore", under="ignore", invalid="ignore"):
        hankel = np.where(np.abs(argument) * np.sin(theta) < 600, hankel1(0, argument), 0)
    windows = np.lib.stride_tricks.sliding_window_view(hankel, len(_LN_S))[::_K_EVERY]
    integral = 2 * np.pi * _STEP * (turn**2 * (windows @ profile)).real
    return _LN_K, integral


@dataclass(frozen=True)
class SersicTable:
    """B-spline coefficients of F(n, ln k), b(n) and the ln of the central brightness.

    Attributes
    ----------
    coefficients : (n_knots, k_knots) ndarray
        Cubic B-spline coefficients of F.
    profile : (n_knots, 2) ndarray
        Cubic B-spline coefficients of b and of ln I(0), for real space.
    outside : (n_knots, k_knots) ndarray
        Cubic B-spline coefficients of the flux beyond a radius, in units of
        the half-light radius, on the grid of ln k.
    ln_n0, ln_n_step, ln_k0, ln_k_step : float
        The uniform grids.
    """

    coefficients: np.ndarray
    profile: np.ndarray
    outside: np.ndarray
    ln_n0: float
    ln_n_step: float
    ln_k0: float
    ln_k_step: float


@lru_cache(maxsize=1)
def sersic_table():
    """Build the table, once per process (about 0.3 s): n in `N_RANGE`, any k, F to 1e-6."""
    low, high = np.log(N_RANGE)
    knots = int(np.ceil((high - low) / _LN_N_STEP)) + 1 + 2 * _MARGIN
    ln_n0 = low - _MARGIN * _LN_N_STEP
    grid_n = np.exp(ln_n0 + _LN_N_STEP * np.arange(knots))
    values = np.stack([sersic_hankel(n)[1] for n in grid_n])
    column = grid_n[:, None]
    with np.errstate(over="ignore", under="ignore"):
        outside = gammaincc(2 * column, sersic_b(column) * np.exp(_LN_K / column))
    profile = np.stack([sersic_b(grid_n), _ln_norm(grid_n)], 1)
    return SersicTable(
        _spline_2d(values),
        spline_filter1d(profile, 3, axis=0),
        _spline_2d(outside),
        ln_n0,
        _LN_N_STEP,
        _LN_K[0],
        _K_EVERY * _STEP,
    )


def _spline_2d(values):
    return spline_filter1d(spline_filter1d(values, 3, axis=0), 3, axis=1)
