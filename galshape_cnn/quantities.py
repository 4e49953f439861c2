# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""Numbers with or without units, checked.

astropy is imported only where there is a unit: the command line reads its options without it.
"""

import numpy as np

from galshape_cnn.errors import InputError

__all__ = [
    "flux_unit",
    "plain_magnitude",
    "plain_number",
    "plain_values",
    "truth_value",
    "unit_of",
    "whole_number",
]


_NO_NUMBERS = (str, bytes, bool, np.bool_)  # float() would take them: True for 1, "2" for 2


def unit_of(data):
    """Unit that data carry, or None; of a sequence it is that of the first."""
    if isinstance(data, list | tuple) and len(data):
        return unit_of(data[0])
    return getattr(data, "unit", None)


def flux_unit(unit):
    """A unit of fluxes, from itself or its name; None stays None.

    ``InputError`` if there is no such unit, or it is one of logarithms.
    """
    if unit is None:
        return None
    import astropy.units as u

    try:
        known = u.Unit(unit)
    except (TypeError, ValueError) as error:
        raise InputError(f"unit={unit!r}; allowed: an astropy unit of fluxes, or its name") from error
    if not isinstance(known, u.UnitBase):  # mag, dex
        raise InputError(f"unit={str(known)!r} is one of logarithms; allowed: a linear unit of fluxes")
    return known


def plain_values(value, unit, name, power=1):
    """Values, of the same type, without unit, in the one in which an argument is meant.

    What has no unit comes back as it is; ``unit`` is None for numbers without dimension. The argument is
    meant in a ``power`` of it, which is raised only where the argument has a unit: there are units so absurd
    that they have no power.  ``InputError``, which names the argument, if the units do not fit.
    """
    own = getattr(value, "unit", None)
    if own is None:
        return value
    import astropy.units as u

    wanted = u.dimensionless_unscaled if unit is None else unit**power
    try:
        factor = own.to(wanted)
    except (u.UnitsError, AttributeError, TypeError) as error:
        allowed = "no unit" if wanted == u.dimensionless_unscaled else f"numbers, or a Quantity in {wanted}"
        raise InputError(f"{name} has unit {str(own) or 'one'}; allowed: {allowed}") from error
    plain = value.value if hasattr(value, "value") else np.ma.asarray(value)
    return plain if factor == 1 else plain * factor


def plain_number(value, name, allowed, *, unit=None, above=-np.inf, least=-np.inf):
    """One finite number, above one limit and at least another, of what the user gave.

    A Quantity is counted in ``unit``, None for numbers without dimension. ``InputError`` names the argument
    and what is allowed if it is no such number, or has another unit.
    """
    plain = plain_values(value, unit, name)
    try:
        number = np.nan if np.ndim(plain) or isinstance(plain, _NO_NUMBERS) else float(plain)
    except (TypeError, ValueError):
        number = np.nan
    if not (np.isfinite(number) and number > above and number >= least):
        raise InputError(f"{name}={value!r}; allowed: {allowed}")
    return number


def plain_magnitude(value, name):
    """One finite magnitude: ``25.0``, ``25 * u.mag``, or of any system, ``25 * u.ABmag``.

    ``InputError``, naming the argument, if it is anything else.
    """
    allowed, unit = "one finite magnitude, a number or in mag", getattr(value, "unit", None)
    if unit is None:
        return plain_number(value, name, allowed)
    import astropy.units as u

    value = value.value if getattr(unit, "function_unit", unit) == u.mag else value
    return plain_number(value, name, allowed, unit=u.mag)


def truth_value(value, name):
    """True or False; ``InputError``, naming the argument, if it is anything else.

    Any text would be taken for True, ``"no"`` as well.
    """
    if not isinstance(value, (bool, np.bool_, int)) or value not in (0, 1):
        raise InputError(f"{name}={value!r}; allowed: True or False")
    return bool(value)


def whole_number(value, name, least):
    """A whole number not below the least; ``InputError``, naming the argument, if it is anything else."""
    allowed = f"a whole number, at least {least}"
    number = plain_number(value, name, allowed, least=least)
    if number != int(number):
        raise InputError(f"{name}={value!r}; allowed: {allowed}")
    return int(number) if not isinstance(value, int) else value
