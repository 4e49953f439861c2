# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""Pairing of noise, mask and PSF files with cutout files."""

import glob
import os
from pathlib import Path

import numpy as np

from galshape_cnn.errors import FileError, InputError, PSFError
from galshape_cnn.forward.psf.arrays import PSFArrays
from galshape_cnn.observe.io.fits_hdus import Selection

__all__ = ["check_psf_count", "names_of_each", "varying_parts", "with_own_psf"]

_NAMES = ("err", "var", "ivar", "weight", "mask", "psf")


def names_of_each(paths, names):
    """Options of `read_image` for each of many files, of which noise, mask and PSF may be patterns.

    A pattern, ``"psf/*.fits"`` or ``"psf/*.fits[1]"``, must match one file for each image.  Where the varying
    parts of the file names are the same, they decide (``cut/a1.fits`` and ``psf/p_a1.fits``); otherwise the
    sorted order does.

    ``FileError`` if it matches no file, ``InputError`` if another number of files than there are images, or
    the order is not clear.
    """
    paths = [os.fspath(path) for path in paths]
    found = {}
    for name in _NAMES:
        choice = names.get(name)
        if isinstance(choice, (str, Path)) and _is_pattern(str(choice)):
            if len(paths) > 1 or name != "psf":  # the planes of one cube may have a PSF each
                found[name] = _matched(paths, str(choice), name)
    return [{**names, **{name: files[row] for name, files in found.items()}} for row in range(len(paths))]


def _is_pattern(choice):
    return glob.has_magic(str(Selection(choice, "").path)) and not Path(choice).expanduser().exists()


def _matched(paths, choice, name):
    """File of a pattern for each image."""
    selection = Selection(choice, "")
    suffix = "" if selection.hdu is None or not selection.other_file else f"[{selection.hdu}]"
    pattern = str(selection.path if selection.other_file else Path(choice).expanduser())
    files = sorted(glob.glob(pattern))
    if not files:
        raise FileError(f"{name}={choice} matches no file")
    if len(files) != len(paths):
        raise InputError(
            f"{name}={choice} matches {len(files)} files, but there are {len(paths)} images; one file for "
            "each is needed"
        )
    keys, own = varying_parts(paths), varying_parts(files)
    if sorted(keys) == sorted(own) and len(set(keys)) == len(keys):
        by_key = dict(zip(own, files, strict=True))
        files = [by_key[key] for key in keys]
    elif paths != sorted(paths) or all(key.isdigit() for key in keys + own):
        raise InputError(
            f"{name}={choice} matches {len(files)} files, but it is not clear which belongs to which image: "
            f"the first are {files[0]} and {paths[0]}; files with the same numbers or names are needed"
        )
    return [file + suffix for file in files]


def varying_parts(paths):
    """What is different in the names of some files: without the same beginning and end, numbers whole."""
    stems = [Path(path).name.split(".")[0] for path in paths]
    start = os.path.commonprefix(stems)
    start = start.rstrip("0123456789")  # a number is compared as a whole
    ends = [stem[len(start) :] for stem in stems]
    end = os.path.commonprefix([one[::-1] for one in ends])[::-1].lstrip("0123456789")
    return [one[: len(one) - len(end)] for one in ends]


def check_psf_count(psf, n, what):
    """Whether there is a PSF for each of several galaxies; ``PSFError`` if there are neither one nor ``n``.

    ``what`` names the input in the message.
    """
    count = _count(psf)
    if count not in (None, 1, n):
        raise PSFError(f"psf holds {count} PSFs for the {n} galaxies of {what}; give one, or {n}")
    return count == n and n > 1


def _count(psf):
    """Number of PSFs in a cube or a list, None for anything else."""
    if isinstance(psf, PSFArrays):
        return len(psf.array)
    if isinstance(psf, np.ndarray) or hasattr(psf, "ndim"):
        return len(psf) if np.ndim(psf) == 3 else None
    return len(psf) if isinstance(psf, list) and len(psf) and np.ndim(psf[0]) != 1 else None


def with_own_psf(image, row, n, names):
    """The image of one of n files, changed in place, with its own PSF where another file has one for each.

    ``names`` are the options of `read_image` for all of them. ``PSFError`` if that file has neither one PSF
    nor n.
    """
    choice = names.get("psf")
    if choice is None or n == 1 or np.ndim(image.data) != 2 or not Selection(choice, "").other_file:
        return image
    if check_psf_count(image.psf, n, f"{n} files"):
        image.psf = _of_row(image.psf, row)
    return image


def _of_row(psf, row):
    """One of several PSFs."""
    if isinstance(psf, PSFArrays):
        return PSFArrays(np.asarray(psf.array[row : row + 1]), psf.oversampling)
    return psf[row]
