# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""FITS files opened, and the wanted HDU found."""

import logging
import re
import warnings
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from astropy.io import fits
from astropy.utils.exceptions import AstropyUserWarning

from galshape_cnn.errors import FileError, GalshapeError, GalshapeWarning, warn
from galshape_cnn.observe.io.fits_scan import check_declared_sizes

__all__ = [
    "NOISE_ROLES",
    "UNCERTAINTY_TYPES",
    "Selection",
    "as_index",
    "companion",
    "find_hdu",
    "image_hdus",
    "list_hdus",
    "open_fits",
    "role_of",
    "roles_of",
    "say_roles",
    "uncertainty_type",
]

_log = logging.getLogger(__name__)

#: Names of HDUs by what they hold. A weight is an inverse variance.
_ROLE_NAMES = {
    "sci": ("SCI", "SCIENCE", "IMAGE", "IMG", "DATA"),
    "err": ("ERR", "ERROR", "SIGMA", "UNCERT", "UNCERTAINTY", "STDDEV", "RMS"),
    "var": ("VAR", "VARIANCE"),
    "ivar": ("IVAR", "INVVAR", "WEIGHT", "WHT", "WGT"),
    "mask": ("MASK", "DQ", "FLAGS", "FLAG", "FLG", "MSK"),
    "psf": ("PSF", "PSF_DATA", "PSFIMAGE"),
}
_ROLES = {name: role for role, names in _ROLE_NAMES.items() for name in names}
#: What `astropy.nddata.CCDData` writes as UTYPE, and the role of noise of that kind.
UNCERTAINTY_TYPES = {"StdDevUncertainty": "err", "VarianceUncertainty": "var", "InverseVariance": "ivar"}
NOISE_ROLES = ("err", "var", "ivar")
#: Keywords that say what an HDU holds, and are looked at in this order.
_NAMING = ("EXTNAME", "EXTTYPE", "IMAGETYP")


@contextmanager
def open_fits(path):
    """Open a FITS file, also a compressed one, memory-mapped, and yield its HDUs.

    Whatever goes wrong is a ``FileError``: the file is missing, empty, truncated or no FITS file.
    """
    path = Path(path).expanduser()
    if not path.is_file():
        raise FileError(f"{path} is a folder" if path.is_dir() else f"{path} does not exist")
    if path.stat().st_size == 0:
        raise FileError(f"{path} is empty (0 bytes)")
    check_declared_sizes(path)
    try:
        with warnings.catch_warnings():
            # Completeness has been checked; the rest is how headers are written.
            warnings.simplefilter("ignore", AstropyUserWarning)
            with fits.open(path, ignore_missing_simple=False) as hdus:
                len(hdus)  # astropy reads the headers that it has put off
                yield hdus
    except Exception as error:  # a damaged file makes astropy raise any kind
        if isinstance(error, (GalshapeError, GalshapeWarning)):  # on purpose
            raise
        raise FileError(f"{path} cannot be read as FITS: {error!r}") from error


def list_hdus(hdus):
    """One line that says what a file holds, for messages."""
    parts = []
    for index, hdu in enumerate(hdus):
        label = " ".join(str(hdu.header[key]) for key in ("EXTTYPE", "IMAGETYP", "BAND") if key in hdu.header)
        shape = "x".join(map(str, hdu.shape)) if hdu.is_image else "table"
        name = f" {hdu.name}" if hdu.name else ""
        version = f",{hdu.ver}" if hdu.ver != 1 else ""
        parts.append(f"{index}{name}{version} ({', '.join(one for one in (shape or 'empty', label) if one)})")
    return "; ".join(parts)


def image_hdus(hdus):
    """Indices of the HDUs that hold an image or a cube."""
    return [
        i for i, hdu in enumerate(hdus) if hdu.is_image and len(hdu.shape) >= 2 and np.prod(hdu.shape) > 0
    ]


def role_of(hdu):
    """What an HDU holds according to its EXTNAME, or else its EXTTYPE or IMAGETYP.

    One of "sci", "err", "var", "ivar", "mask", "psf", or None. Of noise that `astropy.nddata.CCDData` has
    written, the kind is what its UTYPE says.
    """
    role = _named_role(hdu)[0]
    if role in NOISE_ROLES:
        return UNCERTAINTY_TYPES.get(uncertainty_type(hdu.header), role)
    return role


def _named_role(hdu):
    """Role of an HDU, and the keyword that says it."""
    for key in _NAMING:
        name = str(hdu.name if key == "EXTNAME" else hdu.header.get(key, "")).strip().upper()
        if name in _ROLES:
            return _ROLES[name], key
    return None, None


def uncertainty_type(header):
    """Kind of uncertainty that `astropy.nddata.CCDData` has written into a header, or None.

    One of `UNCERTAINTY_TYPES`, or the name of another class.
    """
    stated = str(header.get("UTYPE", "")).strip()
    known = {name.lower(): name for name in UNCERTAINTY_TYPES}
    if stated.lower() in known:
        return known[stated.lower()]
    return stated if stated.lower().endswith(("uncertainty", "variance")) else None


def roles_of(hdus):
    """What each HDU holds, as `role_of` says, or where no image is named as mask planes say.

    Image, mask and variance in this order, the mask with named bits (``MP_``), are how the pipelines of Rubin
    and HSC write them; programs that copy such files may lose the names.
    """
    roles = [role_of(hdu) for hdu in hdus]
    images = image_hdus(hdus)
    if any(roles[i] is not None for i in images) or len(images) != 3:
        return roles
    planes = [any(str(key).startswith("MP_") for key in hdus[i].header) for i in images]
    if planes == [False, True, False] and len({hdus[i].shape for i in images}) == 1:
        for i, role in zip(images, ("sci", "mask", "var"), strict=True):
            roles[i] = role
    return roles


def say_roles(hdus, index, path):
    """Tell what HDUs without a name of their own are taken for, beside the image at an index."""
    roles = roles_of(hdus)
    others = [_companions(hdus, index, role) for role in ("err", "var", "ivar", "mask", "psf")]
    used = sorted([index, *(found[0] for found in others if len(found) == 1)])
    keys = {_named_role(hdus[i])[1] for i in used} - {"EXTNAME"}
    if not keys or roles[index] is None:
        return
    what = ", ".join(f"{roles[i]} {i}" for i in used)
    if None in keys:
        warn(
            f"{path} names none of its HDUs; by the mask planes of one they are taken as {what}; sci, "
            "mask and var name others"
        )
    else:
        _log.info("HDUs by their %s: %s", " and ".join(sorted(keys)), what)


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
            self.path, self.hdu, self.other_file = Path(file).expanduser(), as_index(hdu), True
        else:
            self.hdu = as_index(choice)


def _looks_like_a_file(text):
    return "/" in text or re.search(r"\.(fits?|fz|psf|piff|asdf)(\.gz)?$", text, re.IGNORECASE) is not None


def as_index(hdu):
    """The index that a text such as ``"3"`` means; anything else as it is."""
    return int(hdu) if isinstance(hdu, str) and re.fullmatch(r"\d+", hdu) else hdu


def find_hdu(hdus, choice, path, what):
    """Index of the HDU of an index, a name, or ``"name,version"``; ``what`` is the option that named it.

    ``FileError`` if there is none; the message lists those there are.
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
    """Index of the HDU in the role of noise, mask or PSF for the image at an index, or None.

    Roles as of `role_of`; ``FileError`` if several would do.
    """
    found = _companions(hdus, index, role)
    if len(found) > 1:
        raise FileError(f"{path} has several HDUs for {role}: name one of {list_hdus(hdus)}")
    return found[0] if found else None


def _companions(hdus, index, role):
    """HDUs of a role that may belong to an image."""
    image = hdus[index]
    found = [i for i, one in enumerate(roles_of(hdus)) if i != index and one == role]
    for same in (lambda one: one.header.get("BAND"), lambda one: one.ver):
        if len(found) > 1:
            found = [i for i in found if same(hdus[i]) == same(image)] or found
    return found
