# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""`Options`: every option of a measurement, listed once."""

from dataclasses import dataclass, fields, replace

import numpy as np

from galshape_cnn.errors import InputError
from galshape_cnn.forward.galaxy_model import SINGLE
from galshape_cnn.forward.varying import checked_orders
from galshape_cnn.quantities import truth_value, whole_number

__all__ = [
    "METHODS",
    "NEIGHBOURS",
    "Options",
    "measurement_keywords",
    "prior_in_units_of",
    "prior_of_training",
]

_BRIGHTEST = 1e5  # S/N that the prior of the training is continued to for sampling

#: Estimators.
METHODS = ("network", "ml", "posterior")
#: What may be done about other sources in a stamp.
NEIGHBOURS = ("ignore", "mask", "fit")


@dataclass(frozen=True)
class Options:
    """What the user asked for; what the networks know of themselves is with the networks.

    Attributes
    ----------
    method : {'network', 'ml', 'posterior'}
        Estimator.
    fit_sky : bool
        False when the sky is known to be zero.
    neighbours : {'ignore', 'mask', 'fit'}
        What is done about other sources, see `galshape_cnn.infer.measure.neighbours`.
    gain : float or None
        Electrons per unit of flux, > 0, when ``ivar`` lacks the source's photon noise.
    correlation : (ky, kx) ndarray or None
        Autocorrelation of the noise, if pixels are not independent.
    prior : Prior or None
        Replaces that of the training, for ``'posterior'`` and ``'network'``.
    seed : int
        Of the posterior's draws, and of the noise of the shear response.
    shear_response : bool
        Whether the response of the shapes to shear is measured, see `galshape_cnn.infer.shear.response`.
    psf_error : PSFUncertainty or None
        How well the PSF is known, see `galshape_cnn.infer.measure.psf_error`; of several exposures a tuple.
    vary : tuple of (str, int)
        What of the shape varies between bands, and its order > 0 in ln(wavelength).
    """

    method: str = "network"
    fit_sky: bool = True
    neighbours: str = "ignore"
    gain: float | None = None
    correlation: np.ndarray | None = None
    prior: object = None
    seed: int = 0
    shear_response: bool = False
    psf_error: object = None
    vary: tuple = ()

    @classmethod
    def checked(
        cls, *, method, fit_sky, neighbours, prior, seed, shear_response=False, psf_error=None, vary=None
    ):
        """Options from what a user may write; of independent noise, see `with_noise`.

        ``prior`` may be what a `Prior` is made of, ``vary`` a mapping with orders of ``n``, ``hlr``, ``g``.
        ``InputError`` names what is not allowed.
        """
        from galshape_cnn.infer.posterior.prior import Prior

        for name, value, allowed in (("method", method, METHODS), ("neighbours", neighbours, NEIGHBOURS)):
            if not isinstance(value, str) or value not in allowed:
                raise InputError(f"{name}={value!r}; allowed: {', '.join(map(repr, allowed))}")
        if prior is not None and not isinstance(prior, Prior):
            prior = Prior(prior)
        if prior is not None and method == "ml":
            raise InputError("prior is given, but method='ml' uses none; allowed: 'network', 'posterior'")
        shear_response = truth_value(shear_response, "shear_response")
        if shear_response and (method == "posterior" or prior is not None):
            which = f"method={method!r}" if method == "posterior" else "a prior"
            raise InputError(
                f"shear_response=True with {which}; allowed: method='network' or 'ml' without a prior. Draws "
                "of posteriors give a mean shear without it: "
                "galshape_cnn.infer.shear.hierarchical.posterior_shear"
            )
        seed = whole_number(seed, "seed", 0)
        vary = checked_orders(vary)
        settled = None, None, prior, seed, shear_response, psf_error, vary
        return cls(method, truth_value(fit_sky, "fit_sky"), neighbours, *settled)

    @property
    def model(self):
        """`GalaxyModel` of one image, with or without its sky level fitted."""
        return replace(SINGLE, fit_sky=self.fit_sky)

    def with_noise(self, gain, correlation):
        """The same options with gain and autocorrelation of the noise."""
        return replace(self, gain=gain, correlation=correlation)

    def with_method(self, method):
        """The same options for another method."""
        return replace(self, method=method)


def measurement_keywords():
    """Keywords of an estimator's call that say how to measure; all others say what.

    Those of `Options` and of `~galshape_cnn.observe.noise.model.NoiseModel`.
    """
    from galshape_cnn.observe.noise.model import NoiseModel

    own = ("method", "fit_sky", "neighbours", "prior", "seed", "shear_response", "psf_error", "vary")
    return (*own, *(item.name for item in fields(NoiseModel)))


def prior_of_training(network, side):
    """Prior that the likelihood is multiplied with where the user gave none, for stamps of a side in pixels.

    Networks only propose: the prior of their training does not end where that ended, but at an S/N of 1e5 and
    half-light radii of half the stamp, unless its limits are those of the galaxies (``keeps_limits``).
    """
    if network.keeps_limits:
        return network.prior
    return network.prior.reaching(snr=_BRIGHTEST, hlr=side / 2)


def prior_in_units_of(prior, unit):
    """A prior for fluxes counted in a number of their unit, one for all or one for each flux."""
    return _PriorInUnits(prior, unit)


@dataclass(frozen=True)
class _PriorInUnits:
    prior: object
    unit: float

    @property
    def by_snr(self):
        return self.prior.by_snr

    def log_density(self, flux, *shape, **amplitude):
        return self.prior.log_density(flux * self.unit, *shape, **amplitude)
