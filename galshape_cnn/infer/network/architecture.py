# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""Keras architecture: convolutional network and mixture head.

Patches of the stamp pass through convolutions at 16, 8 and 4 pixels a side; the context
(PSF, moments, noise) scales and shifts the feature maps (Perez et al. 2018,
arXiv:1709.07871).  The last layer states a mixture of full-covariance Gaussians in the
unbounded coordinates of `galshape_cnn.forward.coordinates.POSTERIOR`, trained by maximum likelihood.
"""

import importlib.util
import json
import os
import sys
import threading
from contextlib import contextmanager
from functools import partial

import numpy as np

from galshape_cnn.forward.coordinates import POSTERIOR
from galshape_cnn.infer.network.features import CONTEXT_SIZE
from galshape_cnn.infer.posterior.mixture import MixturePosterior

__all__ = [
    "DEFAULT_NETWORK",
    "TARGET_CENTER",
    "TARGET_SCALE",
    "build_network",
    "build_update",
    "import_keras",
    "load_weights",
    "mixture_from_outputs",
    "negative_log_likelihood",
    "posterior_from_outputs",
    "settle_backend",
    "single_precision",
    "split_weights",
    "weights_of",
]

_DIM = POSTERIOR.model.size
_TRIANGLE = _DIM * (_DIM + 1) // 2
_LOWER = np.tril_indices(_DIM)
_DIAGONAL = np.flatnonzero(_LOWER[0] == _LOWER[1])
_PRECISION = threading.Lock()

#: Centre and scale of the network's targets: ln(flux / amplitude), logit n, ln hlr,
#: eta1, eta2, and x, y from the stamp's centre.
TARGET_CENTER = np.array([4.0, -0.5, 0.8, 0.0, 0.0, 0.0, 0.0])
TARGET_SCALE = np.array([1.0, 1.5, 0.8, 0.35, 0.35, 0.7, 0.7])

#: Architecture of the network that ships.
DEFAULT_NETWORK = {
    "architecture": "patch-film",
    "context": [192, 128],
    "patch_width": 64,
    "middle_width": 96,
    "middle_blocks": 1,
    "deep_width": 128,
    "deep_blocks": 2,
    "dense": [256, 192],
    "components": 3,
}


def _chosen_backend():
    """Backend the user chose for Keras, or None.

    Keras writes its configuration file itself on first import, naming TensorFlow whether
    or not that is installed, so the file counts as a choice only if its backend is there.
    """
    if "KERAS_BACKEND" in os.environ:
        return os.environ["KERAS_BACKEND"]
    home = os.environ.get("KERAS_HOME", os.path.expanduser("~/.keras"))
    try:
        with open(os.path.join(home, "keras.json"), encoding="utf-8") as file:
            backend = json.load(file).get("backend")
    except (OSError, ValueError, AttributeError):
        return None
    return backend if backend and importlib.util.find_spec(backend) else None


def import_keras():
    """Import Keras, on JAX unless the user has chosen a backend."""
    if "keras" not in sys.modules:
        settle_backend()
    import keras

    return keras


def settle_backend():
    """Settle the backend of Keras without importing it, JAX unless the user has chosen another; its name."""
    if "keras" in sys.modules:
        return import_keras().backend.backend()  # it may just be being imported by another thread
    if _chosen_backend() is None:
        os.environ["KERAS_BACKEND"] = "jax"
    return _chosen_backend()


@contextmanager
def single_precision():
    """Let Keras compute in single precision, whatever the user has set for networks of their own."""
    config = import_keras().config
    with _PRECISION:  # a setting of the whole process
        floatx, policy = config.floatx(), config.dtype_policy()
        config.set_floatx("float32")
        config.set_dtype_policy("float32")
        try:
            yield
        finally:
            config.set_floatx(floatx)
            config.set_dtype_policy(policy)


def _zeros(shape, dtype=None):
    """Initial values that cost nothing: Keras' own zeros are compiled by JAX for each shape."""
    return np.zeros(shape, dtype)


def _film(keras, x, context, width):
    """Scale and shift feature maps by the context."""
    terms = keras.layers.Dense(2 * width, kernel_initializer=_zeros, bias_initializer=_zeros)(context)
    shape = (1,) * (len(x.shape) - 2) + (width,)
    scale = keras.layers.Reshape(shape)(terms[:, :width])
    shift = keras.layers.Reshape(shape)(terms[:, width:])
    return keras.layers.Add()([x, keras.layers.Multiply()([x, scale]), shift])


def _residual(keras, x, context, width, random):
    """Residual block: two activations, one 3 x 3 convolution, one 1 x 1."""
    y = keras.layers.LayerNormalization(beta_initializer=_zeros)(x)
    start = {"kernel_initializer": random, "bias_initializer": _zeros}
    y = keras.layers.Conv2D(width, 3, padding="same", data_format="channels_last", **start)(y)
    y = keras.layers.Activation("gelu")(_film(keras, y, context, width))
    y = keras.layers.Dense(width, kernel_initializer=_zeros, bias_initializer=_zeros)(y)
    return keras.layers.Add()([x, y])


def _halved(keras, x, width, random):
    """Fours of neighbouring pixels mapped to one.

    The same as space to depth and a dense layer, but XLA on a CPU would compute the activation before
    it inside the permutation, number by number, at five times the cost.
    """
    start = {"kernel_initializer": random, "bias_initializer": _zeros}
    return keras.layers.Conv2D(width, 2, strides=2, data_format="channels_last", **start)(x)


def build_network(config, context_mean=None, context_variance=None, initialize=True):
    """Build the network from a configuration such as `DEFAULT_NETWORK`.

    Inputs are ``[pixels (16, 16, 48), context (CONTEXT_SIZE,)]``, the output is ``(components * 36,)``. Mean
    and variance, that standardise the context, are part of the weights, so not needed when weights are loaded
    afterwards; nor are random ones then, which take seconds: ``initialize=False`` leaves all zero.
    """
    keras = import_keras()
    mean = np.zeros(CONTEXT_SIZE) if context_mean is None else context_mean
    variance = np.ones(CONTEXT_SIZE) if context_variance is None else context_variance
    random = "glorot_uniform" if initialize else _zeros
    dense = partial(keras.layers.Dense, kernel_initializer=random, bias_initializer=_zeros)
    pixels = keras.Input((16, 16, 48), name="pixels")
    context = keras.Input((CONTEXT_SIZE,), name="context")
    # In inference mode for good: its moving statistics are the standardisation.
    standardise = keras.layers.BatchNormalization(
        center=False, scale=False, trainable=False, epsilon=1e-5, name="standardise"
    )
    c = standardised = standardise(context)
    for i, width in enumerate(config["context"]):
        c = dense(width, activation="gelu", name=f"context_{i}")(c)
    x = dense(config["patch_width"])(pixels)
    x = keras.layers.Activation("gelu")(_film(keras, x, c, config["patch_width"]))
    x = _halved(keras, x, config["middle_width"], random)
    for _ in range(config["middle_blocks"]):
        x = _residual(keras, x, c, config["middle_width"], random)
    x = _halved(keras, x, config["deep_width"], random)
    for _ in range(config["deep_blocks"]):
        x = _residual(keras, x, c, config["deep_width"], random)
    x = keras.layers.LayerNormalization(beta_initializer=_zeros)(x)
    x = keras.layers.Concatenate()([keras.layers.Flatten()(x), c, standardised])
    for i, width in enumerate(config["dense"]):
        x = dense(width, activation="gelu", name=f"joint_{i}")(x)
    outputs = dense(config["components"] * (1 + _DIM + _TRIANGLE))(x)
    model = keras.Model([pixels, context], outputs, name="galshape")
    standardise.set_weights([np.asarray(mean, np.float32), np.asarray(variance, np.float32)])
    return model


def load_weights(model, weights):
    """Set the weights of a model of `build_network` or `build_update` from those of a bundle, in its order.

    Kernels of the convolutions that halve may be matrices, as in bundles of older versions, with the same
    numbers in the same order.
    """
    shapes = [tuple(variable.shape) for variable in model.weights]
    pairs = zip(weights, shapes, strict=True)
    model.set_weights([np.asarray(array, np.float32).reshape(shape) for array, shape in pairs])


def weights_of(model):
    """Weights of a model as arrays of NumPy, in the order of `load_weights`."""
    return [import_keras().ops.convert_to_numpy(variable.value) for variable in model.weights]


def split_weights(weights, update):
    """Weights of the two networks of a bundle, told apart without building them.

    Each begins with the mean and variance of its inputs. ``update`` is the configuration of the second, None
    where there is none, whose weights are then empty.
    """
    count = 0 if update is None else 2 + 2 * (len(update["dense"]) + 1)
    return weights[: len(weights) - count], weights[len(weights) - count :]


def build_update(config, size, mean=None, variance=None):
    """Build the small network that sees the likelihood's derivatives.

    See `galshape_cnn.infer.network.likelihood_update`. The configuration has ``dense``, the widths of its
    layers, and ``components`` of the mixture; input (size,), output ``(components * 36,)``. Without mean and
    variance, that standardise the features, all weights are zero, for those that are loaded afterwards.
    """
    keras = import_keras()
    features = keras.Input((size,), name="features")
    standardise = keras.layers.BatchNormalization(
        center=False, scale=False, trainable=False, epsilon=1e-5, name="standardise"
    )
    random, near_zero = _zeros, _zeros
    if mean is not None:
        random = "glorot_uniform"
        # The untrained update is one damped step of Fisher scoring.
        near_zero = keras.initializers.RandomNormal(stddev=0.01, seed=1)
    dense = partial(keras.layers.Dense, bias_initializer=_zeros)
    x = standardise(features)
    for width in config["dense"]:
        x = dense(width, activation="gelu", kernel_initializer=random)(x)
    outputs = dense(config["components"] * (1 + _DIM + _TRIANGLE), kernel_initializer=near_zero)(x)
    model = keras.Model(features, outputs, name="galshape_update")
    if mean is not None:
        standardise.set_weights([np.asarray(mean, np.float32), np.asarray(variance, np.float32)])
    return model


def split_outputs(raw, components, reshape=np.reshape):
    """Mixture logits, means and raw entries of the whitening factors of (N, components * 36) outputs."""
    end = components * (1 + _DIM)
    means = reshape(raw[:, components:end], (-1, components, _DIM))
    return raw[:, :components], means, reshape(raw[:, end:], (-1, components, _TRIANGLE))


def negative_log_likelihood(components):
    """Loss of a batch, -ln p(targets), in keras.ops, for any backend.

    ``loss(targets (N, 7), outputs (N, components * 36)) -> (N,)``.
    """
    ops = import_keras().ops
    # Scatter the triangle's entries into a flat 7 x 7 matrix by a constant matrix.
    spread = np.zeros((_TRIANGLE, _DIM * _DIM), np.float32)
    off = [i for i in range(_TRIANGLE) if i not in set(_DIAGONAL)]
    spread[off, _LOWER[0][off] * _DIM + _LOWER[1][off]] = 1
    diagonal = np.zeros((_TRIANGLE, _DIM), np.float32)
    diagonal[_DIAGONAL, np.arange(_DIM)] = 1

    def loss(targets, outputs):
        logits, means, factors = split_outputs(outputs, components, ops.reshape)
        delta = ops.expand_dims(targets, 1) - means
        log_diagonal = ops.clip(ops.matmul(factors, diagonal), -6.0, 9.0)
        lower = ops.reshape(ops.matmul(factors, spread), (-1, components, _DIM, _DIM))
        # The whitening matrix is diag(d) (1 + L): rows share their scale.
        z = ops.exp(log_diagonal) * (delta + ops.squeeze(ops.matmul(lower, ops.expand_dims(delta, -1)), -1))
        log_density = ops.sum(log_diagonal, -1) - 0.5 * ops.sum(z**2, -1)
        return 0.5 * _DIM * np.log(2 * np.pi) - ops.logsumexp(ops.log_softmax(logits) + log_density, axis=-1)

    return loss


def mixture_from_outputs(raw, components):
    """Weights (N, K), means (N, K, 7) and Cholesky factors that a network's outputs (N, K * 36) stand for.

    In the coordinates the network was trained on.
    """
    logits, means, factors = split_outputs(np.asarray(raw, float), components)
    weights = np.exp(logits - logits.max(1, keepdims=True))
    weights /= weights.sum(1, keepdims=True)
    lower = np.zeros(factors.shape[:2] + (_DIM, _DIM))
    lower[..., _LOWER[0], _LOWER[1]] = factors
    scale = np.exp(np.clip(np.einsum("nkii->nki", lower), -6.0, 9.0))
    index = np.arange(_DIM)
    lower[..., index, index] = 1.0
    return weights, means, np.linalg.inv(scale[..., None] * lower)


def posterior_from_outputs(raw, amplitude, components):
    """Posteriors that a network's outputs stand for, in stamp coordinates and units of the data.

    ``amplitude`` (N,) is the unit of flux, from `galshape_cnn.infer.network.features.network_inputs`; x, y
    are from the stamp's centre.
    """
    weights, means, chols = mixture_from_outputs(raw, components)
    means = TARGET_CENTER + TARGET_SCALE * means
    means[..., POSTERIOR.model.flux] += np.log(np.asarray(amplitude, float))[:, None]
    return MixturePosterior(weights, means, chols * TARGET_SCALE[:, None])
