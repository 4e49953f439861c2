# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""Arrays left on disk until a part of them is needed.

Plain FITS images are memory-mapped by astropy.  Compressed and scaled ones
(``BSCALE``, ``BZERO``) are not: astropy would read all of them.  `LazyPixels`
reads, and decompresses, the part that is asked for; `BadBits` makes a mask of
the part of a bit field that is asked for, and `UnitSum` divides PSFs by their sums.
"""

import weakref

import numpy as np
from astropy.io import fits

__all__ = ["LARGE", "AsinhPixels", "BadBits", "LazyPixels", "UnitSum", "is_lazy"]

#: Images of more bytes than this are not read as a whole.
LARGE = 1 << 26
#: Magnitudes of a factor e in flux.
_POGSON = 2.5 * np.log10(np.e)


class _Part:
    """What NumPy and `astropy.nddata.NDData` need to take an object for an array."""

    @property
    def ndim(self):
        """Number of axes."""
        return len(self.shape)

    @property
    def size(self):
        """Number of pixels."""
        return int(np.prod(self.shape))

    def __len__(self):
        return self.shape[0]

    def __array__(self, dtype=None, copy=None):
        return np.asarray(self[(slice(None),) * self.ndim], dtype)


class LazyPixels(_Part):
    """Pixels of one HDU, read when they are sliced.

    Parameters
    ----------
    path : str or Path
        FITS file.
    index : int
        HDU.
    shape : tuple of int
        Of the HDU; leading axes of length one are dropped.
    dtype : dtype
        Of the pixels once they are scaled.
    """

    def __init__(self, path, index, shape, dtype):
        lead = 0
        while len(shape) - lead > 2 and shape[lead] == 1:
            lead += 1
        self.path, self.index, self.dtype = str(path), index, np.dtype(dtype)
        self.shape, self._lead, self._hdus = tuple(shape[lead:]), lead, None

    def __getstate__(self):
        return self.__dict__ | {"_hdus": None}

    def __repr__(self):
        return f"<LazyPixels {self.shape} {self.dtype}: HDU {self.index} of {self.path}>"

    def __getitem__(self, key):
        key = key if isinstance(key, tuple) else (key,)
        return self._section[(0,) * self._lead + key]

    @property
    def _section(self):
        """The file is opened once and closed with this object."""
        if self._hdus is None:
            self._hdus = fits.open(self.path)
            weakref.finalize(self, self._hdus.close)
        return self._hdus[self.index].section


class AsinhPixels(_Part):
    """Linear pixels of an image that holds inverse hyperbolic sines of them.

    With the stored value v, flux = offset + 2 softening sinh(v / (2.5 log10 e)): the asinh magnitudes of
    Lupton et al. 1999 (AJ 118, 1406) as Pan-STARRS stores its stacks (Waters et al. 2020, ApJS 251, 4).

    Parameters
    ----------
    pixels : array_like
        Only sliced.
    offset, softening : float
        BOFFSET and BSOFTEN of the header.
    """

    dtype = np.dtype(float)

    def __init__(self, pixels, offset, softening):
        self.pixels, self.offset, self.softening = pixels, offset, softening
        self.shape = tuple(pixels.shape)

    def __repr__(self):
        return f"<AsinhPixels {self.shape}: softening {self.softening}>"

    def __getitem__(self, key):
        stored = np.asarray(self.pixels[key], float)
        with np.errstate(over="ignore"):
            return self.offset + 2 * self.softening * np.sinh(stored / _POGSON)


class BadBits(_Part):
    """Mask of the pixels whose bit field has one of some bits.

    Parameters
    ----------
    field : array_like of int
        Bit field; only sliced.
    bits : int
        Those that mean bad.
    """

    dtype = np.dtype(bool)

    def __init__(self, field, bits):
        self.field, self.bits, self.shape = field, bits, tuple(field.shape)

    def __repr__(self):
        return f"<BadBits {self.shape}: bits {self.bits}>"

    def __getitem__(self, key):
        return (np.asarray(self.field[key]) & self.bits) != 0


class UnitSum(_Part):
    """A cube of PSFs, each divided by its sum when it is read.

    Parameters
    ----------
    planes : (N, py, px) array_like
        Only sliced.
    """

    dtype = np.dtype(float)

    def __init__(self, planes):
        self.planes, self.shape = planes, tuple(planes.shape)

    def __repr__(self):
        return f"<UnitSum {self.shape}>"

    def __getitem__(self, key):
        rows, *rest = key if isinstance(key, tuple) else (key,)
        part = np.array(self.planes[rows], float)
        total = part.sum((-2, -1), keepdims=True)
        np.divide(part, total, out=part, where=total > 0)
        return part[(..., *rest)] if len(rest) == 2 else part


def is_lazy(array):
    """Whether an array is one of this module."""
    return isinstance(array, _Part)
