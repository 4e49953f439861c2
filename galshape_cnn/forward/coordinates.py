# Licensed under a 3-clause BSD style license - see LICENSE.rst
r"""Coordinates in which likelihood and posterior of a galaxy are close to Gaussian.

The parameters of a `galshape_cnn.forward.galaxy_model.GalaxyModel` become

.. math:: \mathrm{flux} \text{ or } \ln\mathrm{flux},\; \ln n \text{ or } \mathrm{logit}\, n,\;
          \ln\mathrm{hlr},\; \boldsymbol\eta = \frac{\mathbf g}{|g|}\,\mathrm{artanh}|g|,\; x,\; y,\;
          \mathrm{sky}

so that no step can make hlr negative or \|g\| exceed one.  The conformal shear
:math:`2\boldsymbol\eta` is that of Bernstein & Jarvis (2002, AJ 123, 583).

The fit (`FIT`) keeps the honest bounds of the Sérsic index, `N_RANGE`: hiding them behind a logistic
function sends the optimizer to infinity whenever the likelihood prefers a bound, and at low S/N it often
does.  A posterior (`POSTERIOR`) has logit n, between the same bounds, and the logarithm of the flux: a
Gaussian mixture can be skewed there, and can pile up at the limits of n, without ever leaving the range.
"""

from dataclasses import dataclass

import numpy as np
from scipy.special import expit

from galshape_cnn.forward.galaxy_model import SINGLE, SINGLE_WITHOUT_SKY, GalaxyModel
from galshape_cnn.forward.sersic import N_RANGE
from galshape_cnn.forward.varying import LARGEST_COEFFICIENT
from galshape_cnn.geometry import conformal_shear, reduced_shear, shear_derivative

__all__ = ["ETA_MAX", "FIT", "HLR_MIN", "POSTERIOR", "Coordinates"]

#: Smallest half-light radius in pixels: far below what any PSF lets through.
HLR_MIN = 0.05
#: Largest conformal shear: |g| = 0.9, an axis ratio of 1:19, thinner than any disc seen edge-on.
ETA_MAX = float(np.arctanh(0.9))

_LOW, _HIGH = N_RANGE


@dataclass(frozen=True)
class Coordinates:
    """Transformation between the parameters of a model and coordinates.

    Parameters
    ----------
    model : GalaxyModel, optional
        Whose parameters, P in number.
    log_flux : bool, optional
        Whether the coordinate of a flux is its logarithm.
    logit_n : bool, optional
        Whether the coordinate of n is ln((n - 0.3) / (6.2 - n)); otherwise ln n.

    Examples
    --------
    >>> from galshape_cnn.forward.coordinates import FIT
    >>> theta = FIT.of([10.0, 1.0, 2.0, 0.3, -0.2, 8.0, 8.0, 0.0])
    >>> FIT.params(theta).round(6)
    array([10. ,  1. ,  2. ,  0.3, -0.2,  8. ,  8. ,  0. ])
    """

    model: GalaxyModel = SINGLE
    log_flux: bool = False
    logit_n: bool = False

    @property
    def names(self):
        """Names of the coordinates, in order."""
        model = self.model
        flux = tuple(f"ln_{name}" if self.log_flux else name for name in model.names[model.fluxes])
        n = "logit_n" if self.logit_n else "ln_n"
        return (*flux, n, "ln_hlr", "eta1", "eta2", *model.names[model.shear.stop :])

    def of(self, params):
        """Coordinates (..., P) of parameters; of a logarithm flux > 0, of a logit n in (0.3, 6.2)."""
        model, theta = self.model, np.array(params, float)
        if self.log_flux:
            theta[..., model.fluxes] = np.log(theta[..., model.fluxes])
        n, hlr, (g1, g2) = theta[..., model.n], theta[..., model.hlr], _pair(theta, model.shear)
        theta[..., model.n] = np.log((n - _LOW) / (_HIGH - n)) if self.logit_n else np.log(n)
        theta[..., model.hlr] = np.log(hlr)
        theta[..., model.shear] = np.stack(conformal_shear(g1, g2), -1)
        return theta

    def params(self, theta):
        """Parameters (..., P) of coordinates, any numbers; the inverse of `of`.

        Infinite where a logarithm is too large, as far out in the tails of a wide proposal.
        """
        model, params = self.model, np.array(theta, float)
        with np.errstate(over="ignore"):
            if self.log_flux:
                params[..., model.fluxes] = np.exp(params[..., model.fluxes])
            params[..., model.hlr] = np.exp(params[..., model.hlr])
            params[..., model.n] = self._n(params[..., model.n])
        eta1, eta2 = _pair(params, model.shear)
        params[..., model.shear] = np.stack(reduced_shear(eta1, eta2), -1)
        return params

    def _n(self, coordinate):
        """Sérsic index of its coordinate."""
        if self.logit_n:
            return _LOW + (_HIGH - _LOW) * expit(coordinate)
        return np.clip(np.exp(coordinate), *N_RANGE)

    def slope_of_n(self, n):
        """Derivative of the Sérsic index by its coordinate, at given indices."""
        return (n - _LOW) * (_HIGH - n) / (_HIGH - _LOW) if self.logit_n else n

    def derivative(self, theta):
        """Derivative d(parameters) / d(coordinates), (..., P, P): diagonal but for the block of the shear."""
        model, size = self.model, self.model.size
        derivative = np.broadcast_to(np.eye(size), (*theta.shape[:-1], size, size)).copy()
        if self.log_flux:
            for k in range(size)[model.fluxes]:
                derivative[..., k, k] = np.exp(theta[..., k])
        n = theta[..., model.n]
        derivative[..., model.n, model.n] = self.slope_of_n(self._n(n) if self.logit_n else np.exp(n))
        derivative[..., model.hlr, model.hlr] = np.exp(theta[..., model.hlr])
        derivative[..., model.shear, model.shear] = shear_derivative(theta[..., model.shear])
        return derivative

    def log_determinant(self, theta):
        """Log of the determinant of d(parameters) / d(coordinates), to turn one density into the other.

        ``log_density_in_parameters = log_density_in_coordinates - log_det``.
        """
        model, theta = self.model, np.asarray(theta, float)
        n, ln_hlr = theta[..., model.n], theta[..., model.hlr]
        eta = np.maximum(np.hypot(*_pair(theta, model.shear)), 1e-6)
        by_n = n
        if self.logit_n:
            by_n = np.log(_HIGH - _LOW) - np.logaddexp(0, n) - np.logaddexp(0, -n)
        by_flux = theta[..., model.fluxes].sum(-1) if self.log_flux else 0.0
        return by_flux + by_n + ln_hlr - 2 * np.log(np.cosh(eta)) + np.log(np.tanh(eta) / eta)

    @staticmethod
    def limits(size):
        """Lowest and highest ln n and ln hlr, (2, 2), in a stamp of a side in pixels."""
        return np.log([[*N_RANGE], [HLR_MIN, size]])

    def clipped(self, theta, size):
        """A copy of coordinates (N, P), of ln n, brought inside their bounds.

        ``size`` is the side of the stamp in pixels: the largest half-light radius, and the limit of the
        centroid.
        """
        model, out = self.model, theta.copy()
        for k, limits in zip((model.n, model.hlr), self.limits(size), strict=True):
            out[:, k] = np.clip(out[:, k], *limits)
        eta = np.hypot(*_pair(out, model.shear))
        out[:, model.shear] *= np.minimum(1, ETA_MAX / np.maximum(eta, 1e-12))[:, None]
        out[:, model.varying] = np.clip(out[:, model.varying], -LARGEST_COEFFICIENT, LARGEST_COEFFICIENT)
        out[:, model.centre] = np.clip(out[:, model.centre], -0.5, size - 0.5)
        return out


def _pair(array, where):
    """The two columns of a slice."""
    return array[..., where.start], array[..., where.start + 1]


#: Of the fit: flux, ln n, ln hlr, eta1, eta2, x, y, sky.
FIT = Coordinates()
#: Of a posterior: ln flux, logit n, ln hlr, eta1, eta2, x, y.
POSTERIOR = Coordinates(SINGLE_WITHOUT_SKY, log_flux=True, logit_n=True)
