# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""Checks that several exposures agree, before any pixel is read."""

import warnings
from collections import Counter
from contextlib import contextmanager
from dataclasses import dataclass, replace

import numpy as np

from galshape_cnn.errors import GalshapeWarning, InputError, warn
from galshape_cnn.forward.galaxy_model import GalaxyModel
from galshape_cnn.observe.exposure import axes_of, opened
from galshape_cnn.observe.exposure_positions import ExposurePositions, exposure_positions
from galshape_cnn.observe.inputs import read_frames
from galshape_cnn.observe.noise.ccd import checked_gain

__all__ = ["AgreedExposures", "agreed_exposures", "check_counts", "wavelengths_of_bands"]


#: Endings of columns, which are no names of bands; and names of which there are such columns already.
_ENDINGS, _TAKEN = ("err", "std", "crb"), ("exposures", "gradient")


@dataclass(frozen=True, eq=False)
class AgreedExposures:
    """Exposures that do not contradict each other.

    Attributes
    ----------
    names : tuple of str
        All different.
    exposures : tuple of Exposure
        Opened, gains in plain numbers.
    model : GalaxyModel
    units : tuple
        Unit of the pixels of each, or None.
    factors : (E,) ndarray
        As of `Exposures`.
    positions : ExposurePositions or None
    """

    names: tuple
    exposures: tuple
    model: GalaxyModel
    units: tuple
    factors: np.ndarray
    positions: ExposurePositions | None

    def of_each(self, function, *args):
        """Results, as a list, of a function of each exposure, its positions and its place in their list.

        Errors of the input and warnings say which exposures they are about.
        """
        found, said = [], {}
        for number, (name, one) in enumerate(zip(self.names, self.exposures, strict=True)):
            where = (None, None) if self.positions is None else self.positions.of_exposure(number)
            with _heard(name, said):
                found.append(_named(name, function, one, where, *args))
        for (category, message), names in said.items():
            what = f"exposure{'s' * (len(names) > 1)} {', '.join(map(repr, names))}"
            warn(f"{what}: {message}", category)
        return found


def agreed_exposures(exposures, positions=None, fit_sky=True, vary=()):
    """Check that exposures, all images or all cutouts, fit together before their pixels are looked at.

    Other arguments as for `prepare_exposures`, but ``vary`` as of `GalaxyModel`. ``InputError`` if they
    contradict each other; its subclasses if a file or the positions cannot be used.
    """
    names = _names(exposures)
    exposures = [_named(name, opened, one) for name, one in zip(names, exposures, strict=True)]
    frames = [_named(name, _frames_of, one) for name, one in zip(names, exposures, strict=True)]
    model = _model(exposures, names, fit_sky, vary)
    units = tuple(unit for _, unit in frames)
    exposures = tuple(
        replace(one, gain=_named(name, checked_gain, one.gain, unit))
        for name, one, unit in zip(names, exposures, units, strict=True)
    )
    factors = _factors(exposures, names, model, units)
    places = exposure_positions(exposures, names, [wcs for wcs, _ in frames], positions)
    return AgreedExposures(names, exposures, model, units, factors, places)


def check_counts(names, parts):
    """Refuse named exposures that hold different numbers of cutouts, the lengths of ``parts``."""
    if len({len(one) for one in parts}) > 1:
        listed = ", ".join(f"{name}: {len(one)}" for name, one in zip(names, parts, strict=True))
        raise InputError(f"the exposures hold different numbers of cutouts ({listed}); they must be equal")


def _names(exposures):
    """A name for each exposure, all different."""
    if not len(exposures):
        raise InputError("data is an empty list; at least one Exposure is needed")
    count, names = Counter(), []
    for one in exposures:
        count[one.band] += 1
        names.append(one.name or f"{one.band or 'exposure'}{count[one.band]}")
    twice = [name for name, number in Counter(names).items() if number > 1]
    if twice:
        raise InputError(f"two exposures have the name {twice[0]!r}; give each its own name=")
    return tuple(names)


def _named(name, function, *args):
    """Call a function; errors of the input say which exposure they are about."""
    try:
        return function(*args)
    except InputError as error:
        raise type(error)(f"exposure {name!r}: {error}") from error


@contextmanager
def _heard(name, said):
    """Keep warnings of the package, by category and text, with the names of the exposures they are about."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.filterwarnings("always", category=GalshapeWarning)
        yield
    for one in caught:
        if issubclass(one.category, GalshapeWarning):
            said.setdefault((one.category, str(one.message)), []).append(name)
        else:
            warnings.warn_explicit(one.message, one.category, one.filename, one.lineno)


def _frames_of(exposure):
    """WCS and unit of an exposure, pixels untouched; a list of WCS for cutouts."""
    frames, unit = read_frames(exposure.data, error=exposure.error, mask=exposure.mask, wcs=exposure.wcs)
    is_image = axes_of(exposure.data) == 2
    return (frames[0].wcs if is_image else [one.wcs for one in frames]), unit


def _model(exposures, names, fit_sky, vary):
    """Bands in the order of their first exposures."""
    bands = tuple(dict.fromkeys(one.band for one in exposures))
    if len(bands) > 1 and "" in bands:
        missing = [k for k, one in enumerate(exposures) if not one.band]
        raise InputError(f"data[{missing[0]}] has no band, others have; give band= to all exposures")
    if len(bands) > 1:
        _check_bands(bands)
    numbers = tuple(bands.index(one.band) for one in exposures)
    wavelengths = ()
    if vary:
        own = ([getattr(one, name) for one in exposures] for name in ("band", "wavelength"))
        wavelengths = wavelengths_of_bands(*own, names, vary)
    return GalaxyModel(bands, numbers, bool(fit_sky), vary, wavelengths)


def _check_bands(bands):
    """Refuse names of bands that make columns of another meaning, such as ``flux_err`` of a band err."""
    for band in bands:
        words = band.lower().split("_")
        if words[-1] in _ENDINGS or band.lower() in _TAKEN:
            raise InputError(
                f"band {band!r}: its column flux_{band} could mean another; allowed: names that do not end "
                f"with {', '.join(_ENDINGS)}, nor are {' or '.join(_TAKEN)}"
            )


def wavelengths_of_bands(bands, wavelengths, names, vary):
    """Wavelength of each band, of which there must be more than the orders of what varies.

    Bands, wavelengths (or None) and names are of each exposure; bands come in the order of their first ones.
    ``InputError`` if a wavelength is missing, two of a band differ, or there are too few.
    """
    found = {}
    for band, wavelength, name in zip(bands, wavelengths, names, strict=True):
        if wavelength is None:
            raise InputError(
                f"exposure {name!r} of band {band!r} has no wavelength, which vary= needs; give wavelength= "
                "to it"
            )
        if wavelength != found.setdefault(band, wavelength):
            raise InputError(
                f"exposure {name!r} of band {band!r} has wavelength {wavelength:.6g}, another one of the "
                f"band {found[band]:.6g}; they must be equal"
            )
    different = len(set(found.values()))
    for name, order in vary:
        if order >= different:
            raise InputError(
                f"vary={{{name!r}: {order}}} with {different} wavelengths; allowed: orders below their number"
            )
    return tuple(found.values())


def _factors(exposures, names, model, units):
    """Pixel values of each exposure over those of the first one of its band, for the same light."""
    factors = np.ones(len(exposures))
    for number, (one, band) in enumerate(zip(exposures, model.exposures, strict=True)):
        first = model.exposures.index(band)
        other = exposures[first]
        if (one.zeropoint is None) != (other.zeropoint is None):
            without = names[number] if one.zeropoint is None else names[first]
            raise InputError(
                f"exposure {without!r} of band {one.band!r} has no zeropoint, others of the band have; give "
                "it to all exposures of the band, or to none if their pixels count the same light alike"
            )
        if one.zeropoint is not None:
            factors[number] = 10 ** (0.4 * (one.zeropoint - other.zeropoint))
        elif units[number] != units[first]:
            factors[number] = 1 / _unit_ratio(units[number], units[first], names[number], one.band)
    return factors


def _unit_ratio(unit, other, name, band):
    """One unit in another."""
    import astropy.units as u

    try:
        return (unit or u.dimensionless_unscaled).to(other or u.dimensionless_unscaled)
    except u.UnitConversionError as error:
        raise InputError(
            f"exposure {name!r} of band {band!r} has unit {unit}, another one of the band {other}; units "
            "that can be converted are needed, or zeropoint= for each"
        ) from error
