# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""Galaxies of known shear for ``bench_shear.py`` and ``bench_shear_posterior.py``: what is drawn, and how.

Profiles are drawn by the package or by GalSim, in groups whose noise and shapes cancel: see
``bench_shear.py``.
"""

import os
from functools import cache, partial
from itertools import product
from pathlib import Path
from typing import NamedTuple

import galsim
import numpy as np

from galshape_cnn import Stamps
from galshape_cnn.forward.render import render
from galshape_cnn.forward.transfer import grid_for, transfer_functions
from galshape_cnn.geometry import transform_shape

SIZE, OVER, FWHM, BETA, GAMMA, CHUNK = 64, 2, 3.04, 2.5, 0.02, 32
PIXEL = 0.2  # arcsec
SKY = PIXEL * np.array([[np.cos(0.5), -np.sin(0.5)], [np.sin(0.5), np.cos(0.5)]])
#: Angles by which the noise of an image and that which is added to it are turned into each other.
TURNS = 2 * np.pi / 3 * np.arange(3)
BINS = {
    "snr": [10, 20, 40, 80, 200],
    "size": [0.5, 0.8, 1.3, 2.0, 3.0],
    "n": [0.5, 1.5, 3.0, 5.5],
}
CASES = {
    "sersic": {},
    "psf e=.05": {"e": 0.05},
    "other response": {"e": 0.0, "wrong": True},
    "psf 1 % wide": {"told": 1.01},
    "wcs": {"jacobian": SKY @ np.diag([1.1, 0.9])},
    "wcs 0.03": {"jacobian": SKY @ np.diag([1.03, 0.97])},
    "masked": {"masked": True},
    "correlated": {"smooth": 0.6},
    "bulge and disc": {"light": "bulge and disc"},
    "knots": {"light": "knots"},
    "hst": {"light": "hst"},
}
#: Real galaxies in the format of galsim.RealGalaxyCatalog; drawn at 0.1 arcsec per pixel.
HST = Path(os.environ.get("GALSHAPE_HST", "../shared/data/cosmos_hst_faint"))
HST_CATALOG = "real_galaxy_catalog_26_extension_example.fits"


class Galaxies(NamedTuple):
    """Galaxies, and their stamps of both signs of the shear one after the other.

    Attributes
    ----------
    truth : dict of str to ndarray
        Of the galaxies.
    stamps : Stamps
    added : (N, 64, 64) ndarray
        Noise to be added to copies of the stamps.
    correlation : (ky, kx) ndarray or None
        Of the noise.
    centers : (N, 2) ndarray
        Where the galaxies are in the stamps.
    """

    truth: dict
    stamps: Stamps
    added: np.ndarray
    correlation: np.ndarray | None
    centers: np.ndarray


@cache
def psf_array(fwhm=FWHM, e=0.0):
    """Effective PSF, two samples per pixel, (1, 127, 127)."""
    psf = galsim.Convolve(galsim.Moffat(beta=BETA, fwhm=fwhm).shear(e1=e), galsim.Pixel(1.0))
    array = psf.drawImage(nx=127, ny=127, scale=1 / OVER, method="no_pixel", dtype=float).array
    return (array / array.sum()).astype(np.float32)[None]


def composed(g, gamma):
    """Shape after a further shear, as complex numbers."""
    return (g + gamma) / (1 + np.conj(gamma) * g)


def draw_truth(rng, count):
    """Random galaxies."""
    size = np.exp(rng.uniform(np.log(0.5), np.log(3), count))
    g = 0.5 * np.sqrt(rng.uniform(size=count)) * np.exp(2j * np.pi * rng.uniform(size=count))
    return {
        "snr": np.exp(rng.uniform(np.log(10), np.log(200), count)),
        "size": size,
        "n": rng.uniform(0.5, 5.5, count),
        "g": g,
        "center": 31.5 + rng.uniform(-0.5, 0.5, (count, 2)),
        "seed": rng.integers(2**31, size=count),
        "turn": np.zeros(count),
    }


def quarter_turned(truth):
    """The same galaxies after a quarter turn of the stamp."""
    x, y = truth["center"].T
    center = np.stack([y, SIZE - 1 - x], 1)
    return truth | {"g": -truth["g"], "center": center, "turn": truth["turn"] - 90}


def sersics(truth, gamma, e, jacobian):
    """Images of unit flux of Sersic profiles."""
    sheared = composed(truth["g"], gamma)
    hlr, g1, g2 = FWHM * truth["size"], sheared.real, sheared.imag
    if jacobian is not None:
        _, g1, g2 = transform_shape(1.0, g1, g2, np.linalg.inv(jacobian))
    grid = grid_for(SIZE, OVER)
    ones = np.ones(len(sheared))
    params = np.column_stack([ones, truth["n"], hlr, g1, g2, truth["center"], 0 * ones])
    transfer = transfer_functions(psf_array(FWHM, e), grid, OVER)
    return np.asarray(render(params.astype(np.float32), transfer, grid))


def bulges_and_discs(truth, gamma, e, jacobian):
    """A third of the light in a bulge of n = 4 and half the size, in an exponential disc."""
    count = len(truth["n"])
    disc = sersics(truth | {"n": np.ones(count)}, gamma, e, jacobian)
    bulge = truth | {"n": np.full(count, 4.0), "size": truth["size"] / 2}
    return (2 * disc + sersics(bulge, gamma, e, jacobian)) / 3


def drawn(truth, gamma, e, galaxy):
    """Images by GalSim; a function of a row of the truth gives the galaxy before any shear."""
    psf, count = galsim.Moffat(beta=BETA, fwhm=FWHM).shear(e1=e), len(truth["n"])
    out = np.empty((count, SIZE, SIZE), np.float32)
    for row, image in enumerate(out):
        one = {name: values[row] for name, values in truth.items()}
        light = galaxy(one).rotate(one["turn"] * galsim.degrees)
        light = light.shear(g1=one["g"].real, g2=one["g"].imag).shear(g1=gamma.real, g2=gamma.imag)
        image[:] = galsim.Convolve(light, psf).drawImage(nx=SIZE, ny=SIZE, scale=1).array
    return out


def knots(truth, gamma, e, jacobian):
    """Forty points of light, the same before and after the shear."""

    def galaxy(one):
        rng = galsim.BaseDeviate(int(one["seed"]))
        return galsim.RandomKnots(40, half_light_radius=FWHM * one["size"], rng=rng)

    return drawn(truth, gamma, e, galaxy)


@cache
def hst_galaxies():
    """Real galaxies of unit flux, in pixels of 0.1 arcsec."""
    catalog = galsim.RealGalaxyCatalog(HST_CATALOG, dir=str(HST))
    return [galsim.RealGalaxy(catalog, index=i, flux=1.0).dilate(10.0) for i in range(catalog.nobjects)]


def hst(truth, gamma, e, jacobian):
    """Galaxies of the Hubble Space Telescope, turned at random and sheared further."""

    def galaxy(one):
        galaxies = hst_galaxies()
        return galaxies[int(one["seed"]) % len(galaxies)].rotate(one["seed"] * 1e-3 * galsim.degrees)

    return drawn(truth, gamma, e, galaxy)


IN_THE_MIDDLE = ("knots", "hst")  # of the stamps, whatever the truth says
LIGHT = {"sersic": sersics, "bulge and disc": bulges_and_discs, "knots": knots, "hst": hst}


def smoothed(noise, sigma):
    """Noise with an autocorrelation, of unit variance, and that autocorrelation."""
    k = 2 * np.pi * np.fft.fftfreq(SIZE)
    power = np.exp(-(k[:, None] ** 2 + k[: SIZE // 2 + 1] ** 2) * sigma**2)
    correlation = np.fft.fftshift(np.fft.irfft2(power, (SIZE, SIZE)))
    peak = correlation.max()
    noise = np.fft.irfft2(np.fft.rfft2(noise) * np.sqrt(power / peak), (SIZE, SIZE))
    middle = slice(SIZE // 2 - 4, SIZE // 2 + 5)
    return noise, correlation[middle, middle] / peak


def _turned_into_each_other(noise, other, angle, sign):
    """Noise of an image and noise to be added, after an orthogonal change of the two: as likely as before."""
    cos, sin = np.cos(angle), np.sin(angle)
    return np.stack([cos * noise + sin * other, sign * (cos * other - sin * noise)])


def chunk_images(case, rng):
    """A chunk of galaxies as `Galaxies`."""
    options, truth = CASES[case], draw_truth(rng, CHUNK)
    e, jacobian = options.get("e", 0.0), options.get("jacobian")
    images = partial(LIGHT[options.get("light", "sersic")], e=e, jacobian=jacobian)
    noise, correlation = rng.normal(size=(2, CHUNK, SIZE, SIZE)), None
    if "smooth" in options:
        noise, correlation = smoothed(noise, options["smooth"])
    flux = truth["snr"] / np.sqrt((images(truth, 0j).astype(float) ** 2).sum((1, 2)))
    ivar = np.ones((CHUNK, SIZE, SIZE), np.float32)
    if options.get("masked"):
        ivar[rng.uniform(size=ivar.shape) < 0.02] = 0
        ivar[np.arange(CHUNK), :, rng.integers(20, 44, CHUNK)] = 0
    noises = [_turned_into_each_other(*noise, *how) for how in product(TURNS, (1, -1))]
    parts = []
    for sign, quarter in product((1, -1), (False, True)):
        some, weights = (quarter_turned(truth), np.rot90(ivar, 1, (1, 2))) if quarter else (truth, ivar)
        light = images(some, sign * GAMMA * (1 + 1j)) * flux[:, None, None]
        where_drawn = (
            some["center"] if options.get("light") not in IN_THE_MIDDLE else np.full((CHUNK, 2), 31.5)
        )
        for both in noises:
            if quarter:
                both = -np.rot90(both, 1, (2, 3))
            parts.append((light + both[0], weights, both[1], where_drawn))
    data, weights, added, centers = (np.concatenate(p) for p in zip(*parts, strict=True))
    where = {}
    if jacobian is not None:
        where = {"jacobian": jacobian, "skycoord": np.tile([150.0, 2.0], (len(data), 1))}
    told = psf_array(FWHM * options.get("told", 1.0), e)
    stamps = Stamps(data, weights, told, psf_oversampling=OVER, **where)
    return Galaxies(truth, stamps, added.astype(np.float32), correlation, centers)
