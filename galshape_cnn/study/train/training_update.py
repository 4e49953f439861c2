# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""Training of the second network, on score and Fisher matrix at the first answer.

The first network is fixed.  Its answers for fresh mocks, and score and Fisher matrix there, are
kept in files beside the output, so that an interrupted run goes on where it stopped; fitting
the small network to them then takes minutes.
"""

import glob
import os
from functools import partial

import jax
import numpy as np

from galshape_cnn.files import written_whole
from galshape_cnn.forward.coordinates import POSTERIOR
from galshape_cnn.forward.galaxy_model import SINGLE
from galshape_cnn.forward.grid import FourierGrid
from galshape_cnn.forward.transfer import transfer_functions
from galshape_cnn.infer.likelihood.fisher import score_and_fisher
from galshape_cnn.infer.network.amortized import AmortizedPosterior
from galshape_cnn.infer.network.architecture import (
    TARGET_SCALE,
    build_update,
    import_keras,
    negative_log_likelihood,
    weights_of,
)
from galshape_cnn.infer.network.features import SIDE
from galshape_cnn.infer.network.likelihood_update import expansion_point, likelihood_features
from galshape_cnn.parallel import mapped, usable_cores
from galshape_cnn.study.simulate.psf_families import PSF_ARRAYS
from galshape_cnn.study.simulate.recorded import RecordedMocks
from galshape_cnn.study.simulate.stream import inputs_of, transfers
from galshape_cnn.study.train.centring import training_stream

__all__ = ["fit_update", "likelihood_mocks", "make_optimizer", "train_update"]

_CHUNK = 16  # batches in a file
_BATCH = 256
_SEED_OFFSET = 10  # mocks that the first network was not trained on
_VALIDATION = 0.06  # part of the mocks kept for choosing when to stop
_FARTHEST = 30.0  # whitened distance of the truth above which a mock teaches nothing but its distance


def _derivatives_at(u, mock):
    """Score and Fisher matrix of a batch of mocks, the sharpest PSFs with twice the bandwidth."""
    params = SINGLE.with_sky(POSTERIOR.params(u))
    with np.errstate(divide="ignore"):
        gain = 1 / np.asarray(mock["poisson"], float)
    rows = jax.tree.map(lambda a: np.asarray(a, np.float32), (params, mock["data"], mock["ivar"]))
    if "psf" in mock:  # recorded: arrays at twice the sampling
        grid = FourierGrid(SIDE, 2)
        return score_and_fisher(*rows, transfer_functions(mock["psf"], grid, 2), grid, gain=gain)[1:]
    psfs = tuple(np.asarray(mock["psfs"][key], np.float32) for key in PSF_ARRAYS)
    rows = (*rows, gain.astype(np.float32), psfs)
    score, fisher = np.empty((len(u), 8), np.float32), np.empty((len(u), 8, 8), np.float32)
    for part, bandwidth in ((mock["sharp"], 2), (~mock["sharp"], 1)):
        if part.any():
            *some, some_gain, some_psfs = jax.tree.map(lambda a, part=part: a[part], rows)
            grid = FourierGrid(SIDE, bandwidth)
            found = score_and_fisher(*some, transfers(some_psfs, grid), grid, gain=some_gain)
            score[part], fisher[part] = found[1:]
    return score, fisher


def likelihood_mocks(network, stream, number, snr_range=(0.0, np.inf)):
    """Features, targets and weights of one batch, of mocks that the first network was not trained on.

    By name: ``features`` (N, F), ``targets`` (N, 7) whitened truths, ``weights`` (N,), 0 outside
    ``snr_range``, ``log_volume`` (N,) of the frame in units of the first network's targets, and ``snr`` (N,).
    """
    mock = stream.simulate(number, _BATCH)
    first = network.look_at_inputs(*inputs_of(mock))
    first.posterior.means[..., SINGLE.centre] += (SIDE - 1) / 2
    mean, chol = expansion_point(first.posterior)
    frame, features, usable = likelihood_features(
        first.outputs, first.context, mean, chol, *_derivatives_at(mean, mock), mock["fit_sky"] > 0
    )
    targets = frame.inward(POSTERIOR.of(mock["params"]))
    low, high = snr_range
    usable &= (mock["snr"] >= low) & (mock["snr"] <= high) & (np.abs(targets).max(1) < _FARTHEST)
    log_volume = np.log(np.einsum("nii->ni", frame.chol) / TARGET_SCALE).sum(1)
    rows = {"features": features, "targets": targets, "log_volume": log_volume, "weights": usable}
    return {k: np.asarray(v, np.float32) for k, v in (rows | {"snr": mock["snr"]}).items()}


def _collect(network, config, output, report, mocks):
    """Rows of all mocks, from files where they exist."""
    seed = config["training"]["seed"] + _SEED_OFFSET
    stream = training_stream(config, seed) if mocks is None else RecordedMocks(mocks, seed)
    limits = config.get("snr_range", (0.0, np.inf))
    batches = -(-int(config["update"]["galaxies"]) // _BATCH)
    chunks, parts = -(-batches // _CHUNK), []
    one = partial(likelihood_mocks, network, stream, snr_range=limits)
    for chunk in range(chunks):
        path = f"{output}.update-{chunk:04d}.npz"
        if not os.path.exists(path):
            numbers = range(chunk * _CHUNK, min((chunk + 1) * _CHUNK, batches))
            rows = list(mapped(one, numbers, usable_cores()))
            rows = {key: np.concatenate([row[key] for row in rows]) for key in rows[0]}
            with written_whole(path) as beside:
                np.savez(beside, **rows)
            report(f"likelihood at the network's answer: {chunk + 1}/{chunks}")
        with np.load(path) as saved:
            parts.append(dict(saved))
    return {key: np.concatenate([part[key] for part in parts]) for key in parts[0]}


def make_optimizer(schedule, options):
    """The optimizer of both networks, with the weight decay of the options."""
    decay = options["weight_decay"]
    return import_keras().optimizers.AdamW(schedule, weight_decay=decay, global_clipnorm=1.0, beta_2=0.99)


def fit_update(rows, network, options, seed, report=print):
    """Fit the second network to rows of `likelihood_mocks`, of any number of mocks.

    ``network`` has ``dense`` and ``components``, see `galshape_cnn.infer.network.architecture.build_update`,
    ``options`` have ``epochs``, ``batch_size``, ``learning_rate``, ``weight_decay``; ``report`` receives a
    line for each epoch.

    Returns the weights of the epoch with the lowest loss on mocks kept aside, and epoch, loss and validation
    loss of each, in the units of the first network's loss.
    """
    keras = import_keras()
    keras.utils.set_random_seed(seed)
    good = np.flatnonzero(rows["weights"] > 0)
    split = int(_VALIDATION * len(good))
    held, used = good[:split], good[split:]
    features, targets, volume = (rows[key] for key in ("features", "targets", "log_volume"))
    mean, variance = features[used].mean(0), features[used].var(0) + 1e-6
    model = build_update(network, features.shape[1], mean, variance)
    steps = len(used) // options["batch_size"]
    schedule = keras.optimizers.schedules.CosineDecay(options["learning_rate"], options["epochs"] * steps)
    optimizer = make_optimizer(schedule, options)
    model.compile(optimizer=optimizer, loss=negative_log_likelihood(network["components"]))
    rng, history, best = np.random.default_rng(seed), [], (np.inf, None)
    for epoch in range(options["epochs"]):
        order = rng.permutation(used)
        losses = []
        for i in range(steps):
            batch = np.sort(order[i * options["batch_size"] : (i + 1) * options["batch_size"]])
            losses.append(float(np.ravel(model.train_on_batch(features[batch], targets[batch]))[0]))
            model.reset_metrics()
        loss = np.mean(losses) + volume[used].mean()
        validation = float(model.evaluate(features[held], targets[held], batch_size=4096, verbose=0))
        validation += float(volume[held].mean())
        history.append((epoch + 1, float(loss), validation))
        if validation < best[0]:
            best = validation, weights_of(model)
        report(f"second network: epoch {epoch + 1}/{options['epochs']}  loss {loss:.4f}  {validation:.4f}")
    return best[1], history


def train_update(bundle, config, output, report=print, mocks=None):
    """Train the second network of a bundle; weights and history as `fit_update` returns them.

    The configuration has the sections ``network.update`` and ``update``. Mocks, of a simulated set or else
    rendered on the fly, are kept beside the bundle that will be written until the training is done.
    """
    network = AmortizedPosterior(bundle)
    rows = _collect(network, config, os.fspath(output), report, mocks)
    seed = config["training"]["seed"] + _SEED_OFFSET
    fitted = fit_update(rows, config["network"]["update"], config["update"], seed, report)
    for path in glob.glob(f"{glob.escape(os.fspath(output))}.update-*.npz"):
        os.remove(path)
    return fitted
