# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""What a measurement is asked to do, in one object."""

from dataclasses import dataclass, field, replace

import numpy as np

from galshape_cnn.infer.posterior.prior import Prior

__all__ = ["Options", "PriorInUnits"]


@dataclass(frozen=True)
class Options:
    """How to measure.

    Attributes
    ----------
    method : {'network', 'ml', 'posterior'}
        Estimator.
    fit_sky : bool
        False when the sky is known to be zero.
    gain : float, (N,) ndarray or None
        Electrons per unit of flux, when ``ivar`` lacks the source's photon noise.
    prior : Prior or None
        For ``'posterior'``, and for ``'network'`` if there is a ``training_prior``.
    training_prior : Prior or None
        What the network's answer is to be reweighted from; None leaves it as it is.
    seed : int
        Of the posterior's draws.
    domain : dict
        Ranges of training.
    correlation : (ky, kx) ndarray or None
        Autocorrelation of the noise, if pixels are not independent.
    neighbours : {'ignore', 'mask', 'fit'}
        What is done about other sources, see `galshape_cnn.infer.measure.neighbours`.
    trust : dict
        Region in which the network was found trustworthy, see `galshape_cnn.infer.network.trust`.
    """

    method: str = "network"
    fit_sky: bool = True
    gain: float | np.ndarray | None = None
    prior: Prior | None = None
    training_prior: Prior | None = None
    seed: int = 0
    domain: dict = field(default_factory=dict)
    neighbours: str = "ignore"
    trust: dict = field(default_factory=dict)
    correlation: np.ndarray | None = None

    def in_units_of(self, unit):
        """The same options for pixel values of each row counted in a number of their unit.

        The prior counts in the first row's.
        """
        gain = None if self.gain is None else self.gain * unit
        priors = {
            name: None if prior is None else PriorInUnits(prior, unit[0])
            for name, prior in (("prior", self.prior), ("training_prior", self.training_prior))
        }
        return replace(self, gain=gain, **priors)

    def for_rows(self, rows):
        """The same options for some of the rows."""
        return self if self.gain is None else replace(self, gain=self.gain[rows])


@dataclass(frozen=True)
class PriorInUnits:
    """A prior for fluxes counted in a number of their unit."""

    prior: Prior
    unit: float

    @property
    def by_snr(self):
        return self.prior.by_snr

    def log_density(self, flux, *shape, **amplitude):
        return self.prior.log_density(flux * self.unit, *shape, **amplitude)
