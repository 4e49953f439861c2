# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""Fourier grids: the wave numbers at which a stamp is rendered."""

from dataclasses import dataclass

import numpy as np

__all__ = ["FourierGrid", "chebyshev_nodes"]

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
    kx : (K,) ndarray
        Non-negative wave numbers along x in radians per pixel, with
        K = bandwidth * fft_size // 2 + 1.
    ky : (2 K,) ndarray
        Wave numbers along y: those of ``kx``, and the same with the other sign
        (zero occurs twice).
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
    def kx(self):
        """Non-negative wave numbers, radians per pixel."""
        return 2 * np.pi / self.fft_size * np.arange(self.bandwidth * self.fft_size // 2 + 1)

    @property
    def ky(self):
        """Non-negative wave numbers, then the same with the other sign."""
        return np.concatenate([self.kx, -self.kx])

    @property
    def half_waves(self):
        """Matrices that sum the modes to half of the pixels along one axis.

        ``cos_y``, ``sin_y`` (size // 2, K) are waves at 0.5, 1.5, ... pixels from the middle of the stamp,
        for sums over pairs of wave numbers of opposite sign; ``cos_x``, ``sin_x`` (K, size // 2) the same
        along x, for the real part of a sum over non-negative wave numbers.
        """
        phase = np.outer(np.arange(self.size // 2) + 0.5, self.kx)
        pair = np.ones(len(self.kx))
        pair[0] = 0.5
        if self.bandwidth == 1:
            pair[-1] = 0.5  # the Nyquist frequency has one sign only
        along_x = (2 * pair / self.fft_size**2)[:, None]
        cos, sin = np.cos(phase), np.sin(phase)
        return cos * pair, sin * pair, cos.T * along_x, sin.T * along_x

    def nodes(self, count):
        """Chebyshev nodes along one axis of the stamp, in pixels."""
        return 0.5 * (self.size - 1) * (1 + chebyshev_nodes(count))

    def node_weights(self, count, at=None):
        """(size, count) matrix interpolating from the nodes to the pixels, or to positions in [-1, 1]."""
        t = np.linspace(-1, 1, self.size) if at is None else at
        pixels = np.polynomial.chebyshev.chebvander(t, count - 1)
        at_nodes = np.polynomial.chebyshev.chebvander(chebyshev_nodes(count), count - 1)
        return pixels @ np.linalg.inv(at_nodes)


def chebyshev_nodes(count):
    """Zeros of the Chebyshev polynomial of a degree, in [-1, 1]."""
    return np.cos(np.pi * (np.arange(count) + 0.5) / count)
