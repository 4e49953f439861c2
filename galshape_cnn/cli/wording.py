# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""Errors and warnings in the words of the command line: options in place of arguments."""

import logging
import re
import sys
from contextlib import contextmanager

__all__ = ["in_options", "notes_printed"]

_NAMES = (
    *("sci", "err", "var", "ivar", "weight", "mask", "psf", "band", "error", "positions", "method", "gain"),
    *("neighbours", "workers", "scheduler", "zeropoint", "bundle", "seed", "clearance", "avoid"),
    *("stamp_size", "bad_bits", "psf_oversampling", "read_noise", "sky_level", "noise_scale"),
    *("noise_correlation", "psf_error", "psf_ext", "trim_psf", "block_rows", "gain_in_map"),
)
_ANY = "|".join(sorted(_NAMES, key=len, reverse=True))
_LONG = "|".join(name for name in _NAMES if "_" in name)
#: What is done in Python by other means than on the command line.
_PHRASES = (
    (
        r"give error= \(1 sigma .*? name the HDU that holds it",
        "give --error SIGMA, or name the HDU or file that holds it with --err, --var, --ivar or --weight; "
        "'--error background' measures it",
    ),
    (r"give psf= for all, or set it in every NDData", "give --psf"),
    (r"give wcs=, or x, y in pixels", "give x, y in pixels"),
    (r"; give them, or stamp_size for its middle", "; give --positions, or --stamp-size for its middle"),
    (r"psf_includes_pixel=False", "--psf-without-pixel"),
    (r"fit_sky=False", "--no-fit-sky"),
    (r"shear_response=True", "--shear-response"),
    (r" \(read files first\)", ""),
    (r"\bvary=\{'(\w+)': \.\.\.\}", r"--vary \1"),
    (r"\bvary=\{'(\w+)': (\d+)\}", r"--vary \1=\2"),
    (r"\bkinds=\{'([^']*)': [\d.]+\}", r"--kinds \1"),
    (r"given without gain;", "given without --gain;"),
    (r"'auto', 'estimate' or None", "auto, estimate or none"),
    (r"(noise_scale|noise_correlation)=None", r"\1=none"),
)
_EDGE = r"(?<![\w./'-])"


def in_options(message):
    """The text of an error or a warning, on one line, naming options where it named arguments.

    Examples
    --------
    >>> from galshape_cnn.cli.wording import in_options
    >>> in_options("a.fits has several images; say which HDU is meant with sci=. It holds ...")
    'a.fits has several images; say which HDU is meant with --sci. It holds ...'
    >>> in_options("errors are off by as much; noise_scale='estimate' mends that")
    'errors are off by as much; --noise-scale estimate mends that'
    """
    text = " ".join(str(message).split())
    for pattern, words in _PHRASES:
        text = re.sub(pattern, words, text)
    # "bad_bits='x' (--bad-bits)" says both
    text = re.sub(rf"{_EDGE}(?:{_ANY})(?:=('[^']*'|\S+))? \((--[a-z-]+)((?: [A-Z]+)?)\)", _both, text)
    text = re.sub(rf"{_EDGE}({_ANY})='([^']*)'", lambda found: f"{_option(found[1])} {found[2]}", text)
    text = re.sub(rf"{_EDGE}({_ANY})=(?=[\w+/~*-]|\.[\w/.])", lambda found: f"{_option(found[1])} ", text)
    text = re.sub(rf"{_EDGE}({_ANY})=", lambda found: _option(found[1]), text)
    return re.sub(rf"{_EDGE}({_LONG})(?![\w/'-]|\.\w)", lambda found: _option(found[1]), text)


def _option(name):
    return "--" + name.replace("_", "-")


def _both(found):
    value = "" if found[1] is None else f" {found[1]}"
    return f"{found[2]}{found[3]}{value}"


@contextmanager
def notes_printed():
    """Print on the error stream, once each, what the package notes about its input."""
    logger, handler = logging.getLogger("galshape_cnn"), _Notes(logging.INFO)
    level = logger.level
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    try:
        yield
    finally:
        logger.removeHandler(handler)
        logger.setLevel(level)


class _Notes(logging.Handler):
    """One line for each different note."""

    def __init__(self, level):
        super().__init__(level)
        self._said = set()

    def emit(self, record):
        text = record.getMessage()
        if text not in self._said and sys.stderr is not None:
            self._said.add(text)
            print(f"galshape: {text}", file=sys.stderr)
