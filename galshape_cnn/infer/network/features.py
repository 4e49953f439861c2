# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""Network inputs of stamps: pixels, context, amplitude.

The network sees one 64 x 64 stamp with the galaxy near its centre, in three
channels: data over a robust amplitude (so the network's inputs, and with them its
answer, do not depend on the unit of flux), asinh of data over noise, and the square
root of the relative inverse variance (zero where masked).  Beside it a context vector:
the PSF's transfer function at a few wave numbers (which exists for PSFs of any size and
oversampling), weighted moments of the stamp in four windows, and what is known of the
noise and the sky.

Larger stamps are cropped, or block-averaged (image, noise and PSF alike) by an integer
factor when the galaxy is large.
"""

from functools import lru_cache

import jax
import jax.numpy as jnp
import numpy as np

from galshape_cnn.compilation import compiled
from galshape_cnn.forward.kernel import calls, psf_calls
from galshape_cnn.forward.kernel.library import with_kernel
from galshape_cnn.forward.transfer import transfer_at
from galshape_cnn.infer.network.layout import CONTEXT_SIZE, PSF_KX, PSF_KY, WINDOWS

__all__ = [
    "CONSTANT_VARIANCE",
    "CONTEXT_SIZE",
    "PSF_KX",
    "PSF_KY",
    "SIDE",
    "block_average",
    "crop_center",
    "mirrored_edges",
    "moved_inputs",
    "network_inputs",
    "network_view",
    "psf_context",
]

#: Side of the network's stamp in pixels.
SIDE = 64
_PATCH = 4
#: Variance in training below which an entry of the context did not vary: nothing was learned from it, and
#: its deviations say nothing.
CONSTANT_VARIANCE = 2e-6


@lru_cache(maxsize=1)
def _windows_along():
    """(windows, 4, 64) functions along one axis whose products are the templates, for the kernel."""
    t = (np.arange(SIDE) - (SIDE - 1) / 2) / np.array(WINDOWS)[:, None]
    gauss = np.exp(-0.5 * t**2)
    return np.stack([gauss, gauss * t, gauss * t**2, gauss**2], 1).astype(np.float32)


def _window_templates():
    """(pixels, 6 * windows) Gaussian windows times 1, x, y, r^2, x^2 - y^2, 2xy."""
    x = np.arange(SIDE) - (SIDE - 1) / 2
    xx, yy = np.meshgrid(x, x)
    columns = []
    for sigma in WINDOWS:
        u, v = xx / sigma, yy / sigma
        gauss = np.exp(-0.5 * (u**2 + v**2))
        columns += [gauss * f for f in (np.ones_like(u), u, v, u**2 + v**2, u**2 - v**2, 2 * u * v)]
    return np.stack([c.ravel() for c in columns], 1).astype(np.float32)


def _moments(data, weight):
    """Windowed moments per unit window weight, and the windows' S/N."""
    templates = jnp.asarray(_window_templates())
    moments = (data * weight) @ templates
    norm = weight @ jnp.asarray(_window_templates()[:, ::6] ** 2)
    norm = jnp.maximum(norm, 1e-12)
    return moments / jnp.repeat(norm, 6, axis=1), moments[:, ::6] / jnp.sqrt(norm), norm


def _view_by_kernel(psf, oversampling, factor=1):
    waves = (_waves_at(side, oversampling, factor) for side in psf.shape[1:])
    return (psf_calls.psf_spectra(psf, *waves) * _blur(factor)).astype(np.complex64)


@lru_cache(maxsize=16)
def _waves_at(side, oversampling, factor):
    """(8, side) waves of the network at the samples of a PSF."""
    return np.exp(-1j * np.outer(PSF_KX / factor, (np.arange(side) - side // 2) / oversampling))


def _blur(factor):
    """Transfer function (15, 8) of a block average."""
    return _block_transfer(PSF_KY / factor, factor)[:, None] * _block_transfer(PSF_KX / factor, factor)


@with_kernel(_view_by_kernel, "psf", instead_of="numpy")
def network_view(psf, oversampling, factor=1):
    """Transfer functions (N, 15, 8) of PSFs at the network's wave numbers, block-averaged by a factor."""
    # NumPy multiplies one matrix after the other, so no number depends on another PSF
    modes = transfer_at(psf, PSF_KY / factor, PSF_KX / factor, oversampling, np)
    return (modes * _blur(factor)).astype(np.complex64)


def _block_transfer(k, factor):
    """Transfer function of a block average, at native wave numbers."""
    half = np.where(np.abs(k) < 1e-9, 1e-9, k) / 2
    return np.sin(half * factor) / (factor * np.sin(half))


def psf_context(transfer, xp=jnp):
    """Part of the context that describes the PSF, (N, 240): real and imaginary parts.

    Of transfer functions (N, 15, 8) at `PSF_KY` x `PSF_KX`, per network pixel, in arrays of ``xp``.
    """
    flat = xp.asarray(transfer).reshape(len(transfer), -1)
    return xp.concatenate([flat.real, flat.imag], axis=1)


def _inputs_by_kernel(data, ivar, transfer, fit_sky, poisson):
    pixels, rest, amplitude = calls.features(data, ivar, _windows_along(), fit_sky, poisson)
    return pixels, np.concatenate([psf_context(transfer, np), rest], axis=1), amplitude


@with_kernel(_inputs_by_kernel, "data", "ivar", "transfer", "fit_sky", "poisson")
@compiled
def network_inputs(data, ivar, transfer, fit_sky, poisson):
    """Inputs of the network for a batch of 64 x 64 stamps, the galaxy near the centre.

    ``transfer`` (N, 15, 8) are PSF transfer functions at `PSF_KY` x `PSF_KX`; ``fit_sky`` (N,) is 1 where the
    sky level is unknown, 0 where it is known to be zero; ``poisson`` (N,) is the variance that a pixel with a
    signal of one (background) sigma gains from the source, in units of the background variance.

    Returns pixels (N, 16, 16, 48), 4 x 4 patches of the three channels, context (N, CONTEXT_SIZE), see the
    module's description, and (N,), the unit of flux of the network's answer, in data units.
    """
    n = data.shape[0]
    valid = (ivar > 0).reshape(n, -1)
    mean_ivar = ivar.reshape(n, -1).sum(1) / jnp.maximum(valid.sum(1), 1)
    mean_ivar = jnp.where(mean_ivar > 0, mean_ivar, 1.0)
    sigma = 1 / jnp.sqrt(mean_ivar)
    scaled = data.reshape(n, -1) / sigma[:, None]
    weight = ivar.reshape(n, -1) / mean_ivar[:, None]
    moments, window_snr, norm = _moments(scaled, weight)
    error = 1 / jnp.sqrt(norm[:, 1])
    unit = jnp.sqrt(jnp.maximum(moments[:, 6], 0) ** 2 + (3 * error) ** 2)
    linear = jnp.clip(jnp.where(valid, scaled, 0) / unit[:, None], -5, 20)
    relative = jnp.sqrt(weight)
    channels = (linear, jnp.arcsinh(scaled * relative), jnp.minimum(relative, 3))
    # Computed before they are shuffled: a loop over shuffled pixels is not vectorised.
    channels = jax.lax.optimization_barrier(channels)
    context = jnp.concatenate(
        [
            psf_context(transfer),
            jnp.clip(moments / unit[:, None], -20, 20),
            jnp.arcsinh(window_snr),
            jnp.log(unit / error)[:, None],
            fit_sky[:, None],
            jnp.log1p(100 * poisson)[:, None],
            valid.mean(1)[:, None],
        ],
        axis=1,
    )
    return _patches(jnp.stack(channels, -1).reshape(n, SIDE, SIDE, 3)), context, unit * sigma


def moved_inputs(data, ivar, transfer, fit_sky, poisson, along, change):
    """The same with their derivatives along three directions, by the compiled kernel.

    ``along`` (N, 3, 64, 64) is how ``data`` moves, ``change`` (N, 15, 8) how ``transfer`` moves along the
    last direction. Values and derivatives stand along an axis of four, behind that of the stamps.
    """
    stamps = data, ivar, _windows_along(), fit_sky, poisson
    pixels, rest, amplitude = calls.moved_features(*stamps, along)
    of_psf = np.zeros((len(rest), rest.shape[1], CONTEXT_SIZE - rest.shape[2]), np.float32)
    of_psf[:, 0], of_psf[:, -1] = psf_context(transfer, np), psf_context(change, np)
    return pixels, np.concatenate([of_psf, rest], -1), amplitude


def _patches(image):
    """Space to depth: (N, 64, 64, C) -> (N, 16, 16, 16 C)."""
    n, side, _, c = image.shape
    m = side // _PATCH
    image = image.reshape(n, m, _PATCH, m, _PATCH, c)
    return image.transpose(0, 1, 3, 2, 4, 5).reshape(n, m, m, _PATCH * _PATCH * c)


def crop_center(images, center):
    """Cut or pad stamps (N, ny, nx) to 64 x 64 with the galaxy, at x, y (N, 2), in the middle.

    Zero where the pixels are outside; the same object where nothing is to be cut. Also x, y of their pixel
    [0, 0] in the input stamps, (N, 2) int, so that ``center - corner`` lies within half a pixel of 31.5.
    """
    corner = np.rint(np.asarray(center) - (SIDE - 1) / 2).astype(int)
    ny, nx = images.shape[1:]
    corner = np.clip(corner, -SIDE, [nx, ny])
    if (ny, nx) == (SIDE, SIDE) and not corner.any():
        return images, corner
    out = np.zeros((len(images), SIDE, SIDE), images.dtype)
    low, high = np.maximum(corner, 0), np.minimum(corner + SIDE, [nx, ny])
    for one, image, (x, y), (x0, y0), (x1, y1) in zip(out, images, corner, low, high, strict=True):
        one[y0 - y : y1 - y, x0 - x : x1 - x] = image[y0:y1, x0:x1]
    return out, corner


def mirrored_edges(data, ivar, most):
    """Stamps that lack up to ``most`` outermost rows or columns, with those beside them in their place.

    The same objects where nothing is missing.
    """
    outer = [
        edge
        for at in range(most)
        for edge in (ivar[:, at], ivar[:, -1 - at], ivar[..., at], ivar[..., -1 - at])
    ]
    lacking = np.flatnonzero(np.any([~edge.any(1) for edge in outer], axis=0)) if most else ()
    if not len(lacking):
        return data, ivar
    data, ivar = data.copy(), ivar.copy()
    for turn in range(4):  # each side becomes the top
        pixels, weights = (np.rot90(a, turn, (1, 2)) for a in (data, ivar))
        for row in lacking:
            present = weights[row].any(1)
            gap = int(present.argmax()) if present.any() else 0
            if 0 < gap <= most:
                for a in (pixels, weights):
                    a[row, :gap] = a[row, gap : 2 * gap][::-1]
    return data, ivar


def block_average(data, ivar, factor):
    """Sum blocks of pixels, ``factor`` wide; masked pixels take their block's mean.

    Flux per block and its inverse variance, 0 where more than half of the block is masked.
    """
    n, ny, nx = data.shape
    blocks = (n, ny // factor, factor, nx // factor, factor)
    good = ivar > 0
    count = good.reshape(blocks).sum((2, 4))
    variance = np.divide(1.0, ivar, out=np.zeros(ivar.shape), where=good).reshape(blocks).sum((2, 4))
    scale = factor**2 / np.maximum(count, 1)
    usable = count > 0.5 * factor**2
    total = np.where(usable, np.where(good, data, 0).reshape(blocks).sum((2, 4)) * scale, 0)
    weight = np.divide(1.0, variance * scale**2, out=np.zeros(count.shape), where=usable)
    return total, weight
