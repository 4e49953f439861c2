# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""The options of a training configuration, so that a misspelt one is refused before any work."""

from difflib import get_close_matches
from numbers import Real

from galshape_cnn.errors import InputError

__all__ = ["check_options"]

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
_OPTIONAL = {
    "network": {"update": None},
    "training": {"patience": _LEVEL},
    "psf": {"moffat_beta": _POSITIVE, "lobes": _FRACTION},
    "noise": {"gain": _POSITIVE},
}
_DOMAIN = ("snr", "n", "hlr", "g", "psf_width")


def check_options(config, name):
    """Refuse options of a configuration, of a name, that do not exist, are missing or impossible."""
    for section, needed in _NEEDED.items():
        if section in config:
            _check_section(config[section], needed, _OPTIONAL.get(section, {}), f"{name!r}, [{section}]")
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
