# Licensed under a 3-clause BSD style license - see LICENSE.rst
r"""Response of the network's measurement to a shear of the galaxy.

For a measurement :math:`g(I)` that is smooth in the pixels, the derivative by the shear of a galaxy without noise
is :math:`J\,D_a I`, with J the derivative of g by the pixels and :math:`D_a` of
`galshape_cnn.infer.shear.generators`.  With noise n that would shear the noise too.  Let v be noise of the same
covariance C, drawn by us.  Then :math:`n + \epsilon v` and :math:`n - v/\epsilon` are uncorrelated,
:math:`C - C = 0`, so if the noise is Gaussian they are independent, and

.. math:: R_a = \left\langle J(I + \epsilon v)\; D_a\!\left(I - \frac{v}{\epsilon}\right)\right\rangle

is the derivative of :math:`\langle g(I + \epsilon v)\rangle` by the shear of the galaxy alone, whatever g is, at any
:math:`\epsilon`.  With :math:`\epsilon = 1` this is the correction of Li et al. (2024, arXiv:2408.06337), which
doubles the variance.  Here :math:`\epsilon = 1/2`, and the measurement is the mean of two copies,
:math:`g(I \pm \epsilon v)`: to first order the noise that was added cancels.  For :math:`\epsilon \to 0` this becomes
Stein's lemma, :math:`R_a = J D_a I - v^T (\nabla\nabla g)\, D_a v`.

The second copy is measured after a quarter turn, which changes the sign of g: what is constant in the answer
of a network cancels.  The dependence on an asymmetric PSF is differentiated in the same way and subtracted to first order.
"""

from functools import lru_cache
from zlib import crc32

import jax
import jax.numpy as jnp
import numpy as np

from galshape_cnn.compilation import Program
from galshape_cnn.forward.psf.arrays import pad_psf
from galshape_cnn.forward.render import render_with_derivatives
from galshape_cnn.forward.transfer import grid_for, transfer_at, transfer_functions
from galshape_cnn.infer.network.features import PSF_KX, PSF_KY, SIDE, crop_center, network_inputs
from galshape_cnn.infer.shear.generators import Tangents, filtered, image_tangents, psf_change, psf_filters
from galshape_cnn.infer.shear.moments import mean_parameters

__all__ = ["BATCH", "COPIES", "MEASURED", "SLOTS", "shear_response"]

#: Stamps the response is compiled for.
BATCH = 64
#: What is measured on each copy.
MEASURED = ("flux", "n", "hlr", "g1", "g2", "snr")
#: The value, its derivatives by the two components of shear, and by the asymmetry of the PSF.
SLOTS = ("value", "gamma1", "gamma2", "psf")
#: Amplitude of the added noise in the two copies.
COPIES = (0.5, -0.5)

_MIDDLE = (SIDE - 1) / 2
_REACH, _SOFT = 20.0, 1.5  # pixels: within it the galaxy may differ from the model
_TURNED = np.array([1, 1, 1, -1, -1, 1, 1], np.float32)


def shear_response(stamps, network, fit_sky, poisson, seed=0, gain=None, spectrum=None):
    """Measure copies of stamps and their derivatives by shear.

    Parameters
    ----------
    stamps : Stamps
        N stamps, in units of their noise, the sky subtracted where it is large.
    network : AmortizedPosterior
        The live network, on the JAX backend; its first network is used.
    fit_sky : bool
        False when the sky is known to be zero.
    poisson : (N,) ndarray
        See `galshape_cnn.infer.network.features.network_inputs`.
    seed : int, optional
        Of the noise of the copies, which depends on it and on the pixels of each stamp.
    gain : (N,) ndarray, optional
        Electrons per unit of flux, where ``ivar`` lacks the galaxy's photon noise.
    spectrum : (p, p // 2 + 1) ndarray, optional
        Square root of the power spectrum of the noise, 1 on average, of images p >= 64 pixels a side;
        None for independent pixels.

    Returns
    -------
    sheared : (N, 2, 4, 6) ndarray
        By copy (`COPIES`), slot (`SLOTS`) and quantity (`MEASURED`), in the pixel frame; NaN where it
        cannot be measured.
    """
    out = np.full((len(stamps), len(COPIES), len(SLOTS), len(MEASURED)), np.nan)
    program = _program(network)
    rows = np.flatnonzero((stamps.ivar > 0).any((1, 2)))
    for start in range(0, len(rows), BATCH):
        part = rows[start : start + BATCH]
        full = np.concatenate([part, np.full(BATCH - len(part), part[0])])
        arrays = _arrays(stamps[full], fit_sky, poisson[full], None if gain is None else gain[full])
        noise = _noise(arrays["data"], seed, spectrum)
        done = program(**arrays, noise=noise, oversampling=stamps.psf_oversampling)
        out[part] = np.asarray(done)[: len(part)]
    out[~np.isfinite(out).all((1, 2, 3))] = np.nan
    return out


def _arrays(stamps, fit_sky, poisson, gain):
    """Arguments of the compiled function for a full batch."""
    data, _ = crop_center(stamps.data, stamps.center)
    ivar, _ = crop_center(stamps.ivar, stamps.center)
    side = max(stamps.psf.shape[1:])
    psf = pad_psf(stamps.psf, (side, side))
    total = psf.sum((1, 2), dtype=float)
    psf = np.broadcast_to((psf / total[:, None, None]).astype(np.float32), (len(data), side, side))
    inverse = np.zeros(len(data)) if gain is None else 1 / gain
    single = {"sky": np.full(len(data), float(fit_sky)), "poisson": poisson, "inverse_gain": inverse,
              "light": np.broadcast_to(total, len(data))}  # fmt: skip
    images = {"data": data, "ivar": ivar, "psf": psf}
    return {name: np.asarray(array, np.float32) for name, array in (images | single).items()}


def _noise(data, seed, spectrum):
    """Standard normal noise for each stamp, from the seed and its own pixels."""
    out = np.empty(data.shape, np.float32)
    for one, stamp in zip(out, data, strict=True):
        generator = np.random.default_rng([seed, crc32(stamp.tobytes())])
        if spectrum is None:
            one[:] = generator.standard_normal(one.shape, np.float32)
        else:
            side = len(spectrum)
            modes = np.fft.rfft2(generator.standard_normal((side, side)))
            one[:] = np.fft.irfft2(modes * spectrum, (side, side))[:SIDE, :SIDE]
    return out


@lru_cache(maxsize=4)
def _program(network):
    """The compiled response of a live network."""
    name = f"shear response {network.first_name}"
    return Program(name, lambda: _response_function(network), static_argnames="oversampling")


def _response_function(network):
    raw, components = network.first_function(), network.components

    def measured(data, ivar, transfer, sky, poisson):
        pixels, context, amplitude = network_inputs(data, ivar, transfer, sky, poisson)
        return mean_parameters(raw([pixels, context]), amplitude, components)

    def response(data, ivar, psf, sky, poisson, inverse_gain, light, noise, oversampling):
        views = _psf_views(psf, oversampling)
        first = measured(data, ivar, views[0][: len(data)], sky, poisson)
        params = first.at[:, 5:].add(_MIDDLE)
        model, galaxy, by_snr = _model_tangents(params, ivar, psf, oversampling)
        used = ivar > 0
        variance = jnp.where(used, 1 / jnp.where(used, ivar, 1), 0)
        variance += jnp.where(used, jnp.maximum(model, 0) * inverse_gain[:, None, None], 0)
        noise = noise * jnp.sqrt(variance)
        filters = psf_filters(psf, oversampling)
        window = jnp.asarray(_window())
        rest = image_tangents(jnp.where(used, (data - model) * window, 0), filters)
        of_noise = image_tangents(noise * window, filters)
        galaxy = galaxy._replace(psf=filtered(model, filters[:, 2]))
        of_image = Tangents(*map(jnp.add, rest, galaxy))
        copies, tangents = [], []
        for amplitude in COPIES:
            copies.append(data + amplitude * noise)
            parts = zip(of_image, of_noise, strict=True)
            tangents.append(jnp.stack([jnp.where(used, i - n / amplitude, 0) for i, n in parts]))
        turned = jnp.rot90(copies[1], 1, (1, 2)), jnp.rot90(tangents[1], 1, (2, 3))
        pixels = jnp.concatenate([copies[0], turned[0]]), jnp.concatenate([tangents[0], turned[1]], 1)
        weights = jnp.concatenate([ivar, jnp.rot90(ivar, 1, (1, 2))])
        twice = (jnp.concatenate([one, one]) for one in (sky, poisson))
        done = _differentiated(measured, pixels, weights, *views, *twice)
        done = jnp.stack([done[: len(data)], done[len(data) :] * _TURNED], 1)
        done = jax.vmap(_with_snr, (1, None, None), 1)(done, first, by_snr)
        return done.at[..., 0].divide(light[:, None, None])

    return response


def _window():
    x = np.arange(SIDE) - _MIDDLE
    return (1 / (1 + np.exp((np.hypot(x[:, None], x) - _REACH) / _SOFT))).astype(np.float32)


def _psf_views(psf, oversampling):
    """What the network is told of PSFs and of their asymmetric parts, as they are and after a quarter turn."""

    def view(arrays):
        return jax.lax.map(lambda one: transfer_at(one, PSF_KY, PSF_KX, oversampling), arrays)

    both = jnp.concatenate([psf, jnp.rot90(psf, 1, (1, 2))])
    return view(both), view(psf_change(both))


def _differentiated(measured, pixels, ivar, transfer, change, sky, poisson):
    """Values and derivatives, (N, 4, 7), of images (N, 64, 64) along tangents (3, N, 64, 64)."""

    def function(data, view):
        return measured(data, ivar, view, sky, poisson)

    data, tangents = pixels
    of_view = jnp.stack([jnp.zeros_like(change), jnp.zeros_like(change), change])
    pushed = jax.vmap(lambda *along: jax.jvp(function, (data, transfer), along), out_axes=(None, 0))
    value, slopes = pushed(tangents, of_view)
    return jnp.moveaxis(jnp.concatenate([value[None], slopes]), 0, 1)


def _model_tangents(params, ivar, psf, oversampling):
    """Image of the measured galaxy, its exact derivatives by shear, and those of ln S/N."""
    grid = grid_for(SIDE, oversampling)
    full = jnp.concatenate([params, jnp.zeros_like(params[:, :1])], 1)
    model, slopes = render_with_derivatives(full, transfer_functions(psf, grid, oversampling), grid)
    g = jax.lax.complex(params[:, 3], params[:, 4])
    x, y = ((params[:, i] - _MIDDLE)[:, None, None] for i in (5, 6))
    along, across = (_along(slopes, direction) for direction in (1 - g**2, 1j + 1j * g**2))
    gamma1 = along + x * slopes[:, 5] - y * slopes[:, 6]
    gamma2 = across + y * slopes[:, 5] + x * slopes[:, 6]
    unit = slopes[:, 0] * ivar
    row = jnp.einsum("nyx,nkyx->nk", unit, slopes[:, :7])
    by_flux = jnp.maximum(row[:, 0], 1e-30)
    gradient = row / (by_flux * params[:, 0])[:, None]  # of ln S/N = ln flux + ln F_00 / 2
    return model, Tangents(gamma1, gamma2, None), (params[:, 0] * jnp.sqrt(by_flux), gradient)


def _along(slopes, direction):
    """Derivative of the image as the galaxy's g changes."""
    return direction.real[:, None, None] * slopes[:, 3] + direction.imag[:, None, None] * slopes[:, 4]


def _with_snr(copy, first, by_snr):
    """Flux, n, hlr, g1, g2 and the S/N, to first order about that of the stamp, in place of the centre."""
    snr, gradient = by_snr
    changes = copy.at[:, 0].add(-first)
    relative = jnp.einsum("nsk,nk->ns", changes, gradient)
    value = snr * jnp.exp(relative[:, 0])
    ratio = relative.at[:, 0].set(1.0)
    return jnp.concatenate([copy[..., :5], (value[:, None] * ratio)[..., None]], -1)
