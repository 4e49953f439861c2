# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""Configurations of simulations and trainings: TOML files, checked when they are read."""

import os
import tomllib
from difflib import get_close_matches
from importlib import resources
from numbers import Real
from pathlib import Path

from galshape_cnn.errors import FileError, InputError
from galshape_cnn.infer.network.architecture import DEFAULT_NETWORK
from galshape_cnn.study.simulate.stream import MockStream

__all__ = ["load_config"]

_SECTIONS = {"network", "training", "prior", "psf", "noise", "nuisance"}
_OPTIONAL = {"network", "snr_range", "domain", "update"}

_DISTRIBUTION, _SIZES, _TEXT = "a distribution", "a list of whole numbers", "a text"
_COUNT, _FRACTION, _POSITIVE = "a whole number above 0", "a number in [0, 1]", "a number above 0"
_LEVEL = "a number, at least 0"

_UPDATE_NETWORK = {"dense": _SIZES, "components": _COUNT}
#: Options of each section that are needed, and what they are.
_NEEDED = {
    "network": {
        "architecture": _TEXT, "context": _SIZES, "patch_width": _COUNT, "middle_width": _COUNT,
        "middle_blocks": _LEVEL, "deep_width": _COUNT, "deep_blocks": _LEVEL, "dense": _SIZES,
        "components": _COUNT,
    },
    "training": {
        "seed": _LEVEL, "batch_size": _COUNT, "steps": _COUNT, "learning_rate": _POSITIVE,
        "weight_decay": _LEVEL, "validation_size": _COUNT, "validation_every": _COUNT,
    },
    "update": {
        "galaxies": _COUNT, "epochs": _COUNT, "batch_size": _COUNT, "learning_rate": _POSITIVE,
        "weight_decay": _LEVEL,
    },
    "psf": {"fwhm": _DISTRIBUTION, "ellipticity": _FRACTION},
    "noise": {
        "sigma": _DISTRIBUTION, "gradient": _LEVEL, "poisson_fraction": _FRACTION, "poisson": _POSITIVE,
    },
    "nuisance": {
        "offset": _LEVEL, "sky": _POSITIVE, "sky_fraction": _FRACTION, "mask_fraction": _FRACTION,
    },
}  # fmt: skip
#: Options that may be there besides.
_POSSIBLE = {
    "network": {"update": None},
    "training": {"patience": _LEVEL},
    "psf": {"moffat_beta": _POSITIVE, "lobes": _FRACTION},
    "noise": {"gain": _POSITIVE},
}
_DOMAIN = ("snr", "n", "hlr", "g", "psf_width")


def load_config(path=None):
    """Sections of a training configuration, checked: of a TOML file, or of a shipped one by its name.

    ``FileError`` if the file cannot be read or is not TOML, ``InputError`` if a section or one of its options
    is missing, unknown or impossible, or the prior is.
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
    _check_options(config, name)
    if ("update" in config) != ("update" in config["network"]):
        raise InputError(f"configuration {name!r}: network.update and update go together")
    MockStream(config, 0)
    return config


def _check_options(config, name):
    """Refuse options that do not exist, are missing or impossible, so that a misspelt one is refused."""
    for section, needed in _NEEDED.items():
        if section in config:
            _check_section(config[section], needed, _POSSIBLE.get(section, {}), f"{name!r}, [{section}]")
    if "update" in config.get("network", {}):
        _check_section(config["network"]["update"], _UPDATE_NETWORK, {}, f"{name!r}, [network.update]")
    if "snr_range" in config:
        _check_range(config["snr_range"], f"{name!r}: snr_range")
    for option, limits in config.get("domain", {}).items():
        if option not in _DOMAIN:
            _unknown(option, _DOMAIN, f"{name!r}, [domain]")
        _check_range(limits, f"{name!r}, [domain]: {option}")


def _check_section(section, needed, optional, where):
    """Options of one section."""
    if not hasattr(section, "items"):
        raise InputError(f"configuration {where} is {section!r}; a section with options is needed")
    known = needed | optional
    for option in section:
        if option not in known:
            _unknown(option, known, where)
    missing = [option for option in needed if option not in section]
    if missing:
        raise InputError(f"configuration {where} lacks {', '.join(missing)}")
    for option, value in section.items():
        if not _fits(value, known[option]):
            raise InputError(f"configuration {where}: {option} = {value!r}; {known[option]} is needed")


def _unknown(option, known, where):
    """Refuse an option, naming the one that is meant."""
    close = get_close_matches(option, known, 1)
    meant = f"; did you mean {close[0]}?" if close else ""
    raise InputError(f"configuration {where}: unknown option {option}{meant} (allowed: {', '.join(known)})")


def _fits(value, kind):
    """Whether a value is of a kind."""
    if kind in (None, _TEXT):
        return kind is None or isinstance(value, str)
    if kind == _DISTRIBUTION:
        return hasattr(value, "items")
    if kind == _SIZES:
        return (
            isinstance(value, (list, tuple)) and len(value) > 0 and all(_fits(one, _COUNT) for one in value)
        )
    if not isinstance(value, Real) or isinstance(value, bool):
        return False
    if kind == _COUNT:
        return 1 <= value < 2**53 and value == int(value)
    if kind == _FRACTION:
        return 0 <= value <= 1
    return 0 <= value < float("inf") and (kind == _LEVEL or value > 0)


def _check_range(limits, where):
    """Two numbers, the smaller first."""
    good = isinstance(limits, (list, tuple)) and len(limits) == 2
    good = good and all(isinstance(one, Real) and not isinstance(one, bool) for one in limits)
    if not good or not limits[0] < limits[1]:
        raise InputError(f"configuration {where} = {limits!r}; [low, high] with low < high is needed")
