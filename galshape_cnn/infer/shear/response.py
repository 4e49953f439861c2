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

import jax
import jax.numpy as jnp
import numpy as np

from galshape_cnn.compilation import Program
from galshape_cnn.forward.render import render_with_derivatives
from galshape_cnn.infer.network.features import network_inputs
from galshape_cnn.infer.shear.copies import (
    COPIES,
    MEASURED,
    MIDDLE,
    SLOTS,
    copies_and_tangents,
    copy_batches,
    snr_and_gradient,
    with_snr,
)
from galshape_cnn.infer.shear.moments import mean_parameters

__all__ = ["shear_response"]

_TURNED = np.array([1, 1, 1, -1, -1, 1, 1], np.float32)


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
    for part in copy_batches(batch, usable, sky, fit_sky, seed, correlation, noise):
        out[part.rows] = program(**part.arrays, grid=part.grid)[: len(part.rows)]
    out[~np.isfinite(out).all((1, 2, 3))] = np.nan
    return out


class _Response:
    """The compiled response of a live network, which threads may share.

    The model lies between two programs, so that the kernel can draw it.
    """

    def __init__(self, network):
        self._first = Program(lambda: _measurement(network))
        self._program = Program(lambda: _response_function(network))
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
        centre = first[:, 5:] + np.float32(MIDDLE)
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
        pixels, weight = copies_and_tangents(data, ivar, noise, inverse_gain, filters, first, model, slopes)
        pixels = [(*one, ivar) for one in pixels]
        pixels[1] = tuple(jnp.rot90(one, 1, (-2, -1)) for one in pixels[1])
        copies, tangents, weights = (
            jnp.concatenate(pair, axis)
            for pair, axis in zip(zip(*pixels, strict=True), (0, 1, 0), strict=True)
        )
        known = (jnp.concatenate([one, one]) for one in (sky, poisson))
        views = (jnp.concatenate([one[:, 0], one[:, 1]]) for one in (view, change))
        done = _differentiated(measured, copies, tangents, weights, *views, *known)
        done = jnp.stack([done[: len(data)], done[len(data) :] * _TURNED], 1)
        snr = snr_and_gradient(first, slopes, weight)
        done = jax.vmap(with_snr, (1, None, None, None), 1)(done, first, *snr)
        return done.at[..., 0].divide(light[:, None, None])

    return response


def _differentiated(measured, copies, tangents, ivar, view, change, sky, poisson):
    """Values and derivatives, (N, 4, 7), of images (N, 64, 64) along tangents (3, N, 64, 64)."""

    def function(data, of_psf):
        return measured(data, ivar, of_psf, sky, poisson)

    def pushed(*along):
        return jax.jvp(function, (copies, view), along)

    of_view = jnp.stack([jnp.zeros_like(change), jnp.zeros_like(change), change])
    value, slopes = jax.vmap(pushed, out_axes=(None, 0))(tangents, of_view)
    return jnp.moveaxis(jnp.concatenate([value[None], slopes]), 0, 1)
