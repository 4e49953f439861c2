# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""Pixels and inverse variances of images.

The cutouts of a cube are read a few at a time: one by one, the calls of NumPy would take longer
than what they do.
"""

from dataclasses import dataclass

import numpy as np

from galshape_cnn.observe.noise.uncertainty import Noise

__all__ = ["Stack", "read_pixels"]

#: Pixel values beyond this are no measurement: single precision could not hold their squares.
_LARGEST = 1e18


def read_pixels(data, noise, mask, factor):
    """Pixels and inverse variance of images (..., ny, nx), float32, and for each if any noise is known (...).

    Zero where masked or not finite; ``factor`` turns pixel values into the unit that is wanted.
    ``NoiseError`` if the noise is negative.
    """
    data, ivar = np.asarray(data), noise.inverse_variance()
    if data.dtype != np.float32 or factor != 1:  # those hold a number that is not changed
        data = np.asarray(data, np.float64)
    if factor != 1:
        data, ivar = data * factor, ivar / factor**2
    ivar = np.broadcast_to(ivar, data.shape)
    informed = (ivar > 0).any((-2, -1))
    good = np.abs(data) < _LARGEST
    if mask is not None:
        good &= ~np.asarray(mask).astype(bool)
    if not good.all():
        data, ivar = np.where(good, data, 0), np.where(good, ivar, 0)
    with np.errstate(over="ignore", under="ignore"):
        return data.astype(np.float32), ivar.astype(np.float32), informed


@dataclass(frozen=True)
class Stack:
    """Images of one size in one array, of which several are read at a time.

    Attributes
    ----------
    data : (N, ny, nx) ndarray
        The caller's pixels; only sliced.
    noise : Noise
        Of all of them, or one number.
    mask : (N, ny, nx) ndarray or None
        True, or not zero, is bad.
    """

    data: np.ndarray
    noise: Noise
    mask: np.ndarray | None = None

    def read(self, rows, y, x, factor):
        """The same part, slices ``y`` and ``x``, of some images; factor and result as of `read_pixels`."""
        part = (rows, y, x)
        mask = None if self.mask is None else self.mask[part]
        return read_pixels(self.data[part], self.noise[part], mask, factor)
