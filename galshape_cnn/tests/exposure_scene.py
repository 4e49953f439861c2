# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""A field of a few galaxies seen in exposures of different band, scale, orientation, PSF and noise."""

import astropy.units as u
import galsim
import numpy as np
from astropy.coordinates import SkyCoord
from astropy.table import Table
from astropy.wcs import WCS

from galshape_cnn import Exposure

#: Band, arcsec per pixel, FWHM in pixels, orientation (radians), noise per pixel.
SETUP = (("g", 0.20, 3.5, 0.0, 1.0), ("r", 0.26, 3.0, 0.7, 0.8), ("r", 0.40, 2.2, 2.5, 1.2))
TRUTH = ("flux_g", "flux_r", "n", "hlr", "g1", "g2")
SIDE, SPACING, STAMP = 3, 26.0, 65


def tangent_wcs(scale, angle, side, centre=(30.0, -20.0)):
    """TAN WCS of a square image, turned by an angle, east to the left at zero."""
    wcs = WCS(naxis=2)
    wcs.wcs.ctype, wcs.wcs.crval, wcs.wcs.crpix = ["RA---TAN", "DEC--TAN"], centre, [(side + 1) / 2] * 2
    c, s = np.cos(angle), np.sin(angle)
    wcs.wcs.cd = np.array([[-c, s], [s, c]]) * scale / 3600
    return wcs


def galaxies(rng, side=SIDE):
    """Sky positions and true parameters, one galaxy in each cell of a grid."""
    count = side**2
    grid = np.stack(np.meshgrid(*2 * [np.arange(side) - (side - 1) / 2]), -1).reshape(-1, 2)
    u_v = SPACING * grid + rng.uniform(-0.5, 0.5, (count, 2))
    centre = SkyCoord(30, -20, unit="deg")
    sky = centre.spherical_offsets_by(-u_v[:, 0] * u.arcsec, u_v[:, 1] * u.arcsec)
    shape = {"n": rng.uniform(0.7, 2.5, count), "hlr": rng.uniform(0.5, 0.9, count)}
    size, angle = rng.uniform(0, 0.4, count), rng.uniform(0, 2 * np.pi, count)
    shape |= {"g1": size * np.cos(angle), "g2": size * np.sin(angle)}
    return sky, Table(
        {"flux_g": rng.uniform(400, 900, count), "flux_r": rng.uniform(700, 1500, count)} | shape
    )


def exposure(rng, sky, truth, setup, *, side=SIDE, **keywords):
    """One exposure of the field."""
    band, scale, fwhm, angle, sigma = setup
    pixels = int((side * SPACING * 1.42 + 10) / scale)
    wcs = tangent_wcs(scale, angle, pixels)
    x, y = wcs.world_to_pixel(sky)
    jacobian = np.diag([-1, 1]) @ wcs.pixel_scale_matrix * 3600  # u to the west
    local = galsim.JacobianWCS(*jacobian.ravel())
    psf = galsim.Moffat(beta=3.5, fwhm=fwhm * scale)
    image, half = rng.normal(0.5, sigma, (pixels, pixels)), STAMP // 2
    for row, (cx, cy) in enumerate(zip(np.rint(x).astype(int), np.rint(y).astype(int), strict=True)):
        one = truth[row]
        galaxy = galsim.Sersic(one["n"], half_light_radius=one["hlr"], flux=one[f"flux_{band}"])
        galaxy = galsim.Convolve(galaxy.shear(g1=one["g1"], g2=one["g2"]), psf)
        place = (float(x[row] - cx), float(y[row] - cy))
        stamp = galaxy.drawImage(nx=STAMP, ny=STAMP, wcs=local, offset=place).array
        image[cy - half : cy + half + 1, cx - half : cx + half + 1] += stamp
    return Exposure(image, psf=psf, error=sigma, wcs=wcs, band=band, **keywords)
