# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""Autocorrelation of the noise: given by the user, or estimated from blank pixels."""

from dataclasses import dataclass

import numpy as np

from galshape_cnn.errors import InputError, NoiseError, warn
from galshape_cnn.masked import filled
from galshape_cnn.observe.noise.blank_pixels import LEAST_PIXELS, blank_pixel_sums, estimate_from_sums

__all__ = [
    "EstimatedCorrelation",
    "correlation_array",
    "estimate_correlation",
    "noise_correlation",
]

_DRAWN_REACH = 20  # pixels: longest lag taken from a GalSim object
_LEAST = 2e-3  # correlations below it, at the rim of an array, are cut off
_LARGEST_EXCESS = 0.2  # of the noise over its map, above which there is a warning


@dataclass(frozen=True, eq=False)
class EstimatedCorrelation:
    """An autocorrelation that was estimated before, from other rows of the same input.

    Attributes
    ----------
    array : (ky, kx) ndarray
    excess : float
        As `estimate_correlation` returns them.
    """

    array: np.ndarray
    excess: float


def noise_correlation(value, observation):
    """The autocorrelation to use, and what to record of it.

    Parameters
    ----------
    value : None, 'estimate', EstimatedCorrelation, array_like or galsim correlated noise
        What the user said.
    observation : Observation
        The stamps of the call.

    Returns
    -------
    correlation : (ky, kx) ndarray or None
        None for independent noise.
    record : dict
        For the metadata: where it is from, its sum (``area``, how many pixels count as one
        on large scales), the ``array``, and if it was estimated the ``excess`` of the noise
        over the noise map.

    Raises
    ------
    InputError, NoiseError
        If it cannot be used, or not be estimated.
    """
    if value is None:
        return None, {}
    if isinstance(value, str):
        value = _estimated_now(value, observation)
    if isinstance(value, EstimatedCorrelation):
        correlation, record = value.array, {"origin": "estimated from blank pixels", "excess": value.excess}
    else:
        stamps = observation.groups[0][1]
        correlation = correlation_array(value, stamps.jacobian[0] if observation.has_sky else None)
        record = {"origin": "given"}
    return correlation, record | {"area": float(correlation.sum()), "array": correlation.tolist()}


def _estimated_now(word, observation):
    """The estimate that a word asks for; a warning where the noise map is wrong."""
    if word != "estimate":
        raise InputError(f"noise_correlation={word!r}; the words allowed are 'auto' and 'estimate'")
    correlation, excess = estimate_correlation(observation.groups)
    if abs(excess - 1) > _LARGEST_EXCESS:
        warn(
            f"blank pixels scatter {excess:.2f} times what the noise map says: errors are off by as much; "
            "noise_scale='estimate' mends that"
        )
    return EstimatedCorrelation(correlation, excess)


def correlation_array(value, jacobian=None):
    """Check the autocorrelation that the user gave.

    Parameters
    ----------
    value : (ky, kx) array_like or galsim correlated noise
        Odd-sized, one at the centre, the same at opposite lags.
    jacobian : (2, 2) ndarray, optional
        d(u, v)/d(x, y) in arcsec per pixel, for a GalSim object; pixels without it.

    Returns
    -------
    correlation : (ky, kx) float64 ndarray

    Raises
    ------
    InputError
        If it cannot be the autocorrelation of noise.
    """
    if hasattr(value, "getVariance") and hasattr(value, "drawImage"):
        return _trimmed(_drawn(value, jacobian))
    try:
        array = filled(value).copy()
    except (TypeError, ValueError) as error:
        raise InputError(
            f"noise_correlation is a {type(value).__name__}; allowed: an odd-sized 2-D array, "
            "a galsim.CorrelatedNoise, or 'estimate'"
        ) from error
    if array.ndim != 2 or array.shape[0] % 2 == 0 or array.shape[1] % 2 == 0:
        raise InputError(f"noise_correlation has shape {array.shape}; an odd-sized 2-D array is needed")
    if not np.isfinite(array).all():
        raise InputError("noise_correlation has values that are masked or not finite")
    middle = array[array.shape[0] // 2, array.shape[1] // 2]
    if abs(middle - 1) > 1e-3:
        raise InputError(
            f"noise_correlation is {middle:.4g} at its centre; 1 is needed (divide by the variance)"
        )
    if np.abs(array).max() > 1 + 1e-3:
        raise InputError(f"noise_correlation reaches {np.abs(array).max():.4g}; no correlation exceeds 1")
    if np.abs(array - array[::-1, ::-1]).max() > 1e-3:
        raise InputError("noise_correlation differs at opposite lags; an autocorrelation is the same there")
    power = _power(array)
    if power.min() < -0.1 * power.max():
        raise InputError(
            f"noise_correlation has a power spectrum that falls to {power.min():.3g} (largest: "
            f"{power.max():.3g}); no noise has negative power: was the array cut too small?"
        )
    return array


def _drawn(noise, jacobian):
    """Correlation function of a GalSim object on the pixels."""
    import galsim

    side = 2 * _DRAWN_REACH + 1
    wcs = galsim.PixelScale(1.0) if jacobian is None else galsim.JacobianWCS(*np.ravel(jacobian))
    image = noise.drawImage(galsim.ImageD(side, side, wcs=wcs)).array
    return image / image[_DRAWN_REACH, _DRAWN_REACH]


def _power(array):
    """Power spectrum of an autocorrelation, finely sampled."""
    shape = [4 * side for side in array.shape]
    padded = np.zeros(shape)
    padded[: array.shape[0], : array.shape[1]] = array
    return np.fft.fft2(np.roll(padded, [-(side // 2) for side in array.shape], (0, 1))).real


def _trimmed(array):
    """The array without a rim of negligible correlations."""
    half = array.shape[0] // 2
    y, x = np.mgrid[-half : half + 1, -half : half + 1]
    ring = np.maximum(np.abs(y), np.abs(x))
    reach = ring[np.abs(array) > _LEAST].max()
    return array[half - reach : half + reach + 1, half - reach : half + reach + 1].copy()


def estimate_correlation(groups):
    """Estimate the autocorrelation of the noise from blank pixels.

    Pixels in units of their own noise, less the level of their stamp; sources, found
    at two scales, are left out with a margin, and so are pixels beyond four standard
    deviations.  Lags from the first ring on that does not differ from zero are set to zero.

    Parameters
    ----------
    groups : sequence of (index, Stamps)
        As in an `galshape_cnn.observe.observation.Observation`.

    Returns
    -------
    correlation : (k, k) float64 ndarray
        One at the centre.
    excess : float
        Standard deviation of the blank pixels in units of that of the noise map: one
        if the map is right.

    Raises
    ------
    NoiseError
        If there are fewer than 2000 blank pixels.
    """
    sums = blank_pixel_sums(groups)
    if not sums.enough:
        raise NoiseError(
            f"the noise is to be estimated from {int(sums.used)} blank pixels; {LEAST_PIXELS} are needed: "
            "give a number or an array, measure more galaxies at once, or use larger stamps"
        )
    return estimate_from_sums(sums)
