# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""Galaxies and PSFs drawn by GalSim.

Imports little but GalSim and NumPy, so that a worker process starts quickly.
"""

import galsim
import numpy as np

from galshape_cnn.forward.psf.galsim_psf import excessive_transform

__all__ = [
    "INDEX_VALUES",
    "PSF_OVERSAMPLING",
    "draw_block",
    "draw_galaxy",
    "draw_psf",
    "nearest_index",
    "psf_profile",
]

#: GalSim needs 30 to 55 ms for a Sersic index it has not met and keeps the last hundred:
#: indices are rounded to these, 5 % apart, and the rounded value is the truth.
INDEX_VALUES = np.round(np.geomspace(0.3, 6.2, 62), 4)
#: Samples per pixel of the PSF arrays.
PSF_OVERSAMPLING = 2

_PSF_SIDE = 127
_TRANSFORM = 383
_SIDE = 64
# Folding: share of the light that may come back through the edges of GalSim's own transform.
_ACCURACY = {"folding_threshold": 2e-3, "maximum_fft_size": 16384}
_FAST = {"folding_threshold": 5e-3, "maximum_fft_size": 16384}


def nearest_index(n):
    """Values of `INDEX_VALUES` nearest in the logarithm to Sérsic indices."""
    distance = np.abs(np.log(np.asarray(n, float))[..., None] - np.log(INDEX_VALUES))
    return INDEX_VALUES[distance.argmin(-1)]


def _family(number, fwhm, families):
    """Profile of one family, in the order of `psf_families.family_table`."""
    betas = families["betas"]
    if number == 0:
        return galsim.Gaussian(fwhm=fwhm)
    if number == 1:
        return galsim.Kolmogorov(fwhm=fwhm)
    if number == 2:
        return galsim.Airy(lam_over_diam=fwhm / 1.029)
    if number - 3 < len(betas):
        return galsim.Moffat(beta=betas[number - 3], fwhm=fwhm)
    return galsim.Airy(lam_over_diam=fwhm / families["obscured_fwhm"], obscuration=families["obscuration"])


def psf_profile(recipe, fwhm, g, lobes, families):
    """The PSF of one galaxy as a GalSim profile in pixels, without the pixel.

    ``recipe``, ``fwhm`` (pixels), shear and ``lobes`` are rows of
    `galshape_cnn.study.simulate.psf_families.draw_psfs`, ``families`` is from
    `galshape_cnn.study.simulate.psf_families.family_parameters`.
    """
    if "beta" in recipe:
        profile = galsim.Moffat(beta=recipe["beta"], fwhm=fwhm)
    else:
        profile = _radial_profile(recipe, fwhm, families)
    profile = profile.shear(g1=g[0], g2=g[1])
    points = [(weight, x, y) for weight, x, y in np.asarray(lobes) if weight]
    if len(points) == 1 and points[0][1:] == (0, 0):
        return profile
    # One profile convolved with points: as a sum of profiles, each would be transformed anew.
    deltas = [weight * galsim.DeltaFunction().shift(x, y) for weight, x, y in points]
    return galsim.Convolve(profile, galsim.Add(deltas))


def _radial_profile(recipe, fwhm, families):
    """One family alone, or the sum or product of two: `psf_families.radial_transfer` by GalSim."""
    ratio = np.exp(recipe["shift"] * families["step"])
    profile = _family(int(recipe["first"]), fwhm, families)
    if recipe["kind"] >= 0.7:
        return galsim.Convolve(profile, _family(int(recipe["second"]), fwhm / ratio, families))
    if recipe["kind"] >= 0.4:
        wide = _family(int(recipe["second"]), fwhm * ratio, families)
        return (1 - recipe["weight"]) * profile + recipe["weight"] * wide
    return profile


def draw_galaxy(params, psf):
    """Noise-free stamp (64, 64) of one galaxy: flux, n, hlr, g1, g2, x, y in pixels, more is ignored.

    NaN if GalSim's transform would be too large.
    """
    flux, n, hlr, g1, g2, x, y = (float(value) for value in params[:7])
    middle = (_SIDE - 1) / 2
    options = {"nx": _SIDE, "ny": _SIDE, "scale": 1.0, "offset": (x - middle, y - middle), "dtype": float}
    for accuracy in (_ACCURACY, _FAST):
        gsparams = galsim.GSParams(**accuracy)
        galaxy = galsim.Sersic(n=n, half_light_radius=hlr).withGSParams(gsparams)
        galaxy = galaxy.shear(g1=g1, g2=g2).withFlux(flux)
        seen = galsim.Convolve(galaxy, psf, gsparams=gsparams)
        if not excessive_transform(galsim.Convolve(seen, galsim.Pixel(1.0), gsparams=gsparams), 1.0):
            return seen.drawImage(**options).array
    return np.full((_SIDE, _SIDE), np.nan)


def draw_psf(psf):
    """Effective PSF (127, 127) at two samples per pixel, on as many as users' GalSim objects get.

    Of a GalSim object without the pixel, in pixels; the sum is the light that the array holds. GalSim states
    the transform and one inverse transform of 191 pixels follows: what folds back of a Moffat profile's wings
    is below 0.5 % of the light, at a cost that does not depend on the profile.
    """
    effective = galsim.Convolve(psf, galsim.Pixel(1.0))
    dk = 2 * np.pi * PSF_OVERSAMPLING / _TRANSFORM
    transform = effective.drawKImage(nx=_TRANSFORM, ny=_TRANSFORM, scale=dk).array
    array = np.fft.fftshift(np.fft.ifft2(np.fft.ifftshift(transform)).real)
    window = slice((_TRANSFORM - _PSF_SIDE) // 2, (_TRANSFORM + _PSF_SIDE) // 2)
    return array[window, window]


def draw_block(params, psfs, families):
    """Stamps (N, 64, 64) of unit flux, NaN where GalSim cannot draw, and effective PSFs (N, 127, 127).

    Of parameters (N, 8), the first ignored, and PSFs of `galshape_cnn.study.simulate.psf_families.draw_psfs`;
    ``families`` as for `psf_profile`.
    """
    images = np.empty((len(params), _SIDE, _SIDE), np.float32)
    arrays = np.empty((len(params), _PSF_SIDE, _PSF_SIDE), np.float32)
    for i, row in enumerate(params):
        recipe = {key: float(np.ravel(values[i])[0]) for key, values in psfs["recipe"].items()}
        psf = psf_profile(recipe, float(psfs["fwhm"][i]), psfs["g"][i], psfs["lobes"][i], families)
        images[i] = draw_galaxy([1.0, *row[1:]], psf)
        arrays[i] = draw_psf(psf)
    return images, arrays
