# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""Exceptions and warnings of the package.

An exception means *misuse*: the call cannot be answered for any galaxy, so it
raises before any work is done and names the argument, what came and what is
allowed.  A *bad galaxy* is not misuse: its row is kept, its numbers are NaN
where they mean nothing, and `galshape_cnn.flags` says why.

``InputError``
    An argument has a wrong shape, value, unit or type.
``KeywordError``
    A keyword does not exist; a `TypeError` too, as Python's own.
``NoiseError``
    The noise description is missing or impossible.
``PSFError``
    The PSF is missing, even-sized, not finite, or has no positive flux.
``PositionError``
    A list of positions cannot be understood or lies outside the image.
``FileError``
    A file cannot be read or written, or does not hold what was asked for.
``BundleError``
    A trained-network bundle is damaged or of an unknown format.
``ForkedError``
    The process is a copy of one in which the package has computed.
"""

import sys
import warnings

__all__ = [
    "BundleError",
    "FileError",
    "ForkedError",
    "GalshapeError",
    "GalshapeWarning",
    "InputError",
    "KeywordError",
    "LostRowsWarning",
    "NoiseError",
    "PSFError",
    "PositionError",
    "warn",
]


class GalshapeError(Exception):
    """Base class of every exception the package raises on purpose."""


class InputError(GalshapeError, ValueError):
    """An argument has a wrong shape, value, unit or type."""


class KeywordError(InputError, TypeError):
    """A keyword does not exist."""


class NoiseError(InputError):
    """The noise description is missing or impossible."""


class PSFError(InputError):
    """The PSF is missing, even-sized, not finite, or has no positive flux."""


class PositionError(InputError):
    """A list of positions cannot be understood or lies outside the image."""


class FileError(GalshapeError, OSError):
    """A file cannot be read or written, or does not hold what was asked for."""


class ForkedError(GalshapeError, RuntimeError):
    """The process is a copy of one in which JAX runs, and cannot compute."""


class BundleError(GalshapeError, ValueError):
    """A trained-network bundle is damaged or of an unknown format."""


class GalshapeWarning(UserWarning):
    """Something the user should know that does not stop the measurement."""


class LostRowsWarning(GalshapeWarning):
    """Some galaxies could not be measured; runs in parts do not repeat it for each of them."""


def warn(message, category=GalshapeWarning):
    """Warn of something, at the line of the user's that led to it.

    Python shows a warning once for each line that it points at: one that points into the package would be
    silent at the second call.

    Parameters
    ----------
    message : str
    category : type, optional
        Of warnings.
    """
    level, frame = 2, sys._getframe(1)
    while frame is not None and _is_own(frame.f_globals.get("__name__", "")):
        level, frame = level + 1, frame.f_back
    warnings.warn(message, category, stacklevel=level)


def _is_own(module):
    """Whether a module is of the package, or holds a frame of its decorators."""
    package, *rest = module.split(".")
    return module == "contextlib" or (package == __name__.partition(".")[0] and rest[:1] != ["tests"])
