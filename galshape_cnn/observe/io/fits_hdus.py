# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""Opening FITS files and finding the HDU that holds what is asked for."""

import gzip
import re
import warnings
import zlib
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from astropy.io import fits
from astropy.utils.exceptions import AstropyUserWarning

from galshape_cnn.errors import FileError

__all__ = ["Selection", "companion", "find_hdu", "image_hdus", "list_hdus", "open_fits", "role_of"]

#: Names of HDUs by what they hold. A weight is an inverse variance.
_ROLE_NAMES = {
    "sci": ("SCI", "SCIENCE", "IMAGE", "IMG", "DATA"),
    "err": ("ERR", "ERROR", "SIGMA", "UNCERT", "UNCERTAINTY", "STDDEV", "RMS"),
    "var": ("VAR", "VARIANCE"),
    "ivar": ("IVAR", "INVVAR", "WEIGHT", "WHT", "WGT"),
    "mask": ("MASK", "DQ", "FLAGS", "FLAG", "FLG", "MSK"),
    "psf": ("PSF", "PSF_DATA"),
}
_ROLES = {name: role for role, names in _ROLE_NAMES.items() for name in names}


@contextmanager
def open_fits(path):
    """Open a FITS file memory-mapped; whatever goes wrong is a `FileError`.

    Parameters
    ----------
    path : str or Path
        File, also compressed.

    Yields
    ------
    hdus : astropy.io.fits.HDUList
        Checked to be complete.

    Raises
    ------
    FileError
        If the file is missing, empty, truncated or no FITS file.
    """
    path = Path(path).expanduser()
    if not path.is_file():
        raise FileError(f"{path} is a folder" if path.is_dir() else f"{path} does not exist")
    if path.stat().st_size == 0:
        raise FileError(f"{path} is empty (0 bytes)")
    try:
        with warnings.catch_warnings():
            # Completeness is checked below; the rest is how headers are written.
            warnings.simplefilter("ignore", AstropyUserWarning)
            with fits.open(path, ignore_missing_simple=False) as hdus:
                _check_complete(hdus, path)
                yield hdus
    except Exception as error:  # a damaged file makes astropy raise any kind
        if _is_ours(error):
            raise
        raise FileError(f"{path} cannot be read as FITS: {error!r}") from error


def _is_ours(error):
    """Whether an exception was raised on purpose."""
    return type(error).__module__.startswith("galshape_cnn.")


def _check_complete(hdus, path):
    """Refuse a file that ends before its last HDU does; padding may be missing."""
    size = path.stat().st_size
    if path.suffix == ".gz":
        _check_gzip(path)
    if path.suffix in (".gz", ".bz2", ".xz", ".Z", ".zip"):
        return
    for index, hdu in enumerate(hdus):
        info = hdu.fileinfo()
        if info is None or hdu.size == 0:
            continue
        tiled = isinstance(hdu, fits.CompImageHDU)
        end = info["datLoc"] + (info["datSpan"] - 2879 if tiled else hdu.size)
        if end > size:
            raise FileError(f"{path} is truncated: HDU {index} ends at byte {end}, the file at {size}")
    if hdus[-1].fileinfo() is not None:
        _check_tail(path, hdus[-1].fileinfo(), len(hdus))


def _check_tail(path, last, count):
    """Refuse a file that ends within a header: astropy drops that HDU without a word."""
    with open(path, "rb") as stream:
        stream.seek(last["datLoc"] + last["datSpan"])
        if stream.read(8) == b"XTENSION":
            raise FileError(f"{path} is truncated in the header of HDU {count}")


def _check_gzip(path):
    """Read a compressed file to its end: astropy drops HDUs that are cut without a word."""
    with gzip.open(path) as stream:
        try:
            while stream.read(1 << 24):
                pass
        except (EOFError, OSError, zlib.error) as error:
            raise FileError(f"{path} is truncated or damaged: {error}") from error


def list_hdus(hdus):
    """One line that says what a file holds, for messages.

    Parameters
    ----------
    hdus : astropy.io.fits.HDUList

    Returns
    -------
    text : str
    """
    parts = []
    for index, hdu in enumerate(hdus):
        label = " ".join(str(hdu.header[key]) for key in ("IMAGETYP", "BAND") if key in hdu.header)
        shape = "x".join(map(str, hdu.shape)) if hdu.is_image else "table"
        name = f" {hdu.name}" if hdu.name else ""
        version = f",{hdu.ver}" if hdu.ver != 1 else ""
        parts.append(f"{index}{name}{version} ({', '.join(one for one in (shape or 'empty', label) if one)})")
    return "; ".join(parts)


def image_hdus(hdus):
    """Indices of the HDUs that hold an image or a cube.

    Parameters
    ----------
    hdus : astropy.io.fits.HDUList

    Returns
    -------
    indices : list of int
    """
    return [
        i for i, hdu in enumerate(hdus) if hdu.is_image and len(hdu.shape) >= 2 and np.prod(hdu.shape) > 0
    ]


def role_of(hdu):
    """What an HDU holds according to its EXTNAME, or else its IMAGETYP.

    Parameters
    ----------
    hdu : HDU

    Returns
    -------
    role : {"sci", "err", "var", "ivar", "mask", "psf", None}
    """
    names = [hdu.name.upper(), str(hdu.header.get("IMAGETYP", "")).strip().upper()]
    return next((_ROLES[name] for name in names if name in _ROLES), None)


class Selection:
    """Where to find an HDU: a file, and an index or name in it.

    Parameters
    ----------
    choice : int, str or Path
        ``2``, ``"SCI"``, ``"SCI,2"``, ``"file.fits"`` or ``"file.fits[2]"``.
    path : Path
        File that is meant when ``choice`` names none.
    names : collection of str
        HDU names of that file: they win over files of the same name.
    """

    def __init__(self, choice, path, names=()):
        self.path, self.hdu, self.other_file = Path(path), choice, False
        if isinstance(choice, Path):
            choice = str(choice)
        if not isinstance(choice, str) or choice.upper() in names:
            return
        match = re.fullmatch(r"(.*?)\[([^\[\]]+)\]", choice)
        file, hdu = match.groups() if match else (choice, None)
        if match or Path(file).expanduser().exists() or _looks_like_a_file(file):
            self.path, self.hdu, self.other_file = Path(file).expanduser(), _as_index(hdu), True
        else:
            self.hdu = _as_index(choice)


def _looks_like_a_file(text):
    return "/" in text or re.search(r"\.(fits?|fz|psf|piff|asdf)(\.gz)?$", text, re.IGNORECASE) is not None


def _as_index(hdu):
    """``"3"`` is an index."""
    return int(hdu) if isinstance(hdu, str) and re.fullmatch(r"\d+", hdu) else hdu


def find_hdu(hdus, choice, path, what):
    """Index of the HDU that was named.

    Parameters
    ----------
    hdus : astropy.io.fits.HDUList
    choice : int or str
        Index, name, or ``"name,version"``.
    path : Path
        For the message.
    what : str
        Name of the option, for the message.

    Returns
    -------
    index : int

    Raises
    ------
    FileError
        If there is none; the message lists those there are.
    """
    key = choice
    if isinstance(choice, str) and "," in choice:
        name, version = choice.rsplit(",", 1)
        key = (name.strip(), int(version)) if version.strip().isdigit() else choice
    if isinstance(choice, str) and choice.upper() == "PRIMARY":
        key = 0
    try:
        index = hdus.index_of(key)
        hdus[index]
    except (KeyError, IndexError, TypeError) as error:
        raise FileError(f"{path} has no HDU {choice!r} for {what}; it holds {list_hdus(hdus)}") from error
    return int(index)


def companion(hdus, index, role, path):
    """HDU with the noise, mask or PSF that belongs to an image.

    Parameters
    ----------
    hdus : astropy.io.fits.HDUList
    index : int
        HDU of the image.
    role : str
        What is looked for, as `role_of` says.
    path : Path
        For the message.

    Returns
    -------
    index : int or None

    Raises
    ------
    FileError
        If several would do.
    """
    image = hdus[index]
    found = [i for i, hdu in enumerate(hdus) if i != index and role_of(hdu) == role]
    for same in (lambda one: one.header.get("BAND"), lambda one: one.ver):
        if len(found) > 1:
            found = [i for i in found if same(hdus[i]) == same(image)] or found
    if len(found) > 1:
        raise FileError(f"{path} has several HDUs for {role}: name one of {list_hdus(hdus)}")
    return found[0] if found else None
