# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""Options in the metadata of a catalogue: every one that changes a number."""

import os
from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from numbers import Integral, Real

import numpy as np

__all__ = ["recorded_call", "recorded_exposures", "recorded_options", "recorded_prior"]

_LONGEST = 200  # characters of a description


def recorded_options(options, noise, observation, cutting):
    """Options of a call in types that every file format holds: numbers, texts, None, dictionaries of these.

    Arrays are told by what they are, not by their values: these are data.  Nothing depends on which of the
    galaxies are measured together.  The noise is as it was given, what was estimated stands beside;
    ``cutting`` are arguments of `galshape_cnn.observe.observation.prepare`.
    """
    plain = [
        item.name
        for item in fields(options)
        if item.name not in ("prior", "correlation", "psf_error", "vary")
    ]
    record = {name: _described(getattr(options, name)) for name in plain}
    record["prior"] = None if options.prior is None else _plain(options.prior.config)
    record["psf_error"] = None if options.psf_error is None else _plain(options.psf_error.record)
    record["vary"] = dict(options.vary) or None
    record |= {name: _described(value) for name, value in vars(noise).items()}
    record |= {name: _described(value) for name, value in cutting.items()}
    return record | {"positions": observation.understood or None}


def recorded_exposures(exposures, names, psf_errors=None):
    """What each of several exposures was said to be, by name; data, mask and WCS are left out."""
    left_out = ("data", "mask", "wcs", "name", "psf_error")
    doubts = psf_errors or len(names) * [None]
    return {
        str(name): {
            item.name: _described(getattr(one, item.name))
            for item in fields(one)
            if item.name not in left_out
        }
        | {"psf_error": None if doubt is None else _plain(doubt.record)}
        for name, one, doubt in zip(names, exposures, doubts, strict=True)
    }


def recorded_prior(options):
    """Entry ``vary_prior`` of the metadata, where slopes with wavelength have a prior: its widths by name."""
    from galshape_cnn.infer.posterior.varying_prior import SLOPES

    if not options.vary or options.method == "ml":
        return {}
    return {"vary_prior": {name: SLOPES[name] for name, _ in options.vary}}


def recorded_call(arguments):
    """Arguments of any call, as far as they were given, as `recorded_options`."""
    return {name: _plain(value) for name, value in arguments.items() if value is not None}


def _plain(value):
    """Nested mappings, sequences and dataclasses without arrays with Python's own numbers."""
    if isinstance(getattr(value, "config", None), Mapping):  # a prior
        value = value.config
    elif is_dataclass(value) and not hasattr(value, "array"):
        value = {item.name: getattr(value, item.name) for item in fields(value)}
    if isinstance(value, Mapping):
        return {str(name): _plain(one) for name, one in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(one) for one in value]
    return _described(value)


def _described(value):
    """A number or a text itself; of anything else what it is."""
    if value is None or isinstance(value, str | bool | np.bool_):
        return bool(value) if isinstance(value, np.bool_) else value
    if getattr(value, "unit", None) is not None and np.ndim(value) == 0:
        return f"{value.value:.9g} {value.unit}"
    if isinstance(value, Integral):
        return int(value)
    if isinstance(value, Real) or (isinstance(value, np.ndarray) and value.ndim == 0):
        return float(value)
    if type(value).__module__.startswith("galsim"):
        text = repr(value)
        return text if len(text) <= _LONGEST else text[: _LONGEST - 3] + "..."
    if isinstance(value, os.PathLike):
        return os.fspath(value)
    if isinstance(value, np.ndarray):
        return _array(value)
    if hasattr(value, "to_string"):  # a unit
        return value.to_string()
    return f"{type(value).__name__} {getattr(value, '__name__', '')}".strip()


def _array(value):
    """Size of an array, but not of how many galaxies it is."""
    size = "x".join(map(str, value.shape[-2:]))
    if value.ndim == 1:
        return "one for each galaxy"
    return f"array of {size}" + (", one for each galaxy" if value.ndim == 3 else "")
