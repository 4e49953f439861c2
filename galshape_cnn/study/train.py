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
from importlib import resources

import numpy as np

from ..errors import FileError, InputError
from ..infer.network import DEFAULT_NETWORK, build_network, import_keras, negative_log_likelihood
from .mocks import MockStream

__all__ = ["Training", "load_config", "train"]

_SECTIONS = {"network", "training", "prior", "psf", "noise", "nuisance"}
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
        text = shipped.read_text("utf-8") if shipped.is_file() else open(name, encoding="utf-8").read()
        config = tomllib.loads(text)
    except OSError as error:
        raise FileError(f"cannot read the configuration {name!r}: {error}") from error
    except tomllib.TOMLDecodeError as error:
        raise FileError(f"{name!r} is not valid TOML: {error}") from error
    missing, unknown = _SECTIONS - set(config) - {"network"}, set(config) - _SECTIONS - {"snr_range"}
    if missing or unknown:
        raise InputError(f"configuration {name!r}: missing {sorted(missing)}, unknown {sorted(unknown)}")
    config.setdefault("network", dict(DEFAULT_NETWORK))
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
    """

    def __init__(self, config, checkpoint):
        self.config, self.checkpoint = config, os.fspath(checkpoint)
        options = config["training"]
        self.steps, self.size = int(options["steps"]), int(options["batch_size"])
        self.stream = MockStream(config, options["seed"])
        self.step, self.history = 0, []
        mean, variance = _context_statistics(config, options["seed"] + 1)
        keras = import_keras()
        keras.utils.set_random_seed(options["seed"])
        self.model = build_network(config["network"], mean, variance)
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

    def _variables(self):
        return self.model.weights + self.model.optimizer.variables

    def save(self):
        """Write the checkpoint beside, then rename."""
        arrays = {f"v{i:04d}": np.asarray(v) for i, v in enumerate(self._variables())}
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
                    report(
                        f"step {self.step}/{self.steps}  loss {self.history[-1][1]:.4f}  "
                        f"validation {validation:.4f}  {rate:.0f} galaxies/s"
                    )
                    self.save()


def train(config, checkpoint, *, resume=False, report=print):
    """Train a network.

    Parameters
    ----------
    config : mapping
        From `load_config`.
    checkpoint : path-like
        File that keeps the state.
    resume : bool, optional
        Continue from the checkpoint when it exists.
    report : callable, optional
        Receives lines of progress.

    Returns
    -------
    training : Training
        Finished, with ``model`` and ``history``.
    """
    training = Training(config, checkpoint)
    if resume:
        training.resume()
    training.run(report)
    return training
