# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""`GalaxyModel`: names, order, bounds and index sets of the parameters of a galaxy."""

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from galshape_cnn.forward.varying import SHAPE_OF, polynomials

__all__ = ["SINGLE", "SINGLE_WITHOUT_SKY", "GalaxyModel"]

_SHAPE = ("n", "hlr", "g1", "g2")
_CENTRE = ("x", "y")


@dataclass(frozen=True)
class GalaxyModel:
    """Parameters of one Sérsic galaxy seen in one image or in several.

    One shape and one centre hold in all images, or the shape varies with wavelength, see
    `galshape_cnn.forward.varying`.  There is a flux for each band and a sky level for each exposure.  In
    every array of parameters the order is: fluxes, n, hlr, g1, g2, coefficients of what varies, x, y, sky
    levels; with one image these are ``flux, n, hlr, g1, g2, x, y, sky``.

    Being hashable, a model may be a static argument of compiled functions.

    Parameters
    ----------
    bands : tuple of str, optional
        Names of the bands, all different.
    exposures : tuple of int, optional
        Number of the band of each exposure.  Empty for a model without sky levels.
    fit_sky : bool, optional
        Whether the sky levels are fitted; otherwise they are known.
    vary : tuple of (str, int), optional
        Order > 0, in ln(wavelength), of what varies between bands: ``n``, ``hlr`` or ``g``.
    wavelengths : tuple of float, optional
        Of the bands, where something varies.

    Attributes
    ----------
    n, hlr : int
        Index of the Sérsic index (in [0.3, 6.2]) and of the circularised half-light radius (> 0).
    fluxes, shear, varying, centre, skies : slice
        Fluxes by band; g1, g2 (\\|g\\| < 1); coefficients; x, y (0-based pixels); sky levels by exposure.
    shape, searched, reported, without_sky : slice
        n to g2; n to y, which enter the image non-linearly; fluxes to coefficients; all but the sky levels.

    Examples
    --------
    >>> from galshape_cnn.forward.galaxy_model import GalaxyModel
    >>> GalaxyModel(("g", "r"), (0, 1, 1)).names
    ('flux_g', 'flux_r', 'n', 'hlr', 'g1', 'g2', 'x', 'y', 'sky_0', 'sky_1', 'sky_2')
    >>> GalaxyModel().names
    ('flux', 'n', 'hlr', 'g1', 'g2', 'x', 'y', 'sky')
    """

    bands: tuple = ("",)
    exposures: tuple = (0,)
    fit_sky: bool = True
    vary: tuple = ()
    wavelengths: tuple = ()

    @cached_property
    def terms(self):
        """Of each coefficient: which of n, hlr, g1, g2 it changes, and its order, ascending."""
        most = max((order for _, order in self.vary), default=0)
        return tuple(
            (which, one)
            for one in range(1, most + 1)
            for name, order in self.vary
            if one <= order
            for which in SHAPE_OF[name]
        )

    @property
    def coefficients(self):
        """Number of coefficients of what varies."""
        return len(self.terms)

    @cached_property
    def polynomials(self):
        """(B, K) ndarray: Chebyshev polynomials of each band's ln(wavelength), from the first order on."""
        return polynomials(self.wavelengths, max(order for _, order in self.vary))

    @cached_property
    def names(self):
        """Names of all parameters, in order."""
        fluxes = ("flux",) if len(self.bands) == 1 else tuple(f"flux_{band}" for band in self.bands)
        number = len(self.exposures)
        skies = ("sky",) if number == 1 else tuple(f"sky_{one}" for one in range(number))
        varying = tuple(f"{_SHAPE[which]}_{order}" for which, order in self.terms)
        return (*fluxes, *_SHAPE, *varying, *_CENTRE, *skies)

    @property
    def reported_names(self):
        """Names of the parameters that are reported: fluxes, n, hlr, g1, g2, and coefficients."""
        return self.names[self.reported]

    @cached_property
    def size(self):
        """Number of parameters."""
        return len(self.names)

    @cached_property
    def n(self):
        """Index of the Sérsic index."""
        return len(self.bands)

    @cached_property
    def hlr(self):
        """Index of the half-light radius."""
        return self.n + 1

    @cached_property
    def shear(self):
        """Where g1, g2 are."""
        return slice(self.n + 2, self.n + 4)

    @cached_property
    def varying(self):
        """Where the coefficients of what varies are."""
        return slice(self.n + 4, self.n + 4 + self.coefficients)

    @cached_property
    def centre(self):
        """Where x, y are."""
        return slice(self.varying.stop, self.varying.stop + 2)

    @cached_property
    def fluxes(self):
        """Where the fluxes are, one for each band."""
        return slice(0, self.n)

    @cached_property
    def skies(self):
        """Where the sky levels are, one for each exposure."""
        return slice(self.centre.stop, self.size)

    @cached_property
    def shape(self):
        """Where n, hlr, g1, g2 are."""
        return slice(self.n, self.n + 4)

    @cached_property
    def searched(self):
        """Where the parameters are that do not enter linearly: shape and centre."""
        return slice(self.n, self.centre.stop)

    @cached_property
    def searched_shear(self):
        """Where g1, g2 are among those."""
        return slice(self.shear.start - self.n, self.shear.stop - self.n)

    @cached_property
    def reported(self):
        """Where the parameters are that the catalogue has columns of: fluxes, shape and its coefficients."""
        return slice(0, self.varying.stop)

    @cached_property
    def without_sky(self):
        """All parameters but the sky levels."""
        return slice(0, self.centre.stop)

    @cached_property
    def flux(self):
        """Index of the flux of a model with one band."""
        return self._only(self.fluxes, "flux")

    @cached_property
    def sky(self):
        """Index of the sky level of a model with one exposure."""
        return self._only(self.skies, "sky level")

    def _only(self, where, what):
        if where.stop - where.start != 1:
            raise ValueError(f"the index of one {what} was asked of {self}, which has another number")
        return where.start

    @cached_property
    def amplitudes(self):
        """Indices (list) of what is counted in the unit of the pixels: fluxes and sky levels."""
        indices = range(self.size)
        return [*indices[self.fluxes], *indices[self.skies]]

    @cached_property
    def linear(self):
        """Indices (list) of the fitted parameters that enter linearly: fluxes, and sky levels if fitted."""
        return [k for k in self.amplitudes if k < self.skies.start or self.fit_sky]

    @cached_property
    def free(self):
        """Indices (list) of all fitted parameters."""
        return [*range(self.size if self.fit_sky else self.skies.start)]

    def units(self, unit):
        """Factors (..., size) that turn parameters counted in units of the noise into those of the pixels.

        That is ``unit`` for fluxes and sky levels, one for the others.
        """
        factors = np.ones((*np.shape(unit), self.size))
        factors[..., self.amplitudes] = np.asarray(unit)[..., None]
        return factors

    def with_sky(self, params, sky=0.0):
        """A copy of parameters with their sky levels, put behind them where they have none."""
        params = np.asarray(params)
        out = np.empty((*params.shape[:-1], self.size), params.dtype)
        out[..., self.without_sky], out[..., self.skies] = params[..., self.without_sky], sky
        return out

    def filled(self, params):
        """Parameters any function can take, and which rows were finite: others are a small round galaxy."""
        known = np.isfinite(params).all(1)
        other = np.zeros(self.size)
        other[self.fluxes] = other[self.n] = other[self.hlr] = 1
        return np.where(known[:, None], params, other), known


#: One image with its sky level: what a compiled kernel renders.
SINGLE = GalaxyModel()
#: The same without the sky: what the networks state a posterior of.
SINGLE_WITHOUT_SKY = GalaxyModel(exposures=())
