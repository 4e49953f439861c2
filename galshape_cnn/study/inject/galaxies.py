# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""Parameters of galaxies to be injected, from a prior or a catalogue.

``sersic``
    One Sérsic profile: what the package fits.
``bulge_disc``
    An exponential disc with a rounder de Vaucouleurs bulge.
``clumpy``
    An exponential disc, part of whose light is in point-like knots (`galsim.RandomKnots`) that
    follow the disc.
``spiral``
    An exponential disc with two logarithmic arms of blobs, as bright as the disc is there.
``real``
    An image of the HST (`galsim.RealGalaxy`), deconvolved and turned by a random angle.

What is *true* of each: a Sérsic galaxy has its parameters.  ``clumpy`` and ``spiral`` have those of
the smooth disc that they are drawn from, with the light of all components.  ``bulge_disc`` and
``real`` have no parameters of one Sérsic profile: theirs are the best fit to their image without noise.
"""

import astropy.units as u
import numpy as np
from astropy.table import Table

from galshape_cnn.errors import InputError
from galshape_cnn.geometry import axis_ratio
from galshape_cnn.infer.posterior.prior import Prior
from galshape_cnn.masked import filled
from galshape_cnn.quantities import plain_values

__all__ = ["KINDS", "TRUTHS", "checked_kinds", "default_prior", "galaxy_rows", "population"]

#: Kinds of galaxies, and what is taken as the truth of each.
TRUTHS = {
    "sersic": "exact",
    "bulge_disc": "best fit",
    "clumpy": "smooth component",
    "spiral": "smooth component",
    "real": "best fit",
}
KINDS = tuple(TRUTHS)

#: Ranges from which the share of the light outside the smooth disc is drawn.
_STRUCTURE = {"bulge_disc": (0.1, 0.6), "clumpy": (0.1, 0.6), "spiral": (0.2, 0.5)}
_N_RANGE, _LARGEST_SHEAR = (0.3, 6.2), 0.95
#: Half-light radii of the default prior in units of the PSF's FWHM, and the largest as part of a stamp.
_SIZES, _LARGEST_SIZE = (0.3, 1.5), 1 / 8


def default_prior(fwhm, stamp_size):
    """Galaxies that most surveys are full of, whatever their PSF.

    Parameters
    ----------
    fwhm : float
        Of the PSF, pixels.
    stamp_size : int
        Side of the stamps, pixels.

    Returns
    -------
    prior : Prior
        S/N 10 to 300, uniform in its logarithm as the half-light radius is between 0.3 and 1.5 FWHM; n 0.5
        to 5; |g| below 0.6.
    """
    largest = max(min(_SIZES[1] * fwhm, _LARGEST_SIZE * stamp_size), 2 * _SIZES[0] * fwhm)
    return Prior(
        {
            "snr": {"kind": "loguniform", "low": 10, "high": 300},
            "n": {"kind": "uniform", "low": 0.5, "high": 5.0},
            "hlr": {"kind": "loguniform", "low": _SIZES[0] * fwhm, "high": largest},
            "g": {"kind": "rayleigh", "sigma": 0.25, "low": 0.0, "high": 0.6},
        }
    )


def checked_kinds(kinds):
    """Shares, of unit sum, of one kind of galaxies or several with weights >= 0.

    ``InputError`` if a kind is unknown, or the weights are none.
    """
    if isinstance(kinds, str):
        kinds = {kinds: 1.0}
    if not (hasattr(kinds, "items") and kinds and set(kinds) <= set(KINDS)):
        raise InputError(
            f"kinds={kinds!r}; allowed: {', '.join(map(repr, KINDS))}, or weights by these names"
        )
    try:
        weights = {name: float(value) for name, value in kinds.items()}
    except (TypeError, ValueError):
        weights = {}
    total = sum(weights.values())
    if not (weights and all(0 <= value < np.inf for value in weights.values()) and total > 0):
        raise InputError(f"kinds={kinds!r}; allowed: weights >= 0, one of them above 0")
    return {name: value / total for name, value in weights.items() if value}


def population(prior, catalogue, has_sky, unit=None):
    """Where the parameters of the galaxies come from.

    Parameters
    ----------
    prior : Prior, mapping or Table
        A prior, lengths in pixels; a table is taken as ``catalogue``.
    catalogue : Table or None
        Columns ``flux`` or ``snr``; ``n``; ``hlr`` or ``r_eff``; ``g1`` and ``g2``, or ``q`` and ``pa``.
    has_sky : bool
        Whether sizes without a unit are in arcsec, as the measured ones are; otherwise in pixels.
    unit : astropy unit or None, optional
        Of the image, and so of fluxes.

    Returns
    -------
    source : Prior or Table
        A table has the columns ``snr``, ``flux`` (one is NaN), ``n``, ``hlr``, ``g1``, ``g2``.

    Raises
    ------
    InputError
        If a column is missing, or a value impossible.
    """
    if hasattr(prior, "colnames"):
        if catalogue is not None:
            raise InputError("prior is a table and catalogue is given too; give one of them")
        prior, catalogue = None, prior
    if catalogue is None:
        return prior if isinstance(prior, Prior) else Prior(prior)
    if prior is not None:
        raise InputError("prior and catalogue both say what to inject; give one of them")
    return _read_catalogue(catalogue, u.arcsec if has_sky else u.pix, unit)


def _read_catalogue(catalogue, length, flux):
    """Columns of the user's table under the names and in the units of the truth."""
    names = getattr(catalogue, "colnames", None)
    if names is None:
        raise InputError(f"catalogue is a {type(catalogue).__name__}; an astropy Table is needed")
    if not len(catalogue):
        raise InputError("catalogue is empty; at least one galaxy is needed")
    one_of = (("flux", "snr"), ("n",), ("hlr", "r_eff"))
    for choice in one_of:
        if not set(choice) & set(names):
            raise InputError(f"catalogue has no column {' or '.join(choice)}; it has {', '.join(names)}")
    g1, g2 = _shears(catalogue, names)
    hlr = _numbers(catalogue, "hlr", length) if "hlr" in names else None
    if hlr is None:
        hlr = _numbers(catalogue, "r_eff", length) * np.sqrt(axis_ratio(g1, g2))
    nothing = np.full(len(catalogue), np.nan)
    by_snr = "snr" in names and "flux" not in names
    table = {
        "snr": _numbers(catalogue, "snr") if by_snr else nothing,
        "flux": nothing if by_snr else _numbers(catalogue, "flux", flux),
        "n": _numbers(catalogue, "n"),
        "hlr": hlr,
        "g1": g1,
        "g2": g2,
    }
    _check_rows(table, "snr" if by_snr else "flux")
    return Table(table)


def _numbers(catalogue, name, unit=None):
    """A column as plain numbers in a unit, NaN where masked."""
    column = plain_values(catalogue[name], unit, f"column {name} of catalogue")
    try:
        return filled(column)
    except (TypeError, ValueError) as error:
        raise InputError(f"column {name} of catalogue: {error}") from error


def _shears(catalogue, names):
    """g1, g2 from themselves or from axis ratio and position angle."""
    if {"g1", "g2"} <= set(names):
        return _numbers(catalogue, "g1"), _numbers(catalogue, "g2")
    if not {"q", "pa"} <= set(names):
        raise InputError(f"catalogue needs the columns g1 and g2, or q and pa; it has {', '.join(names)}")
    q, pa = _numbers(catalogue, "q"), np.radians(_numbers(catalogue, "pa", u.deg))
    modulus = (1 - q) / (1 + q)
    return -modulus * np.cos(2 * pa), -modulus * np.sin(2 * pa)


def _check_rows(table, amplitude):
    """Refuse galaxies that cannot be drawn."""
    low, high = _N_RANGE
    checks = (
        (amplitude, table[amplitude] > 0, "above 0"),
        ("n", (table["n"] >= low) & (table["n"] <= high), f"in [{low}, {high}], the range GalSim renders"),
        ("hlr", (table["hlr"] > 0) & np.isfinite(table["hlr"]), "above 0"),
        ("g1, g2", np.hypot(table["g1"], table["g2"]) <= _LARGEST_SHEAR, f"|g| <= {_LARGEST_SHEAR}"),
    )
    for name, good, allowed in checks:
        if not np.all(good):
            row = int(np.argmin(good))
            raise InputError(f"catalogue, column {name}, row {row}: allowed: {allowed}")


def galaxy_rows(source, kinds, first, count, seed, scale):
    """Parameters of some of the galaxies, each a function of the seed and its number alone.

    Parameters
    ----------
    source : Prior or Table
        From `population`.
    kinds : dict of str to float
        From `checked_kinds`.
    first, count : int
        Numbers of the galaxies, from 0 on.
    seed : int
        Of the run.
    scale : float
        Of the pixels, arcsec; 1 without WCS.

    Returns
    -------
    rows : `~astropy.table.Table`
        ``id`` (from 1 on), ``kind``, ``snr``, ``flux`` (one of them NaN until it is drawn), ``n``, ``hlr``
        (arcsec, or pixels), ``g1``, ``g2``; ``structure``, the share of the light outside the smooth
        component.
    """
    from galshape_cnn.study.simulate.galsim_stamps import nearest_index

    rows = []
    for number in range(first, first + count):
        rng = np.random.default_rng([seed, number])
        if isinstance(source, Prior):
            amplitude, n, hlr, g1, g2 = source.sample(rng, 1)[0]
            snr, flux = (amplitude, np.nan) if source.by_snr else (np.nan, amplitude)
            n, hlr = float(nearest_index(n)), hlr * scale
        else:
            snr, flux, n, hlr, g1, g2 = (float(value) for value in source[number % len(source)].values())
        kind = str(rng.choice(list(kinds), p=list(kinds.values())))
        share = rng.uniform(*_STRUCTURE[kind]) if kind in _STRUCTURE else 0.0
        n = n if kind == "sersic" else np.nan if kind == "real" else 1.0
        rows.append((number + 1, kind, snr, flux, n, hlr, g1, g2, share))
    names = ("id", "kind", "snr", "flux", "n", "hlr", "g1", "g2", "structure")
    return Table(rows=rows, names=names)
