# Licensed under a 3-clause BSD style license - see LICENSE.rst
r"""Random PSFs for training, as radial transfer functions.

Families, all of unit FWHM: Gaussian; Moffat (Trujillo et al. 2001, MNRAS 328, 977) with beta
from 1.6 to 6; Kolmogorov, :math:`T(k) = e^{-3.442 (k r_0'/2\pi)^{5/3}}` (Fried 1966);
and the diffraction-limited circular aperture.  A PSF is a weighted sum or the product of two
of them with different widths, sheared, and convolved with the pixel.
"""

from functools import lru_cache

import jax.numpy as jnp
import numpy as np
from scipy.special import gamma, kv

__all__ = ["LN_Q", "MOFFAT_BETA", "STEP", "draw_psfs", "family_table", "radial_transfer", "transfer_on_modes"]

#: Step of `LN_Q`, and of the ratio of the widths of two components.
STEP = 0.04
#: Logarithm of wave number times FWHM at which families are tabulated.
LN_Q = np.arange(-5.0, 4.6, STEP)
#: Exponents of the Moffat families.
MOFFAT_BETA = np.concatenate([np.arange(1.6, 3.0, 0.2), np.arange(3.0, 6.1, 0.5)])


def _moffat(q, beta):
    x = q / (2 * np.sqrt(2 ** (1 / beta) - 1))
    with np.errstate(under="ignore"):
        return 2 * (x / 2) ** (beta - 1) * kv(beta - 1, x) / gamma(beta - 1)


def _airy(q):
    nu = np.clip(q / (2 * np.pi * 1.029), 0, 1)
    return 2 / np.pi * (np.arccos(nu) - nu * np.sqrt(1 - nu**2))


@lru_cache(maxsize=1)
def family_table():
    """Transfer functions of the families.

    Returns
    -------
    table : (families, len(LN_Q)) ndarray
        Gaussian, Kolmogorov, Airy, then Moffats of increasing beta.
    """
    q = np.exp(LN_Q)
    gaussian = np.exp(-0.5 * (q / 2.354820045) ** 2)
    kolmogorov = np.exp(-3.442 * (q / (2 * np.pi * 0.976)) ** (5 / 3))
    return np.stack([gaussian, kolmogorov, _airy(q)] + [_moffat(q, b) for b in MOFFAT_BETA])


def draw_psfs(rng, size, fwhm, ellipticity, moffat_beta=None):
    """Draw random PSFs.

    Parameters
    ----------
    rng : numpy.random.Generator
        Source of randomness.
    size : int
        Number of PSFs.
    fwhm : Distribution
        Of the larger component's FWHM in pixels.
    ellipticity : float
        Largest axis-ratio distortion, e = (a^2 - b^2)/(a^2 + b^2).
    moffat_beta : float, optional
        Every PSF is a Moffat profile of this exponent (> 1), instead of a random one.

    Returns
    -------
    psfs : dict
        ``radial`` (size, len(LN_Q)), ``fwhm`` (size,), ``g`` (size, 2), and ``recipe``, a
        dict of what the radial profile was made of, for renderers that start anew.
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
    return {"radial": radial, "fwhm": fwhm.sample(rng, size), "g": shear, "recipe": recipe}


def _draw_recipe(rng, size):
    """Families, ratio of widths and weights of two components."""
    first, second = rng.integers(3 + len(MOFFAT_BETA), size=(2, size))
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


def transfer_on_modes(radial, fwhm, g, ky, kx):
    """Effective transfer function of one PSF on a grid of wave numbers.

    Parameters
    ----------
    radial : (len(LN_Q),) array
        Radial transfer function of unit FWHM.
    fwhm : float
        FWHM in pixels.
    g : (2,) array
        Shear of the PSF.
    ky, kx : ndarray
        Wave numbers in radians per pixel.

    Returns
    -------
    transfer : (Ky, Kx) complex jax array
        With the pixel's own transfer function included.
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
    return (values * pixel).astype(jnp.complex64)
