# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""Bundles made of trained networks, their domain, prior and history."""

from dataclasses import replace

import jax
import numpy as np

from galshape_cnn.forward.psf.shape import WAVES, width_from_levels
from galshape_cnn.infer.network.architecture import build_network, weights_of
from galshape_cnn.infer.network.bundle import Bundle
from galshape_cnn.infer.network.features import CONSTANT_VARIANCE
from galshape_cnn.study.simulate.psf_families import PSF_ARRAYS, transfer_on_modes
from galshape_cnn.study.simulate.stream import MockStream
from galshape_cnn.study.train.centring import training_conditions, training_stream

__all__ = ["add_update", "first_network", "make_bundle"]

_BATCHES = 8  # of mocks, whose PSFs and contexts are measured
_SMALL = 2000  # entries up to which a weight array is stored in single, else in half precision


def _domain(config):
    """Ranges of training that the catalogue's flags refer to; answers are kept to those of the prior."""
    prior = MockStream(config, 0).prior
    keys = ("n", "hlr", "g", *(("snr",) if prior.by_snr else ()))
    limits = {key: [float(prior[key].low), float(prior[key].high)] for key in keys}
    limits.setdefault("snr", [float(limit) for limit in config.get("snr_range", (0, np.inf))])
    limits |= {"psf_width": _psf_extent(config), "prior_limits": True} | training_conditions(config)
    return limits | config.get("domain", {})


def _psf_extent(config):
    """Widths of the PSFs in training, in pixels: all but one in a thousand at either end.

    As `galshape_cnn.forward.psf.shape.psf_width` measures them, from a thousand PSFs in each batch.
    """
    stream, widths = training_stream(config, config["training"]["seed"] + 4), []
    zero = np.zeros(1)
    for number in range(_BATCHES):
        psfs = stream.draw(number, 1024)["psfs"]
        rows = tuple(np.asarray(psfs[key], np.float32) for key in PSF_ARRAYS)
        along_y = jax.vmap(lambda *psf: transfer_on_modes(*psf, WAVES, zero)[:, 0])(*rows)
        along_x = jax.vmap(lambda *psf: transfer_on_modes(*psf, zero, WAVES)[0])(*rows)
        widths.append(width_from_levels((np.abs(along_y) + np.abs(along_x)) / 2))
    return [float(limit) for limit in np.quantile(np.concatenate(widths), [0.001, 0.999])]


def _context_extent(training):
    """Largest standardised entry of the context in all but one of 2000 training mocks."""
    standardise = training.model.get_layer("standardise")
    mean, variance = weights_of(standardise)
    stream = training_stream(training.config, training.config["training"]["seed"] + 3)
    contexts = np.concatenate([stream.batch(i, 256)[0][1] for i in range(_BATCHES)])
    standard = ((contexts - mean) / np.sqrt(variance))[:, variance > CONSTANT_VARIANCE]
    return float(np.quantile(np.abs(standard).max(1), 0.9995))


def make_bundle(training):
    """Bundle of a training's network in its present state.

    Large weight arrays are in half precision, which keeps the file small and changes the loss by less than
    its noise.
    """
    weights = weights_of(training.model)
    provenance = {
        "config": training.config,
        "steps": training.step,
        "galaxies": training.step * training.size,
        "best_step": training.best_step,
        "history": [[float(value) for value in row] for row in training.history],
        "history_columns": ["step", "loss", "validation_loss", "galaxies_per_second"],
    }
    if training.mocks is not None:
        provenance["mocks"] = training.mocks
    if training.parent is not None:
        provenance["parent"] = training.parent.provenance | {"sha256": training.parent.sha256}
    config = training.config
    domain = _domain(config) | {"context": _context_extent(training)}
    network = first_network(config["network"])
    return Bundle(network, _stored(weights), domain, config["prior"], provenance)


def first_network(network):
    """Configuration of the network without its update."""
    return {key: value for key, value in network.items() if key != "update"}


def _stored(weights):
    """Weights in the precision of the file."""
    return tuple(w.astype(np.float16) if w.size > _SMALL else w for w in weights)


def add_update(bundle, config, output, report=print, mocks=None):
    """A bundle with the second network trained for its first; one that it has is replaced.

    Arguments as of `galshape_cnn.study.train.training_update.train_update`.
    """
    from galshape_cnn.study.train.training_update import train_update

    first = first_network(bundle.network)
    count = len(build_network(first, initialize=False).weights)
    bundle = replace(bundle, network=first, weights=bundle.weights[:count])
    weights, history = train_update(bundle, config, output, report, mocks)
    provenance = bundle.provenance | {
        "update": config["update"],
        "update_history": [[float(value) for value in row] for row in history],
        "update_history_columns": ["epoch", "loss", "validation_loss"],
    }
    return replace(
        bundle,
        network=first | {"update": config["network"]["update"]},
        weights=bundle.weights + _stored(weights),
        provenance=provenance,
    )
