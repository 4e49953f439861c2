# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""Train a network on mocks rendered on the fly, with checkpoints.

Batch ``i`` of a run is a function of the seed and ``i`` alone, and a checkpoint holds the
weights, the optimiser and the step, so an interrupted run that is resumed ends with the
same network as one that was not.
"""

import os
import time
import tomllib
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from importlib import resources
from pathlib import Path

import numpy as np

from galshape_cnn.errors import FileError, InputError
from galshape_cnn.infer.bundle import Bundle
from galshape_cnn.infer.network import DEFAULT_NETWORK, build_network, import_keras, negative_log_likelihood
from galshape_cnn.study.mocks import MockStream

__all__ = ["Training", "add_update", "load_config", "make_bundle", "plot_history", "train_bundle"]

_SECTIONS = {"network", "training", "prior", "psf", "noise", "nuisance"}
_OPTIONAL = {"network", "snr_range", "domain", "update"}
_SMALL = 2000  # entries up to which a weight array is stored in single, else in half precision
_CONSTANT = 2e-6  # variance below which an entry of the context did not vary
_WARMUP = 0.05  # part of the steps in which the learning rate rises


def load_config(path=None):
    """Read and check a training configuration.

    Parameters
    ----------
    path : path-like, optional
        A TOML file, or the name of a shipped one (``"universal"``, ``"seed"``); the
        universal one by default.

    Returns
    -------
    config : dict
        Its sections.

    Raises
    ------
    FileError
        If the file cannot be read or is not TOML.
    InputError
        If a section is missing or unknown, or the prior is impossible.
    """
    name = "universal" if path is None else os.fspath(path)
    shipped = resources.files("galshape_cnn.study") / "configs" / f"{name}.toml"
    try:
        source = shipped if shipped.is_file() else Path(name)
        config = tomllib.loads(source.read_text("utf-8"))
    except OSError as error:
        raise FileError(f"cannot read the configuration {name!r}: {error}") from error
    except tomllib.TOMLDecodeError as error:
        raise FileError(f"{name!r} is not valid TOML: {error}") from error
    missing, unknown = _SECTIONS - set(config) - _OPTIONAL, set(config) - _SECTIONS - _OPTIONAL
    if missing or unknown:
        raise InputError(f"configuration {name!r}: missing {sorted(missing)}, unknown {sorted(unknown)}")
    config.setdefault("network", dict(DEFAULT_NETWORK))
    if ("update" in config) != ("update" in config["network"]):
        raise InputError(f"configuration {name!r}: network.update and update go together")
    MockStream(config, 0)
    return config


def _context_statistics(config, seed):
    """Mean and variance of the context over a few batches."""
    stream = MockStream(config, seed)
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

    Raises
    ------
    InputError
        If ``start`` has another architecture.
    """

    def __init__(self, config, checkpoint, start=None):
        self.config, self.checkpoint = config, os.fspath(checkpoint)
        options = config["training"]
        self.steps, self.size = int(options["steps"]), int(options["batch_size"])
        self.stream = MockStream(config, options["seed"])
        self.step, self.history = 0, []
        keras = import_keras()
        keras.utils.set_random_seed(options["seed"])
        self.parent, self.model = start, self._initial_model(start)
        schedule = keras.optimizers.schedules.CosineDecay(
            initial_learning_rate=0.0,
            decay_steps=int((1 - _WARMUP) * self.steps),
            warmup_target=options["learning_rate"],
            warmup_steps=int(_WARMUP * self.steps),
        )
        optimizer = keras.optimizers.AdamW(
            schedule, weight_decay=options["weight_decay"], global_clipnorm=1.0, beta_2=0.99
        )
        loss = negative_log_likelihood(config["network"]["components"])
        self.model.compile(optimizer=optimizer, loss=loss)
        optimizer.build(self.model.trainable_variables)

    def _initial_model(self, start):
        """A network with random weights, or with those of a bundle."""
        network = self.config["network"]
        if start is None:
            return build_network(
                network, *_context_statistics(self.config, self.config["training"]["seed"] + 1)
            )
        if _first_network(start.network) != _first_network(network):
            raise InputError(
                f"the bundle to start from has the architecture {start.network}; wanted: {network}"
            )
        model = build_network(network, initialize=False)
        model.set_weights([np.asarray(w, np.float32) for w in start.weights[: len(model.weights)]])
        self._admit_new_inputs(model)
        return model

    def _admit_new_inputs(self, model):
        """Standardise anew, from zero weight, what was constant in the parent's training."""
        standardise = model.get_layer("standardise")
        mean, variance = standardise.get_weights()
        new = variance < _CONSTANT
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
        beside = self.checkpoint + ".part.npz"
        np.savez(beside, step=self.step, history=np.array(self.history), **arrays)
        os.replace(beside, self.checkpoint)

    def resume(self):
        """Continue from the checkpoint, if there is one."""
        if not os.path.exists(self.checkpoint):
            return
        with np.load(self.checkpoint) as saved:
            self.step, self.history = int(saved["step"]), [tuple(r) for r in saved["history"]]
            variables = self._variables()
            if len(variables) != len(saved.files) - 2:
                raise InputError(f"checkpoint {self.checkpoint!r} belongs to another architecture")
            for i, variable in enumerate(variables):
                variable.assign(saved[f"v{i:04d}"])

    def validation_loss(self):
        """Loss on the fixed validation set."""
        size = int(self.config["training"]["validation_size"])
        if not hasattr(self, "_validation"):
            stream = MockStream(self.config, self.config["training"]["seed"] + 2)
            self._validation = [stream.batch(i, 512) for i in range(max(size // 512, 1))]
        losses = [
            self.model.test_on_batch(inputs, targets, sample_weight=weights)
            for inputs, targets, weights in self._validation
        ]
        return float(np.mean([np.ravel(loss)[0] for loss in losses]))

    def run(self, report=print):
        """Train to the last step.

        Parameters
        ----------
        report : callable, optional
            Receives one line of progress now and then.
        """
        every = int(self.config["training"]["validation_every"])
        losses, started, first = [], time.monotonic(), self.step
        with ThreadPoolExecutor(1) as pool:
            ahead = pool.submit(self.stream.batch, self.step, self.size)
            while self.step < self.steps:
                inputs, targets, weights = ahead.result()
                ahead = pool.submit(self.stream.batch, self.step + 1, self.size)
                loss = self.model.train_on_batch(inputs, targets, sample_weight=weights)
                losses.append(float(np.ravel(loss)[0]))
                self.step += 1
                if self.step % every == 0 or self.step == self.steps:
                    rate = (self.step - first) * self.size / (time.monotonic() - started)
                    validation = self.validation_loss()
                    self.model.reset_metrics()
                    self.history.append((self.step, float(np.mean(losses)), validation, rate))
                    losses = []
                    self.save()
                    report(
                        f"step {self.step}/{self.steps}  loss {self.history[-1][1]:.4f}  "
                        f"validation {validation:.4f}  {rate:.0f} galaxies/s"
                    )


def _domain(config):
    """Ranges of training that the catalogue's flags refer to."""
    prior = MockStream(config, 0).prior
    keys = ("n", "hlr", "g", *(("snr",) if prior.by_snr else ()))
    limits = {key: [float(prior[key].low), float(prior[key].high)] for key in keys}
    limits.setdefault("snr", [float(limit) for limit in config.get("snr_range", (0, np.inf))])
    fwhm = config["psf"]["fwhm"]
    pixel = 8 * np.log(2) / 12  # squared FWHM that the pixel adds
    limits["psf_fwhm"] = [float(np.sqrt(fwhm[end] ** 2 + pixel)) for end in ("low", "high")]
    return limits | config.get("domain", {})


def _context_extent(training, batches=8):
    """Largest standardised entry of the context in all but one of 2000 training mocks."""
    standardise = training.model.get_layer("standardise")
    mean, variance = (import_keras().ops.convert_to_numpy(w.value) for w in standardise.weights)
    stream = MockStream(training.config, training.config["training"]["seed"] + 3)
    contexts = np.concatenate([stream.batch(i, 256)[0][1] for i in range(batches)])
    return float(np.quantile(np.abs((contexts - mean) / np.sqrt(variance)).max(1), 0.9995))


def make_bundle(training):
    """Bundle of a training's network in its present state.

    Parameters
    ----------
    training : Training
        Finished or not.

    Returns
    -------
    bundle : Bundle
        Large weight arrays in half precision, which keeps the file small and changes
        the loss by less than its noise.
    """
    weights = [import_keras().ops.convert_to_numpy(w.value) for w in training.model.weights]
    provenance = {
        "config": training.config,
        "steps": training.step,
        "galaxies": training.step * training.size,
        "history": [[float(value) for value in row] for row in training.history],
        "history_columns": ["step", "loss", "validation_loss", "galaxies_per_second"],
    }
    if training.parent is not None:
        provenance["parent"] = training.parent.provenance | {"sha256": training.parent.sha256}
    config = training.config
    domain = _domain(config) | {"context": _context_extent(training)}
    network = _first_network(config["network"])
    return Bundle(network, _stored(weights), domain, config["prior"], provenance)


def _first_network(network):
    """Configuration of the network without its update."""
    return {key: value for key, value in network.items() if key != "update"}


def _stored(weights):
    """Weights in the precision of the file."""
    return tuple(w.astype(np.float16) if w.size > _SMALL else w for w in weights)


def add_update(bundle, config, output, report=print):
    """A bundle with the second network trained for its first.

    Parameters
    ----------
    bundle : Bundle
        With the first network; a second one is replaced.
    config : dict
        From `load_config`, with the sections ``network.update`` and ``update``.
    output : path-like
        Bundle that will be written; mocks are kept beside it until the training is done.
    report : callable, optional
        Receives lines of progress.

    Returns
    -------
    bundle : Bundle
    """
    from galshape_cnn.study.train_update import train_update

    first = _first_network(bundle.network)
    count = len(build_network(first, initialize=False).weights)
    bundle = replace(bundle, network=first, weights=bundle.weights[:count])
    weights, history = train_update(bundle, config, output, report)
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


def plot_history(history, path):
    """Draw the training curve.

    Parameters
    ----------
    history : sequence of (step, loss, validation loss, rate)
        From `Training.history`.
    path : path-like
        PNG to write.
    """
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
    beside = f"{os.fspath(path)}.part"
    figure.savefig(beside, format="png", dpi=120)
    os.replace(beside, path)


def train_bundle(config, output, *, start=None, resume=False, report=print):
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
    resume : bool, optional
        Continue from the checkpoint when it exists.
    report : callable, optional
        Receives lines of progress.

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
    folder = os.path.dirname(output) or "."
    if not os.path.isdir(folder) or not os.access(folder, os.W_OK):
        raise FileError(f"cannot write the bundle {output!r}: {folder!r} is not a writable folder")
    parent = None if start is None else Bundle.shipped() if start == "shipped" else Bundle.read(start)
    config = load_config(config)
    training = Training(config, f"{output}.checkpoint.npz", parent)
    if resume:
        training.resume()
    training.run(report)
    bundle = make_bundle(training)
    if "update" in config:
        bundle = add_update(bundle, config, output, report)
    bundle.write(output)
    plot_history(training.history, f"{output}.png")
    return bundle
