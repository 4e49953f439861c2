# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""PSF models of PsfEx: pixel arrays whose values are polynomials of the position.

PSF(x, y) = sum_b p_b((x - x0) / sx, (y - y0) / sy) PSF_MASK_b, with the terms in
the order 1, x, x^2, y, x y, y^2 (Bertin 2011, ADASS XX, 435).  The arrays are
sampled every PSF_SAMP pixels and include the pixel.
"""

from dataclasses import dataclass, field

import numpy as np

from galshape_cnn.errors import FileError

__all__ = ["PsfExModel", "psfex_from_table"]

#: Order of the Lanczos kernel that carries PsfEx samples to pixels, as in GalSim's reader.
_LANCZOS = 3
#: Distances between samples, in pixels, that a model may have.
_SAMPLINGS = (0.01, 10.0)


@dataclass(frozen=True, eq=False)
class PsfExModel:
    """PSF that varies over the image, as read from a PsfEx file.

    Call it with a position, ``psf(x, y)``.

    Attributes
    ----------
    basis : (terms, ny, nx) ndarray
        Coefficients of the polynomial for each sample.
    degree : int
        Of the polynomial.
    zero, scale : (float, float)
        Offset and scale of x and y, in pixels that count from one.
    sampling : float
        Distance between samples in pixels.

    Examples
    --------
    >>> import numpy as np
    >>> from galshape_cnn.observe.io.psf.psfex import PsfExModel
    >>> round_psf = np.exp(-np.sum(np.mgrid[-9:10, -9:10] ** 2, axis=0) / 8)
    >>> psf = PsfExModel(round_psf[None], 0, (0.0, 0.0), (1.0, 1.0), 0.5)
    >>> psf(100, 200).shape
    (9, 9)
    """

    basis: np.ndarray = field(repr=False)
    degree: int
    zero: tuple
    scale: tuple
    sampling: float

    def samples(self, x, y):
        """Array of the PSF at a 0-based pixel as PsfEx samples it, with unit sum."""
        x = (x + 1 - self.zero[0]) / self.scale[0]
        y = (y + 1 - self.zero[1]) / self.scale[1]
        terms = [x**i * y**j for j in range(self.degree + 1) for i in range(self.degree + 1 - j)]
        array = np.tensordot(terms, self.basis, 1)
        return array / array.sum()

    def __call__(self, x, y):
        """Effective PSF at a 0-based pixel, sampled at the pixels: odd-sized, centred, of a sum near one."""
        array = self.samples(x, y)
        rows, columns = (_lanczos_matrix(side, self.sampling) for side in array.shape)
        return rows @ array @ columns.T / self.sampling**2


def _lanczos_matrix(side, sampling):
    """Weights of the samples in each pixel, (pixels, samples)."""
    if sampling == 1:
        return np.eye(side)
    half = int((side - 1) / 2 * sampling)
    distance = np.arange(-half, half + 1)[:, None] / sampling - (np.arange(side) - (side - 1) / 2)
    weights = np.where(np.abs(distance) < _LANCZOS, np.sinc(distance) * np.sinc(distance / _LANCZOS), 0)
    # Lanczos weights do not sum to one by themselves, and would modulate the light.
    return weights / weights.sum(axis=1, keepdims=True)


def psfex_from_table(header, table, name):
    """PSF model of the table of a PsfEx file, whose header has the polynomial.

    The Legacy Surveys' pipeline also moves the header's values to columns. ``FileError``, with the name of
    the file, if values are missing or the model depends on more than a position.
    """
    columns = {column.upper(): column for column in table.dtype.names}

    def value(key):
        if key in columns:
            return table[columns[key]][0]
        if key in header:
            return header[key]
        raise FileError(f"{name} has no {key}: it is no PsfEx model")

    basis = np.asarray(table[columns["PSF_MASK"]][0], float)
    axis_count, sampling = int(value("POLNAXIS")), float(value("PSF_SAMP"))
    if not _SAMPLINGS[0] <= sampling <= _SAMPLINGS[1]:
        low, high = _SAMPLINGS
        raise FileError(f"{name} has PSF_SAMP = {sampling}; {low} to {high} pixels are allowed")
    if axis_count == 0:
        return PsfExModel(basis.reshape(-1, *basis.shape[-2:])[:1], 0, (0, 0), (1, 1), sampling)
    axes = [str(value(f"POLNAME{i}")).strip().upper() for i in range(1, axis_count + 1)]
    if len(axes) != 2 or axes[0][0] != "X" or axes[1][0] != "Y" or int(value("POLNGRP")) != 1:
        raise FileError(
            f"{name}: PSF depends on {', '.join(axes)}; only a polynomial of x and y is understood"
        )
    degree = int(value("POLDEG1"))
    terms = (degree + 1) * (degree + 2) // 2
    if basis.ndim != 3 or len(basis) != terms:
        raise FileError(f"{name}: PSF_MASK has shape {basis.shape}; degree {degree} needs {terms} terms")
    zero, scale = ([float(value(f"{key}{i}")) for i in (1, 2)] for key in ("POLZERO", "POLSCAL"))
    if not np.isfinite(zero + scale).all() or 0 in scale:
        raise FileError(f"{name} has POLZERO {zero}, POLSCAL {scale}; numbers, the latter not 0, are needed")
    return PsfExModel(basis, degree, tuple(zero), tuple(scale), sampling)
