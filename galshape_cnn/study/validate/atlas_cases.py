# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""Failure cases of the atlas, each a small function.

A function takes `BaseGalaxies`, the strength of the failure and a random generator, and
returns a `Change` of what is drawn or of what the estimator is told about it.  All galaxies
and PSFs are drawn by GalSim.
"""

from dataclasses import dataclass, replace
from functools import partial

import galsim
import numpy as np
from scipy.ndimage import gaussian_filter

from galshape_cnn.forward.galaxy_model import SINGLE
from galshape_cnn.study.simulate.galsim_stamps import draw_galaxy, draw_psf, nearest_index
from galshape_cnn.study.validate.atlas_domain import AtlasDomain

__all__ = ["FAMILIES", "BaseGalaxies", "Change", "Family", "draw_base"]

_SIDE = 64
_MIDDLE = (_SIDE - 1) / 2
_KEPT = 5  # pixels around the centre that masks leave


@dataclass(frozen=True, eq=False)
class BaseGalaxies:
    """Ordinary galaxies to which things happen.

    Attributes
    ----------
    params : (N, 8) ndarray
        Unit flux, n, hlr, g1, g2, x, y, sky.
    fwhm : (N,) ndarray
        Of the PSF, a Moffat profile, pixels.
    images : (N, 64, 64) ndarray
        Noise-free stamps.
    psf : (N, 127, 127) ndarray
        Effective PSFs, two samples per pixel.
    domain : AtlasDomain
        What they were drawn from.
    """

    params: np.ndarray
    fwhm: np.ndarray
    images: np.ndarray
    psf: np.ndarray
    domain: AtlasDomain

    def moffat(self, width):
        """PSF of some FWHM, without the pixel."""
        return galsim.Moffat(beta=self.domain.beta, fwhm=float(width))

    def drawn(self, params):
        """Noise-free stamps of other galaxies with the same PSFs."""
        rows = zip(params, self.fwhm, strict=True)
        return np.stack([draw_galaxy(row, self.moffat(width)) for row, width in rows])


@dataclass(frozen=True, eq=False)
class Change:
    """What differs from ordinary galaxies; None and zero mean nothing.

    Attributes
    ----------
    images, psf : ndarray
        Noise-free stamps; PSFs the estimator is told.
    params : (N, 8) ndarray
        True parameters.
    known : tuple of bool
        Which of the five parameters have a true value.
    stated : float
        Stated over true noise.
    sky : float
        Sky level in units of the noise of a pixel, not told.
    fit_sky : bool
        What the estimator is told.
    mask : (N, 64, 64) ndarray of bool
        Bad pixels, told.
    smooth : float
        Correlation length of the noise, pixels.
    spoil : callable
        ``spoil(data, clean)`` changes the finished image, not told.
    crop : int
        Side of the stamp.
    """

    images: np.ndarray = None
    psf: np.ndarray = None
    params: np.ndarray = None
    known: tuple = (True,) * 5
    stated: float = 1.0
    sky: float = 0.0
    fit_sky: bool = True
    mask: np.ndarray = None
    smooth: float = 0.0
    spoil: object = None
    crop: int = _SIDE


@dataclass(frozen=True)
class Family:
    """A family of failures.

    Attributes
    ----------
    title, label : str
        What it is; what the strength means, with its unit.
    values : tuple
        Strengths.
    change : callable
        ``change(base, value, rng) -> Change``.
    nominal : tuple
        Strengths at which nothing is wrong.
    """

    title: str
    label: str
    values: tuple
    change: object
    nominal: tuple = ()


def draw_base(count, seed, fwhm=None, domain=AtlasDomain()):  # noqa: B008, frozen
    """Draw ordinary galaxies: n 0.8 to 4, half a PSF to 1.5 PSFs in radius, as far as the network knows them.

    The FWHM of every PSF, in pixels, is uniform between the limits of ``domain``, unless it is given.
    """
    rng = np.random.default_rng([seed, 5])
    n = nearest_index(rng.uniform(*domain.n, count))
    drawn_fwhm = rng.uniform(*domain.fwhm, count)
    high = np.clip(1.5 * drawn_fwhm, *domain.hlr)
    low = np.clip(np.minimum(0.5 * drawn_fwhm, 0.5 * high), *domain.hlr)  # some range, whatever the limits
    hlr = low + (high - low) * (rng.uniform(0.5, 1.5, count) - 0.5)
    g, angle = np.minimum(rng.rayleigh(0.2, count), 0.5), rng.uniform(0, 2 * np.pi, count)
    fwhm = drawn_fwhm if fwhm is None else np.full(count, float(fwhm))
    position = _MIDDLE + rng.uniform(-0.5, 0.5, (2, count))
    params = np.stack([np.ones(count), n, hlr, g * np.cos(angle), g * np.sin(angle), *position, 0 * n], 1)
    bare = BaseGalaxies(params, fwhm, None, None, domain)
    return replace(bare, images=bare.drawn(params), psf=np.stack([draw_psf(bare.moffat(w)) for w in fwhm]))


def _moved(base, distance, rng):
    angle = rng.uniform(0, 2 * np.pi, len(base.params))
    params = base.params.copy()
    offset = np.stack([np.cos(angle), np.sin(angle)], -1)
    params[:, SINGLE.centre] = _MIDDLE + np.asarray(distance)[..., None] * offset
    return params


def _offset(base, value, rng):
    params = _moved(base, value, rng)
    return Change(images=base.drawn(params), params=params)


def _psf_width_wrong(base, value, rng):
    return Change(psf=np.stack([draw_psf(base.moffat(width * (1 + value / 100))) for width in base.fwhm]))


def _psf_shape_wrong(base, value, rng):
    sheared = [draw_psf(base.moffat(width).shear(e1=value, e2=0)) for width in base.fwhm]
    return Change(psf=np.stack(sheared))


def _masked(base, value, rng):
    mask = np.zeros(base.images.shape, bool)
    for one in mask:
        while one.mean() < value:
            y, x = rng.integers(0, _SIDE, 2)
            if max(abs(y - _MIDDLE), abs(x - _MIDDLE)) < _KEPT:
                continue
            one[max(y - 2, 0) : y + 3, max(x - 2, 0) : x + 3] = True
    return Change(mask=mask)


def _neighbour(base, value, rng, ratio):
    params = _moved(base, value, rng)
    return Change(images=base.images + ratio * base.drawn(np.roll(params, 1, 0) * _keep_place(params)))


def _keep_place(params):
    """Factors that leave everything of a rolled table but its positions, which stay."""
    factors = np.ones_like(params)
    centre = SINGLE.centre
    factors[:, centre] = params[:, centre] / np.roll(params, 1, 0)[:, centre]
    return factors


def _star(base, value, rng):
    stars = [
        base.moffat(width).drawImage(
            nx=_SIDE, ny=_SIDE, scale=1.0, dtype=float, offset=(row[5] - _MIDDLE, row[6] - _MIDDLE)
        )
        for row, width in zip(base.params, base.fwhm, strict=True)
    ]
    return Change(images=np.stack([star.array for star in stars]), known=(True, False, False, False, False))


def _bulge_and_disc(base, value, rng):
    """A bulge of n = 4 a quarter as large as the disc; n and hlr have no single true value."""
    images = np.zeros_like(base.images)
    for share, n, size in ((value, 4.0, 0.25), (1 - value, 1.0, 1.0)):
        params = base.params.copy()
        params[:, SINGLE.flux], params[:, SINGLE.n] = share, n
        params[:, SINGLE.hlr] = 1.3 * size * params[:, SINGLE.hlr]
        images += base.drawn(params) if share > 0 else 0
    return Change(images=images, known=(True, False, False, True, True))


def _spiral(base, value, rng):
    """Two logarithmic arms of a relative amplitude; flux, profile and shape stay the same on average."""
    y, x = np.indices((_SIDE, _SIDE))
    x0, y0 = base.params[:, SINGLE.centre].T[..., None, None]
    dx, dy = x - x0, y - y0
    radius = np.hypot(dx, dy) / base.params[:, SINGLE.hlr, None, None]
    arms = np.cos(2 * np.arctan2(dy, dx) - 5 * np.log(radius + 0.1)) * np.minimum(radius, 1)
    return Change(images=base.images * (1 + value * arms))


def _undersampled(base, value, rng):
    other = draw_base(len(base.params), 11, fwhm=value, domain=base.domain)
    return Change(images=other.images, psf=other.psf, params=other.params)


def _unseen_psf(base, value, rng):
    """Kolmogorov seeing and a telescope with defocus, coma, astigmatism, trefoil and struts."""
    # Padding: GalSim interpolates the transform of the aperture, at 1.5 to 0.4 % of the peak.
    optics = galsim.OpticalPSF(
        lam_over_diam=1.1, defocus=value, coma1=0.6 * value, astig1=0.5 * value, trefoil1=0.4 * value,
        obscuration=0.3, nstruts=4, strut_thick=0.03, pad_factor=2.0,
    )  # fmt: skip
    images, psfs = [], []
    for row, width in zip(base.params, base.fwhm, strict=True):
        psf = galsim.Convolve(galsim.Kolmogorov(fwhm=0.9 * width), optics)
        images.append(draw_galaxy(row, psf))
        psfs.append(draw_psf(psf))
    return Change(images=np.stack(images), psf=np.stack(psfs))


def _cosmic_ray(base, value, rng):
    places = np.rint(base.params[:, SINGLE.centre] + rng.uniform(-6, 6, (len(base.params), 2))).astype(int)
    steps = rng.integers(-1, 2, (len(places), 2))

    def spoil(data, clean):
        data = data.copy()
        for one, place, step in zip(data, places, steps, strict=True):
            for k in range(4):
                x, y = place + k * step
                one[y % _SIDE, x % _SIDE] += value
        return data

    return Change(spoil=spoil)


def _saturated(base, value, rng):
    def spoil(data, clean):
        return np.minimum(data, value * clean.max((1, 2), keepdims=True))

    return Change(spoil=spoil if value < 1 else None)


def _correlated(base, value, rng):
    return Change(smooth=value)


def smooth_noise(noise, sigma):
    """Noise correlated over some pixels, of the same variance."""
    impulse = np.zeros((31, 31))
    impulse[15, 15] = 1
    norm = np.sqrt((gaussian_filter(impulse, sigma) ** 2).sum())
    return gaussian_filter(noise, (0, sigma, sigma), mode="wrap") / norm


_DISTANCES = (5.0, 8.0, 12.0, 18.0)
FAMILIES = {
    "off_centre": Family(
        "Galaxy off centre", "offset (px)", (0.0, 0.5, 1.0, 1.5, 2.0), _offset, (0.0, 0.5, 1.0, 1.5)
    ),
    "noise_wrong": Family(
        "Noise stated wrongly",
        "error of the stated noise (%)",
        (-30, -10, 0, 10, 30),
        lambda base, value, rng: Change(stated=1 + value / 100),
        (0,),
    ),
    "psf_width_wrong": Family(
        "PSF width wrong", "error of the PSF FWHM (%)", (-10, -5, -2, 0, 2, 5, 10), _psf_width_wrong, (0,)
    ),
    "psf_shape_wrong": Family(
        "PSF ellipticity wrong", "error of e1", (0.0, 0.02, 0.05, 0.1), _psf_shape_wrong, (0.0,)
    ),
    "sky_wrong": Family(
        "Sky offset, sky said to be zero",
        "sky (noise of a pixel)",
        (0.0, 0.02, 0.05, 0.1, 0.3),
        lambda base, value, rng: Change(sky=value, fit_sky=False),
        (0.0,),
    ),
    "sky_fitted": Family(
        "Sky offset, sky fitted",
        "sky (noise of a pixel)",
        (0.1, 0.3, 1.0),
        lambda base, value, rng: Change(sky=value),
        (0.1, 0.3),
    ),
    "masked": Family("Masked pixels", "masked fraction", (0.1, 0.2, 0.3, 0.5), _masked, (0.1, 0.2)),
    "neighbour_0.1": Family(
        "Neighbour, flux ratio 0.1", "distance (px)", _DISTANCES, partial(_neighbour, ratio=0.1)
    ),
    "neighbour_0.3": Family(
        "Neighbour, flux ratio 0.3", "distance (px)", _DISTANCES, partial(_neighbour, ratio=0.3)
    ),
    "neighbour_1": Family(
        "Neighbour, flux ratio 1", "distance (px)", _DISTANCES, partial(_neighbour, ratio=1.0)
    ),
    "star": Family("Star in place of a galaxy", "", (0.0,), _star),
    "bulge_disc": Family(
        "Bulge and disc", "bulge share of the flux", (0.0, 0.2, 0.5), _bulge_and_disc, (0.0,)
    ),
    "spiral": Family("Spiral arms", "amplitude of the arms", (0.0, 0.3, 0.7), _spiral, (0.0,)),
    "undersampled": Family(
        "Undersampled PSF", "PSF FWHM (px)", (1.0, 1.3, 1.6, 2.0), _undersampled, (1.6, 2.0)
    ),
    "unseen_psf": Family(
        "PSF unlike training: aberrated telescope",
        "aberration (waves)",
        (0.0, 0.1, 0.3),
        _unseen_psf,
        (0.0,),
    ),
    "cosmic_ray": Family(
        "Cosmic ray, not masked",
        "counts of each of 4 pixels (noise of a pixel)",
        (5.0, 20.0, 100.0),
        _cosmic_ray,
    ),
    "saturated": Family(
        "Core saturated, not masked", "saturation level (peak)", (1.0, 0.8, 0.5), _saturated, (1.0,)
    ),
    "correlated_noise": Family(
        "Correlated noise, not told", "correlation length (px)", (0.0, 0.5, 1.0), _correlated, (0.0,)
    ),
    "small_stamp": Family(
        "Small stamp", "side (px)", (16, 24, 32), lambda base, value, rng: Change(crop=int(value))
    ),
}
