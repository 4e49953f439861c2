# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""Any PSF a user may hold, turned into plain arrays of the effective PSF.

The *effective* PSF is the optical PSF convolved with the pixel: what a star
looks like in the image.  Arrays are odd-sized and the PSF sits on their
central sample; the sum of one array is the fraction of the light it holds.

The pixel is included in arrays and photutils models (``includes_pixel=False``
says it is not), and is not included in GalSim objects, where it is added here.
"""

from dataclasses import dataclass

import numpy as np

from galshape_cnn.errors import PSFError

__all__ = ["PSFArrays", "check_oversampling", "check_psf", "psf_arrays"]

_FORMS = (
    "an odd-sized array (py, px) or (N, py, px), a galsim.GSObject, a photutils ImagePSF or "
    "GriddedPSFModel, a callable psf(x, y) returning one of these, or a sequence of N of these"
)
#: Samples per pixel at which a PSF that is known between the pixels is taken. Two
#: hold every frequency that still matters: beyond the pixel grid's own limit, the pixel
#: suppresses the rest.
_DRAWN_OVERSAMPLING = 2
#: Largest side of arrays drawn one per galaxy, in samples.
_LARGEST_SHARED_SIDE, _LARGEST_OWN_SIDE = 511, 127
#: A PSF that holds more light than there is means that it was never normalised.
_LARGEST_SUM = 1.1


@dataclass(frozen=True)
class PSFArrays:
    """Effective PSF arrays.

    Attributes
    ----------
    array : (N, py, px) or (1, py, px) float64 ndarray
        One PSF per galaxy, or one for all; odd-sized and centred.
    oversampling : int
        Samples per pixel along each axis.
    """

    array: np.ndarray
    oversampling: int = 1


def check_oversampling(oversampling, name="psf_oversampling"):
    """Return an oversampling factor as an int >= 1.

    Parameters
    ----------
    oversampling : int
        PSF samples per pixel along each axis.
    name : str, optional
        Name of the argument, for the message.

    Returns
    -------
    oversampling : int

    Raises
    ------
    PSFError
        If it is not a whole number of at least one.
    """
    try:
        whole = int(oversampling)
    except (TypeError, ValueError, OverflowError):
        whole = 0
    if whole < 1 or whole != oversampling:
        raise PSFError(f"{name}={oversampling!r}; a whole number >= 1 is needed")
    return whole


def check_psf(psf, name="psf", n_expected=None, largest_sum=_LARGEST_SUM):
    """Check PSF arrays and return them as a (N, py, px) float64 copy.

    Parameters
    ----------
    psf : (py, px) or (N, py, px) array_like
        Effective PSF.
    name : str, optional
        Name of the argument, for the message.
    n_expected : int, optional
        Number of galaxies; ``psf`` must hold one PSF or this many.
    largest_sum : float, optional
        Largest sum allowed, infinite when the PSF is going to be normalised.

    Returns
    -------
    psf : (N, py, px) or (1, py, px) float64 ndarray

    Raises
    ------
    PSFError
        If the PSF has a wrong shape, an even size, values that are not finite,
        or a sum that is not positive or above ``largest_sum``.
    """
    try:
        array = np.array(psf, np.float64)
    except (TypeError, ValueError) as error:
        raise PSFError(f"{name} is a {type(psf).__name__}; {_FORMS} is needed") from error
    if array.ndim == 2:
        array = array[None]
    if array.ndim != 3 or array.size == 0 and array.shape[0] != 0:
        raise PSFError(f"{name} has shape {np.shape(psf)}; (py, px) or (N, py, px) is needed")
    if n_expected is not None and len(array) not in (1, n_expected):
        raise PSFError(f"{name} holds {len(array)} PSFs for {n_expected} galaxies; give one or {n_expected}")
    _check_odd(array, name)
    _check_values(array, name, largest_sum)
    return array


def _check_odd(array, name):
    """Refuse even sizes, whose middle lies between the samples."""
    ny, nx = array.shape[1:]
    if ny % 2 == 0 or nx % 2 == 0:
        raise PSFError(
            f"{name} is even-sized ({ny}x{nx}): its middle falls between the pixels and would shift every "
            "galaxy by half a pixel. Crop, pad or resample it to odd sizes, with the peak on the central pixel"
        )


def _check_values(array, name, largest_sum):
    """Refuse PSFs without light or with impossible values."""
    finite = np.isfinite(array).all(axis=(1, 2))
    if not finite.all():
        which = "" if len(array) == 1 else f" in rows {_first(~finite)}"
        kind = "only NaN" if np.isnan(array).all() else "values that are not finite"
        raise PSFError(f"{name} holds {kind}{which}; replace them (with zeros where the PSF is unknown)")
    total = array.sum(axis=(1, 2))
    if (total <= 0).any():
        row = np.argmin(total)
        raise PSFError(f"{name} has a sum of {total[row]:.4g} (row {row}); a PSF must have a positive sum")
    if (total > largest_sum).any():
        row = np.argmax(total)
        raise PSFError(
            f"{name} has a sum of {total[row]:.4g} (row {row}), more than all light; divide it by its sum"
        )


def _first(selected, count=5):
    """The first few rows selected, for messages."""
    rows = np.flatnonzero(selected)
    return ", ".join(map(str, rows[:count])) + (", ..." if rows.size > count else "")


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
    >>> from galshape_cnn.forward.psf import psf_arrays
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
        return _Places(positions, jacobian, self.stamp_size)


def _convert(psf, places, options, name):
    """Dispatch on the form of the PSF."""
    if psf is None:
        raise PSFError(f"{name} is missing; give {_FORMS}")
    if isinstance(psf, PSFArrays):
        return PSFArrays(check_psf(psf.array, name, places.count), psf.oversampling)
    if is_galsim(psf):
        return _from_galsim(psf, places, options, name)
    if is_photutils(psf):
        return _from_photutils(psf, places, options, name)
    if hasattr(psf, "param_names"):
        raise PSFError(f"{name} is a {type(psf).__name__} model; {_FORMS} is needed")
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
        psf = np.asarray(psf.value)
    array = check_psf(psf, name, places.count, np.inf if options.normalize else _LARGEST_SUM)
    if not options.includes_pixel:
        array = convolve_pixel(array, options.oversampling)
    if options.normalize:
        array = array / array.sum(axis=(1, 2), keepdims=True)
    return PSFArrays(array, options.oversampling)


def convolve_pixel(array, oversampling=1):
    """Convolve sampled PSFs with the square pixel.

    The samples are taken as those of a band-limited function, and its
    transform is multiplied by that of the pixel, sinc(kx) sinc(ky) with k in
    cycles per pixel.  A box summed over whole samples would be wrong by its
    discretisation, and would do nothing at all without oversampling.

    Parameters
    ----------
    array : (N, py, px) ndarray
        PSFs without the pixel, odd-sized.
    oversampling : int, optional
        Samples per pixel.

    Returns
    -------
    array : (N, py + 2 m, px + 2 m) ndarray
        Effective PSFs, larger by ``m = oversampling`` samples on each side, so
        that the light spread over the edge stays.
    """
    padded = np.pad(array, ((0, 0),) + ((oversampling, oversampling),) * 2)
    shape = [2 * side for side in padded.shape[1:]]
    sinc_y = np.sinc(np.fft.fftfreq(shape[0]) * oversampling)
    sinc_x = np.sinc(np.fft.rfftfreq(shape[1]) * oversampling)
    transform = np.fft.rfft2(padded, shape) * sinc_y[:, None] * sinc_x
    return np.fft.irfft2(transform, shape)[:, : padded.shape[1], : padded.shape[2]]


def _own_sampling_only(options, name, what):
    """Refuse an oversampling for PSFs that have their own."""
    if options.oversampling != 1:
        raise PSFError(
            f"psf_oversampling={options.oversampling} is meant for arrays; {name} is {what}, sampled here"
        )


def _from_galsim(psf, places, options, name):
    """Convolve a GalSim profile with the pixel and draw it at 2x, once per Jacobian."""
    from galshape_cnn.forward.psf_galsim import draw_effective_psf

    _own_sampling_only(options, name, "a GalSim object")
    flux = psf.flux
    if not (np.isfinite(flux) and flux > 0):
        raise PSFError(f"{name} has a flux of {flux}; a PSF must have positive flux")
    psf = psf.withFlux(1.0) if options.normalize else psf
    jacobian = np.eye(2)[None] if places.jacobian is None else places.jacobian
    distinct, rows = distinct_jacobians(jacobian)
    largest = _LARGEST_SHARED_SIDE if len(distinct) == 1 else _LARGEST_OWN_SIDE
    side = min(2 * _DRAWN_OVERSAMPLING * int(places.stamp_size) - 1, largest)
    drawn = [draw_effective_psf(psf, one, _DRAWN_OVERSAMPLING, side) for one in distinct]
    array = np.stack(drawn) if len(distinct) == 1 else np.stack(drawn)[rows]
    return PSFArrays(check_psf(array, name), _DRAWN_OVERSAMPLING)


def distinct_jacobians(jacobian, tolerance=1e-4):
    """Jacobians that differ by more than a tolerance, and which row has which.

    Parameters
    ----------
    jacobian : (N, 2, 2) ndarray
        d(u, v)/d(x, y).
    tolerance : float, optional
        Relative to the pixel scale.  One part in 10,000 changes the size of a
        PSF by as much, far below what is known of any PSF.

    Returns
    -------
    distinct : (M, 2, 2) ndarray
        The mean of each group.
    rows : (N,) int ndarray
        Index into ``distinct``.
    """
    scale = np.sqrt(np.abs(np.linalg.det(jacobian))).mean()
    mean = jacobian.mean(axis=0)
    if np.abs(jacobian - mean).max() <= tolerance * scale:
        return mean[None], np.zeros(len(jacobian), int)
    keys = np.round(jacobian.reshape(-1, 4) / (tolerance * scale)).astype(np.int64)
    _, rows = np.unique(keys, axis=0, return_inverse=True)
    rows = rows.reshape(-1)
    sums = np.zeros((rows.max() + 1, 2, 2))
    np.add.at(sums, rows, jacobian)
    return sums / np.bincount(rows)[:, None, None], rows


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
    done = _from_array(array, places, _Options(oversampling, options.includes_pixel, options.normalize), name)
    return done


def _from_callable(psf, places, options, name):
    """Call psf(x, y) at each position."""
    if places.positions is None:
        raise PSFError(f"{name} is callable as psf(x, y): positions are needed")
    here = [psf(float(x), float(y)) for x, y in places.positions]
    return _from_sequence(here, places, options, f"{name}(x, y)")


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


def stack_psfs(arrays, name="psf"):
    """Stack PSFs of any odd size, padded with zeros to the largest.

    Parameters
    ----------
    arrays : sequence of PSFArrays
        Of one PSF each, with equal oversampling.
    name : str, optional
        Name of the argument, for the message.

    Returns
    -------
    arrays : PSFArrays

    Raises
    ------
    PSFError
        If there is none, or their oversampling differs.
    """
    factors = {one.oversampling for one in arrays}
    if len(factors) != 1:
        raise PSFError(f"{name} has PSFs of oversampling {sorted(factors)}; one factor for all is needed")
    sides = np.max([one.array.shape[1:] for one in arrays], axis=0)
    return PSFArrays(np.concatenate([pad_psf(one.array, sides) for one in arrays]), factors.pop())


def pad_psf(array, sides):
    """Pad odd-sized PSFs with zeros to larger odd sides, keeping the centre.

    Parameters
    ----------
    array : (N, py, px) ndarray
        PSFs.
    sides : (int, int)
        Odd sides y, x, at least those of ``array``.

    Returns
    -------
    array : (N, *sides) ndarray
    """
    margins = [(int(side) - have) // 2 for side, have in zip(sides, array.shape[1:], strict=True)]
    return np.pad(array, ((0, 0),) + tuple((margin, margin) for margin in margins))
