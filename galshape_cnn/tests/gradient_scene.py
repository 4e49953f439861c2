# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""Galaxies whose size and Sérsic index are power laws of the wavelength, in cutouts by GalSim."""

import galsim
import numpy as np

from galshape_cnn import Exposure

WAVELENGTHS = {"g": 480.0, "r": 640.0, "z": 920.0}
#: Band, FWHM of the PSF in pixels, noise.
SETUP = (("g", 3.0, 1.0), ("r", 2.6, 1.0), ("r", 3.4, 0.7), ("z", 2.8, 1.2))
FLUXES = {"g": 2000.0, "r": 2600.0, "z": 3000.0}
SIDE = 64
SIZE_SLOPE, INDEX_SLOPE = -0.4, 0.5  # of ln hlr and ln n by ln(wavelength)


def shape_in(band, n=1.2, hlr=4.0):
    """n and hlr in a band, of a galaxy that has the given ones at the wavelength of r."""
    ratio = np.log(WAVELENGTHS[band] / WAVELENGTHS["r"])
    return n * np.exp(INDEX_SLOPE * ratio), hlr * np.exp(SIZE_SLOPE * ratio)


def gradient_exposures(count, seed=1, setup=SETUP, slopes=True, n=1.2):
    """Exposures with a cutout of each galaxy, and the parameters (N, 4): hlr at r, g1, g2, brightness."""
    rng = np.random.default_rng(seed)
    hlr, size, angle = rng.uniform(3, 5, count), rng.uniform(0, 0.4, count), rng.uniform(0, np.pi, count)
    truth = np.column_stack(
        [hlr, size * np.cos(2 * angle), size * np.sin(2 * angle), rng.uniform(1, 3, count)]
    )
    place, exposures = rng.uniform(-0.4, 0.4, (count, 2)), []
    for band, fwhm, sigma in setup:
        psf, stamps = galsim.Moffat(beta=3, fwhm=fwhm), np.empty((count, SIDE, SIDE))
        for row, (radius, g1, g2, light) in enumerate(truth):
            index, own = shape_in(band, n, radius) if slopes else (n, radius)
            galaxy = galsim.Sersic(min(index, 6.2), half_light_radius=own, flux=light * FLUXES[band])
            galaxy = galaxy.shear(g1=g1, g2=g2)
            galaxy = galsim.Convolve(galaxy, psf)
            stamps[row] = galaxy.drawImage(nx=SIDE, ny=SIDE, scale=1, offset=tuple(place[row])).array
        stamps += rng.normal(0.5, sigma, stamps.shape)
        array = (
            galsim.Convolve(psf, galsim.Pixel(1)).drawImage(nx=61, ny=61, scale=1, method="no_pixel").array
        )
        exposures.append(Exposure(stamps, psf=array, error=sigma, band=band, wavelength=WAVELENGTHS[band]))
    return exposures, truth
