# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""Posterior means of the first network and their derivatives along images.

By the compiled kernel, where it has the network, which carries values and derivatives through the layers
together; else by JAX.  The network is shown what it is shown when it measures: the missing edges of stamps
mirrored where it knows no others, and what did not vary in its training held.
"""

import threading

import jax
import jax.numpy as jnp
import numpy as np

from galshape_cnn.compilation import Program, compiled
from galshape_cnn.infer.network.features import mirrored_edges, moved_inputs, network_inputs
from galshape_cnn.infer.shear.moments import mean_parameters

__all__ = ["NetworkMeans", "network_means"]


class NetworkMeans:
    """The means of a live network as functions of stamps of 64 x 64 pixels; threads may share it.

    Parameters
    ----------
    network : AmortizedPosterior
        The live network.
    """

    def __init__(self, network):
        self._network = network
        self._values, self._moved = Program(self._value_function), Program(self._moved_function)
        self._lock, self._traced = threading.Lock(), set()

    @property
    def knows_masks(self):
        """Whether pixels may be left out; a network that never saw that is shown all."""
        return not self._network.edge

    def values(self, data, ivar, view, sky, poisson, count):
        """Means of stamps.

        Parameters
        ----------
        data, ivar, view, sky, poisson : array
            As `galshape_cnn.infer.network.features.network_inputs` takes them.
        count : int
            Stamps from the first that are wanted; the others may get the means of the first.

        Returns
        -------
        means : (N, 7) ndarray
            flux, n, hlr, g1, g2, and x, y from the stamp's centre.
        """
        data, ivar = mirrored_edges(data, ivar, self._network.edge)
        known = data, ivar, view, sky, poisson
        kernel = self._network.first_kernel(*known)
        if kernel is None:
            return self._run(self._values, known)
        pixels, context, amplitude = network_inputs(*(one[:count] for one in known))
        raw = kernel(pixels, self._network.held.values(context))
        return np.asarray(_means(*_filled(len(data), raw, amplitude), components=self._network.components))

    def moved(self, data, ivar, view, sky, poisson, along, change, count):
        """Means and their derivatives along three directions.

        Parameters
        ----------
        data, ivar, view, sky, poisson, count
            As for `values`.
        along : (N, 3, 64, 64) ndarray
            How ``data`` moves.
        change : (N, 15, 8) complex ndarray
            How ``view`` moves along the last direction.

        Returns
        -------
        means : (N, 4, 7) ndarray
            Values, then derivatives.
        """
        known = data, ivar, view, sky, poisson, along, change
        kernel = self._network.first_kernel(*known)
        if kernel is None:
            return self._run(self._moved, known)
        pixels, context, amplitude = moved_inputs(*(one[:count] for one in known))
        raw = kernel.moved(pixels, self._network.held.moved(context))
        return np.asarray(
            _moved_means(*_filled(len(data), raw, amplitude), components=self._network.components)
        )

    def mirrored(self, data, ivar, along):
        """Stamps, weights and (N, 3, 64, 64) directions, with missing edges as the network is shown them."""
        most = self._network.edge
        if not most:
            return data, ivar, along
        along = np.stack([mirrored_edges(one, ivar, most)[0] for one in np.moveaxis(along, 1, 0)], 1)
        return *mirrored_edges(data, ivar, most), along

    def _value_function(self):
        """Means as a function of pixels that JAX can differentiate."""
        raw, held, components = self._network.first_function(), self._network.held, self._network.components

        def measured(data, ivar, view, sky, poisson):
            pixels, context, amplitude = network_inputs(data, ivar, view, sky, poisson)
            return mean_parameters(raw([pixels, held.values(context, jnp)]), amplitude, components)

        return measured

    def _moved_function(self):
        measured = self._value_function()

        def moved(data, ivar, view, sky, poisson, along, change):
            def pushed(*directions):
                of = (lambda pixels, of_psf: measured(pixels, ivar, of_psf, sky, poisson)), (data, view)
                return jax.jvp(*of, directions)

            of_view = jnp.stack([jnp.zeros_like(change), jnp.zeros_like(change), change])
            value, slopes = jax.vmap(pushed, out_axes=(None, 0))(jnp.moveaxis(along, 1, 0), of_view)
            return jnp.moveaxis(jnp.concatenate([value[None], slopes]), 0, 1)

        return moved

    def _run(self, program, arguments):
        # Keras keeps state while it traces; what it has traced may run in several threads at once.
        if program in self._traced:
            return np.asarray(program(*arguments))
        with self._lock:
            done = np.asarray(program(*arguments))
            self._traced.add(program)
            return done


_KNOWN = {}


def network_means(network):
    """Means of a live network: the same for all networks of the same weights.

    Parameters
    ----------
    network : AmortizedPosterior
        The live network.

    Returns
    -------
    means : NetworkMeans
    """
    return _KNOWN.setdefault(network.first_name, NetworkMeans(network))


def _filled(size, *arrays):
    """Arrays filled up by repeating the first row."""
    return [np.concatenate([one, np.repeat(one[:1], size - len(one), 0)]) for one in arrays]


@compiled(static_argnames="components")
def _means(raw, amplitude, components):
    return mean_parameters(raw, amplitude, components)


@compiled(static_argnames="components")
def _moved_means(raw, amplitude, components):
    """Means, (N, 4, 7), of outputs (N, 4, width) and units of flux (N, 4)."""

    def pushed(*directions):
        return jax.jvp(
            lambda *one: mean_parameters(*one, components), (raw[:, 0], amplitude[:, 0]), directions
        )

    value, slopes = jax.vmap(pushed, 1, (None, 1))(raw[:, 1:], amplitude[:, 1:])
    return jnp.concatenate([value[:, None], slopes], 1)
