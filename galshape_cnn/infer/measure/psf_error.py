# Licensed under a 3-clause BSD style license - see LICENSE.rst
r"""Errors from an uncertain PSF, by linear response.

If the light fell through the PSF q while the model has p, a fit that minimises chi-square is off by

.. math:: \Delta\theta = H^{-1} D W (m_q - m_p), \qquad H = D W D^T

to first order, with the derivatives D of the model at the estimate and the inverse variances W.  The
covariance that an uncertain PSF adds is the mean of :math:`\Delta\theta\,\Delta\theta^T` over what it may be:
the alternatives that the user gives, or three directions in which a PSF is stretched: its size, and the two
components of its ellipticity.  Stretching moves the samples of the PSF, :math:`x \to A x`, so the change of
its transfer function is :math:`-i\,k^T \dot A\,F[x p]`, exact for a PSF that is sampled finely enough.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np

from galshape_cnn.errors import InputError, PSFError
from galshape_cnn.fingerprint import fingerprint
from galshape_cnn.forward.galaxy_model import SINGLE
from galshape_cnn.forward.psf.arrays import PSFArrays
from galshape_cnn.forward.psf.convert import psf_arrays
from galshape_cnn.forward.transfer import transfer_functions
from galshape_cnn.infer.likelihood.rendering import model_images
from galshape_cnn.infer.residuals.examination import examine
from galshape_cnn.linalg import scaled_inverse

__all__ = ["PSFUncertainty", "psf_errors_of"]

_NAMES = ("size", "ellipticity")
_ALLOWED = (
    "a (K, py, px) array of alternatives, or {'size': fraction, 'ellipticity': error of each component}, "
    "numbers from 0 to 0.5"
)
_LARGEST = 0.5


@dataclass(frozen=True, eq=False)
class PSFUncertainty:
    """How well the PSF is known.

    Attributes
    ----------
    size : float
        Standard deviation of its size over its size.
    ellipticity : float
        Standard deviation of each component of the shear that it may have beside its own.
    arrays : (K, py, px) ndarray or None
        What it may be instead, each with the same probability.
    oversampling : int
        Samples per pixel of ``arrays``.
    """

    size: float = 0.0
    ellipticity: float = 0.0
    arrays: np.ndarray | None = None
    oversampling: int = 1

    @classmethod
    def checked(cls, value, *, oversampling=1, includes_pixel=True, normalize=True):
        """Uncertainty of what a user may write; None where nothing is said to be uncertain.

        A mapping with the errors of ``size`` and ``ellipticity``, 0 to 0.5, those left out being zero; or
        alternatives (K, py, px), to which ``oversampling`` and what follows apply, as for
        `galshape_cnn.forward.psf.convert.psf_arrays`.  ``InputError`` if it is neither.
        """
        if value is None or isinstance(value, cls):
            return value
        if isinstance(value, Mapping):
            return cls._of_numbers(value)
        if isinstance(value, PSFArrays):
            value, oversampling = value.array, value.oversampling
        try:
            array = np.asarray(value, float)
        except (TypeError, ValueError):
            array = np.zeros(0)
        if array.ndim != 3 or not len(array):
            what = f"has shape {array.shape}" if array.size else f"is {value!r}"
            raise InputError(f"psf_error {what}; allowed: {_ALLOWED}")
        try:
            found = psf_arrays(
                array, oversampling=oversampling, includes_pixel=includes_pixel, normalize=normalize
            )
        except PSFError as error:
            raise InputError(f"psf_error: {error}") from error
        return cls(arrays=np.asarray(found.array, np.float32), oversampling=found.oversampling)

    @classmethod
    def _of_numbers(cls, value):
        strange = [name for name in value if name not in _NAMES]
        if strange or not value:
            raise InputError(f"psf_error has {strange[0] if strange else 'no entry'}; allowed: {_ALLOWED}")
        numbers = {}
        for name, number in value.items():
            try:
                numbers[name] = float(number)
            except (TypeError, ValueError):
                numbers[name] = np.nan
            if not 0 <= numbers[name] <= _LARGEST:
                raise InputError(f"psf_error[{name!r}]={number!r}; allowed: a number from 0 to {_LARGEST}")
        return cls(**numbers) if any(numbers.values()) else None

    def __repr__(self):  # by which runs know their input
        return f"<PSFUncertainty: {self.record}, {fingerprint(self.arrays)}>"

    @property
    def record(self):
        """For the metadata: the numbers, or what the alternatives are."""
        if self.arrays is None:
            return {name: getattr(self, name) for name in _NAMES}
        k, ny, nx = self.arrays.shape
        return f"{k} alternatives of {ny}x{nx} samples"

    def covariance(self, batch, params, fisher, fit_sky):
        """What the uncertain PSF adds to the covariance (N, 5, 5) of flux, n, hlr, g1, g2 as estimated.

        With their Fisher matrices (N, 8, 8) for independent noise. Zero where nothing was measured.
        """
        out, known = np.zeros((len(batch), 5, 5)), np.isfinite(params).all(1)
        rows = np.flatnonzero(known & np.isfinite(fisher).all((1, 2)))
        if not len(rows):
            return out
        some, params = batch if len(rows) == len(batch) else batch[rows], params[rows]
        inverse = _inverse(fisher[rows], fit_sky)
        for score in self._changes_of_score(some, params, fit_sky):
            moved = (inverse @ score[..., None])[:, SINGLE.reported, 0]
            out[rows] += moved[:, :, None] * moved[:, None, :]
        return out

    def score_covariance(self, batch, params, fit_sky):
        """What the uncertain PSF adds to the covariance of the score, (N, 8, 8), for fits to several images.

        The score is the derivative of half of chi-square by ``params``. Zero where nothing was measured.
        """
        out = np.zeros((len(batch), SINGLE.size, SINGLE.size))
        rows = np.flatnonzero(np.isfinite(params).all(1))
        if len(rows):
            for score in self._changes_of_score(batch[rows], params[rows], fit_sky):
                out[rows] += score[:, :, None] * score[:, None, :]
        return out

    def _changes_of_score(self, batch, params, fit_sky):
        """Score (N, 8) of data through each PSF that is one standard deviation off."""
        shape = SINGLE.with_sky(params)
        light = batch.images(params) + params[:, SINGLE.sky, None, None]
        zero = _scores(batch, params, light, fit_sky)  # what rounding leaves is no change
        for change in self._changes(batch):
            change = np.broadcast_to(change.astype(np.complex64), (len(batch), *change.shape[1:]))
            other = model_images(batch.stamps, shape, np.ascontiguousarray(change), batch.grid)
            yield _scores(batch, params, light + other, fit_sky) - zero

    def _changes(self, batch):
        """Changes of the transfer functions, each by one standard deviation: (N or 1, Ky, Kx) arrays."""
        if self.arrays is not None:
            for array in self.arrays:
                other = transfer_functions(array[None], batch.grid, self.oversampling)
                yield (np.asarray(other) - batch.transfer) / np.sqrt(len(self.arrays))
            return
        stamps, grid = batch.stamps, batch.grid
        psf = np.asarray(stamps.psf, np.float32)
        y, x = ((np.arange(side) - side // 2) / stamps.psf_oversampling for side in psf.shape[1:])
        along_x, along_y = (
            -1j * np.asarray(transfer_functions(np.float32(psf * one), grid, stamps.psf_oversampling))
            for one in (x, y[:, None])
        )
        ky, kx = np.asarray(grid.ky)[:, None], np.asarray(grid.kx)
        if self.size:
            yield self.size * (kx * along_x + ky * along_y)
        if self.ellipticity:
            yield self.ellipticity * (kx * along_x - ky * along_y)
            yield self.ellipticity * (kx * along_y + ky * along_x)


def psf_errors_of(exposures, common, **sampling):
    """How well the PSF of each of several exposures is known, or None if nothing is uncertain.

    Their own ``psf_error`` counts, else the ``common`` one, in numbers, as alternatives are of one PSF;
    ``sampling`` as of `PSFUncertainty.checked`. ``InputError`` names the exposure.
    """
    if common is not None and common.arrays is not None:
        raise InputError(
            "psf_error holds alternatives to one PSF, beside a list of Exposures; give them to these"
        )
    found = []
    for number, one in enumerate(exposures):
        try:
            own = PSFUncertainty.checked(one.psf_error, **sampling)
        except InputError as error:
            what = repr(one.name) if one.name else f"{number} of band {one.band!r}"
            raise InputError(f"exposure {what}: {error}") from error
        found.append(common if one.psf_error is None else own)
    return tuple(found) if any(one is not None for one in found) else None


def _inverse(fisher, fit_sky):
    """Inverse of (N, 8, 8) Fisher matrices over the parameters that were fitted, zero for the others."""
    free = replace(SINGLE, fit_sky=bool(fit_sky)).free
    inverse, unit = scaled_inverse(fisher[:, free][:, :, free])
    out = np.zeros(fisher.shape)
    out[np.ix_(range(len(out)), free, free)] = inverse / unit
    return out


def _scores(batch, params, data, fit_sky):
    """D W (data - m) of each galaxy, (N, 8)."""
    out = np.empty((len(batch), SINGLE.size))
    for rows, padded, full in batch.filled(by_kernel=True):
        pixels = full.stamps.ivar, full.transfer, full.grid
        out[rows] = examine(params[padded], data[padded], *pixels, fit_sky, full.gain).score[: len(rows)]
    return out
