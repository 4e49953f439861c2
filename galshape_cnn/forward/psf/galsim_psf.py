# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""Effective PSF arrays of GalSim profiles (imports GalSim when called)."""

import galsim
import numpy as np

from galshape_cnn.errors import PSFError

__all__ = ["affordable", "draw_effective_psf", "excessive_transform", "transform_side"]


def transform_side(profile, step):
    """Side of the transform by which GalSim would draw a profile.

    Parameters
    ----------
    profile : galsim.GSObject
        With the pixel, or convolved with it.
    step : float
        Distance of the samples, in the unit of the profile.

    Returns
    -------
    side : int
        As GalSim counts it, also where its frequencies have to reach beyond those of the samples.
    """
    side = galsim.Image.good_fft_size(profile.getGoodImageSize(step))
    side = max(side, profile.gsparams.minimum_fft_size)
    return max(side, 2 * int(np.ceil(profile.maxk * step * side / (2 * np.pi))))


def excessive_transform(profile, step):
    """`transform_side` if it is larger than the profile's ``maximum_fft_size``, else None.

    Newer GalSim warns of such a transform and computes it all the same, with gigabytes of memory; older
    GalSim refuses it.
    """
    side = transform_side(profile, step)
    return side if side > profile.gsparams.maximum_fft_size else None


def draw_effective_psf(psf, jacobian, oversampling, side, folding_threshold):
    """Convolve a GalSim profile with the pixel and draw it finely.

    Parameters
    ----------
    psf : galsim.GSObject
        PSF without the pixel, in the frame (u, v) of the Jacobian.
    jacobian : (2, 2) array_like
        d(u, v)/d(x, y).
    oversampling : int
        Samples per pixel.
    side : int
        Odd side of the array, in samples.
    folding_threshold : float
        Share of the light that may fold back into the array, see `galsim.GSParams`.

    Returns
    -------
    array : (side, side) float64 ndarray
        Its sum is the flux inside the array: it is not renormalised, because
        the light beyond it exists.

    Raises
    ------
    PSFError
        If GalSim cannot draw the profile.
    """
    wcs = galsim.JacobianWCS(*np.ravel(jacobian))
    fine = galsim.JacobianWCS(*np.ravel(jacobian) / oversampling)
    effective = galsim.Convolve(psf, wcs.toWorld(galsim.Pixel(1.0)))
    options = {"nx": side, "ny": side, "wcs": fine, "method": "no_pixel", "dtype": float}
    try:
        image = affordable(effective, folding_threshold, np.sqrt(fine.pixelArea())).drawImage(**options)
    except (galsim.GalSimError, MemoryError) as error:
        raise PSFError(f"psf cannot be drawn by GalSim: {error}") from error
    return image.array.copy()


def affordable(effective, folding, step):
    """The profile drawn with as little folding as asked for, or as GalSim's largest transform allows.

    GalSim's default lets 0.5 % of the light fold back into the array, where it would count as inside.  The
    wings of an Airy disc fall off so slowly that transforms grow as the inverse of that share.  A profile
    with an ``OpticalPSF`` is drawn as it is: GalSim makes an image of that by a pupil of as many samples, and
    keeps it in copies with another threshold if it was made before, so that numbers would depend on history.

    Parameters
    ----------
    effective : galsim.GSObject
        With the pixel.
    folding : float
        Share of the light that may fold back.
    step : float
        Distance of the samples, in the unit of the profile.

    Returns
    -------
    profile : galsim.GSObject
        The same one, or one with a smaller ``folding_threshold``.

    Raises
    ------
    PSFError
        If even its own threshold needs a larger transform than its ``maximum_fft_size``.
    """
    default = effective.gsparams.folding_threshold
    as_it_is = any(isinstance(one, galsim.OpticalPSF) for one in _parts(effective))
    folding = default if as_it_is else min(folding, default)
    while True:
        careful = effective if folding == default else effective.withGSParams(folding_threshold=folding)
        side = excessive_transform(careful, step)
        if side is None:
            return careful
        if folding >= default:
            raise PSFError(
                f"psf cannot be drawn by GalSim: it needs a transform of {side}x{side} samples; allowed: "
                f"{effective.gsparams.maximum_fft_size} a side (its maximum_fft_size), or an array of the PSF"
            )
        folding = min(2 * folding, default)


def _parts(profile):
    """A profile and all that it is made of."""
    yield profile
    inside = getattr(profile, "obj_list", None) or [getattr(profile, "original", None)]
    for one in inside:
        if one is not None and one is not profile:
            yield from _parts(one)
