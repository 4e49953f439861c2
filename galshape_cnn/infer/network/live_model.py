# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""A Keras model as a compiled, thread-safe function."""

import threading

import jax
import numpy as np

from galshape_cnn.compilation import Program
from galshape_cnn.errors import InputError
from galshape_cnn.forward.kernel.library import serves
from galshape_cnn.infer.network.architecture import load_weights, settle_backend, single_precision
from galshape_cnn.parallel import fixed_batches

__all__ = ["NETWORK_BATCH", "LiveModel"]

#: Galaxies of one call of a compiled network.  More are no faster each, and a single galaxy costs as much.
NETWORK_BATCH = 16


class LiveModel:
    """A model as a function of its inputs that threads may share, compiled where the backend is JAX.

    There the model is built when it is to be traced: not at all where the kernel
    computes it.

    Parameters
    ----------
    name : str
        Tells the model apart from all others.
    build : callable
        Returns it without its weights.
    weights : sequence of ndarray
        As `galshape_cnn.infer.network.architecture.load_weights` takes them.
    by_kernel : galshape_cnn.infer.network.kernel_networks.KernelNetwork or None
        The same of the compiled kernel, which stands in for JAX on a processor.
    """

    def __init__(self, name, build, weights, by_kernel=None):
        self.name, self._build, self._weights = name, build, weights
        self._by_kernel = by_kernel
        self._lock, self._is_traced = threading.Lock(), False
        self._is_pure = settle_backend() == "jax"
        self.function = Program(self.pure) if self._is_pure else self._model().predict_on_batch

    def _model(self):
        with single_precision():
            model = self._build()
        load_weights(model, self._weights)
        return model

    def pure(self):
        """The model as a pure function of its inputs."""
        if not self._is_pure:
            raise InputError(
                f"the shear response needs Keras on JAX; its backend is {settle_backend()!r} "
                "(environment variable KERAS_BACKEND)"
            )
        model = self._model()
        trainable = [v.value for v in model.trainable_variables]
        fixed = [v.value for v in model.non_trainable_variables]

        def function(inputs):
            with single_precision():
                return model.stateless_call(trainable, fixed, inputs)[0]

        return function

    def kernel(self, *arrays):
        """The model in the compiled kernel, where that serves for such arguments; else None."""
        return self._by_kernel if self._is_pure and serves(*arrays) else None

    def __call__(self, inputs):
        """Outputs (N, ...) for inputs, an array or a list of them, of N > 0 galaxies.

        A matrix product rounds differently in another shape, so without the kernel the network sees batches
        of one size, the last filled up: the numbers of a galaxy do not depend on its company.
        """
        inputs = jax.tree.map(np.asarray, inputs)
        leaves = jax.tree.leaves(inputs)
        kernel = self.kernel(*leaves)
        if kernel is not None:
            return kernel(*leaves)
        number, outputs = len(leaves[0]), []
        for rows, padded in fixed_batches(np.arange(number), NETWORK_BATCH):
            outputs.append(self._batch(jax.tree.map(lambda a, padded=padded: a[padded], inputs))[: len(rows)])
        return np.concatenate(outputs)

    def _batch(self, inputs):
        # Keras keeps state while it traces.  What it has traced is a pure function on JAX, and runs
        # in several threads at once.
        if self._is_pure and self._is_traced:
            return np.asarray(self.function(inputs))
        with self._lock:
            outputs = np.asarray(self.function(inputs))
            self._is_traced = True
            return outputs
