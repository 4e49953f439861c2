# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""Networks of a bundle as functions that threads may share: by Keras, or by the compiled kernel."""

import ctypes
import threading
from functools import cache

import jax
import numpy as np

from galshape_cnn.compilation import Program
from galshape_cnn.errors import InputError
from galshape_cnn.forward.kernel.library import call, chosen, either, integer, single
from galshape_cnn.infer.network.architecture import load_weights, settle_backend, single_precision
from galshape_cnn.parallel import fixed_batches

__all__ = ["DIRECTIONS", "NETWORK_BATCH", "KernelNetwork", "LiveModel", "chain_of", "network_of"]

#: Galaxies of one call of a compiled network.  More are no faster each, and a single galaxy costs as much.
NETWORK_BATCH = 16
#: Along which the kernel differentiates together.
DIRECTIONS = 3

_FLOATS = ctypes.POINTER(ctypes.c_float)
_LANES = 16  # of the widest set of instructions: what widths of maps are multiples of, and biases padded to
_PIXELS = 16, 16, 48
_STANDARDISE_EPSILON = 1e-5  # of the layer "standardise", see `galshape_cnn.infer.network.architecture`


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
    by_kernel : KernelNetwork or None
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
        return either(self._by_kernel, None, *arrays) if self._is_pure else None

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


class _Dense(ctypes.Structure):
    """``Dense`` of ``plan.h``."""

    _fields_ = [
        ("weights", _FLOATS),
        ("bias", _FLOATS),
        ("inputs", ctypes.c_int32),
        ("width", ctypes.c_int32),
    ]


class _Net(ctypes.Structure):
    """``Net`` of ``plan.h``."""

    _fields_ = [
        *(
            (name, ctypes.c_int32)
            for name in ("context", "contexts", "patch", "middle", "deep", "middle_blocks", "deep_blocks")
        ),
        ("joints", ctypes.c_int32),
        ("all", ctypes.c_int32),
        ("mean", _FLOATS),
        ("over", _FLOATS),
        ("layers", ctypes.POINTER(_Dense)),
        ("norms", ctypes.POINTER(_FLOATS)),
    ]


class KernelNetwork:
    """One network; threads may share it.

    Parameters
    ----------
    function : {'network', 'chain'}
        Of the kernel.
    numbers : dict
        Integers of ``Net`` of ``plan.h``.
    mean, variance : (context,) ndarray
        Standardisation.
    layers : list of (kernel, bias)
        In the order of ``Net``; kernels (inputs, width).
    norms : list of ndarray
        Scale and shift of each.
    """

    def __init__(self, function, numbers, mean, variance, layers, norms):
        self._function, self._numbers, self._layers = function, numbers, layers
        over = 1 / np.sqrt(np.asarray(variance, float) + _STANDARDISE_EPSILON)
        self._shared = [single(one) for one in (mean, over, *norms)]
        self._outputs = layers[-1][0].shape[1]
        self._shapes = [_PIXELS] * (function == "network") + [(len(mean),)]
        self._net = cache(self._packed)

    def __call__(self, *inputs):
        """Outputs (N, width of the last layer), float32, of any number of galaxies, one by one.

        Inputs are those of the network: pixels and context; or, of a chain, its features. ``ValueError`` if
        their shapes are others.
        """
        return self._run(self._function, inputs, ())

    def moved(self, pixels, context):
        """Outputs of the network and their derivatives, (N, 1 + DIRECTIONS, width), along as many directions.

        Of pixels and context, (N, 1 + DIRECTIONS, ...): values, then how they move. ``ValueError`` if inputs
        have other shapes.
        """
        return self._run("moved_network", (pixels, context), (1 + DIRECTIONS,))

    def _run(self, function, inputs, slots):
        inputs = [single(one) for one in inputs]
        shapes, allowed = [one.shape[1:] for one in inputs], [slots + one for one in self._shapes]
        # the kernel reads what it expects, whatever it is given
        if shapes != allowed or len({len(one) for one in inputs}) != 1:
            raise ValueError(f"inputs of shapes (N, ...) {shapes}; allowed: {allowed}")
        out = np.empty((len(inputs[0]), *slots, self._outputs), np.float32)
        net = ctypes.byref(self._net(chosen()))
        call(function, net, integer(len(out)), *inputs, out)
        return out

    def _packed(self, instructions):
        """The structure for a set of instructions; it holds the arrays that it points to."""
        biases = [np.pad(single(bias), (0, -len(bias) % _LANES)) for _, bias in self._layers]
        kept = [
            (_packed_matrix(kernel), bias) for (kernel, _), bias in zip(self._layers, biases, strict=True)
        ]
        layers = (_Dense * len(kept))(*(
            _Dense(_floats(matrix), _floats(bias), *kernel.shape)
            for (matrix, bias), (kernel, _) in zip(kept, self._layers, strict=True)
        ))  # fmt: skip
        mean, over, *norms = map(_floats, self._shared)
        norms = (_FLOATS * max(len(norms), 1))(*norms)
        net = _Net(**self._numbers, all=len(kept), mean=mean, over=over, layers=layers, norms=norms)
        net.arrays = kept, self._shared, layers, norms  # a pointer keeps nothing
        return net


def network_of(config, weights):
    """The convolutional network of a bundle's configuration and weights; None where the kernel has none."""
    patch, middle, deep = (config[f"{name}_width"] for name in ("patch", "middle", "deep"))
    if any(width % _LANES for width in (patch, middle, deep)) or not config["context"] or not config["dense"]:
        return None
    rest = iter(weights)
    mean, variance = next(rest), next(rest)

    def layer(inputs, width):
        return np.asarray(next(rest), np.float32).reshape(inputs, width), next(rest)

    known, contexts, films, stages, norms = len(mean), [], [], [], []
    for width in config["context"]:
        contexts.append(layer(known, width))
        known = width

    def blocks(count, width):
        for _ in range(count):
            films.append(layer(known, 2 * width))
            norms.extend((next(rest), next(rest)))
            stages.extend((layer(9 * width, width), layer(width, width)))

    films.append(layer(known, 2 * patch))
    stages.extend((layer(48, patch), layer(4 * patch, middle)))
    blocks(config["middle_blocks"], middle)
    stages.append(layer(4 * middle, deep))
    blocks(config["deep_blocks"], deep)
    norms.extend((next(rest), next(rest)))
    joints = list(_chain(16 * deep + known + len(mean), rest))
    numbers = {"patch": patch, "middle": middle, "deep": deep}
    numbers |= {f"{name}_blocks": config[f"{name}_blocks"] for name in ("middle", "deep")}
    numbers |= {"context": len(mean), "contexts": len(contexts), "joints": len(joints) - 1}
    layers = [*contexts, *films, *stages, *joints]
    return KernelNetwork("network", numbers, mean, variance, layers, norms)


def chain_of(weights):
    """The second network, a chain of layers, from its weights in the order of ``build_update``."""
    rest = iter(weights)
    mean, variance = next(rest), next(rest)
    layers = list(_chain(len(mean), rest))
    numbers = {"context": len(mean), "joints": len(layers) - 1}
    return KernelNetwork("chain", numbers, mean, variance, layers, [])


def _chain(inputs, rest):
    """Layers one after the other, from all weights that are left."""
    for kernel in rest:
        matrix = np.asarray(kernel, np.float32).reshape(inputs, -1)
        yield matrix, next(rest)
        inputs = matrix.shape[1]


def _floats(array):
    return array.ctypes.data_as(_FLOATS)


def _packed_matrix(matrix):
    inputs, width = matrix.shape
    out = np.empty(inputs * (width + -width % _LANES), np.float32)
    call("pack", integer(inputs), integer(width), single(matrix), out)
    return out
