# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""Images, a WCS and a PSF for the tests of cutting."""

import numpy as np
from astropy.wcs import WCS

PSF = np.exp(-np.sum(np.mgrid[-6:7, -6:7] ** 2, axis=0) / 5)
SHAPE = (210, 300)
SOURCES = np.array([[100.3, 90.2], [40.0, 160.7], [250.8, 60.4]])


def field(shape=SHAPE, sources=SOURCES, seed=0):
    """Image of Gaussian sources with unit noise."""
    y, x = np.mgrid[: shape[0], : shape[1]]
    image = np.random.default_rng(seed).normal(size=shape)
    for x0, y0 in sources:
        image += 80 * np.exp(-((x - x0) ** 2 + (y - y0) ** 2) / 12)
    return image


IMAGE = field()


def celestial(distorted=False, rotation=0.3):
    """TAN or SIP WCS with a rotated, flipped, sheared pixel grid."""
    wcs = WCS(naxis=2)
    wcs.wcs.ctype = ["RA---TAN-SIP", "DEC--TAN-SIP"] if distorted else ["RA---TAN", "DEC--TAN"]
    wcs.wcs.crval, wcs.wcs.crpix = [150.0, 2.0], [151.0, 106.0]
    c, s = np.cos(rotation), np.sin(rotation)
    wcs.wcs.cd = np.array([[-c, s], [s, c]]) @ [[1, 0.1], [0, 1]] * 0.2 / 3600
    wcs.wcs.radesys = "ICRS"
    if distorted:
        from astropy.wcs import Sip

        a, b = np.zeros((3, 3)), np.zeros((3, 3))
        a[2, 0], b[0, 2], a[1, 1] = 2e-5, -1e-5, 1e-5
        wcs.sip = Sip(a, b, None, None, wcs.wcs.crpix)
    wcs.wcs.set()
    return wcs


def one(observation):
    """The stamps of an observation with one group."""
    assert len(observation.groups) == 1
    return observation.groups[0][1]
