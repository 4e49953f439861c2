# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""Domain of the atlas: galaxies and conditions the network was trained for.

A network for one survey knows one family of PSFs, a range of sizes, a known sky.  Whatever lies outside is
flagged, rightly, so "nothing is wrong here" has to be said of galaxies and conditions of its own training.
"""

from dataclasses import dataclass

import numpy as np

from galshape_cnn.infer.network.conditions import conditions_of
from galshape_cnn.infer.posterior.prior import Distribution, Prior

__all__ = ["AtlasDomain", "domain_of"]

_MARGIN = 0.1  # in the logarithm of sizes: estimates scatter, and a limit crossed is flagged
_LARGEST = 1.3  # radius of a disc of the atlas over that of the galaxy it is made from


@dataclass(frozen=True)
class AtlasDomain:
    """What the galaxies of the atlas are drawn from; by default what any network should know.

    Attributes
    ----------
    levels : tuple of float
        S/N.
    beta : float
        Exponent of the Moffat PSF.
    fwhm : (float, float)
        Of the PSF, pixels.
    n, hlr : (float, float)
        Limits of index and half-light radius (pixels), beside those of ordinary galaxies.
    unit : float
        Noise of a pixel.
    unknown : tuple of str
        Families whose strengths are all outside of the training: none of them is nominal.
    without : tuple of str
        Families that make no sense for the network.
    """

    levels: tuple = (20, 60, 200)
    beta: float = 3.0
    fwhm: tuple = (2.5, 4.0)
    n: tuple = (0.8, 4.0)
    hlr: tuple = (0.0, np.inf)
    unit: float = 1.0
    unknown: tuple = ()
    without: tuple = ()


def domain_of(bundle):
    """The part of the atlas' ordinary galaxies and conditions that a network was trained for."""
    usual, config = AtlasDomain(), bundle.provenance.get("config")
    psf = config.get("psf", {}) if isinstance(config, dict) else {}
    beta, width = psf.get("moffat_beta"), psf.get("fwhm", {})
    fwhm = usual.fwhm
    if "low" in width and "high" in width:
        fwhm = _common(usual.fwhm, (width["low"], width["high"]))
    limits = {key: bundle.domain.get(key, (-np.inf, np.inf)) for key in ("snr", "n", "hlr")}
    levels = tuple(snr for snr in usual.levels if limits["snr"][0] <= snr <= limits["snr"][1])
    low, high = limits["hlr"]
    known = conditions_of(bundle)
    return AtlasDomain(
        levels=levels or (float(np.sqrt(limits["snr"][0] * limits["snr"][1])),),
        beta=usual.beta if beta is None else float(beta),
        fwhm=fwhm,
        n=_common(usual.n, limits["n"]),
        hlr=(max(low, 0.0) * np.exp(_MARGIN), high * np.exp(-_MARGIN) / _LARGEST),
        unit=_noise(config) if isinstance(config, dict) else 1.0,
        unknown=(() if known.masks else ("masked",))
        + (() if beta is None else ("undersampled", "unseen_psf")),
        without=("sky_fitted",) if known.fit_sky is False else ("sky_wrong",) if known.fit_sky else (),
    )


def _noise(config):
    """Noise of the training, where its prior on fluxes makes that matter."""
    sigma = Distribution(config["noise"]["sigma"], "noise.sigma")
    return 1.0 if Prior(config["prior"]).by_snr else float(np.sqrt(sigma.low * sigma.high))


def _common(one, other):
    """The part of an interval in another, or that other where they have none in common."""
    low, high = max(one[0], other[0]), min(one[1], other[1])
    return (float(low), float(high)) if low < high else (float(other[0]), float(other[1]))
