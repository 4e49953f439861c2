# Licensed under a 3-clause BSD style license - see LICENSE.rst
r"""Random PSFs for training, as radial transfer functions.

Families, all of unit FWHM: Gaussian; Moffat (Trujillo et al. 2001, MNRAS 328, 977) with beta
from 1.6 to 6; Kolmogorov, :math:`T(k) = e^{-3.442 (k r_0'/2\pi)^{5/3}}` (Fried 1966);
and the diffraction-limited circular aperture, clear or with a central obscuration.  A PSF is a
weighted sum or the product of two of them with different widths, sheared, and convolved with
the pixel.  Half of the PSFs are then convolved with three unequal points (`draw_lobes`), which makes
them as lopsided as coma and trefoil do.
"""

from functools import lru_cache

import jax.numpy as jnp
import numpy as np
from astropy.stats import gaussian_sigma_to_fwhm
from scipy.optimize import brentq
from scipy.special import gamma, j0, j1, kv

__all__ = [
    "LN_Q",
    "MOFFAT_BETA",
    "OBSCURATION",
    "PSF_ARRAYS",
    "STEP",
    "draw_lobes",
    "draw_psfs",
    "family_parameters",
    "family_table",
    "obscured_fwhm",
    "radial_transfer",
    "transfer_on_modes",
    "turned_psfs",
    "without_wings",
]

#: Step of `LN_Q`, and of the ratio of the widths of two components.
STEP = 0.04
#: Logarithm of wave number times FWHM at which families are tabulated.
LN_Q = np.arange(-5.0, 4.6, STEP)
#: Exponents of the Moffat families.
MOFFAT_BETA = np.concatenate([np.arange(1.6, 3.0, 0.2), np.arange(3.0, 6.1, 0.5)])

#: What `transfer_on_modes` takes of the result of `draw_psfs`.
PSF_ARRAYS = ("radial", "fwhm", "g", "lobes")
#: Pixels from the middle at which arrays of PSFs end, and the least part of the flux that they may lack.
_SHORTEST, _LONGEST, _LEAST_WINGS = 12.0, 64.0, 3e-3
#: Linear size of the central obscuration of the last family, in apertures.
OBSCURATION = 0.4


def _moffat(q, beta):
    x = q / (2 * np.sqrt(2 ** (1 / beta) - 1))
    with np.errstate(under="ignore"):
        return 2 * (x / 2) ** (beta - 1) * kv(beta - 1, x) / gamma(beta - 1)


def _airy(q):
    nu = np.clip(q / (2 * np.pi * 1.029), 0, 1)
    return 2 / np.pi * (np.arccos(nu) - nu * np.sqrt(1 - nu**2))


@lru_cache(maxsize=1)
def obscured_fwhm():
    """FWHM of the Airy pattern of the obscured aperture, in wavelengths per aperture."""

    def amplitude(x):
        return (2 * j1(x) / x - OBSCURATION * 2 * j1(OBSCURATION * x) / x) / (1 - OBSCURATION**2)

    return 2 / np.pi * brentq(lambda x: amplitude(x) ** 2 - 0.5, 0.5, 2.0)


def _discs_overlap(distance, radius):
    """Area common to a disc of radius 1 and one of a smaller radius, at a distance of their centres."""
    d = np.clip(distance, 1 - radius + 1e-12, 1 + radius - 1e-12)
    large = np.arccos(np.clip((d**2 + 1 - radius**2) / (2 * d), -1, 1))
    small = np.arccos(np.clip((d**2 + radius**2 - 1) / (2 * d * radius), -1, 1))
    kite = 0.5 * np.sqrt(
        np.maximum((1 + radius - d) * (d + radius - 1) * (d - radius + 1) * (d + radius + 1), 0)
    )
    lens = large + radius**2 * small - kite
    lens = np.where(distance <= 1 - radius, np.pi * radius**2, lens)
    return np.where(distance >= 1 + radius, 0.0, lens)


def _obscured_airy(q):
    """Autocorrelation of an annular aperture."""
    nu = q / (2 * np.pi * obscured_fwhm())  # in units of the cut-off 1 / (lambda / D)
    clear, hole = _airy(q / obscured_fwhm() * 1.029), _airy(q / obscured_fwhm() * 1.029 / OBSCURATION)
    cross = _discs_overlap(2 * nu, OBSCURATION) / np.pi
    return (clear + OBSCURATION**2 * hole - 2 * cross) / (1 - OBSCURATION**2)


@lru_cache(maxsize=1)
def family_table():
    """Transfer functions (families, len(LN_Q)) of the families.

    Gaussian, Kolmogorov, Airy, then Moffats of increasing beta, then the obscured Airy.
    """
    q = np.exp(LN_Q)
    gaussian = np.exp(-0.5 * (q / gaussian_sigma_to_fwhm) ** 2)
    kolmogorov = np.exp(-3.442 * (q / (2 * np.pi * 0.976)) ** (5 / 3))
    moffats = [_moffat(q, beta) for beta in MOFFAT_BETA]
    return np.stack([gaussian, kolmogorov, _airy(q), *moffats, _obscured_airy(q)])


def family_parameters():
    """What another renderer needs to draw the families.

    ``betas`` of the Moffats, ``step`` of a recipe's shift, ``obscuration`` and its ``obscured_fwhm``.
    """
    return {
        "betas": MOFFAT_BETA.tolist(), "step": STEP,
        "obscuration": OBSCURATION, "obscured_fwhm": float(obscured_fwhm()),
    }  # fmt: skip


def draw_psfs(rng, size, fwhm, ellipticity, moffat_beta=None, lobes=0.0):
    """Draw random PSFs.

    ``fwhm`` is the distribution of the larger component's FWHM in pixels, ``ellipticity`` the largest
    axis-ratio distortion, e = (a^2 - b^2)/(a^2 + b^2). With ``moffat_beta`` every PSF is a Moffat profile of
    this exponent (> 1). ``lobes`` is the part of the PSFs that are lopsided.

    By name: ``radial`` (size, len(LN_Q)), ``fwhm`` (size,), ``g`` (size, 2), ``lobes`` (size, 3, 3), and
    ``recipe``, a dict of what the radial profile was made of, for renderers that start anew.
    """
    if moffat_beta is None:
        recipe = _draw_recipe(rng, size)
        radial = radial_transfer(recipe)
    else:
        recipe = {"beta": np.full(size, float(moffat_beta))}
        radial = np.tile(_moffat(np.exp(LN_Q), float(moffat_beta)), (size, 1))
    e = ellipticity * np.sqrt(rng.uniform(size=size))
    g = e / (1 + np.sqrt(1 - e**2))
    angle = rng.uniform(0, 2 * np.pi, size)
    shear = np.stack([g * np.cos(angle), g * np.sin(angle)], 1)
    width = fwhm.sample(rng, size)
    points = draw_lobes(rng, size, lobes) * np.stack([np.ones(size), width, width], -1)[:, None]
    return {"radial": radial, "fwhm": width, "g": shear, "lobes": points, "recipe": recipe}


def draw_lobes(rng, size, part):
    """Three points that a PSF is convolved with, their centroid within a twentieth of a FWHM of zero.

    (size, 3, 3): for each point its weight (they sum to one), x and y in units of the FWHM; ``part`` is the
    probability that they are not all at zero.
    """
    weight = 0.3 * rng.uniform(size=(size, 2)) ** 1.5
    radius, angle = rng.uniform(0.2, 1.1, (size, 2)), rng.uniform(0, 2 * np.pi, (size, 2))
    lobes = np.zeros((size, 3, 3))
    lobes[:, 0, 0], lobes[:, 1:, 0] = 1 - weight.sum(1), weight
    lobes[:, 1:, 1], lobes[:, 1:, 2] = radius * np.cos(angle), radius * np.sin(angle)
    centroid = (lobes[..., :1] * lobes[..., 1:]).sum(1, keepdims=True)
    off = 0.02 * rng.standard_normal((size, 1, 2))
    lobes[..., 1:] += np.clip(off, -0.05, 0.05) - centroid
    plain = rng.uniform(size=size) >= part
    lobes[plain] = np.array([[1.0, 0, 0], [0, 0, 0], [0, 0, 0]])
    return lobes


@lru_cache(maxsize=4)
def _wing_transfer(beta):
    """ln(k R), and the transfer function there of what a Moffat profile has beyond R, far from its core."""
    ln_r, ln_x = np.arange(0, 6, 0.002), np.arange(-6.0, 3.01, STEP)
    weight = (2 * beta - 2) * 0.002 * np.exp((2 - 2 * beta) * ln_r)
    weight[0] /= 2
    return ln_x, j0(np.exp(ln_x[:, None] + ln_r)) @ weight


def without_wings(rng, psfs, beta):
    """Moffat PSFs as arrays of a random size hold them: without the wings outside, and of unit sum.

    From and as `draw_psfs` with ``moffat_beta``, but without ``recipe``. A network that has seen one family
    of PSFs, of any width, has seen one number in all the entries of its context. What its answer does when
    they change in any other way is arbitrary, so it has to see what arrays do to them. They end between 12
    and 64 pixels from the middle. The wings are those of a power law, cut along a circle.
    """
    radius = np.exp(rng.uniform(np.log(_SHORTEST), np.log(_LONGEST), len(psfs["fwhm"]))) / psfs["fwhm"]
    part = (1 + 4 * (2 ** (1 / beta) - 1) * radius**2) ** (1 - beta)
    part = np.maximum(part, _LEAST_WINGS * rng.uniform(size=len(part)))[:, None]
    wings = np.interp(LN_Q + np.log(radius)[:, None], *_wing_transfer(float(beta)), left=1.0, right=0.0)
    return {key: psfs[key] for key in PSF_ARRAYS} | {"radial": (psfs["radial"] - part * wings) / (1 - part)}


def turned_psfs(psfs):
    """What `PSF_ARRAYS` names of PSFs, turned by a quarter of a circle, from +x to +y."""
    weight, x, y = np.moveaxis(psfs["lobes"], -1, 0)
    turned = {"g": -psfs["g"], "lobes": np.stack([weight, -y, x], -1)}
    return {key: psfs[key] for key in PSF_ARRAYS} | turned


def _draw_recipe(rng, size):
    """Families, ratio of widths and weights of two components."""
    first, second = rng.integers(len(family_table()), size=(2, size))
    shift = rng.integers(0, int(np.log(3.0) / STEP), size=size)
    weight = 0.35 * rng.uniform(size=(size, 1)) ** 2
    kind = rng.uniform(size=(size, 1))
    return {"first": first, "second": second, "shift": shift, "weight": weight, "kind": kind}


def radial_transfer(recipe):
    """One family alone, or the sum or product of two.

    Parameters
    ----------
    recipe : dict of ndarray
        ``first`` and ``second`` (size,), rows of `family_table`; ``shift`` (size,), their
        ratio of widths in steps of `STEP` in the logarithm; ``kind`` (size, 1), below 0.4
        for the first alone, below 0.7 for a sum in which the second is wider and has
        ``weight`` (size, 1), else a product in which it is narrower.

    Returns
    -------
    radial : (size, len(LN_Q)) ndarray
        Radial transfer functions.
    """
    table = family_table()
    index, shift = np.arange(len(LN_Q)), recipe["shift"][:, None]
    main, second = table[recipe["first"]], recipe["second"][:, None]
    # The wider or narrower second component, by a shift in ln q.
    wide = table[second, np.minimum(index + shift, len(LN_Q) - 1)]
    narrow = table[second, np.maximum(index - shift, 0)]
    weight, kind = recipe["weight"], recipe["kind"]
    mixed = (1 - weight) * main + weight * wide
    return np.where(kind < 0.4, main, np.where(kind < 0.7, mixed, main * narrow))


def transfer_on_modes(radial, fwhm, g, lobes, ky, kx):
    """Effective transfer function (Ky, Kx) of one PSF, the pixel's own included, on a grid of wave numbers.

    Of the radial transfer function (len(LN_Q),) of unit FWHM, FWHM in pixels, shear and three points with
    weight, x and y (pixels) that it is convolved with; wave numbers are in radians per pixel.
    """
    ky, kx = jnp.asarray(ky)[:, None], jnp.asarray(kx)[None, :]
    norm = 1 - g[0] ** 2 - g[1] ** 2
    form = (2 - norm) * (kx**2 + ky**2) + 2 * (g[0] * (kx**2 - ky**2) + 2 * g[1] * kx * ky)
    ln_q = 0.5 * jnp.log(jnp.maximum(form / norm, 1e-12)) + jnp.log(fwhm)
    position = jnp.clip((ln_q - LN_Q[0]) / STEP, 0, len(LN_Q) - 1.001)
    index = jnp.floor(position).astype(jnp.int32)
    t = position - index
    values = radial[index] * (1 - t) + radial[index + 1] * t
    pixel = jnp.sinc(kx / (2 * np.pi)) * jnp.sinc(ky / (2 * np.pi))
    # a wave at each point is one along y times one along x: few sines
    along_y = jnp.exp(-1j * ky * lobes[:, 2])
    along_x = jnp.exp(-1j * kx.T * lobes[:, 1])
    points = (lobes[:, 0] * along_y) @ along_x.T
    return (values * pixel * points).astype(jnp.complex64)
