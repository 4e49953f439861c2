# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""Pixels of an HDU, in this file or in another one."""

import numpy as np
from astropy.io import fits

from galshape_cnn.errors import FileError
from galshape_cnn.observe.io.fits_hdus import (
    NOISE_ROLES,
    Selection,
    find_hdu,
    image_hdus,
    list_hdus,
    open_fits,
    roles_of,
)
from galshape_cnn.observe.io.lazy import LARGE, AsinhPixels, LazyPixels

__all__ = ["image_pixels", "named_pixels", "pixels_of"]


def pixels_of(hdu, path, index):
    """Pixels (ny, nx) or (N, ny, nx) of an image or a cube, with axes of length one removed.

    Linear, also where the file holds inverse hyperbolic sines; ``FileError`` if there are more axes, or the
    scaling cannot be undone.
    """
    if _must_be_lazy(hdu):
        data = LazyPixels(path, index, hdu.shape, hdu.section[(slice(0, 1),) * len(hdu.shape)].dtype)
    else:
        data = hdu.data
        while data.ndim > 2 and data.shape[0] == 1:
            data = data[0]
    if data.ndim not in (2, 3):
        raise FileError(f"{path}: HDU {index} has shape {hdu.shape}; an image or a cube of cutouts is needed")
    return _linear(data, hdu.header, f"{path}: HDU {index}")


def _linear(data, header, what):
    """Undo asinh magnitudes, as Pan-STARRS stores its stacks."""
    keys = [key for key in ("BOFFSET", "BSOFTEN") if key in header]
    if not keys:
        return data
    offset, softening = (header.get(key) for key in ("BOFFSET", "BSOFTEN"))
    known = all(isinstance(one, (int, float)) and np.isfinite(one) for one in (offset, softening))
    if not known or softening <= 0:
        raise FileError(
            f"{what} holds asinh pixels, BOFFSET = {offset}, BSOFTEN = {softening}; two numbers, the second "
            "above 0, are needed to make them linear"
        )
    linear = AsinhPixels(data, float(offset), float(softening))
    return linear if linear.size * 8 > LARGE else np.asarray(linear)


def _must_be_lazy(hdu):
    """Whether astropy would read all of a large image, and not map it."""
    scaled = any(key in hdu.header for key in ("BSCALE", "BZERO", "BLANK"))
    bytes_per_pixel = 8 if scaled else abs(hdu.header.get("ZBITPIX", hdu.header.get("BITPIX", 32))) // 8
    large = np.prod(hdu.shape, dtype=float) * bytes_per_pixel > LARGE
    return large and (scaled or isinstance(hdu, fits.CompImageHDU))


def named_pixels(hdus, index, choice, path, role):
    """Pixels and header, as `image_pixels`, of an HDU that was named here or in another file.

    ``choice`` is one of `galshape_cnn.observe.io.fits_hdus.Selection`, ``index`` the image it belongs to,
    ``role`` what is named.
    """
    names = {hdu.name.upper() for hdu in hdus}
    selection = Selection(choice, path, names)
    if not selection.other_file:
        other = find_hdu(hdus, selection.hdu, path, role)
        return image_pixels(hdus, other, path)
    with open_fits(selection.path) as others:
        if selection.hdu is not None:
            other = find_hdu(others, selection.hdu, selection.path, role)
        else:
            other = _matching_image(others, hdus[index], role, selection.path)
        return image_pixels(others, other, selection.path)


def image_pixels(hdus, index, path):
    """Pixels, as `pixels_of`, and header of an HDU that must be an image, else ``FileError``."""
    if index not in image_hdus(hdus):
        raise FileError(f"{path}: HDU {index} holds no image; there are {list_hdus(hdus)}")
    return pixels_of(hdus[index], path, index), hdus[index].header


def _matching_image(hdus, image, role, path):
    """The HDU of another file that belongs to an image, by role, name or band."""
    images, roles = image_hdus(hdus), roles_of(hdus)
    other = next((i for i in images if roles[i] in NOISE_ROLES and roles[i] != role), None)
    if role in NOISE_ROLES and role not in roles and other is not None and len(images) > 1:
        kind = roles[other]
        raise FileError(f"{path} has no {role} but {kind} in HDU {other}; name it with {kind} (--{kind})")
    tests = (
        lambda i: roles[i] == role,
        lambda i: bool(image.name) and hdus[i].name == image.name and hdus[i].ver == image.ver,
        lambda i: "BAND" in hdus[i].header and hdus[i].header["BAND"] == image.header.get("BAND"),
    )
    for test in tests:
        if len(images) > 1:
            images = [i for i in images if test(i)] or images
    if len(images) != 1:
        raise FileError(
            f"{path} has {len(images)} images that may be the {role}; say which as {path.name}[INDEX]. "
            f"It holds {list_hdus(hdus)}"
        )
    return images[0]
