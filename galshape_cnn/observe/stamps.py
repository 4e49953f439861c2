# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""`Stamps`: a frozen batch of equal-sized galaxy stamps.

Everything behind this class works on plain arrays: units, masks, uncertainty
kinds and celestial coordinates have been dealt with before a `Stamps` exists.
"""

from dataclasses import dataclass, field, fields

import numpy as np

from galshape_cnn.errors import InputError, NoiseError
from galshape_cnn.forward.psf.arrays import check_oversampling, check_psf
from galshape_cnn.masked import filled, split_mask
from galshape_cnn.quantities import flux_unit, plain_values, unit_of

__all__ = ["MINIMUM_STAMP_SIZE", "Stamps"]

#: Smallest side of a stamp, in pixels: eight parameters need some pixels to come from.
MINIMUM_STAMP_SIZE = 8
#: Largest inverse variance that single precision is asked to hold, and the inverse of the
#: smallest: powers of it must not overflow.  Fluxes in erg/s/cm2/AA exceed it.
_SINGLE_PRECISION_LIMIT = 1e24


@dataclass(frozen=True, eq=False)
class Stamps:
    """A batch of N galaxy stamps of equal size, with noise, PSF and geometry.

    The arrays are copied and made read-only.  Pixels with zero inverse
    variance, and pixels that are not finite, hold zero data and zero inverse
    variance afterwards: they do not count.

    Parameters
    ----------
    data : (N, ny, nx) array_like
        Pixel values, at least 8x8 pixels; stored as float32, or as float64
        where the unit makes the noise smaller than 1e-12 or larger than 1e12.
    ivar : (N, ny, nx) array_like
        Inverse variance of each pixel, finite and >= 0; zero means masked.
        Stored as ``data`` are.
    psf : (N, py, px), (1, py, px) or (py, px) array_like
        Effective PSF (pixel included), odd-sized, centred on its central
        sample; its sum is the enclosed fraction of the flux.
    jacobian : (N, 2, 2) or (2, 2) array_like, optional
        d(u, v)/d(x, y) in arcsec/pixel, u west and v north; the identity
        without it.
    origin : (N, 2) array_like of int, optional
        x, y of stamp pixel [0, 0] in the parent image; zero without it.
    center : (N, 2) array_like, optional
        x, y in the stamp where the galaxy is believed to be; the middle of
        the stamp without it.
    given : (N, 2) array_like, optional
        x, y in the stamp where somebody said that the galaxy is; NaN where nobody did, the default.
    psf_oversampling : int, optional
        PSF samples per pixel along each axis.
    skycoord : (N, 2) array_like, optional
        ICRS right ascension and declination of ``center`` in degrees; NaN
        where unknown.
    flags : (N,) array_like of int, optional
        Observation flags, see `galshape_cnn.flags`.
    unit : astropy unit, optional
        Unit of the pixel values.
    nuisance : (N, m, ny, nx) array_like, optional
        Images that may lie under each galaxy with any amplitude, in any unit; images
        of zeros fill up where there are fewer.

    Raises
    ------
    InputError
        If shapes do not fit together or stamps are smaller than 8x8 pixels.
    NoiseError
        If ``ivar`` has negative, NaN or infinite values.
    PSFError
        If the PSF is even-sized, not finite, or has no positive sum.

    Examples
    --------
    >>> import numpy as np
    >>> from galshape_cnn import Stamps
    >>> psf = np.zeros((5, 5))
    >>> psf[2, 2] = 1.0
    >>> stamps = Stamps(np.zeros((3, 16, 16)), np.ones((3, 16, 16)), psf)
    >>> len(stamps), stamps[1:].data.shape
    (3, (2, 16, 16))
    """

    data: np.ndarray
    ivar: np.ndarray
    psf: np.ndarray
    jacobian: np.ndarray = None
    origin: np.ndarray = None
    center: np.ndarray = field(default=None, kw_only=True)
    given: np.ndarray = field(default=None, kw_only=True)
    psf_oversampling: int = field(default=1, kw_only=True)
    skycoord: np.ndarray = field(default=None, kw_only=True)
    flags: np.ndarray = field(default=None, kw_only=True)
    unit: object = field(default=None, kw_only=True)
    nuisance: np.ndarray = field(default=None, kw_only=True)

    def __post_init__(self):
        unit = flux_unit(unit_of(self.data) if self.unit is None else self.unit)
        ivar = plain_values(self.ivar, unit, "ivar", power=-2)
        data, ivar = _checked_pixels(plain_values(self.data, unit, "data"), ivar)
        n, ny, nx = data.shape
        psf = check_psf(self.psf, name="psf", n_expected=n)
        middle = np.array([(nx - 1) / 2, (ny - 1) / 2])
        checked = {
            "data": data,
            "ivar": ivar,
            "unit": unit,
            "psf": psf,
            "psf_oversampling": check_oversampling(self.psf_oversampling),
            "jacobian": _checked_jacobian(self.jacobian, n),
            "origin": _per_row("origin", self.origin, (n, 2), np.int64, np.zeros(2, np.int64)),
            "center": _per_row("center", self.center, (n, 2), float, middle),
            "given": _per_row("given", self.given, (n, 2), float, np.full(2, np.nan), finite=False),
            "flags": _per_row("flags", self.flags, (n,), np.int64, np.int64(0)),
        }
        if self.nuisance is not None:
            shape = (n, np.shape(self.nuisance)[1], ny, nx) if np.ndim(self.nuisance) == 4 else (n, 1, ny, nx)
            checked["nuisance"] = _per_row("nuisance", self.nuisance, shape, np.float32, None)
        if self.skycoord is not None:
            checked["skycoord"] = _per_row("skycoord", self.skycoord, (n, 2), float, None, finite=False)
        _freeze(self, checked)

    def __len__(self):
        return self.data.shape[0]

    def __repr__(self):
        n, ny, nx = self.data.shape
        return (
            f"<Stamps: {n} of {ny}x{nx} pixels, PSF {self.psf.shape} at {self.psf_oversampling}x, "
            f"unit={self.unit}, {'with' if self.skycoord is not None else 'no'} sky positions>"
        )

    def __getitem__(self, index):
        """Rows of the batch: an int, slice, or array of int or bool gives `Stamps`."""
        # a slice shares memory, which nobody can change
        rows = index if isinstance(index, slice) else np.atleast_1d(np.arange(len(self))[index])
        selected = {}
        for item in fields(self):
            value = getattr(self, item.name)
            shared = not isinstance(value, np.ndarray) or (item.name == "psf" and len(value) == 1)
            selected[item.name] = value if shared else value[rows]
        # The rows were checked when the whole batch was made.
        return _freeze(object.__new__(Stamps), selected)

    def __setstate__(self, state):
        _freeze(self, dict(state))

    @property
    def noise_unit(self):
        """(N,) ndarray: power of two nearest to the typical noise of a pixel; one without data.

        Of each stamp by itself, so that no result depends on the other stamps of a batch.
        """
        count = np.count_nonzero(self.ivar, axis=(1, 2))
        mean = self.ivar.sum((1, 2), dtype=float) / np.maximum(count, 1)
        return np.where(count > 0, 2.0 ** np.round(-0.5 * np.log2(np.where(count > 0, mean, 1.0))), 1.0)

    def with_pixels(self, data, ivar, nuisance=None):
        """The same stamps with other pixels, of the shape and type of the old ones, finite.

        Zero ``ivar`` masks a pixel; a read-only one is kept as it is. ``nuisance`` as of the class, single
        precision.
        """
        parts = {item.name: getattr(self, item.name) for item in fields(self)}
        data = np.where(ivar > 0, data, 0).astype(self.data.dtype, copy=False)
        ivar = np.array(ivar) if ivar.flags.writeable else ivar
        changed = {"data": data, "ivar": ivar, "nuisance": nuisance}
        return _freeze(object.__new__(Stamps), parts | changed)

    def without_psfs(self):
        """The same stamps for whoever needs no PSF: none is copied with parts of them."""
        parts = {item.name: getattr(self, item.name) for item in fields(self)}
        return _freeze(object.__new__(Stamps), parts | {"psf": None})

    def as_even_squares(self):
        """The same stamps, with masked pixels added at the far ends until they are squares of even size."""
        ny, nx = self.data.shape[1:]
        side = max(ny, nx)
        side += side % 2
        if (ny, nx) == (side, side):
            return self
        more = [(0, 0), (0, side - ny), (0, side - nx)]
        nuisance = None if self.nuisance is None else np.pad(self.nuisance, [(0, 0), *more])
        return self.with_pixels(np.pad(self.data, more), np.pad(self.ivar, more), nuisance)

    def in_units_of(self, unit):
        """The same stamps with pixel values counted in a number > 0 of their unit, one for all or (N,).

        In single precision; exact if the number is a power of two.
        """
        parts = {item.name: getattr(self, item.name) for item in fields(self)}
        unit = np.broadcast_to(unit, len(self)).astype(float)[:, None, None]
        parts["data"], parts["ivar"] = _scaled(self.data, 1 / unit), _scaled(self.ivar, unit**2)
        parts["psf"] = self.psf.astype(np.float32)
        return _freeze(object.__new__(Stamps), parts | {"unit": None})


def _scaled(array, factor):
    """Single-precision product, rounded once."""
    single = factor.astype(np.float32)
    if array.dtype == np.float32 and (single == factor).all():
        return array * single
    return np.multiply(array, factor, dtype=float).astype(np.float32)


def _freeze(stamps, values):
    """Set attributes of a frozen instance; its arrays become read-only."""
    for name, value in values.items():
        if isinstance(value, np.ndarray):
            value.setflags(write=False)
        object.__setattr__(stamps, name, value)
    return stamps


def _checked_pixels(data, ivar):
    """Copies of data and ivar, float32 if that can hold them, in which unusable pixels are zero."""
    (data, no_data), (ivar, no_ivar) = (split_mask(one) for one in (data, ivar))
    data, ivar = np.asarray(data), np.asarray(ivar)
    if data.ndim != 3:
        raise InputError(f"data has shape {data.shape}; (N, ny, nx) is needed")
    if min(data.shape[1:]) < MINIMUM_STAMP_SIZE:
        raise InputError(
            f"data has stamps of {data.shape[1]}x{data.shape[2]} pixels; at least "
            f"{MINIMUM_STAMP_SIZE}x{MINIMUM_STAMP_SIZE} are needed to measure a galaxy"
        )
    if ivar.shape != data.shape:
        raise InputError(f"ivar has shape {ivar.shape}; that of data is {data.shape}")
    for name, array in (("data", data), ("ivar", ivar)):
        if array.dtype.kind not in "buif":
            raise InputError(f"{name} has dtype {array.dtype}; real numbers are needed")
    for mask in (no_data, no_ivar):
        ivar = ivar if mask is None else np.where(mask, 0, ivar)
    largest = float(ivar.max(initial=0))
    if not (ivar.min(initial=0) >= 0 and np.isfinite(largest)):  # NaN is neither
        bad = ~(np.isfinite(ivar) & (ivar >= 0))
        raise NoiseError(
            f"ivar has {bad.sum()} pixels that are negative, NaN or infinite; inverse variance must be "
            "finite and >= 0, with zero for pixels that do not count"
        )
    fits = largest == 0 or 1 / _SINGLE_PRECISION_LIMIT < largest < _SINGLE_PRECISION_LIMIT
    kind = np.float32 if fits else np.float64
    with np.errstate(over="ignore", under="ignore"):
        data, ivar = np.array(data, kind), np.array(ivar, kind)
    bad = ~np.isfinite(data) | (ivar == 0)
    if bad.any():
        data[bad], ivar[bad] = 0, 0
    return data, ivar


def _per_row(name, value, shape, dtype, default, finite=True):
    """Array of one value per row, from the caller or a default."""
    if value is None:
        value = np.broadcast_to(default, shape)
    value, mask = split_mask(value)
    if mask is not None:
        raise InputError(f"{name} has {np.count_nonzero(mask)} masked values; numbers are needed")
    array = np.asarray(value)
    if array.shape != shape:
        raise InputError(f"{name} has shape {array.shape}; {shape} is needed")
    if finite and not np.isfinite(array).all():
        raise InputError(f"{name} has values that are not finite")
    if dtype is np.int64 and array.dtype.kind not in "biu" and not np.array_equal(array, np.round(array)):
        raise InputError(f"{name} must be integers")
    return np.array(array, dtype)


def _checked_jacobian(jacobian, n):
    """(N, 2, 2) Jacobian, invertible in every row."""
    if jacobian is None:
        jacobian = np.eye(2)
    jacobian = filled(jacobian)
    if jacobian.shape == (2, 2):
        jacobian = np.broadcast_to(jacobian, (n, 2, 2))
    jacobian = _per_row("jacobian", jacobian, (n, 2, 2), float, None)
    singular = np.linalg.det(jacobian) == 0
    if singular.any():
        raise InputError(f"jacobian is singular in {singular.sum()} rows; pixels must cover some sky")
    return jacobian
