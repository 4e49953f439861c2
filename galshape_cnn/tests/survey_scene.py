# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""Three galaxies in a small image, in the files that surveys and tools make of it."""

import galsim
import numpy as np
from astropy.table import Table

SIDE, FLUX, SIGMA = 160, 4000.0, 0.8
XY = np.array([[40.2, 45.1], [110.4, 60.3], [75.6, 120.8]])
#: Keywords of a TAN projection of 0.2 arcsec per pixel.
WCS_CARDS = {
    "CTYPE1": "RA---TAN", "CTYPE2": "DEC--TAN", "CRVAL1": 150.0, "CRVAL2": 2.0, "CRPIX1": 80.5,
    "CRPIX2": 80.5, "CD1_1": -0.2 / 3600, "CD1_2": 0.0, "CD2_1": 0.0, "CD2_2": 0.2 / 3600,
}  # fmt: skip


def scene(sigma=SIGMA, seed=5):
    """(SIDE, SIDE) image: Sersic galaxies of flux 4000, n 1.5, hlr 4 pixels, and noise."""
    psf = galsim.Moffat(beta=3.0, fwhm=3.0)
    image = galsim.ImageD(SIDE, SIDE, scale=1.0, xmin=0, ymin=0)
    for x, y in XY:
        galaxy = galsim.Convolve(galsim.Sersic(n=1.5, half_light_radius=4.0, flux=FLUX), psf)
        galaxy.drawImage(image, add_to_image=True, center=galsim.PositionD(x, y))
    return image.array + np.random.default_rng(seed).normal(0, sigma, (SIDE, SIDE))


def pixel_psf(side=31):
    """Effective PSF of the scene, one sample per pixel."""
    drawn = galsim.Moffat(beta=3.0, fwhm=3.0).drawImage(nx=side, ny=side, scale=1.0, dtype=float)
    return drawn.array / drawn.array.sum()


def positions():
    """Table of the three galaxies."""
    return Table({"x": XY[:, 0], "y": XY[:, 1]})
