# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""Configurations of simulations and trainings: TOML files, checked when they are read."""

import os
import tomllib
from importlib import resources
from pathlib import Path

from galshape_cnn.errors import FileError, InputError
from galshape_cnn.infer.network.architecture import DEFAULT_NETWORK
from galshape_cnn.study.simulate.config_options import check_options
from galshape_cnn.study.simulate.stream import MockStream

__all__ = ["load_config"]

_SECTIONS = {"network", "training", "prior", "psf", "noise", "nuisance"}
_OPTIONAL = {"network", "snr_range", "domain", "update"}


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
        If a section or one of its options is missing, unknown or impossible, or the prior is.
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
    check_options(config, name)
    if ("update" in config) != ("update" in config["network"]):
        raise InputError(f"configuration {name!r}: network.update and update go together")
    MockStream(config, 0)
    return config
