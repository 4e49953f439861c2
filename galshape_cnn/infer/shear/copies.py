# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""Noise-added copies of stamps, and their derivatives by shear.

What every measurement of a response needs, whoever measures the copies; the theory is in
`galshape_cnn.infer.shear.response`.
"""

from typing import NamedTuple
from zlib import crc32

import jax
import jax.numpy as jnp
import numpy as np

from galshape_cnn.forward.galaxy_model import SINGLE
from galshape_cnn.forward.transfer import grid_for
from galshape_cnn.infer.likelihood.correlated_products import correlation_spectrum
from galshape_cnn.infer.likelihood.rendering import BATCH_SIZE
from galshape_cnn.infer.network.amortized import source_noise
from galshape_cnn.infer.network.features import SIDE, crop_center
from galshape_cnn.infer.shear.generators import Tangents, filtered, image_tangents
from galshape_cnn.infer.shear.grids import grid_steps
from galshape_cnn.infer.shear.psf_arrays import normalised_psf, psf_arrays
from galshape_cnn.parallel import fixed_batches

__all__ = [
    "COPIES",
    "MEASURED",
    "MIDDLE",
    "SLOTS",
    "CopyBatch",
    "copies_and_tangents",
    "copy_batches",
    "snr_and_gradient",
    "with_snr",
    "within_reach",
]

#: What is measured on each copy.
MEASURED = ("flux", "n", "hlr", "g1", "g2", "snr")
#: The value, its derivatives by the two components of shear, and by the asymmetry of the PSF.
SLOTS = ("value", "gamma1", "gamma2", "psf")
#: Amplitude of the added noise in the two copies.
COPIES = (0.5, -0.5)
#: Middle of the stamps, about which galaxies are sheared.
MIDDLE = (SIDE - 1) / 2
_DISTANCE = np.hypot(*(np.mgrid[:SIDE, :SIDE] - MIDDLE))

#: Radius in pixels about the middle of the stamp within which derivatives are exact: copies are seen there.
_REACH = 25.0
#: Radius and softness, in pixels, of the window that ends the image before its edge.  The window's own
#: derivatives lie outside of the reach, by more than a PSF's core.
_OUTER = (29.5, 0.7)
#: Weights along an axis of the pixels beside a missing one, and the least sum of them that makes a mean.
_BESIDE = np.exp(-0.5 * np.subtract.outer(np.arange(SIDE), np.arange(SIDE)) ** 2.0).astype(np.float32)
_LEAST_BESIDE = 0.1
_KNOWN_SKY = 0.3  # of a pixel's noise: the networks have seen such levels


class CopyBatch(NamedTuple):
    """A batch of `BATCH_SIZE` stamps of 64 x 64 pixels.

    Attributes
    ----------
    rows : (K,) int ndarray
        Rows of the whole that the first K are; the others repeat the first.
    padded : (BATCH_SIZE,) int ndarray
        The same, filled up.
    arrays : dict of str to ndarray
        ``data``, ``ivar``, ``noise`` (standard normal), ``sky`` (1 where it is fitted), ``poisson``,
        ``inverse_gain``, ``asymmetric`` (0 where the model in ``data`` has a symmetrized PSF), ``light`` (sum
        of the PSF) and, of normalised PSFs, ``transfer``, ``view``,
        ``change``, ``filters``.
    corner : (BATCH_SIZE, 2) int ndarray
        x, y of their pixel [0, 0] in the stamps.
    level : (BATCH_SIZE,) ndarray
        Sky that was subtracted.
    grid : FourierGrid
        Of ``transfer``.
    steps : (BATCH_SIZE, 2) ndarray
        Shears of the grids to measure on, see `galshape_cnn.infer.shear.grids.grid_steps`.
    psf : (1 or BATCH_SIZE, p, p) ndarray
        Normalised PSFs.
    oversampling : int
        PSF samples per pixel.
    """

    rows: np.ndarray
    padded: np.ndarray
    arrays: dict
    corner: np.ndarray
    level: np.ndarray
    grid: object
    steps: np.ndarray
    psf: np.ndarray
    oversampling: int


def copy_batches(batch, usable, sky, fit_sky=True, seed=0, correlation=None, noise=None):
    """Stamps in batches, with the noise to be added.

    Parameters
    ----------
    batch : RenderedBatch
        N stamps.
    usable : (M,) int ndarray
        Rows to be measured, at least one.
    sky, fit_sky, seed, correlation, noise
        As for `galshape_cnn.infer.shear.response.shear_response`.

    Yields
    ------
    part : CopyBatch
    """
    stamps = batch.stamps
    psf, oversampling, steps = normalised_psf(stamps.psf), stamps.psf_oversampling, _steps(stamps)
    of_psf, grid = psf_arrays(psf, oversampling), grid_for(SIDE, oversampling)
    single = _numbers_of_stamps(stamps, batch.gain, fit_sky)
    for rows, padded in fixed_batches(usable, BATCH_SIZE):
        arrays, corner, level = _pixels(stamps[padded], sky[padded])
        own = _noise(arrays["data"], seed, correlation) if noise is None else noise[padded]
        arrays |= {"noise": np.asarray(own, np.float32)}
        arrays |= {name: array[padded] for name, array in single.items()}
        arrays |= {
            name: array[padded if len(array) > 1 else [0] * BATCH_SIZE] for name, array in of_psf.items()
        }
        own = psf if len(psf) == 1 else psf[padded]
        yield CopyBatch(rows, padded, arrays, corner, level, grid, steps[padded], own, oversampling)


def _steps(stamps):
    """Shears of the grids; of catalogues in the frame of the pixels there are none."""
    if stamps.skycoord is None:
        return np.zeros((len(stamps), 2))
    return grid_steps(np.broadcast_to(stamps.jacobian, (len(stamps), 2, 2)))


def _pixels(stamps, sky):
    """The network's 64 x 64 pixels without a sky that is not small, their corner, and that sky."""
    count = np.maximum((stamps.ivar > 0).sum((1, 2)), 1)
    noise = np.sqrt(count / np.maximum(stamps.ivar.sum((1, 2), dtype=float), 1e-30))
    level = np.where(np.abs(sky) > _KNOWN_SKY * noise, sky, 0.0)
    data = np.where(stamps.ivar > 0, stamps.data - level[:, None, None], 0).astype(np.float32)
    ivar, corner = crop_center(np.asarray(stamps.ivar, np.float32), stamps.center)
    return {"data": crop_center(data, stamps.center)[0], "ivar": ivar}, corner, level


def _numbers_of_stamps(stamps, gain, fit_sky):
    """Further arguments of the compiled function, one number for each stamp."""
    numbers = {
        "sky": np.full(len(stamps), float(fit_sky)),
        "poisson": source_noise(stamps, gain),
        "inverse_gain": np.zeros(len(stamps)) if gain is None else 1 / gain,
        "asymmetric": np.ones(len(stamps)),
        "light": np.broadcast_to(stamps.psf.sum((1, 2), dtype=float), len(stamps)),
    }
    return {name: np.asarray(array, np.float32) for name, array in numbers.items()}


def _noise(data, seed, correlation):
    """Standard normal noise for each stamp, from the seed and its own pixels."""
    out = np.empty(data.shape, np.float32)
    spectrum = correlation_spectrum(correlation, SIDE)
    for one, stamp in zip(out, data, strict=True):
        generator = np.random.default_rng([seed, crc32(stamp.tobytes())])
        if spectrum is None:
            generator.standard_normal(out=one, dtype=np.float32)
        else:
            side = len(spectrum)
            modes = np.fft.rfft2(generator.standard_normal((side, side)))
            modes *= np.sqrt(np.maximum(spectrum.real, 0))
            one[:] = np.fft.irfft2(modes, (side, side))[:SIDE, :SIDE]
    return out


def copies_and_tangents(data, ivar, noise, inverse_gain, filters, asymmetric, first, model, slopes):
    """Copies of stamps with noise added, and their derivatives by shear of the galaxy alone.

    Parameters
    ----------
    data, ivar, noise, inverse_gain, filters, asymmetric
        Of a `CopyBatch`.
    first : (N, 7) array
        flux, n, hlr, g1, g2 of a model of the galaxies, and x, y from the middle of the stamp.
    model : (N, 64, 64) array
        Its images.
    slopes : (N, 8, 64, 64) array
        Their derivatives.

    Returns
    -------
    pixels : list of 2 tuples
        Of each copy: data (N, 64, 64), and derivatives (3, N, 64, 64) in the order of `Tangents`.
    weight : (N, 64, 64) array
        Inverse variance with the photon noise of the model.
    """
    used = ivar > 0
    variance = 1 / jnp.where(used, ivar, 1) + jnp.maximum(model, 0) * inverse_gain[:, None, None]
    noise = jnp.where(used, noise * jnp.sqrt(variance), 0)
    inner, outer = jnp.asarray(_DISTANCE < _REACH), jnp.asarray(_window(*_OUTER))
    rest = image_tangents(_filled(data - model, used) * outer, filters)
    galaxy = _model_tangents(first, slopes)._replace(
        psf=filtered(model * asymmetric[:, None, None], filters[:, 2])
    )
    of_image = inner * jnp.stack(rest) + jnp.stack(galaxy)
    of_noise = inner * jnp.stack(image_tangents(_filled(noise, used) * outer, filters))
    pixels = [
        (data + amplitude * noise, jnp.where(used, of_image - of_noise / amplitude, 0))
        for amplitude in COPIES
    ]
    return pixels, jnp.where(used, 1 / variance, 0)


def _filled(images, used):
    """Images whose missing pixels are a mean of those beside them.

    Linear in the pixels, and the same of a residual and of noise: derivatives beside a hole are nearly those
    of the whole image, and what noise adds to them cancels between the two.  A hole filled with the measured
    model knows the image's noise, but not that which is added.
    """
    light, count = (_BESIDE @ jnp.where(used, one, 0) @ _BESIDE for one in (images, jnp.float32(1)))
    return jnp.where(used, images, light / jnp.maximum(count, _LEAST_BESIDE))


def _window(reach, soft):
    return (1 / (1 + np.exp((_DISTANCE - reach) / soft))).astype(np.float32)


def within_reach(ivar):
    """Inverse variances (N, 64, 64) that are zero where derivatives are not exact.

    What a copy is measured from must move as its derivatives say: beyond, they know the model of a galaxy
    only, and m would be half a per cent for large discs.
    """
    return np.where(_DISTANCE < _REACH, ivar, np.float32(0))


def _model_tangents(first, slopes):
    """Derivatives of images of measured galaxies by shear about the middle, exact to the edges."""
    g = jax.lax.complex(*first[:, SINGLE.shear].T)
    x, y = first[:, SINGLE.centre].T[..., None, None]
    by_g, by_place = (jnp.moveaxis(slopes[:, part], 1, 0) for part in (SINGLE.shear, SINGLE.centre))
    along, across = (
        d.real[:, None, None] * by_g[0] + d.imag[:, None, None] * by_g[1] for d in (1 - g**2, 1j + 1j * g**2)
    )
    moved = x * by_place[0] - y * by_place[1], y * by_place[0] + x * by_place[1]
    return Tangents(along + moved[0], across + moved[1], None)


def snr_and_gradient(first, slopes, weight):
    """S/N of measured galaxies, and the gradient of its logarithm by the first five parameters."""
    row = jnp.einsum("nyx,nkyx->nk", slopes[:, SINGLE.flux] * weight, slopes[:, SINGLE.reported])
    information = jnp.maximum(row[:, 0], 1e-30)  # ln S/N = ln flux + ln(information) / 2
    flux = first[:, SINGLE.flux]
    return flux * jnp.sqrt(information), row / (information * flux)[:, None]


def with_snr(copy, first, snr, gradient):
    """The S/N of a copy, to first order about that of the stamp, in place of its centre."""
    relative = jnp.einsum("nsk,nk->ns", copy.at[:, 0].add(-first)[..., SINGLE.reported], gradient)
    value = snr * jnp.exp(relative[:, 0])
    ratio = relative.at[:, 0].set(1.0)
    return jnp.concatenate([copy[..., SINGLE.reported], (value[:, None] * ratio)[..., None]], -1)
