# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""Priors of the five parameters, from plain configuration.

A prior is a mapping with the keys ``n``, ``hlr`` (pixels), ``g`` (the modulus |g|; its
angle is uniform) and either ``flux`` or ``snr``, each a distribution::

    {"kind": "uniform", "low": 0.5, "high": 6.0}
    {"kind": "loguniform", "low": 5, "high": 1000}
    {"kind": "lognormal", "median": 1.3, "sigma": 0.6, "low": 0.3, "high": 6.2}
    {"kind": "rayleigh", "sigma": 0.3, "low": 0.0, "high": 0.7}
    {"kind": "mixture", "weights": [0.6, 0.4], "parts": [..., ...]}

A prior on S/N says how flux is distributed given everything else: the flux of a galaxy of given shape
is its S/N over that of unit flux.  For ``loguniform`` the density in flux is 1/flux, between limits.
"""

from dataclasses import dataclass

import numpy as np

from galshape_cnn.errors import InputError
from galshape_cnn.quantities import plain_number

__all__ = ["Distribution", "Prior"]

_REQUIRED = {
    "uniform": {"low", "high"},
    "loguniform": {"low", "high"},
    "lognormal": {"median", "sigma", "low", "high"},
    "rayleigh": {"sigma", "low", "high"},
    "mixture": {"weights", "parts"},
}
#: In what the numbers of a distribution are counted, where that must be said.
_UNITS = {"flux": ", in the unit of the pixels", "hlr": " of pixels"}
_GRID = 4001


def _shape(spec, x):
    """Unnormalised density of one simple distribution."""
    kind = spec["kind"]
    if kind == "uniform":
        return np.ones_like(x)
    if kind == "loguniform":
        return 1 / x
    if kind == "lognormal":
        return np.exp(-0.5 * (np.log(x / spec["median"]) / spec["sigma"]) ** 2) / x
    return x * np.exp(-0.5 * (x / spec["sigma"]) ** 2)


def _reaching(spec, high):
    """Configuration of a distribution whose support reaches up to ``high`` at least."""
    if spec["kind"] == "mixture":
        return {**spec, "parts": [_reaching(part, high) for part in spec["parts"]]}
    return {**spec, "high": max(spec["high"], high)}


def _as_dict(spec):
    """A copy of a mapping; what is none is refused later, by name."""
    return dict(spec) if hasattr(spec, "keys") else spec


def _check(spec, name):
    kind = spec.get("kind") if hasattr(spec, "get") else None
    if not isinstance(kind, str) or kind not in _REQUIRED:
        raise InputError(f"prior {name!r}: kind={kind!r}, allowed: {sorted(_REQUIRED)}")
    keys = set(spec) - {"kind"}
    if keys != _REQUIRED[kind]:
        needed = sorted(_REQUIRED[kind])
        raise InputError(f"prior {name!r} of kind {kind!r} needs {needed}, got {sorted(keys)}")
    if kind == "mixture":
        for part in spec["parts"]:
            _check(part, name)
        return
    allowed = f"a plain finite number{_UNITS.get(name, '')}"
    low, high = (plain_number(spec[key], f"prior {name!r}: {key}", allowed) for key in ("low", "high"))
    if not low < high:
        raise InputError(f"prior {name!r}: low={low} must be below high={high}")
    for key in keys - {"low", "high"}:
        plain_number(spec[key], f"prior {name!r}: {key}", "a plain number above 0", above=0)


@dataclass(frozen=True)
class Distribution:
    """One-dimensional density on an interval, from its configuration.

    Parameters
    ----------
    spec : mapping
        As in the module's description.
    name : str
        Named in error messages.

    Raises
    ------
    InputError
        If the configuration has unknown, missing or impossible entries.
    """

    spec: dict
    name: str = "parameter"

    def __post_init__(self):
        _check(self.spec, self.name)
        mixture = self.spec["kind"] == "mixture"
        parts = self.spec["parts"] if mixture else [self.spec]
        weights = np.array(self.spec["weights"] if mixture else [1.0], float)
        object.__setattr__(self, "_parts", [self._tabulate(p) for p in parts])
        object.__setattr__(self, "_weights", weights / weights.sum())

    @staticmethod
    def _tabulate(spec):
        low, high = spec["low"], spec["high"]
        x = np.geomspace(low, high, _GRID) if low > 0 else np.linspace(low, high, _GRID)
        density = _shape(spec, x)
        cumulative = np.concatenate([[0], np.cumsum(np.diff(x) * 0.5 * (density[1:] + density[:-1]))])
        return spec, x, cumulative / cumulative[-1], np.log(cumulative[-1])

    @property
    def low(self):
        """Lower end of the support."""
        return min(x[0] for _, x, _, _ in self._parts)

    @property
    def high(self):
        """Upper end of the support."""
        return max(x[-1] for _, x, _, _ in self._parts)

    def sample(self, rng, size):
        """Draw ``size`` values with a `numpy.random.Generator`."""
        which = rng.choice(len(self._parts), size=size, p=self._weights)
        u = rng.uniform(size=size)
        draws = np.stack([np.interp(u, cdf, x) for _, x, cdf, _ in self._parts])
        return draws[which, np.arange(size)]

    def log_density(self, values):
        """Logarithm of the normalised density; -inf outside the support."""
        values = np.asarray(values, float)
        out = []
        for weight, (spec, x, _, log_norm) in zip(self._weights, self._parts, strict=True):
            inside = (values >= x[0]) & (values <= x[-1])
            with np.errstate(divide="ignore"):
                density = np.log(weight * _shape(spec, np.where(inside, values, x[-1]))) - log_norm
            out.append(np.where(inside, density, -np.inf))
        return np.logaddexp.reduce(out, axis=0)


@dataclass(frozen=True)
class Prior:
    """Prior over flux (or S/N), n, hlr and the shear.

    Parameters
    ----------
    config : mapping
        Keys n, hlr, g and one of flux, snr; see the module's description.

    Raises
    ------
    InputError
        If a key is missing or unknown, or a distribution is impossible.
    """

    config: dict

    def __post_init__(self):
        if not hasattr(self.config, "keys"):
            raise InputError(f"prior is a {type(self.config).__name__}; a mapping of distributions is needed")
        keys = set(self.config)
        if keys not in ({"n", "hlr", "g", "flux"}, {"n", "hlr", "g", "snr"}):
            raise InputError(f"a prior needs n, hlr, g and one of flux, snr; got {sorted(map(str, keys))}")
        parts = {key: Distribution(_as_dict(self.config[key]), key) for key in sorted(keys)}
        object.__setattr__(self, "_parts", parts)
        if parts["g"].high >= 1 or parts["g"].low < 0:
            raise InputError("prior 'g' must lie in [0, 1)")

    def __getitem__(self, key):
        return self._parts[key]

    @property
    def by_snr(self):
        """True when the amplitude is drawn as S/N and not as flux."""
        return "snr" in self._parts

    def reaching(self, **limits):
        """The same prior with supports that reach farther up.

        Limits are the upper ends wanted of ``snr``, ``flux``, ``n``, ``hlr`` or ``g``; one that is reached,
        and a parameter that the prior does not have, change nothing.
        """
        known = {name: high for name, high in limits.items() if name in self._parts}
        return Prior({name: _reaching(spec, known.get(name, 0)) for name, spec in self.config.items()})

    def sample(self, rng, size):
        """Draw amplitude (S/N or flux, see `by_snr`), n, hlr in pixels, g1, g2: (size, 5)."""
        amplitude = self["snr" if self.by_snr else "flux"].sample(rng, size)
        n, hlr, g = (self[key].sample(rng, size) for key in ("n", "hlr", "g"))
        angle = rng.uniform(0, 2 * np.pi, size)
        return np.stack([amplitude, n, hlr, g * np.cos(angle), g * np.sin(angle)], 1)

    def log_density(self, flux, n, hlr, g1, g2, snr=None):
        """Logarithm of the density in flux, n, hlr (pixels), g1 and g2; -inf outside the support.

        ``snr`` is that of a galaxy with these parameters, where a prior on S/N sets the flux; without it that
        part of the density is 1/flux, without limits.
        """
        flux, g = np.asarray(flux, float), np.hypot(g1, g2)
        with np.errstate(divide="ignore", invalid="ignore"):
            if self.by_snr:
                amplitude = np.where(flux > 0, -np.log(np.maximum(flux, 1e-300)), -np.inf)
                if snr is not None:  # d(S/N) / d(flux) = (S/N) / flux
                    amplitude = amplitude + self["snr"].log_density(snr) + np.log(np.maximum(snr, 1e-300))
            else:
                amplitude = self["flux"].log_density(flux)
        return amplitude + self["n"].log_density(n) + self["hlr"].log_density(hlr) + self._log_shear(g)

    def log_density_of_shape(self, n, hlr, g1, g2):
        """Logarithm of the density in n, hlr, g1 and g2 alone, -inf outside the support."""
        return self["n"].log_density(n) + self["hlr"].log_density(hlr) + self._log_shear(np.hypot(g1, g2))

    def log_density_of_shear(self, g1, g2):
        """Logarithm of the density in g1 and g2 alone, -inf outside the support."""
        return self._log_shear(np.hypot(g1, g2))

    def _log_shear(self, g):
        return self["g"].log_density(g) - np.log(2 * np.pi * np.maximum(g, 1e-6))
