# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""Conversion of any uncertainty to inverse variance.

Nothing is converted before it is cut: `Noise` remembers the caller's array and
what it means, and `Noise.inverse_variance` converts the part that is asked
for, so that a large memory-mapped map stays on disk.
"""

from dataclasses import dataclass

import astropy.units as u
import numpy as np
from astropy.nddata import InverseVariance, StdDevUncertainty, VarianceUncertainty

from galshape_cnn.errors import InputError, NoiseError
from galshape_cnn.masked import as_masked_array, filled, hidden_mask, split_mask

__all__ = ["NO_NOISE", "Noise", "noise_from_error", "noise_from_uncertainty", "same_noise"]

#: What to say when nothing tells how noisy the pixels are.
NO_NOISE = (
    "no noise information: give error= (1 sigma per pixel, a number or an array), set the uncertainty of "
    "the NDData (StdDevUncertainty, VarianceUncertainty or InverseVariance), or name the HDU that holds it"
)

#: Power of sigma that each kind of uncertainty holds.
_POWERS = {"std": 1, "var": 2, "ivar": -2}
_KINDS = {StdDevUncertainty: "std", VarianceUncertainty: "var", InverseVariance: "ivar"}
_NAMES = {"std": "error (1 sigma)", "var": "variance", "ivar": "inverse variance"}


@dataclass(frozen=True)
class Noise:
    """An array, or one number, that describes the noise, not yet converted.

    Attributes
    ----------
    array : array_like
        The caller's array or a number; only sliced.  Masked pixels have no information.
    kind : {"std", "var", "ivar"}
        What the numbers are.
    factor : float
        Turns the numbers into the unit of the data (to the power that belongs
        to the kind).
    name : str
        Name of the argument, for messages.
    """

    array: object
    kind: str
    factor: float = 1.0
    name: str = "error"

    def __getitem__(self, index):
        """Noise of a part of the image; a single number holds for every part."""
        if np.ndim(self.array) == 0:
            return self
        return Noise(self.array[index], self.kind, self.factor, self.name)

    @property
    def shape(self):
        """Shape of the array, ``()`` for one number."""
        return np.shape(self.array)

    def inverse_variance(self):
        """Convert to inverse variance.

        Returns
        -------
        ivar : float64 ndarray
            Zero where the noise is masked, NaN, infinite, or zero: no pixel is free
            of noise, so a zero marks one without information.

        Raises
        ------
        NoiseError
            If a value is negative.
        """
        values = filled(self.array)
        values = values if self.factor == 1 else values * self.factor
        negative = values < 0
        if negative.any():
            raise NoiseError(
                f"{self.name} has {negative.sum()} negative pixels (lowest {np.nanmin(values):.4g}); "
                f"an {_NAMES[self.kind]} must be > 0, or zero or NaN for pixels that do not count"
            )
        if self.kind != "ivar":
            with np.errstate(divide="ignore", over="ignore"):
                values = 1.0 / (values if self.kind == "var" else values**2)
        finite = np.isfinite(values)
        if finite.all() and self.kind != "ivar":  # else it may be the caller's array
            return values
        return np.where(finite, values, 0.0)

    def standard_deviation(self):
        """Convert to 1 sigma.

        Returns
        -------
        sigma : float64 ndarray
            NaN, infinite, zero or negative where there is no information.
        """
        values, mask = split_mask(self.array)
        values = np.asarray(values)
        with np.errstate(divide="ignore", invalid="ignore"):
            if self.kind != "std":
                values = np.sqrt(values) if self.kind == "var" else 1 / np.sqrt(values)
        sigma = values.astype(float) * self.factor ** (1 / _POWERS[self.kind])
        return sigma if mask is None else np.where(mask, np.nan, sigma)

    def check_usable(self):
        """Refuse noise that leaves no pixel with information: ``NoiseError``.

        That is, if every value is zero, NaN or infinite, or any is negative.
        """
        if (self.inverse_variance() > 0).any():
            return
        values, mask = split_mask(self.array)
        kind = "zero, NaN or infinite" if mask is None else "masked, zero, NaN or infinite"
        kind = "NaN" if np.isnan(np.asarray(values, float)).all() else kind
        raise NoiseError(f"{self.name} is {kind} in every pixel: no pixel has information. {NO_NOISE}")


def noise_from_error(error, unit, name="error"):
    """Noise given as 1 sigma per pixel.

    Parameters
    ----------
    error : float, array_like or Quantity
        1 sigma per pixel; a number must be > 0.  Masked pixels do not count.
    unit : astropy unit or None
        Unit of the data.
    name : str, optional
        Name of the argument, for messages.

    Returns
    -------
    noise : Noise

    Raises
    ------
    NoiseError
        If ``error`` is not numbers, a single number is not positive, or the
        unit does not fit that of the data.
    InputError
        If ``error`` is an uncertainty object of an unknown kind.
    """
    if hasattr(error, "uncertainty_type"):
        return noise_from_uncertainty(error, unit, name)
    array, factor = _strip_unit(error, unit, 1, name)
    array = as_masked_array(*split_mask(array))
    if np.asarray(array[:0] if np.ndim(array) else array).dtype.kind not in "iuf":
        raise NoiseError(f"{name} is a {type(error).__name__}; a number or an array of numbers is needed")
    if np.ndim(array) == 0 and not (np.isfinite(array) and array > 0):
        raise NoiseError(f"{name}={array}; one number for all pixels must be finite and > 0")
    return Noise(array, "std", factor, name)


def noise_from_uncertainty(uncertainty, unit, name="uncertainty"):
    """Noise given as an astropy uncertainty of any kind.

    Parameters
    ----------
    uncertainty : astropy.nddata.NDUncertainty
        Standard deviation, variance, inverse variance, or any kind that
        ``represent_as`` turns into a variance.  Masked pixels do not count.
    unit : astropy unit or None
        Unit of the data.
    name : str, optional
        Name of the argument, for messages.

    Returns
    -------
    noise : Noise

    Raises
    ------
    NoiseError
        If the kind cannot be turned into a variance, the array is missing, or
        the unit does not fit.
    """
    mask = hidden_mask(uncertainty.array)
    kind = next((kind for cls, kind in _KINDS.items() if isinstance(uncertainty, cls)), None)
    if kind is None:
        uncertainty, kind = _as_variance(uncertainty, name), "var"
    if uncertainty.array is None:
        raise NoiseError(f"{name} is a {type(uncertainty).__name__} without an array. {NO_NOISE}")
    own_unit = uncertainty.unit
    values = uncertainty.array if own_unit is None else _UnitArray(uncertainty.array, own_unit)
    array, factor = _strip_unit(values, unit, _POWERS[kind], name)
    return Noise(as_masked_array(array, mask), kind, factor, name)


@dataclass(frozen=True)
class _UnitArray:
    """An array beside its unit, not multiplied (which would read all of it)."""

    value: object
    unit: u.UnitBase


def _as_variance(uncertainty, name):
    """Let an uncertainty of another kind represent itself as a variance."""
    try:
        return uncertainty.represent_as(VarianceUncertainty)
    except (AttributeError, TypeError, ValueError, NotImplementedError) as error:
        raise NoiseError(
            f"{name} is a {type(uncertainty).__name__}, which does not say its variance; a "
            "StdDevUncertainty, VarianceUncertainty or InverseVariance is needed"
        ) from error


def _strip_unit(values, unit, power, name):
    """Array without unit, and the factor that brings it to the data's unit."""
    own = getattr(values, "unit", None)
    if own is None:
        return values if np.ndim(values) == 0 or hasattr(values, "shape") else np.asarray(values), 1.0
    wanted = (u.dimensionless_unscaled if unit is None else unit) ** power
    try:
        factor = own.to(wanted)
    except u.UnitConversionError as error:
        raise NoiseError(
            f"{name} has unit {own}, which does not fit data of unit {unit or 'none'}; "
            f"{str(wanted) or 'no unit'} is needed"
        ) from error
    return values.value, factor


def same_noise(first, second):
    """Whether two descriptions of the noise of an image say the same, to single precision.

    ``InputError`` if their shapes cannot belong to one image.
    """
    try:
        one, two = np.broadcast_arrays(first.inverse_variance(), second.inverse_variance())
    except ValueError as error:
        raise InputError(f"{first.name} has shape {first.shape}, but {second.name} {second.shape}") from error
    return np.allclose(one, two, rtol=1e-5, atol=0)
