# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""`Exposure`: one of several images of the same galaxies."""

from dataclasses import dataclass

import numpy as np

from galshape_cnn.errors import InputError

__all__ = ["Exposure", "are_exposures"]


@dataclass(frozen=True, eq=False)
class Exposure:
    """One image of a field, or one cutout of each galaxy, with what belongs to it.

    Parameters
    ----------
    data : NDData, (ny, nx) or (N, ny, nx) array_like, or sequence of N
        One image; or N cutouts: then cutout i of every exposure shows galaxy i.  Pixels hold flux, not
        surface brightness.
    psf, error, mask, wcs : optional
        As for `galshape_cnn.ShapeEstimator`.
    band : str, optional
        Name of the filter.  Exposures of one band share the flux.
    zeropoint : float, optional
        Magnitude of a flux of one.  Exposures of one band with different zero points are brought to
        that of the first.
    gain : float, optional
        Electrons per unit of flux, > 0, when the noise map lacks the galaxy's own photon noise.
    noise_correlation, noise_scale : optional
        As for `galshape_cnn.ShapeEstimator`: noise of neighbouring pixels that is not independent, and a
        factor by which the noise map is too small.  Without them those of the estimator's call hold.
    wavelength : float, optional
        Of the band, > 0, in any unit that all exposures share.
    name : str, optional
        For messages and for the catalogue's ``exposure_table``; by default band and number.

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

    def __post_init__(self):
        for key in ("band", "name"):
            value = getattr(self, key)
            if not (isinstance(value, str) or (key == "name" and value is None)):
                raise InputError(f"{key}={value!r} of an Exposure; allowed: a text")
        for key, positive in (("zeropoint", False), ("gain", True), ("wavelength", True)):
            value = getattr(self, key)
            if value is None:
                continue
            if not (np.ndim(value) == 0 and np.isfinite(value) and (value > 0 or not positive)):
                wanted = "a positive number" if positive else "a finite number"
                raise InputError(f"{key}={value!r} of an Exposure of band {self.band!r}; allowed: {wanted}")

    def __repr__(self):
        known = [f"{key}={getattr(self, key)!r}" for key in ("name", "band", "zeropoint")
                 if getattr(self, key) not in (None, "")]  # fmt: skip
        return f"<Exposure: {', '.join(known)}>"


def are_exposures(data):
    """Whether data is a sequence of `Exposure`.

    Parameters
    ----------
    data : object

    Returns
    -------
    yes : bool

    Raises
    ------
    InputError
        If only some of its entries are, or it is an `Exposure` by itself.
    """
    if isinstance(data, Exposure):
        raise InputError("data is one Exposure; a list of them is needed")
    if not isinstance(data, (list, tuple)) or not any(isinstance(one, Exposure) for one in data):
        return False
    for number, one in enumerate(data):
        if not isinstance(one, Exposure):
            raise InputError(f"data[{number}] is a {type(one).__name__}; others are Exposures, so must it be")
    return True
