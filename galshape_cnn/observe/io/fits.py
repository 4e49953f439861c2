# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""FITS images with noise, mask, WCS and PSF.

Pixels stay on disk until stamps are cut from them: memory-mapped, or read in
parts where they are compressed or scaled.
"""

import glob
import warnings

from astropy.nddata import NDData
from astropy.wcs import WCS, FITSFixedWarning

from galshape_cnn.errors import FileError
from galshape_cnn.files import as_path
from galshape_cnn.observe.io.asdf_images import read_asdf_image
from galshape_cnn.observe.io.bitmask import bad_pixels
from galshape_cnn.observe.io.fits_hdus import (
    Selection,
    companion,
    find_hdu,
    image_hdus,
    list_hdus,
    open_fits,
    roles_of,
    say_roles,
)
from galshape_cnn.observe.io.hdu_pixels import image_pixels, named_pixels, pixels_of
from galshape_cnn.observe.io.headers import full_header
from galshape_cnn.observe.io.noise_hdus import read_uncertainty
from galshape_cnn.observe.io.photometry import linear_unit_of
from galshape_cnn.observe.io.psf.files import psf_of_hdu, read_psf, read_psfs
from galshape_cnn.wcs import celestial_part

__all__ = ["read_image"]


def read_image(
    path,
    *,
    sci=None,
    err=None,
    var=None,
    ivar=None,
    weight=None,
    mask=None,
    psf=None,
    band=None,
    bad_bits=None,
):
    """Read an image, or a cube of cutouts, with all that belongs to it.

    HDUs are found by their names (EXTNAME, else EXTTYPE or IMAGETYP): SCI,
    SCIENCE, IMAGE, DATA or the only image; ERR, ERROR, SIGMA, RMS; VAR, VARIANCE;
    IVAR, INVVAR, WEIGHT, WHT; MASK, DQ, FLAGS; PSF, PSF_DATA.  Of several, the one
    with the BAND and EXTVER of the image is taken.  UTYPE says what
    `astropy.nddata.CCDData` wrote into UNCERT.  Noise is in its own BUNIT, or in
    the unit of the image.  Asinh pixels (BOFFSET, BSOFTEN) are made linear.

    Parameters
    ----------
    path : str or Path
        FITS file; or ASDF, see `galshape_cnn.observe.io.asdf_images.read_asdf_image`.
    sci : int or str, optional
        HDU of the image: index, name or ``"name,version"``.
    err, var, ivar, weight : int, str or Path, optional
        HDU with 1 sigma, variance or inverse variance (``weight`` is the same
        as ``ivar``); in another file as ``"file.fits"`` or ``"file.fits[2]"``.  At
        most one of them; found in this order if none is named.
    mask : int, str or Path, optional
        HDU of the mask.
    psf : int, str or Path, optional
        HDU or file of the PSF, see `read_psf`; a pattern of files
        (``"psfs/*.fits"``) gives one PSF for each plane of a cube.
    band : str, optional
        BAND (or FILTER) of the image, to choose among several.
    bad_bits : int, str or sequence, optional
        Which bits of the mask mean bad, see `galshape_cnn.observe.io.bitmask.bad_pixels`.

    Returns
    -------
    image : astropy.nddata.NDData
        With ``uncertainty``, ``mask``, ``wcs``, ``psf`` (each None if there is
        none), ``unit`` (None if BUNIT is missing or unknown) and the header as
        ``meta``, with what only the primary header says.  Two-dimensional, or
        (N, ny, nx) for a cube.  Large images stay in the file until a part of them
        is used.

    Raises
    ------
    FileError
        If a file is missing, empty, truncated or not FITS, an HDU does not
        exist, it is not clear which one is meant, sizes differ, or units or
        pixels cannot be used.

    Examples
    --------
    >>> import tempfile
    >>> import numpy as np
    >>> from astropy.io import fits
    >>> from galshape_cnn import read_image
    >>> hdus = [fits.PrimaryHDU(), fits.ImageHDU(np.zeros((40, 50)), name="SCI")]
    >>> hdus.append(fits.ImageHDU(np.full((40, 50), 4.0), name="VAR"))
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     fits.HDUList(hdus).writeto(f"{folder}/image.fits")
    ...     image = read_image(f"{folder}/image.fits")
    >>> image.data.shape, type(image.uncertainty).__name__
    ((40, 50), 'VarianceUncertainty')
    """
    path = as_path(path).expanduser()
    noise = _only_noise(err=err, var=var, ivar=ivar, weight=weight)
    if path.suffix.lower() == ".asdf":
        return read_asdf_image(path, sci=sci, noise=noise, mask=mask, psf=psf, bad_bits=bad_bits)
    with open_fits(path) as hdus:
        index = _science_index(hdus, sci, band, path)
        say_roles(hdus, index, path)
        header, data = full_header(hdus, index), pixels_of(hdus[index], path, index)
        unit = linear_unit_of(header, path)
        uncertainty = read_uncertainty(hdus, index, noise, path, unit)
        bad = _read_mask(hdus, index, mask, bad_bits, path)
        model = _read_own_psf(hdus, index, psf, path)
        wcs = _celestial_wcs(hdus[index].header.copy(), hdus, path)
        for name, array in (("noise", getattr(uncertainty, "array", None)), ("mask", bad)):
            if array is not None and array.shape != data.shape:
                raise FileError(f"{path}: {name} has shape {array.shape}, the image {data.shape}")
    return NDData(data, uncertainty=uncertainty, mask=bad, wcs=wcs, psf=model, unit=unit, meta=header)


def _only_noise(**choices):
    """(kind, choice) of the one noise option given, or None."""
    given = {name: choice for name, choice in choices.items() if choice is not None}
    if len(given) > 1:
        raise FileError(f"{' and '.join(given)} are given; name one HDU or file with the noise")
    for name, choice in given.items():
        return ("ivar" if name == "weight" else name), choice
    return None


def _science_index(hdus, sci, band, path):
    """HDU of the image: named, or the only one it can be."""
    images = image_hdus(hdus)
    if sci is not None:
        index = find_hdu(hdus, Selection(sci, path).hdu, path, "sci")
        if index not in images:
            raise FileError(f"{path}: HDU {sci!r} holds no image; there are {list_hdus(hdus)}")
        return index
    roles = roles_of(hdus)
    named = [i for i in images if roles[i] == "sci"]
    found = named or [i for i in images if roles[i] is None]
    if band is not None:
        found = _of_band(hdus, found, band, path)
    if not named and len(found) > 1 and found[0] == 0:
        found = [0]
    if len(found) != 1:
        problem = "several images" if found else "no image"
        how = "sci= or band=" if any("BAND" in hdus[i].header for i in found) else "sci="
        held = list_hdus(hdus)
        raise FileError(f"{path} has {problem}; say which HDU is meant with {how}. It holds {held}")
    return found[0]


def _of_band(hdus, found, band, path):
    """Those of some HDUs that belong to a band."""

    headers = {i: full_header(hdus, i) for i in found}
    bands = {i: {str(headers[i].get(key, "")).strip() for key in ("BAND", "FILTER")} for i in found}
    of_band = [i for i in found if band in bands[i]]
    if not of_band:
        known = sorted({one for names in bands.values() for one in names if one})
        raise FileError(
            f"{path} has no image of band {band!r}; it has {', '.join(known) or 'no BAND keyword'}"
        )
    return of_band


def _read_mask(hdus, index, choice, bad_bits, path):
    """Mask from the option, or from an HDU found by its name."""
    if choice is not None:
        pixels, header = named_pixels(hdus, index, choice, path, "mask")
    else:
        other = companion(hdus, index, "mask", path)
        if other is None:
            if bad_bits is not None:
                raise FileError(f"{path} has no mask for bad_bits (--bad-bits): name it with mask (--mask)")
            return None
        pixels, header = image_pixels(hdus, other, path)
    telescope = {key: hdus[0].header[key] for key in ("TELESCOP",) if key in hdus[0].header}
    return bad_pixels(pixels, telescope | dict(header), bad_bits, f"mask of {path}")


def _read_own_psf(hdus, index, choice, path):
    """PSF from the option, or from an HDU found by its name."""
    if choice is not None:
        selection = Selection(choice, path, {hdu.name.upper() for hdu in hdus})
        if selection.other_file:
            read = read_psfs if glob.has_magic(str(selection.path)) else read_psf
            return read(selection.path, selection.hdu, band=hdus[index].header.get("BAND"))
        return psf_of_hdu(hdus, find_hdu(hdus, selection.hdu, path, "psf"), path)
    other = companion(hdus, index, "psf", path)
    return None if other is None else psf_of_hdu(hdus, other, path)


def _celestial_wcs(header, hdus, path):
    """Two-dimensional celestial WCS of a header, or None."""
    if "CTYPE1" not in header:
        return None
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FITSFixedWarning)
            wcs = WCS(header, fobj=hdus)
            return celestial_part(wcs) if wcs.has_celestial else None
    except Exception as error:  # astropy and wcslib raise many kinds
        raise FileError(f"{path} has a WCS that cannot be read: {error}") from error
