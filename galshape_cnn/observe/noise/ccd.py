# Licensed under a 3-clause BSD style license - see LICENSE.rst
r"""CCD noise (sky photons, read-out) where there is no noise map.

In an image counted in units of which ``gain`` electrons make one,

.. math:: \sigma^2 = \frac{\mathrm{sky}}{\mathrm{gain}}
          + \left(\frac{\mathrm{read\ noise}}{\mathrm{gain}}\right)^2

is the noise of a pixel without a source.  The photons of the galaxies are added later,
from their models.  The scatter of neighbouring pixels says whether that is true.
"""

import astropy.units as u
import numpy as np

from galshape_cnn.errors import InputError, NoiseError, warn
from galshape_cnn.quantities import plain_number, unit_of

__all__ = ["checked_detector", "checked_gain", "detector_error"]

_MOST_ROWS = 256  # of an image that are read: a large one stays on disk
_TOLERANCE = 1.3  # factor between the scatter of the pixels and what they should have


def detector_error(data, gain, read_noise, sky_level=None, mask=None):
    """1 sigma per pixel from what is known of the detector.

    Parameters
    ----------
    data : NDData, array_like, or sequence of them
        One image, cutouts, or a cube of cutouts.
    gain : float or Quantity
        Electrons per unit of the pixel values, > 0.
    read_noise : float or Quantity
        Electrons, >= 0, in all that makes one pixel (of N exposures added: times the root of N).
    sky_level : float or Quantity, optional
        Sky that was subtracted from the image, in the unit of the pixels; without it the
        sky is still there, and is measured.
    mask : array_like of bool, optional
        True for bad pixels.

    Returns
    -------
    error : float or (N,) ndarray
        One for the image, or one for each cutout.

    Raises
    ------
    InputError
        If a number is not possible or has a unit that does not fit, or ``data`` has its own noise.
    NoiseError
        If the pixels scatter more than this noise by a factor of 1.3, as they do when the
        sky was subtracted and ``sky_level`` is not given.

    Examples
    --------
    >>> import numpy as np
    >>> from galshape_cnn.observe.noise.ccd import detector_error
    >>> electrons = np.random.default_rng(1).poisson(900, (64, 64))
    >>> print(f"{detector_error(electrons / 2.0, gain=2.0, read_noise=5.0):.1f}")
    15.2
    """
    if gain is None:
        raise InputError("read_noise is given without gain; electrons become pixel values by both")
    unit = unit_of(data)
    gain = checked_gain(gain, unit)
    read_noise, sky_level = checked_detector(read_noise, sky_level, unit)
    frames = _frames(data, mask)
    sigmas = np.array([_one(pixels, bad, gain, read_noise, sky_level) for pixels, bad in frames])
    return float(sigmas[0]) if len(sigmas) == 1 else sigmas


def checked_gain(gain, unit):
    """The gain as a plain number > 0 of electrons per unit of flux, or None.

    A Quantity is in electron / unit; anything else raises ``InputError``.
    """
    if gain is None:
        return None
    allowed = "a positive number of electrons per unit of flux"
    return plain_number(gain, "gain", allowed, unit=u.electron / (unit or u.one), above=0)


def checked_detector(read_noise, sky_level, unit):
    """Read noise >= 0 in electrons, and level of the sky in the unit of the pixels, as plain numbers.

    Each a number, a Quantity or None; anything else raises ``InputError``.
    """
    if read_noise is not None:
        allowed = "a number of electrons >= 0"
        read_noise = plain_number(read_noise, "read_noise", allowed, unit=u.electron, least=0)
    if sky_level is not None:
        allowed = "one finite number in the unit of the pixels"
        sky_level = plain_number(sky_level, "sky_level", allowed, unit=unit)
    return read_noise, sky_level


def _frames(data, mask):
    """Pixels and mask of each image, (ny, nx) both or no mask."""
    if hasattr(data, "uncertainty") or hasattr(data, "ndim"):
        items = [data]
    else:
        try:
            items = list(data)
        except TypeError as error:
            raise InputError(f"data is a {type(data).__name__}; NDData or arrays are needed") from error
    frames = []
    for item in items:
        if getattr(item, "uncertainty", None) is not None:
            raise InputError("read_noise is given, but data has an uncertainty; give one of them")
        pixels = item.data if hasattr(item, "uncertainty") else getattr(item, "value", item)
        bad = getattr(item, "mask", None) if mask is None else mask
        if np.ndim(pixels) == 3:
            each = bad if np.ndim(bad) == 3 else [bad] * len(pixels)
            frames += zip(pixels, each, strict=True)
        else:
            frames.append((pixels, bad))
    if not frames or any(np.ndim(pixels) != 2 for pixels, _ in frames):
        raise InputError("read_noise: data must be images (ny, nx) or cutouts (N, ny, nx)")
    return frames


def _one(pixels, bad, gain, read_noise, sky_level):
    """Noise of one image."""
    from astropy.stats import mad_std

    step = max(len(pixels) // _MOST_ROWS, 1)
    some = np.array(pixels[::step], float)
    some[~np.isfinite(some)] = np.nan
    if bad is not None and np.ndim(bad) == 2:
        some[np.asarray(bad[::step], bool)] = np.nan
    if np.isfinite(some).sum() < 64:
        return np.nan if sky_level is None else _sigma(sky_level, gain, read_noise)
    sky = _sky(some) if sky_level is None else sky_level
    sigma = _sigma(sky, gain, read_noise)
    difference = np.diff(some, axis=1)
    scatter = mad_std(difference, ignore_nan=True) / np.sqrt(2)
    _compare(scatter, sigma, sky, sky_level is None)
    return sigma


def _sigma(sky, gain, read_noise):
    variance = max(sky, 0) / gain + (read_noise / gain) ** 2
    if variance <= 0:
        raise NoiseError(f"gain={gain}, read_noise={read_noise} and a sky of {sky:.4g} leave no noise at all")
    return np.sqrt(variance)


def _sky(pixels):
    """Level of the sky: the median of what is left after clipping sources."""
    from astropy.stats import sigma_clipped_stats

    return float(sigma_clipped_stats(pixels[np.isfinite(pixels)], sigma=3.0)[1])


def _compare(scatter, sigma, sky, measured):
    """Refuse, or warn of, noise that the pixels do not have."""
    found = f"pixels scatter by {scatter:.4g}, gain, read_noise and a sky of {sky:.4g} give {sigma:.4g}"
    if scatter > _TOLERANCE * sigma and measured:
        raise NoiseError(f"{found}; was the sky subtracted? Then give its level, sky_level=")
    if not sigma / _TOLERANCE < scatter < _TOLERANCE * sigma:
        warn(f"{found}: one of them is wrong, or the noise is correlated")
