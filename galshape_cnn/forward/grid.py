# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""Fourier grids: which wave numbers a stamp is rendered with."""

from dataclasses import dataclass

import numpy as np

__all__ = ["FourierGrid"]

_GUARD = 1.5  # transform size over stamp size


@dataclass(frozen=True)
class FourierGrid:
    """Wave numbers of a discrete transform for one stamp size.

    Parameters
    ----------
    size : int
        Side of the (square) stamp in pixels; even.
    bandwidth : {1, 2}
        1: modes up to the stamp's Nyquist frequency, all that a pixel-sampled
        PSF knows.  2: modes up to twice that frequency, folded onto the
        sampled ones; for PSFs known at finer sampling.

    Attributes
    ----------
    fft_size : int
        Side of the periodic image the stamp is cut from.
    ky : (bandwidth * fft_size,) ndarray
        Wave numbers along y in radians per pixel, in FFT order.
    kx : (bandwidth * fft_size // 2 + 1,) ndarray
        Non-negative wave numbers along x.
    """

    size: int
    bandwidth: int = 1

    def __post_init__(self):
        if self.size % 2 or self.size < 8 or self.bandwidth not in (1, 2):
            raise ValueError(
                f"FourierGrid needs an even size >= 8 and bandwidth 1 or 2, "
                f"got size={self.size}, bandwidth={self.bandwidth}"
            )

    @property
    def fft_size(self):
        """Side of the periodic image in pixels."""
        return 2 * int(round(self.size * _GUARD / 2))

    @property
    def ky(self):
        """Wave numbers along y, FFT order, radians per pixel."""
        n = self.bandwidth * self.fft_size
        return 2 * np.pi * np.fft.fftfreq(n) * self.bandwidth

    @property
    def kx(self):
        """Non-negative wave numbers along x, radians per pixel."""
        n = self.bandwidth * self.fft_size
        return 2 * np.pi * np.fft.rfftfreq(n) * self.bandwidth

    def nodes(self, count):
        """Chebyshev nodes along one axis of the stamp, in pixels."""
        return 0.5 * (self.size - 1) * (1 + _chebyshev_nodes(count))

    def node_weights(self, count):
        """(size, count) matrix interpolating from the nodes to the pixels."""
        t = np.linspace(-1, 1, self.size)
        pixels = np.polynomial.chebyshev.chebvander(t, count - 1)
        at_nodes = np.polynomial.chebyshev.chebvander(_chebyshev_nodes(count), count - 1)
        return pixels @ np.linalg.inv(at_nodes)


def _chebyshev_nodes(count):
    return np.cos(np.pi * (np.arange(count) + 0.5) / count)
