# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""PSF models of Piff (Jarvis et al. 2021, MNRAS 501, 1282); needs the package ``piff``."""

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from galshape_cnn.errors import FileError, PSFError

__all__ = ["PiffModel", "is_piff"]

_MISSING = "{}: reading PSF models of Piff needs the package piff; install it with: pip install piff"


def is_piff(hdus):
    """Whether a FITS file was written by Piff."""
    names = {hdu.name.lower() for hdu in hdus}
    tables = {hdu.name.lower() for hdu in hdus if not hdu.is_image}
    return "psf" in tables and any(name.startswith("psf_") for name in names)


@dataclass(frozen=True)
class PiffModel:
    """PSF that varies over the image, as fitted by Piff.

    Call it with a position, ``psf(x, y)``.

    Attributes
    ----------
    path : str
        File that Piff wrote.
    chip : int or str, optional
        Which detector, for a file of several.
    side : int
        Pixels of the arrays drawn, odd.

    Raises
    ------
    FileError
        If piff is not installed, or cannot read the file.
    """

    path: str
    chip: object = None
    side: int = 51

    def __post_init__(self):
        chips = sorted(self._live.wcs, key=str)
        if self.chip is None and len(chips) > 1:
            raise FileError(f"{self.path} has PSFs of the chips {chips}; name one as {self.path}[CHIP]")
        if self.chip is not None and self.chip not in chips:
            raise FileError(f"{self.path} has no chip {self.chip!r}; it has {chips}")

    def __getstate__(self):
        return {"path": self.path, "chip": self.chip, "side": self.side}

    def __setstate__(self, state):
        self.__dict__.update(state)

    @cached_property
    def _live(self):
        """Piff's own object."""
        try:
            import piff
        except ImportError as error:
            raise FileError(_MISSING.format(self.path)) from error
        try:
            return piff.PSF.read(self.path)
        except Exception as error:  # Piff, fitsio and GalSim raise many kinds
            raise FileError(f"{self.path} cannot be read by Piff: {error}") from error

    def __call__(self, x, y):
        """Effective PSF (side, side) at a 0-based pixel, sampled at the pixels, centred, of a sum near one.

        ``PSFError`` if Piff cannot draw it, for example because the PSF depends on a colour.
        """
        try:  # Piff counts pixels from one
            image = self._live.draw(
                x=float(x) + 1, y=float(y) + 1, chipnum=self.chip, stamp_size=self.side, center=True
            )
        except Exception as error:
            raise PSFError(f"psf of {self.path} cannot be drawn by Piff: {error}") from error
        return np.array(image.array, float)
