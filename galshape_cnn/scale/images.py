# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""Images of a run with the caller's replacements and noise estimates."""

import numpy as np

from galshape_cnn.errors import FileError

__all__ = ["has_large_image", "open_image", "replaced"]

_LARGE = 10**6  # pixels


def open_image(path, names=None, keywords=None):
    """Open an image or cube; pixels stay on disk, where the format allows it.

    ``names`` are the options of `galshape_cnn.observe.io.fits.read_image`, and: ``blank_noise``, to replace
    the noise by that of the blank pixels; ``trim_psf``, to make even-sized arrays of the PSF odd-sized. A
    ``psf`` or an ``error`` in the estimator's ``keywords`` replaces that of the file.
    """
    from galshape_cnn.observe.io.fits import read_image

    names, keywords = dict(names or {}), keywords or {}
    blank_noise, trim_psf = names.pop("blank_noise", False), names.pop("trim_psf", False)
    image = replaced(read_image(path, **names), keywords)
    if blank_noise:
        _measure_noise(image)
    if trim_psf and image.psf is not None:
        image.psf = _trimmed(image.psf)
    return image


def has_large_image(path):
    """Whether a file is FITS, as it is, with an image of a million pixels, as far as its headers say.

    Whoever reads the file says what is wrong with it.
    """
    from galshape_cnn.observe.io.fits_hdus import open_fits

    try:
        with open(path, "rb") as file:
            if file.read(6) != b"SIMPLE":  # to unpack it takes as long as to read it
                return False
        with open_fits(path) as hdus:
            return any(_pixels(one.header) > _LARGE for one in hdus)
    except (FileError, OSError):
        return False


def _pixels(header):
    """Pixels of a plain or compressed image, zero of anything else."""
    prefix = "Z" if header.get("ZIMAGE") else ""
    sides = [header.get(f"{prefix}NAXIS{k}", 0) for k in (1, 2)]
    is_image = header.get(f"{prefix}NAXIS") == 2 and (prefix or header.get("XTENSION", "IMAGE") == "IMAGE")
    return sides[0] * sides[1] if is_image else 0


def replaced(image, keywords):
    """An image, changed in place, without the PSF or noise that keywords of the estimator replace."""
    if keywords.get("psf") is not None:
        image.psf = None
    if keywords.get("error") is not None:
        image.uncertainty = None
    return image


def _measure_noise(image):
    """Replace the noise of an image by that of its blank pixels."""
    from astropy.nddata import StdDevUncertainty

    from galshape_cnn.observe.detect.sources import background_noise

    sigma = np.broadcast_to(background_noise(image), image.data.shape)
    image.uncertainty = StdDevUncertainty(sigma, copy=False)


def _trimmed(psf):
    """Even-sized arrays of the PSF made odd-sized."""
    from galshape_cnn.forward.psf.arrays import PSFArrays, trim_even

    if isinstance(psf, PSFArrays):
        return PSFArrays(trim_even(np.asarray(psf.array)), psf.oversampling)
    return trim_even(psf) if isinstance(psf, np.ndarray) else psf
