# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""`Exposure`: one of several images of the same galaxies."""

import os
from copy import copy
from dataclasses import dataclass, field, replace
from functools import partial

import astropy.units as u
import numpy as np

from galshape_cnn.errors import InputError
from galshape_cnn.observe.noise.ccd import checked_gain
from galshape_cnn.quantities import plain_magnitude, plain_number

__all__ = ["Exposure", "ImageFile", "are_exposures", "axes_of", "opened"]


#: How the numbers of an exposure are read.
_NUMBERS = {
    "zeropoint": plain_magnitude,
    "gain": lambda value, name: checked_gain(value, None),
    "wavelength": partial(plain_number, allowed="a positive number, or a length", unit=u.nm, above=0),
}


@dataclass(frozen=True, eq=False)
class ImageFile:
    """An image or a cube in a file, which each process opens for itself: small to pickle.

    Attributes
    ----------
    path : str
        The file.
    names : dict
        Options of `galshape_cnn.observe.io.fits.read_image`.
    """

    path: str
    names: dict = field(default_factory=dict)

    def open(self):
        """`~astropy.nddata.NDData`, its pixels on disk; an image is opened once, a cube each time."""
        from galshape_cnn.observe.io.fits import read_image

        if "_image" not in self.__dict__:
            image = read_image(self.path, **self.names)
            if np.ndim(image.data) != 2:  # whatever was read of a cube stays in memory until it is closed
                return image
            object.__setattr__(self, "_image", image)
        return self._image

    def __getstate__(self):
        return {"path": self.path, "names": self.names}


@dataclass(frozen=True, eq=False)
class Exposure:
    """One image of a field, or one cutout of each galaxy, with what belongs to it.

    Parameters
    ----------
    data : NDData, (ny, nx) or (N, ny, nx) array_like, sequence of N, or path-like
        One image; or N cutouts: then cutout i of every exposure shows galaxy i.  Pixels hold flux, not
        surface brightness.  A file is read as by `~galshape_cnn.read_image`, once it is needed; ``psf`` and
        ``error`` replace its own.
    psf, error, mask, wcs : optional
        As for `galshape_cnn.ShapeEstimator`.
    band : str, optional
        Name of the filter.  Exposures of one band share the flux.
    zeropoint : float or Quantity, optional
        Magnitude of a flux of one.  Exposures of one band with different zero points are brought to
        that of the first.
    gain : float or Quantity, optional
        Electrons per unit of flux, > 0, when the noise map lacks the galaxy's own photon noise.
    noise_correlation, noise_scale : optional
        As for `galshape_cnn.ShapeEstimator`: noise of neighbouring pixels that is not independent, and a
        factor by which the noise map is too small.  Without them those of the estimator's call hold.
    wavelength : float or Quantity, optional
        Of the band, > 0: a number in any unit that all exposures share, or a Quantity, which becomes nm.
    name : str, optional
        For messages and for the catalogue's ``exposure_table``; by default band and number.
    psf_error : mapping or (K, py, px) array_like, optional
        How well the PSF is known, as for `~galshape_cnn.ShapeEstimator`; that of the call otherwise.

    Raises
    ------
    InputError
        If band or name is no text, or a number is not finite or not positive where it must be.

    Examples
    --------
    >>> import numpy as np
    >>> from galshape_cnn import Exposure
    >>> Exposure(np.zeros((100, 120)), error=1.0, band="r", zeropoint=27.0)
    <Exposure: band='r', zeropoint=27.0>
    """

    data: object
    psf: object = None
    error: object = None
    mask: object = None
    wcs: object = None
    band: str = ""
    zeropoint: float | None = None
    gain: float | None = None
    noise_correlation: object = None
    noise_scale: object = None
    wavelength: float | None = None
    name: str | None = None
    psf_error: object = None

    def __post_init__(self):
        if isinstance(self.data, (str, os.PathLike)):
            object.__setattr__(self, "data", ImageFile(os.fspath(self.data)))
        for key in ("band", "name"):
            value = getattr(self, key)
            if not (isinstance(value, str) or (key == "name" and value is None)):
                raise InputError(f"{key}={value!r} of an Exposure; allowed: a text")
        for key, check in _NUMBERS.items():
            value = getattr(self, key)
            if value is None or (key == "gain" and hasattr(value, "unit")):
                continue  # the unit of a gain is compared with that of the pixels when they are read
            try:
                object.__setattr__(self, key, check(value, key))
            except InputError as error:
                raise InputError(f"Exposure of band {self.band!r}: {error}") from error

    def __repr__(self):
        known = [f"{key}={getattr(self, key)!r}" for key in ("name", "band", "zeropoint")
                 if getattr(self, key) not in (None, "")]  # fmt: skip
        return f"<Exposure: {', '.join(known)}>"


def are_exposures(data):
    """Whether data is a sequence of `Exposure`; ``InputError`` if only partly, or one by itself."""
    if isinstance(data, Exposure):
        raise InputError("data is one Exposure; a list of them is needed")
    if not isinstance(data, (list, tuple)) or not any(isinstance(one, Exposure) for one in data):
        return False
    for number, one in enumerate(data):
        if not isinstance(one, Exposure):
            raise InputError(f"data[{number}] is a {type(one).__name__}; others are Exposures, so must it be")
    return True


def axes_of(data):
    """Number of axes of an image (2), or of a cube or a list of cutouts (3)."""
    if isinstance(data, (list, tuple)):
        return 1 + (axes_of(data[0]) if len(data) else 0)
    return np.ndim(data.data if hasattr(data, "uncertainty") else data)


def opened(exposure):
    """An exposure with the image of its file, if it has one; else ``FileError`` if that cannot be read.

    A PSF and an error of its own replace those of the file.
    """
    if not isinstance(exposure.data, ImageFile):
        return exposure
    image = copy(exposure.data.open())
    if exposure.psf is not None:
        image.psf = None
    if exposure.error is not None:
        image.uncertainty = None
    return replace(exposure, data=image)
