# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""PSF files of every kind that surveys and tools write."""

import glob
from pathlib import Path

import numpy as np

from galshape_cnn.errors import FileError, PSFError
from galshape_cnn.forward.psf.arrays import PSFArrays, check_oversampling
from galshape_cnn.observe.io.fits_hdus import as_index, find_hdu, image_hdus, list_hdus, open_fits, role_of
from galshape_cnn.observe.io.headers import full_header
from galshape_cnn.observe.io.lazy import UnitSum
from galshape_cnn.observe.io.pairing import varying_parts
from galshape_cnn.observe.io.psf.piff import PiffModel, is_piff
from galshape_cnn.observe.io.psf.psfex import psfex_from_table

__all__ = ["psf_of_hdu", "read_psf", "read_psfs"]

#: Names of the HDUs of a file of STPSF; the first includes the pixel and the distortion.
_STPSF_NAMES = ("DET_DIST", "DET_SAMP", "OVERDIST", "OVERSAMP")
_PSF_COLUMNS = ("PSF", "PSF_IMAGE", "PSF_STAMP", "PSFIMAGE")


def read_psf(path, ext=None, *, band=None):
    """Read a PSF, or a model of a PSF that varies.

    Understood are FITS images and cubes (with OVERSAMP in the header, samples
    per pixel), tables with a column ``psf`` of images, PsfEx models, grids of
    STScI and STPSF (`photutils.psf.GriddedPSFModel`), and Piff models.

    Parameters
    ----------
    path : str or Path
        File.
    ext : int or str, optional
        HDU; needed if there are several.  Chip, for Piff.
    band : str, optional
        BAND of the image, to choose among several HDUs that have one.

    Returns
    -------
    psf : (py, px) or (N, py, px) ndarray, PSFArrays, or a model
        A model is called with 0-based pixel positions, ``psf(x, y)``, or is a
        photutils model.

    Raises
    ------
    FileError
        If the file cannot be read, holds no PSF, or several.
    """
    path = Path(path).expanduser()
    with open_fits(path) as hdus:
        if is_piff(hdus):
            return PiffModel(str(path), as_index(ext))
        if _is_grid(hdus[0].header):
            return _read_grid(hdus, path)
        if ext is not None:
            return psf_of_hdu(hdus, find_hdu(hdus, as_index(ext), path, "psf"), path)
        found = _candidates(hdus)
        if len(found) > 1 and band is not None:
            found = [i for i in found if full_header(hdus, i).get("BAND") == band] or found
        if len(found) != 1:
            raise FileError(
                f"{path} has {len(found)} HDUs that may be the PSF; name one of {list_hdus(hdus)}"
            )
        return psf_of_hdu(hdus, found[0], path)


def read_psfs(paths, ext=None, *, band=None):
    """Read one PSF from each of several files, one for each galaxy; as `read_psf`.

    The pattern, such as ``"psfs/*.fits"``, is taken in sorted order, which must also be that of numbers in
    the names. ``FileError`` also if no file matches, or the order is not clear.
    """
    found = sorted(glob.glob(str(Path(paths).expanduser())))
    if not found:
        raise FileError(f"{paths} matches no file")
    numbers = [int(part) for part in varying_parts(found) if part.isdigit()]
    if len(numbers) == len(found) and numbers != sorted(numbers):
        raise FileError(
            f"{paths} has files whose numbers are not in the order of their names ({Path(found[0]).name} is "
            "the first); number them with leading zeros"
        )
    return [read_psf(path, ext, band=band) for path in found]


def _candidates(hdus):
    """HDUs that may hold the PSF, if it is not named."""
    tables = [i for i, hdu in enumerate(hdus) if _psf_column(hdu) is not None]
    named = [i for i in image_hdus(hdus) if role_of(hdus[i]) == "psf"]
    stpsf = [i for name in _STPSF_NAMES for i in image_hdus(hdus) if hdus[i].name == name]
    return tables or named or stpsf[:1] or image_hdus(hdus)


def _psf_column(hdu):
    """Name of the column of a table that holds a PSF, or None."""
    if hdu.is_image or hdu.data is None:
        return None
    names = {name.upper(): name for name in hdu.columns.names}
    return next((names[one] for one in ("PSF_MASK", *_PSF_COLUMNS) if one in names), None)


def psf_of_hdu(hdus, index, path):
    """PSF in an HDU: an array, ``PSFArrays`` or a ``PsfExModel``; ``FileError`` if it holds none.

    A cube stays in its file, where that is not compressed or scaled.
    """
    hdu, header = hdus[index], full_header(hdus, index)
    column = _psf_column(hdu)
    if column is not None and column.upper() == "PSF_MASK":
        return psfex_from_table(hdu.header, hdu.data, str(path))
    if column is not None:
        return _oversampled(_column_images(hdu, column, path), header, path)
    if index not in image_hdus(hdus):
        raise FileError(f"{path}: HDU {index} holds no PSF; there are {list_hdus(hdus)}")
    array = hdu.data if hdu.data.ndim < 4 else hdu.data.reshape(hdu.data.shape[-3:])
    return _oversampled(array if array.ndim == 3 else np.array(array, float), header, path)


def _column_images(hdu, column, path):
    """(N, py, px) of a table's column."""
    array = np.asarray(hdu.data[column])
    if array.ndim != 3 or array.dtype.kind not in "fiu":
        raise FileError(
            f"{path}: column {column} has shape {array.shape}; an image (py, px) in each row is needed"
        )
    return array.astype(float)


def _oversampled(array, header, path):
    """Array, with its oversampling where the header states one."""
    factor = header.get("OVERSAMP", 1)
    try:
        factor = check_oversampling(factor, "OVERSAMP")
    except PSFError as error:
        raise FileError(f"{path}: {error}") from error
    if factor == 1 or array.ndim not in (2, 3):
        return array
    if array.ndim == 3:
        return PSFArrays(UnitSum(array), factor)
    return PSFArrays(UnitSum(array[None])[:], factor)


def _is_grid(header):
    """Whether a file holds a grid of PSFs over a detector."""
    return "NXPSFS" in header or "DET_YX0" in header


def _read_grid(hdus, path):
    """Grid of PSFs, by photutils."""
    from photutils.psf import GriddedPSFModel

    kind = "stdpsf" if "NXPSFS" in hdus[0].header else "webbpsf"
    try:
        return GriddedPSFModel.read(str(path), format=kind)
    except Exception as error:  # of a file that is not what its header says
        raise FileError(f"{path} cannot be read as a grid of PSFs ({kind}): {error}") from error
