# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""Conversion of any PSF (array, GalSim, photutils, callable) to arrays of the effective PSF.

The *effective* PSF is the optical PSF convolved with the pixel: what a star
looks like in the image.  Arrays are odd-sized and the PSF sits on their
central sample; the sum of one array is the fraction of the light it holds.

The pixel is included in arrays and photutils models (``includes_pixel=False``
says it is not), and is not included in GalSim objects, where it is added here.
"""

from dataclasses import dataclass
from inspect import signature

import numpy as np

from galshape_cnn.errors import PSFError
from galshape_cnn.forward.psf.arrays import (
    FORMS,
    LARGEST_SUM,
    PSFArrays,
    as_final,
    check_oversampling,
    check_psf,
    psf_and_sum,
    stack_psfs,
)

__all__ = [
    "PSFArrays",
    "convolve_pixel",
    "distinct_jacobians",
    "is_galsim",
    "is_photutils",
    "psf_arrays",
    "psf_at",
]

#: Samples per pixel at which a PSF that is known between the pixels is taken. Two
#: hold every frequency that still matters: beyond the pixel grid's own limit, the pixel
#: suppresses the rest.
_DRAWN_OVERSAMPLING = 2
#: Largest side of arrays drawn once for all galaxies, and of those drawn for each, in
#: samples; and the share of the light that drawing may fold back into them.
_LARGEST_SHARED_SIDE, _LARGEST_OWN_SIDE = 511, 127
_SHARED_FOLDING, _OWN_FOLDING = 2e-4, 1e-3


def psf_arrays(
    psf,
    *,
    positions=None,
    jacobian=None,
    oversampling=1,
    includes_pixel=True,
    normalize=True,
    stamp_size=64,
):
    """Turn any PSF a user may hold into effective PSF arrays.

    Parameters
    ----------
    psf : array_like, galsim.GSObject, photutils model, callable or sequence
        ``(py, px)`` or ``(N, py, px)`` odd-sized arrays of the effective PSF; a
        `galsim.GSObject` *without* the pixel, in sky coordinates (arcsec, u
        west, v north) when there is a ``jacobian`` and in pixels otherwise; a
        photutils ``ImagePSF`` or ``GriddedPSFModel`` (effective); a callable
        ``psf(x, y)`` returning any of these; or a sequence of N of these.
    positions : (N, 2) array_like, optional
        x, y of the galaxies, 0-based pixels; needed by a PSF that varies.
    jacobian : (N, 2, 2) or (2, 2) array_like, optional
        d(u, v)/d(x, y) in arcsec/pixel.
    oversampling : int, optional
        Samples per pixel of PSF arrays.
    includes_pixel : bool, optional
        False if arrays or photutils models hold the optical PSF, not yet
        convolved with the pixel.  The convolution is then done in Fourier
        space, which is exact for a PSF that is sampled finely enough.
    normalize : bool, optional
        Scale arrays to unit sum and GalSim objects to unit flux.  A GalSim
        object drawn on a finite array then still sums to less than one: that
        is the part of the light the array holds.
    stamp_size : int, optional
        Side of the galaxy stamps in pixels; arrays drawn here reach across.

    Returns
    -------
    arrays : PSFArrays
        One PSF per galaxy, or one for all.

    Raises
    ------
    PSFError
        If the PSF is none of these, even-sized, not finite, without a positive
        sum, or needs positions that are not given.

    Examples
    --------
    >>> import numpy as np
    >>> from galshape_cnn.forward.psf.convert import psf_arrays
    >>> r2 = np.sum(np.mgrid[-7:8, -7:8] ** 2, axis=0)
    >>> psf_arrays(np.exp(-r2 / 4)).array.sum().round(6)
    np.float64(1.0)
    """
    oversampling = check_oversampling(oversampling)
    places = _Places.make(positions, jacobian, stamp_size)
    options = _Options(oversampling, bool(includes_pixel), bool(normalize))
    return _convert(psf, places, options, "psf")


@dataclass(frozen=True)
class _Options:
    """What the caller says about arrays."""

    oversampling: int
    includes_pixel: bool
    normalize: bool


@dataclass(frozen=True)
class _Places:
    """Where the PSF is wanted: N positions with their Jacobians."""

    positions: np.ndarray | None
    jacobian: np.ndarray | None
    stamp_size: int
    is_one_of_many: bool = False

    @classmethod
    def make(cls, positions, jacobian, stamp_size):
        if positions is not None:
            positions = np.asarray(positions, float)
            if positions.ndim != 2 or positions.shape[1] != 2:
                raise PSFError(f"positions has shape {positions.shape}; (N, 2) is needed")
        if jacobian is not None:
            jacobian = np.asarray(jacobian, float)
            jacobian = jacobian[None] if jacobian.ndim == 2 else jacobian
            allowed = (1,) if positions is None else (1, len(positions))
            if jacobian.shape[1:] != (2, 2) or (positions is not None and len(jacobian) not in allowed):
                raise PSFError(f"jacobian has shape {jacobian.shape}; (2, 2) or (N, 2, 2) is needed")
        return cls(positions, jacobian, stamp_size)

    @property
    def count(self):
        """Number of galaxies, None when no argument says it."""
        if self.positions is not None:
            return len(self.positions)
        return None if self.jacobian is None or len(self.jacobian) == 1 else len(self.jacobian)

    def one(self, row):
        """The place of one galaxy."""
        positions = None if self.positions is None else self.positions[row : row + 1]
        jacobian = self.jacobian
        if jacobian is not None and len(jacobian) > 1:
            jacobian = jacobian[row : row + 1]
        return _Places(positions, jacobian, self.stamp_size, is_one_of_many=True)


def _convert(psf, places, options, name):
    """Dispatch on the form of the PSF."""
    if psf is None:
        raise PSFError(f"{name} is missing; give {FORMS}")
    if isinstance(psf, PSFArrays):
        return _from_arrays(psf, places, options, name)
    if is_galsim(psf):
        return _from_galsim(psf, places, options, name)
    if is_photutils(psf):
        return _from_photutils(psf, places, options, name)
    if hasattr(psf, "param_names"):
        raise PSFError(f"{name} is a {type(psf).__name__} model; {FORMS} is needed")
    if callable(psf):
        return _from_callable(psf, places, options, name)
    if isinstance(psf, (list, tuple)) and not _numeric(psf):
        return _from_sequence(psf, places, options, name)
    return _from_array(psf, places, options, name)


def is_galsim(psf):
    """Whether an object is a GalSim profile, found without importing GalSim."""
    return any(base.__module__ == "galsim.gsobject" for base in type(psf).__mro__)


def is_photutils(psf):
    """Whether an object is a photutils image-based PSF model."""
    names = {base.__name__ for base in type(psf).__mro__ if base.__module__.startswith("photutils.")}
    return bool(names & {"ImagePSF", "GriddedPSFModel"})


def _numeric(psf):
    """Whether a list is nested numbers, i.e. an array, and not a list of PSFs."""
    return len(psf) > 0 and isinstance(psf[0], (list, tuple)) and np.ndim(psf[0]) == 1


def _from_array(psf, places, options, name):
    """Arrays: check, add the pixel if it is missing, normalise."""
    unit = getattr(psf, "unit", None)
    if unit is not None:
        psf = psf.value
    largest = np.inf if options.normalize else LARGEST_SUM
    array, total = psf_and_sum(psf, name, places.count, largest)
    if not options.includes_pixel:
        array = convolve_pixel(array, options.oversampling)
        total = array.sum(axis=(1, 2))
    # one pass over wide arrays
    array = array / total[:, None, None] if options.normalize else array.copy()
    return PSFArrays(as_final(array), options.oversampling)


def _from_arrays(psf, places, options, name):
    """Arrays that know their sampling; their sum is kept."""
    if options.oversampling not in (1, psf.oversampling):
        raise PSFError(f"psf_oversampling={options.oversampling}, but {name} says {psf.oversampling} itself")
    array = check_psf(psf.array, name, places.count)
    return PSFArrays(
        array if options.includes_pixel else convolve_pixel(array, psf.oversampling), psf.oversampling
    )


def _own_sampling_only(options, name, what):
    """Refuse an oversampling for PSFs that have their own."""
    if options.oversampling != 1:
        raise PSFError(
            f"psf_oversampling={options.oversampling} is meant for arrays; {name} is {what}, sampled here"
        )


def _from_galsim(psf, places, options, name):
    """Convolve a GalSim profile with the pixel and draw it at 2x, once per Jacobian."""
    from galshape_cnn.forward.psf.galsim_psf import draw_effective_psf

    _own_sampling_only(options, name, "a GalSim object")
    flux = psf.flux
    if not (np.isfinite(flux) and flux > 0):
        raise PSFError(f"{name} has a flux of {flux}; a PSF must have positive flux")
    psf = psf.withFlux(1.0) if options.normalize else psf
    jacobian = np.eye(2)[None] if places.jacobian is None else places.jacobian
    distinct, rows = distinct_jacobians(jacobian)
    shared = len(distinct) == 1 and not places.is_one_of_many
    largest, folding = (
        (_LARGEST_SHARED_SIDE, _SHARED_FOLDING) if shared else (_LARGEST_OWN_SIDE, _OWN_FOLDING)
    )
    side = min(2 * _DRAWN_OVERSAMPLING * int(places.stamp_size) - 1, largest)
    drawn = [draw_effective_psf(psf, one, _DRAWN_OVERSAMPLING, side, folding) for one in distinct]
    array = np.stack(drawn) if len(distinct) == 1 else np.stack(drawn)[rows]
    return PSFArrays(check_psf(array, name), _DRAWN_OVERSAMPLING)


def distinct_jacobians(jacobian):
    """Jacobians on a grid so fine that a PSF cannot tell, (M, 2, 2), and which row has which, (N,).

    The grid does not depend on the other rows, so that a galaxy's PSF does not either.  Its spacing is
    relative to the pixel scale; it changes the size of a PSF by half as much at most, far below what is known
    of any PSF.
    """
    scale = np.sqrt(np.abs(np.linalg.det(jacobian)))
    spacing = 1e-4 * 2.0 ** np.round(np.log2(scale))[:, None, None]
    rounded = (np.round(jacobian / spacing) * spacing).reshape(-1, 4)
    distinct, rows = np.unique(rounded, axis=0, return_inverse=True)
    return distinct.reshape(-1, 2, 2), rows.reshape(-1)


def _from_photutils(psf, places, options, name):
    """Sample a photutils model on an odd grid around each galaxy.

    photutils scales its arrays so that a *value* is the flux of one pixel, at
    any oversampling; samples are therefore divided by their number per pixel.
    """
    _own_sampling_only(options, name, "a photutils model")
    factors = np.broadcast_to(psf.oversampling, 2)
    oversampling = check_oversampling(factors.max(), f"{name}.oversampling")
    sides = [1 + 2 * int((side - 1) / factor * oversampling / 2)
             for side, factor in zip(psf.data.shape[-2:], factors, strict=True)]  # fmt: skip
    # The last sample of the grid must not fall outside the model by rounding.
    offsets = [(np.arange(side) - side // 2) / oversampling * (1 - 1e-12) for side in sides]
    y, x = np.meshgrid(*offsets, indexing="ij")
    if psf.data.ndim == 2:
        where = np.zeros((1, 2))
    elif places.positions is not None:
        where = places.positions
    else:
        raise PSFError(f"{name} is a {type(psf).__name__}, which varies over the image: positions are needed")
    samples = [psf.evaluate(x + x0, y + y0, 1.0, float(x0), float(y0)) for x0, y0 in where]
    array = np.array(samples).reshape(len(where), *sides) / oversampling**2
    options = _Options(oversampling, options.includes_pixel, options.normalize)
    return _from_array(array, places, options, name)


def _from_callable(psf, places, options, name):
    """Call psf(x, y) at each position."""
    if places.positions is None:
        raise PSFError(f"{name} is callable as psf(x, y): positions are needed")
    _check_call(psf, name)
    here = [psf(float(x), float(y)) for x, y in places.positions]
    return _from_sequence(here, places, options, f"{name}(x, y)")


def psf_at(psf, x, y, name="psf"):
    """What a callable says is the PSF at a place; ``PSFError`` if it cannot be called with two numbers."""
    _check_call(psf, name)
    return psf(float(x), float(y))


def _check_call(psf, name):
    """Refuse a callable that does not take two numbers."""
    try:
        arguments = signature(psf)
    except (TypeError, ValueError):  # of C: only a call can tell
        return
    try:
        arguments.bind(0.0, 0.0)
    except TypeError as error:
        raise PSFError(
            f"{name} is a callable of {arguments}; allowed: one that takes x, y, pixels, and returns the PSF "
            f"there ({error})"
        ) from error


def _from_sequence(psfs, places, options, name):
    """Convert PSFs one by one, and bring them to one size."""
    if places.count is not None and len(psfs) not in (1, places.count):
        raise PSFError(f"{name} holds {len(psfs)} PSFs for {places.count} galaxies; give one for each")
    arrays = []
    for row, psf in enumerate(psfs):
        one = _convert(psf, places.one(row), options, f"{name}[{row}]")
        if len(one.array) != 1:
            raise PSFError(f"{name}[{row}] holds {len(one.array)} PSFs; one is needed")
        arrays.append(one)
    return stack_psfs(arrays, name)


def convolve_pixel(array, oversampling=1):
    """Convolve sampled PSFs (N, py, px) with the square pixel: effective PSFs.

    They are larger by one pixel on each side, so that the light spread over the edge stays. The samples are
    taken as those of a band-limited function, and its transform is multiplied by that of the pixel, sinc(kx)
    sinc(ky) with k in cycles per pixel. A box summed over whole samples would be wrong by its discretisation,
    and would do nothing at all without oversampling.
    """
    padded = np.pad(array, ((0, 0),) + ((oversampling, oversampling),) * 2)
    shape = [2 * side for side in padded.shape[1:]]
    sinc_y = np.sinc(np.fft.fftfreq(shape[0]) * oversampling)
    sinc_x = np.sinc(np.fft.rfftfreq(shape[1]) * oversampling)
    transform = np.fft.rfft2(padded, shape) * sinc_y[:, None] * sinc_x
    return np.fft.irfft2(transform, shape)[:, : padded.shape[1], : padded.shape[2]]
