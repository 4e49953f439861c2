# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""Training of the first network, with checkpoints.

Batch ``i`` of a run is a function of the seed and ``i`` alone, and a checkpoint holds the
weights, the optimiser and the step, so an interrupted run that is resumed ends with the
same network as one that was not.
"""

import os
import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np

from galshape_cnn.errors import InputError
from galshape_cnn.files import check_writable_folder, written_whole
from galshape_cnn.infer.network.architecture import (
    build_network,
    import_keras,
    load_weights,
    negative_log_likelihood,
    weights_of,
)
from galshape_cnn.infer.network.bundle import Bundle
from galshape_cnn.infer.network.features import CONSTANT_VARIANCE
from galshape_cnn.study.simulate.config import load_config
from galshape_cnn.study.simulate.recorded import RecordedMocks
from galshape_cnn.study.train.bundling import add_update, first_network, make_bundle
from galshape_cnn.study.train.centring import training_stream
from galshape_cnn.study.train.training_update import make_optimizer

__all__ = ["Training", "plot_history", "train_bundle"]

_WARMUP = 0.05  # part of the steps in which the learning rate rises


def _context_statistics(config, seed):
    """Mean and variance of the context over a few batches."""
    stream = training_stream(config, seed)
    contexts = np.concatenate([stream.batch(i, 256)[0][1] for i in range(16)])
    return contexts.mean(0), contexts.var(0) + 1e-6


class Training:
    """One training run that can be stopped and resumed.

    Parameters
    ----------
    config : mapping
        From `load_config`.
    checkpoint : path-like
        Where the state is kept (``.npz``).
    start : Bundle, optional
        A network of the same architecture to start from, in place of random weights.
    mocks : path-like, optional
        A simulated set to train on, in place of mocks rendered on the fly.

    Attributes
    ----------
    step : int
        Steps done.
    best_step : int
        Step of the lowest validation loss so far.
    history : list of tuple
        step, loss, validation loss, galaxies per second.

    Raises
    ------
    InputError
        If ``start`` has another architecture, or the set is too small.
    FileError
        If the set cannot be read.
    """

    def __init__(self, config, checkpoint, start=None, mocks=None):
        self.config, self.checkpoint = config, os.fspath(checkpoint)
        options = config["training"]
        self.steps, self.size = int(options["steps"]), int(options["batch_size"])
        self.patience = int(options.get("patience", 0)) or np.inf
        self.mocks = None if mocks is None else os.fspath(mocks)
        self.stream = self._stream(options["seed"])
        self.step, self.best_step, self.history, self._best = 0, 0, [], None
        keras = import_keras()
        keras.utils.set_random_seed(options["seed"])
        self.parent, self.model = start, self._initial_model(start)
        schedule = keras.optimizers.schedules.CosineDecay(
            initial_learning_rate=0.0,
            decay_steps=int((1 - _WARMUP) * self.steps),
            warmup_target=options["learning_rate"],
            warmup_steps=int(_WARMUP * self.steps),
        )
        optimizer = make_optimizer(schedule, options)
        loss = negative_log_likelihood(config["network"]["components"])
        self.model.compile(optimizer=optimizer, loss=loss)
        optimizer.build(self.model.trainable_variables)

    def _stream(self, seed, validation=False):
        if self.mocks is None:
            return training_stream(self.config, seed)
        return RecordedMocks(self.mocks, seed, validation)

    def _initial_model(self, start):
        """A network with random weights, or with those of a bundle."""
        network = self.config["network"]
        if start is None:
            return build_network(
                network, *_context_statistics(self.config, self.config["training"]["seed"] + 1)
            )
        if first_network(start.network) != first_network(network):
            raise InputError(
                f"the bundle to start from has the architecture {start.network}; wanted: {network}"
            )
        model = build_network(network, initialize=False)
        load_weights(model, start.weights[: len(model.weights)])
        self._admit_new_inputs(model)
        return model

    def _admit_new_inputs(self, model):
        """Standardise anew, from zero weight, what was constant in the parent's training."""
        standardise = model.get_layer("standardise")
        mean, variance = standardise.get_weights()
        new = variance < CONSTANT_VARIANCE
        if not new.any():
            return
        fresh = _context_statistics(self.config, self.config["training"]["seed"] + 1)
        standardise.set_weights(
            [np.where(new, f, old) for f, old in zip(fresh, (mean, variance), strict=True)]
        )
        for name in ("context_0", "joint_0"):  # both see the standardised context, as their last inputs
            layer = model.get_layer(name)
            kernel, bias = layer.get_weights()
            kernel[len(kernel) - len(new) :][new] = 0
            layer.set_weights([kernel, bias])

    def _variables(self):
        return self.model.weights + self.model.optimizer.variables

    def save(self):
        """Write the checkpoint beside, then rename."""
        to_numpy = import_keras().ops.convert_to_numpy
        arrays = {f"v{i:04d}": to_numpy(v.value) for i, v in enumerate(self._variables())}
        arrays |= {f"b{i:04d}": weight for i, weight in enumerate(self._best or ())}
        arrays |= {"step": self.step, "best_step": self.best_step, "history": np.array(self.history)}
        with written_whole(self.checkpoint) as beside, open(beside, "wb") as file:  # of any suffix
            np.savez(file, **arrays)

    def resume(self):
        """Continue from the checkpoint, if there is one."""
        if not os.path.exists(self.checkpoint):
            return
        with np.load(self.checkpoint) as saved:
            names = [name for name in saved.files if name.startswith("v0")]
            variables = self._variables()
            if len(variables) != len(names):
                raise InputError(f"checkpoint {self.checkpoint!r} belongs to another architecture")
            self.step, self.best_step = int(saved["step"]), int(saved["best_step"])
            self.history = [tuple(row) for row in saved["history"]]
            self._best = [saved[name] for name in sorted(saved.files) if name.startswith("b0")]
            for variable, name in zip(variables, sorted(names), strict=True):
                variable.assign(saved[name])

    def validation_loss(self):
        """Loss on the fixed validation set."""
        size = int(self.config["training"]["validation_size"])
        if not hasattr(self, "_validation"):
            stream = self._stream(self.config["training"]["seed"] + 2, validation=True)
            self._validation = [stream.batch(i, 512) for i in range(max(size // 512, 1))]
        losses = [
            self.model.test_on_batch(inputs, targets, sample_weight=weights)
            for inputs, targets, weights in self._validation
        ]
        return float(np.mean([np.ravel(loss)[0] for loss in losses]))

    @property
    def is_done(self):
        """Whether the last step is done, or the validation loss has stopped falling for good."""
        every = int(self.config["training"]["validation_every"])
        return self.step >= self.steps or self.step - self.best_step >= self.patience * every

    def run(self, report=print, tick=None):
        """Train to the last step, or until the validation loss has not fallen ``patience`` times.

        The network is then that of the lowest validation loss. ``report`` receives a line after each
        validation, ``tick`` step, steps, loss and galaxies per second after each step.
        """
        every = int(self.config["training"]["validation_every"])
        losses, started, first = [], time.monotonic(), self.step
        with ThreadPoolExecutor(1) as pool:
            ahead = pool.submit(self.stream.batch, self.step, self.size)
            while not self.is_done:
                inputs, targets, weights = ahead.result()
                ahead = pool.submit(self.stream.batch, self.step + 1, self.size)
                loss = self.model.train_on_batch(inputs, targets, sample_weight=weights)
                losses.append(float(np.ravel(loss)[0]))
                self.step += 1
                rate = (self.step - first) * self.size / (time.monotonic() - started)
                if tick is not None:
                    tick(self.step, self.steps, losses[-1], rate)
                if self.step % every == 0 or self.step == self.steps:
                    report(self._validated(float(np.mean(losses)), rate))
                    losses = []
        for variable, value in zip(self.model.weights, self._best or (), strict=False):
            variable.assign(value)

    def _validated(self, loss, rate):
        """Validate, remember the best network, save; the line that says so."""
        validation = self.validation_loss()
        self.model.reset_metrics()
        if not self.history or validation < min(row[2] for row in self.history):
            self._best, self.best_step = weights_of(self.model), self.step
        self.history.append((self.step, loss, validation, rate))
        self.save()
        return (
            f"step {self.step}/{self.steps}  loss {loss:.4f}  validation {validation:.4f}  "
            f"{rate:.0f} galaxies/s"
        )


def plot_history(history, path):
    """Draw the training curve of `Training.history` to a PNG file."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    step, loss, validation, _ = np.array(history, float).T
    figure = Figure(figsize=(6, 4), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    axes.plot(step, loss, color="#0072B2", label="training (mean since the last point)")
    axes.plot(step, validation, color="#D55E00", label="fixed validation set")
    axes.set(xlabel="step", ylabel="negative ln posterior density of the truth")
    axes.legend()
    with written_whole(path) as beside:
        figure.savefig(beside, format="png", dpi=120)


def train_bundle(config, output, *, start=None, mocks=None, resume=False, report=print, tick=None):
    """Train a network and write its bundle.

    The checkpoint ``OUTPUT.checkpoint.npz`` and the training curve ``OUTPUT.png`` are kept
    beside the bundle.

    Parameters
    ----------
    config : path-like, str or None
        As `load_config` takes it.
    output : path-like
        Bundle to write, ``.asdf``.
    start : path-like, optional
        Bundle whose weights to start from; ``"shipped"`` for the one of the package.
    mocks : path-like, optional
        A set written by ``galshape simulate`` to train on, in place of mocks rendered on the fly.
    resume : bool, optional
        Continue from the checkpoint when it exists.
    report : callable, optional
        Receives lines of progress.
    tick : callable, optional
        As for `Training.run`.

    Returns
    -------
    bundle : Bundle
        What was written.

    Raises
    ------
    FileError
        If the configuration cannot be read or the bundle cannot be written.
    InputError
        If the configuration or the checkpoint does not fit.
    """
    output = os.fspath(output)
    check_writable_folder(os.path.dirname(output) or ".", f"the bundle {output!r}")
    parent = None if start is None else Bundle.shipped() if start == "shipped" else Bundle.read(start)
    config = load_config(config)
    training = Training(config, f"{output}.checkpoint.npz", parent, mocks)
    if resume:
        training.resume()
    training.run(report, tick)
    bundle = make_bundle(training)
    if "update" in config:
        bundle = add_update(bundle, config, output, report, mocks)
    bundle.write(output)
    plot_history(training.history, f"{output}.png")
    return bundle
