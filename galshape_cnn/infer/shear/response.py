# Licensed under a 3-clause BSD style license - see LICENSE.rst
r"""Response of the network's measurement to a shear of the galaxy.

For a measurement :math:`g(I)` that is smooth in the pixels, the derivative by the shear of a galaxy without
noise is :math:`J\,D_a I`, with J the derivative of g by the pixels and :math:`D_a` of
`galshape_cnn.infer.shear.generators`.  With noise n that would shear the noise too.  Let v be noise of the
same covariance C, drawn by us.  Then :math:`n + \epsilon v` and :math:`n - v/\epsilon` are uncorrelated,
:math:`C - C = 0`, so if the noise is Gaussian they are independent, and

.. math:: R_a = \left\langle J(I + \epsilon v)\; D_a\!\left(I - \frac{v}{\epsilon}\right)\right\rangle

is the derivative of :math:`\langle g(I + \epsilon v)\rangle` by the shear of the galaxy alone, whatever g is,
at any :math:`\epsilon`.  With :math:`\epsilon = 1` this is the correction of Li et al. (2024,
arXiv:2408.06337), which doubles the variance.  Here :math:`\epsilon = 1/2`, and the measurement is the mean
of two copies, :math:`g(I \pm \epsilon v)`: to first order the noise that was added cancels.  For
:math:`\epsilon \to 0` this becomes Stein's lemma, :math:`R_a = J D_a I - v^T (\nabla\nabla g)\, D_a v`.

The second copy is measured after a quarter turn, which changes the sign of g: what is constant in the answer
of a network cancels.  The dependence on an asymmetric PSF is differentiated in the same way, and subtracted
to first order.
"""

import threading
from zlib import crc32

import jax
import jax.numpy as jnp
import numpy as np

from galshape_cnn.compilation import Program, compiled
from galshape_cnn.forward.psf.arrays import pad_psf
from galshape_cnn.forward.render import render_with_derivatives
from galshape_cnn.forward.transfer import grid_for, transfer_at, transfer_functions
from galshape_cnn.infer.likelihood.rendering import BATCH_SIZE
from galshape_cnn.infer.likelihood.sandwich import correlation_spectrum
from galshape_cnn.infer.network.features import PSF_KX, PSF_KY, SIDE, crop_center, network_inputs
from galshape_cnn.infer.network.posterior import source_noise
from galshape_cnn.infer.shear.generators import Tangents, filtered, image_tangents, psf_change, psf_filters
from galshape_cnn.infer.shear.moments import mean_parameters
from galshape_cnn.parallel import fixed_batches

__all__ = ["COPIES", "MEASURED", "SLOTS", "shear_response"]

#: What is measured on each copy.
MEASURED = ("flux", "n", "hlr", "g1", "g2", "snr")
#: The value, its derivatives by the two components of shear, and by the asymmetry of the PSF.
SLOTS = ("value", "gamma1", "gamma2", "psf")
#: Amplitude of the added noise in the two copies.
COPIES = (0.5, -0.5)

_MIDDLE = (SIDE - 1) / 2
_REACH, _SOFT = 20.0, 1.5  # pixels: within it the galaxy may differ from the model
_TURNED = np.array([1, 1, 1, -1, -1, 1, 1], np.float32)
_KNOWN_SKY = 0.3  # of a pixel's noise: the networks have seen such levels


def shear_response(batch, network, sky, fit_sky=True, seed=0, correlation=None, noise=None):
    """Measure two copies of each stamp, and their derivatives by shear, by the first network.

    Parameters
    ----------
    batch : RenderedBatch
        N stamps.
    network : AmortizedPosterior
        The live network, on the JAX backend.
    sky : (N,) ndarray
        Measured level of the sky; subtracted where it is larger than a third of the noise.
    fit_sky : bool, optional
        False when the sky is known to be zero.
    seed : int, optional
        Of the noise of the copies, which depends on it and on the pixels of each stamp.
    correlation : (ky, kx) ndarray, optional
        Autocorrelation of the noise; None for independent pixels.
    noise : (N, 64, 64) ndarray, optional
        Standard normal noise of the copies in place of that which is drawn, for comparisons.

    Returns
    -------
    sheared : (N, 2, 4, 6) ndarray
        By copy (`COPIES`), slot (`SLOTS`) and quantity (`MEASURED`), in the pixel frame, the centre of the
        shear in the middle of the stamp; NaN where it cannot be measured.
    """
    out = np.full((len(batch), len(COPIES), len(SLOTS), len(MEASURED)), np.nan)
    stamps, program = batch.stamps, _response_of(network)
    usable = np.flatnonzero((stamps.ivar > 0).any((1, 2)) & np.isfinite(sky))
    if not len(usable):
        return out
    of_psf = _psf_arrays(stamps.psf, stamps.psf_oversampling)
    single = _numbers_of_stamps(stamps, batch.gain, fit_sky)
    for rows, padded in fixed_batches(usable, BATCH_SIZE):
        arrays = _pixels(stamps[padded], sky[padded])
        arrays["noise"] = _noise(arrays["data"], seed, correlation) if noise is None else noise[padded]
        arrays |= {name: array[padded] for name, array in single.items()}
        arrays |= {
            name: array[padded if len(array) > 1 else [0] * BATCH_SIZE] for name, array in of_psf.items()
        }
        done = program(**arrays, grid=grid_for(SIDE, stamps.psf_oversampling))
        out[rows] = done[: len(rows)]
    out[~np.isfinite(out).all((1, 2, 3))] = np.nan
    return out


def _pixels(stamps, sky):
    """The network's 64 x 64 pixels, without a sky that is not small."""
    count = np.maximum((stamps.ivar > 0).sum((1, 2)), 1)
    noise = np.sqrt(count / np.maximum(stamps.ivar.sum((1, 2), dtype=float), 1e-30))
    level = np.where(np.abs(sky) > _KNOWN_SKY * noise, sky, 0.0)
    data = np.where(stamps.ivar > 0, stamps.data - level[:, None, None], 0).astype(np.float32)
    cut = (crop_center(one, stamps.center)[0] for one in (data, np.asarray(stamps.ivar, np.float32)))
    return dict(zip(("data", "ivar"), cut, strict=True))


def _numbers_of_stamps(stamps, gain, fit_sky):
    """Further arguments of the compiled function, one number for each stamp."""
    numbers = {
        "sky": np.full(len(stamps), float(fit_sky)),
        "poisson": source_noise(stamps, gain),
        "inverse_gain": np.zeros(len(stamps)) if gain is None else 1 / gain,
        "light": np.broadcast_to(stamps.psf.sum((1, 2), dtype=float), len(stamps)),
    }
    return {name: np.asarray(array, np.float32) for name, array in numbers.items()}


def _psf_arrays(psf, oversampling):
    """What depends on the PSFs alone, normalised; of one PSF if it is one for all."""
    side = max(psf.shape[1:])
    psf = pad_psf(psf, (side, side))
    psf = (psf / psf.sum((1, 2), keepdims=True, dtype=float)).astype(np.float32)
    transfer = transfer_functions(psf, grid_for(SIDE, oversampling), oversampling)
    view, change, filters = _psf_functions(psf, oversampling)
    arrays = {"transfer": transfer, "view": view, "change": change, "filters": filters}
    return {name: np.asarray(array) for name, array in arrays.items()}


@compiled(static_argnames="oversampling")
def _psf_functions(psf, oversampling):
    """What the network is told of PSFs and of their asymmetric parts, and the filters of images.

    The first two are (N, 2, 15, 8): as they are, and after a quarter turn.
    """

    def view(arrays):
        return jax.lax.map(lambda one: transfer_at(one, PSF_KY, PSF_KX, oversampling), arrays)

    turned = jnp.rot90(psf, 1, (1, 2))
    views = jnp.stack([view(psf), view(turned)], 1)
    changes = jnp.stack([view(psf_change(psf)), view(psf_change(turned))], 1)
    return views, changes, psf_filters(psf, oversampling)


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


class _Response:
    """The compiled response of a live network, which threads may share.

    The model lies between two programs, so that the kernel can draw it.
    """

    def __init__(self, network):
        name = f"of {network.first_name}"
        self._first = Program(f"mean {name}", lambda: _measurement(network))
        self._program = Program(f"shear response {name}", lambda: _response_function(network))
        self._lock, self._traced = threading.Lock(), False

    def __call__(self, *, transfer, grid, **arguments):
        # Keras keeps state while it traces; what it has traced may run in several threads at once.
        if self._traced:
            return self._run(transfer, grid, arguments)
        with self._lock:
            done = self._run(transfer, grid, arguments)
            self._traced = True
            return done

    def _run(self, transfer, grid, arguments):
        data, ivar, view, sky, poisson = (arguments[k] for k in ("data", "ivar", "view", "sky", "poisson"))
        first = np.asarray(self._first(data, ivar, view[:, 0], sky, poisson))
        centre = first[:, 5:] + np.float32(_MIDDLE)
        params = np.concatenate([first[:, :5], centre, np.zeros_like(first[:, :1])], 1)
        model, slopes = render_with_derivatives(params, transfer, grid)
        return np.asarray(self._program(first=first, model=model, slopes=slopes, **arguments))


_RESPONSES = {}


def _response_of(network):
    """The same for all networks of the same weights."""
    return _RESPONSES.setdefault(network.first_name, _Response(network))


def _measurement(network):
    """Means of the first network as a function of pixels, for `Program`."""
    raw, components = network.first_function(), network.components

    def measured(data, ivar, view, sky, poisson):
        pixels, context, amplitude = network_inputs(data, ivar, view, sky, poisson)
        return mean_parameters(raw([pixels, context]), amplitude, components)

    return measured


def _response_function(network):
    measured = _measurement(network)

    def response(
        data, ivar, noise, sky, poisson, inverse_gain, light, view, change, filters, first, model, slopes
    ):
        used = ivar > 0
        variance = 1 / jnp.where(used, ivar, 1) + jnp.maximum(model, 0) * inverse_gain[:, None, None]
        noise = jnp.where(used, noise * jnp.sqrt(variance), 0)
        window = jnp.asarray(_window())
        rest = image_tangents(jnp.where(used, data - model, 0) * window, filters)
        galaxy = _model_tangents(first, slopes)._replace(psf=filtered(model, filters[:, 2]))
        of_image = jnp.stack(list(map(jnp.add, rest, galaxy)))
        of_noise = jnp.stack(image_tangents(noise * window, filters))
        pixels = [
            (data + amplitude * noise, jnp.where(used, of_image - of_noise / amplitude, 0), ivar)
            for amplitude in COPIES
        ]
        pixels[1] = tuple(jnp.rot90(one, 1, (-2, -1)) for one in pixels[1])
        copies, tangents, weights = (
            jnp.concatenate(pair, axis)
            for pair, axis in zip(zip(*pixels, strict=True), (0, 1, 0), strict=True)
        )
        known = (jnp.concatenate([one, one]) for one in (sky, poisson))
        views = (jnp.concatenate([one[:, 0], one[:, 1]]) for one in (view, change))
        done = _differentiated(measured, copies, tangents, weights, *views, *known)
        done = jnp.stack([done[: len(data)], done[len(data) :] * _TURNED], 1)
        snr = _snr(first, slopes, jnp.where(used, 1 / variance, 0))
        done = jax.vmap(_with_snr, (1, None, None, None), 1)(done, first, *snr)
        return done.at[..., 0].divide(light[:, None, None])

    return response


def _window():
    x = np.arange(SIDE) - _MIDDLE
    return (1 / (1 + np.exp((np.hypot(x[:, None], x) - _REACH) / _SOFT))).astype(np.float32)


def _model_tangents(first, slopes):
    """Derivatives of images of measured galaxies by shear about the middle, exact to the edges."""
    g = jax.lax.complex(first[:, 3], first[:, 4])
    x, y = first[:, 5, None, None], first[:, 6, None, None]
    along, across = (
        d.real[:, None, None] * slopes[:, 3] + d.imag[:, None, None] * slopes[:, 4]
        for d in (1 - g**2, 1j + 1j * g**2)
    )
    moved = x * slopes[:, 5] - y * slopes[:, 6], y * slopes[:, 5] + x * slopes[:, 6]
    return Tangents(along + moved[0], across + moved[1], None)


def _differentiated(measured, copies, tangents, ivar, view, change, sky, poisson):
    """Values and derivatives, (N, 4, 7), of images (N, 64, 64) along tangents (3, N, 64, 64)."""

    def function(data, of_psf):
        return measured(data, ivar, of_psf, sky, poisson)

    def pushed(*along):
        return jax.jvp(function, (copies, view), along)

    of_view = jnp.stack([jnp.zeros_like(change), jnp.zeros_like(change), change])
    value, slopes = jax.vmap(pushed, out_axes=(None, 0))(tangents, of_view)
    return jnp.moveaxis(jnp.concatenate([value[None], slopes]), 0, 1)


def _snr(first, slopes, weight):
    """S/N of measured galaxies, and the gradient of its logarithm by the first five parameters."""
    row = jnp.einsum("nyx,nkyx->nk", slopes[:, 0] * weight, slopes[:, :5])
    information = jnp.maximum(row[:, 0], 1e-30)  # ln S/N = ln flux + ln(information) / 2
    return first[:, 0] * jnp.sqrt(information), row / (information * first[:, 0])[:, None]


def _with_snr(copy, first, snr, gradient):
    """The S/N of a copy, to first order about that of the stamp, in place of its centre."""
    relative = jnp.einsum("nsk,nk->ns", copy.at[:, 0].add(-first)[..., :5], gradient)
    value = snr * jnp.exp(relative[:, 0])
    ratio = relative.at[:, 0].set(1.0)
    return jnp.concatenate([copy[..., :5], (value[:, None] * ratio)[..., None]], -1)
