# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""FITS in: images with noise, mask, WCS and PSF; PSF files; lists of positions.

Pixels stay on disk (memory-mapped) until stamps are cut from them.
"""

import glob
import warnings
from pathlib import Path

import astropy.units as u
import numpy as np
from astropy.nddata import InverseVariance, NDData, StdDevUncertainty, VarianceUncertainty
from astropy.table import Table
from astropy.wcs import WCS, FITSFixedWarning

from galshape_cnn.errors import FileError
from galshape_cnn.observe.hdus import (
    Selection,
    companion,
    find_hdu,
    image_hdus,
    list_hdus,
    open_fits,
    role_of,
)
from galshape_cnn.observe.psfex import psfex_from_table

__all__ = ["read_cutouts", "read_image", "read_positions", "read_psf"]

_UNCERTAINTIES = {"err": StdDevUncertainty, "var": VarianceUncertainty, "ivar": InverseVariance}


def read_image(path, *, sci=None, err=None, var=None, ivar=None, weight=None, mask=None, psf=None):
    """Read an image, or a cube of cutouts, with all that belongs to it.

    HDUs are found by their names (EXTNAME, else IMAGETYP): SCI, SCIENCE,
    IMAGE, DATA or the only image; ERR, ERROR, SIGMA, RMS; VAR, VARIANCE; IVAR,
    INVVAR, WEIGHT, WHT; MASK, DQ, FLAGS; PSF, PSF_DATA.  Of several, the one
    with the BAND and EXTVER of the image is taken.

    Parameters
    ----------
    path : str or Path
        FITS file.
    sci : int or str, optional
        HDU of the image: index, name or ``"name,version"``.
    err, var, ivar, weight : int, str or Path, optional
        HDU with 1 sigma, variance or inverse variance (``weight`` is the same
        as ``ivar``); in another file as ``"file.fits"`` or ``"file.fits[2]"``.
        At most one of them.
    mask : int, str or Path, optional
        HDU of the mask; values other than zero are bad.  Of a mask with named
        planes (``MP_`` keywords, as the Rubin and HSC pipelines write) only planes
        that mean bad pixels are used.
    psf : int, str or Path, optional
        HDU or file of the PSF, see `read_psf`.

    Returns
    -------
    image : astropy.nddata.NDData
        With ``uncertainty``, ``mask``, ``wcs``, ``psf`` (each None if there is
        none), ``unit`` (None if BUNIT is missing or unknown) and the header as
        ``meta``.  Two-dimensional, or (N, ny, nx) for a cube.

    Raises
    ------
    FileError
        If a file is missing, empty, truncated or not FITS, an HDU does not
        exist, it is not clear which one is meant, or sizes differ.
    """
    path = Path(path).expanduser()
    noise = _only_noise(err=err, var=var, ivar=ivar, weight=weight)
    with open_fits(path) as hdus:
        index = _science_index(hdus, sci, path)
        header, data = hdus[index].header.copy(), _pixels(hdus[index], path, index)
        uncertainty = _read_uncertainty(hdus, index, noise, path)
        bad = _read_mask(hdus, index, mask, path)
        model = _read_own_psf(hdus, index, psf, path)
        wcs = _celestial_wcs(header, hdus, path)
        for name, array in (("noise", getattr(uncertainty, "array", None)), ("mask", bad)):
            if array is not None and array.shape != data.shape:
                raise FileError(f"{path}: {name} has shape {array.shape}, the image {data.shape}")
    unit = _unit_of(header)
    return NDData(data, uncertainty=uncertainty, mask=bad, wcs=wcs, psf=model, unit=unit, meta=header)


def read_cutouts(paths, **names):
    """Read one-galaxy files.

    Parameters
    ----------
    paths : str, Path, or sequence of them
        Files, or a pattern such as ``"cutouts/*.fits"`` (taken in sorted
        order).
    **names
        As for `read_image`.

    Returns
    -------
    cutouts : list of astropy.nddata.NDData

    Raises
    ------
    FileError
        As `read_image`, or if no file matches.
    """
    if isinstance(paths, (str, Path)):
        found = [str(paths)] if Path(paths).expanduser().exists() else sorted(glob.glob(str(paths)))
        if not found:
            raise FileError(f"{paths} does not exist and matches no file")
        paths = found
    return [read_image(path, **names) for path in paths]


def _only_noise(**choices):
    """(kind, choice) of the one noise option given, or None."""
    given = {name: choice for name, choice in choices.items() if choice is not None}
    if len(given) > 1:
        raise FileError(f"{' and '.join(given)} are given; name one HDU or file with the noise")
    for name, choice in given.items():
        return ("ivar" if name == "weight" else name), choice
    return None


def _science_index(hdus, sci, path):
    """HDU of the image: named, or the only one it can be."""
    images = image_hdus(hdus)
    if sci is not None:
        index = find_hdu(hdus, Selection(sci, path).hdu, path, "sci")
        if index not in images:
            raise FileError(f"{path}: HDU {sci!r} holds no image; there are {list_hdus(hdus)}")
        return index
    named = [i for i in images if role_of(hdus[i]) == "sci"]
    found = named or [i for i in images if role_of(hdus[i]) is None]
    if not named and len(found) > 1 and found[0] == 0:
        found = [0]
    if len(found) != 1:
        problem = "several images" if found else "no image"
        raise FileError(f"{path} has {problem}; say which HDU is meant with sci=. It holds {list_hdus(hdus)}")
    return found[0]


def _pixels(hdu, path, index):
    """Pixels of an image or a cube, with axes of length one removed."""
    data = hdu.data
    while data.ndim > 2 and data.shape[0] == 1:
        data = data[0]
    if data.ndim not in (2, 3):
        raise FileError(f"{path}: HDU {index} has shape {hdu.shape}; an image or a cube of cutouts is needed")
    return data


def _named_pixels(hdus, index, choice, path, role):
    """Pixels and header of an HDU that was named, here or in another file."""
    names = {hdu.name.upper() for hdu in hdus}
    selection = Selection(choice, path, names)
    if not selection.other_file:
        other = find_hdu(hdus, selection.hdu, path, role)
        return _image_pixels(hdus, other, path)
    with open_fits(selection.path) as others:
        if selection.hdu is not None:
            other = find_hdu(others, selection.hdu, selection.path, role)
        else:
            other = _matching_image(others, hdus[index], role, selection.path)
        return _image_pixels(others, other, selection.path)


def _image_pixels(hdus, index, path):
    """Pixels and header of an HDU that must be an image."""
    if index not in image_hdus(hdus):
        raise FileError(f"{path}: HDU {index} holds no image; there are {list_hdus(hdus)}")
    return _pixels(hdus[index], path, index), hdus[index].header


def _matching_image(hdus, image, role, path):
    """The HDU of another file that belongs to an image, by role, name or band."""
    images = image_hdus(hdus)
    tests = (
        lambda hdu: role_of(hdu) == role,
        lambda hdu: bool(image.name) and hdu.name == image.name and hdu.ver == image.ver,
        lambda hdu: "BAND" in hdu.header and hdu.header["BAND"] == image.header.get("BAND"),
    )
    for test in tests:
        if len(images) > 1:
            images = [i for i in images if test(hdus[i])] or images
    if len(images) != 1:
        raise FileError(
            f"{path} has {len(images)} images that may be the {role}; say which as {path.name}[INDEX]. "
            f"It holds {list_hdus(hdus)}"
        )
    return images[0]


def _read_uncertainty(hdus, index, noise, path):
    """Uncertainty from the option, or from an HDU found by its name."""
    if noise is not None:
        kind, choice = noise
        pixels, _ = _named_pixels(hdus, index, choice, path, kind)
        return _UNCERTAINTIES[kind](pixels, copy=False)
    for kind in ("ivar", "var", "err"):
        other = companion(hdus, index, kind, path)
        if other is not None:
            return _UNCERTAINTIES[kind](_image_pixels(hdus, other, path)[0], copy=False)
    return None


def _read_mask(hdus, index, choice, path):
    """Mask from the option, or from an HDU found by its name."""
    if choice is not None:
        pixels, header = _named_pixels(hdus, index, choice, path, "mask")
    else:
        other = companion(hdus, index, "mask", path)
        if other is None:
            return None
        pixels, header = _image_pixels(hdus, other, path)
    planes = {key[3:]: int(value) for key, value in header.items() if key.startswith("MP_")}
    if planes:
        harmless = ("DETECT", "NOT_DEBLENDED", "BRIGHT_OBJECT", "CLIPPED", "INEXACT_PSF", "SENSOR_EDGE")
        bits = sum(1 << bit for name, bit in planes.items() if not name.startswith(harmless))
        return (pixels & bits) != 0
    return pixels if pixels.dtype.kind in "iub" else pixels != 0


def _read_own_psf(hdus, index, choice, path):
    """PSF from the option, or from an HDU found by its name."""
    if choice is not None:
        selection = Selection(choice, path, {hdu.name.upper() for hdu in hdus})
        if selection.other_file:
            return read_psf(selection.path, selection.hdu, band=hdus[index].header.get("BAND"))
        return _psf_of(hdus, find_hdu(hdus, selection.hdu, path, "psf"), path)
    other = companion(hdus, index, "psf", path)
    return None if other is None else _psf_of(hdus, other, path)


def _psf_of(hdus, index, path):
    """PSF in an HDU: an array, or a PsfEx model."""
    hdu = hdus[index]
    if (
        not hdu.is_image
        and hdu.data is not None
        and "PSF_MASK" in (name.upper() for name in hdu.columns.names)
    ):
        return psfex_from_table(hdu.header, hdu.data, str(path))
    return np.array(_image_pixels(hdus, index, path)[0], float)


def read_psf(path, ext=None, *, band=None):
    """Read a PSF image, a cube of PSFs, or a PsfEx model.

    Parameters
    ----------
    path : str or Path
        FITS file.
    ext : int or str, optional
        HDU; needed if there are several.
    band : str, optional
        BAND of the image, to choose among several HDUs that have one.

    Returns
    -------
    psf : (py, px) or (N, py, px) ndarray, or PsfExModel
        A model is called with 0-based pixel positions, ``psf(x, y)``.

    Raises
    ------
    FileError
        If the file cannot be read, holds no PSF, or several.
    """
    path = Path(path).expanduser()
    with open_fits(path) as hdus:
        if ext is not None:
            return _psf_of(hdus, find_hdu(hdus, _ext_key(ext), path, "psf"), path)
        tables = [i for i, hdu in enumerate(hdus) if not hdu.is_image
                  and "PSF_MASK" in (name.upper() for name in hdu.columns.names)]  # fmt: skip
        found = tables or [i for i in image_hdus(hdus) if role_of(hdus[i]) == "psf"] or image_hdus(hdus)
        if len(found) > 1 and band is not None:
            found = [i for i in found if hdus[i].header.get("BAND") == band] or found
        if len(found) != 1:
            raise FileError(
                f"{path} has {len(found)} HDUs that may be the PSF; name one of {list_hdus(hdus)}"
            )
        return _psf_of(hdus, found[0], path)


def _ext_key(ext):
    """Indices may come as text from a command line."""
    return int(ext) if isinstance(ext, str) and ext.isdigit() else ext


def _celestial_wcs(header, hdus, path):
    """Two-dimensional celestial WCS of a header, or None."""
    if "CTYPE1" not in header:
        return None
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FITSFixedWarning)
            wcs = WCS(header, fobj=hdus)
            if not wcs.has_celestial:
                return None
            return wcs if wcs.naxis == 2 else wcs.celestial
    except Exception as error:  # astropy and wcslib raise many kinds
        raise FileError(f"{path} has a WCS that cannot be read: {error}") from error


def _unit_of(header):
    """Unit in BUNIT; none when it is missing, empty, or not a unit astropy knows."""
    text = str(header.get("BUNIT", "")).strip()
    for spelling in (
        text,
        text.lower(),
        text.lower().replace("electrons", "electron").replace("counts", "count"),
    ):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            try:
                unit = u.Unit(spelling)
            except (TypeError, ValueError):
                continue
        return None if unit == u.dimensionless_unscaled else unit
    return None


def read_positions(path):
    """Read a list of positions from any table astropy reads.

    Parameters
    ----------
    path : str or Path
        FITS (also SExtractor's FITS_LDAC), ECSV, CSV, VOTable, Parquet or text.

    Returns
    -------
    table : astropy.table.Table

    Raises
    ------
    FileError
        If the file is missing or is no table.
    """
    path = Path(path).expanduser()
    if not path.is_file():
        raise FileError(f"{path} does not exist")
    if path.stat().st_size == 0:
        raise FileError(f"{path} is empty (0 bytes)")
    problems = []
    for options in _table_options(path):
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                table = Table.read(path, **options)
        except Exception as error:  # each format raises its own kinds
            problems.append(str(error).strip().splitlines()[0] if str(error).strip() else repr(error))
            continue
        if len(table.colnames) >= 2:
            return table
        problems.append("fewer than two columns")
    raise FileError(f"{path} cannot be read as a table of positions: {problems[0]}")


def _table_options(path):
    """Ways to read a table, the likeliest first."""
    suffix = path.suffix.lower()
    if suffix in (".fits", ".fit", ".fz", ".gz", ".ldac", ".cat"):
        yield {"format": "fits", "hdu": "LDAC_OBJECTS"}
    yield {}
    if suffix not in (".fits", ".fit", ".fz", ".parquet", ".asdf"):
        yield {"format": "ascii"}
