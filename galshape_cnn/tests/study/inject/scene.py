# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""A small image with sources, and an injection into it that needs no network."""

import numpy as np
from astropy.nddata import NDData, StdDevUncertainty
from astropy.wcs import WCS

from galshape_cnn import inject
from galshape_cnn.tests.standin import StandInEstimator

PSF = np.exp(-np.sum(np.mgrid[-12:13, -12:13] ** 2, axis=0) / (2 * 1.5**2))
SHAPE = (300, 330)
SOURCES = ((60.0, 80.0, 4000.0), (210.0, 150.0, 9000.0), (120.0, 240.0, 1500.0))  # x, y, flux
BAD = (slice(20, 60), slice(150, 190))


class Estimator(StandInEstimator):
    """A stand-in that takes every keyword of an injection and fails at a wanted call."""

    fails_at = None

    def __call__(self, data, *, noise_scale=None, **keywords):
        if self.fails_at is not None and len(self.calls) >= self.fails_at:
            raise KeyboardInterrupt
        return super().__call__(data, **keywords)


def image(empty=False, wcs=False):
    """Three Gaussian sources in noise of 1, a block of bad pixels, and a WCS turned by 30 degrees."""
    data = np.zeros(SHAPE) if empty else np.random.default_rng(5).normal(size=SHAPE)
    y, x = np.indices(SHAPE)
    for x0, y0, flux in () if empty else SOURCES:
        r2 = (x - x0) ** 2 + (y - y0) ** 2
        data += flux * np.exp(-r2 / (2 * 3**2)) / (2 * np.pi * 9)
    mask = np.zeros(SHAPE, bool)
    mask[BAD] = not empty
    return NDData(
        data, uncertainty=StdDevUncertainty(np.ones(SHAPE)), mask=mask, wcs=turned() if wcs else None
    )


def turned():
    """0.2 arcsec per pixel, east to the left, turned by 30 degrees."""
    angle = np.radians(30.0)
    wcs = WCS(naxis=2)
    wcs.wcs.ctype = ["RA---TAN", "DEC--TAN"]
    wcs.wcs.crval, wcs.wcs.crpix = [150.0, 2.0], [SHAPE[1] / 2, SHAPE[0] / 2]
    wcs.wcs.cd = 0.2 / 3600 * np.array([[-np.cos(angle), np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    return wcs


def injected(n=12, data=None, **keywords):
    """An injection measured by the stand-in."""
    known = {"noise_scale": None, "noise_correlation": None}  # an image of zeros has none to be measured
    keywords = {"psf": PSF, "estimator": Estimator(), "seed": 3} | known | keywords
    return inject(image() if data is None else data, n=n, **keywords)
