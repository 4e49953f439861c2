# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""`Measurement`: the raw result of an estimator, in the pixel frame of the stamps.

Estimators produce a `Measurement` for each group of equal-sized stamps;
`Measurement.scatter` puts the groups back into the order of the input.
`galshape_cnn.infer.catalog.catalog.ShapeCatalog` adds units and the sky frame.
"""

from dataclasses import dataclass, fields
from functools import lru_cache

import numpy as np

from galshape_cnn.errors import InputError
from galshape_cnn.flags import Flag
from galshape_cnn.forward.galaxy_model import SINGLE, GalaxyModel

__all__ = ["Measurement", "sample_quantiles"]

# Arrays that may be missing, and what they are then.
_DEFAULTS = {"neighbour_fraction": np.nan, "structure": 0.0, "rff": np.nan}
_SHEARED = (2, 4, 6)


@lru_cache(maxsize=64)
def _trailing(model):
    """Trailing shape of each array after the axis of galaxies."""
    reported = len(model.reported_names)
    shapes = {"params": (model.size,)}
    shapes |= {name: (reported, reported) for name in ("covariance", "crb", "structure")}
    return shapes | {name: () for name in ("snr", "chi2", "ess", "flags", "neighbour_fraction", "rff")}


def _read_only(array, dtype):
    """View of an array that cannot be written through; copies only to change the type."""
    view = np.asarray(array, dtype=dtype).view()
    view.flags.writeable = False
    return view


@dataclass(frozen=True, eq=False)
class Measurement:
    """Measured parameters of N galaxies in the pixel frame of their stamps.

    Attributes
    ----------
    params : (N, P) ndarray of float
        Those of ``model``, by default flux, n, hlr, g1, g2, x, y, sky.  Flux and sky in the unit of the
        pixels, lengths in pixels, x and y from the centre of stamp pixel [0, 0].
    covariance : (N, R, R) ndarray of float
        Posterior covariance of the reported ones, flux, n, hlr, g1, g2; NaN where there is none.
    crb : (N, R, R) ndarray of float
        Cramér-Rao bound of the same, nuisance parameters marginalised.
    snr, chi2, ess : (N,) ndarray of float
        Signal-to-noise ratio, reduced chi-square, effective sample size.
    flags : (N,) ndarray of int64
        Bits of `galshape_cnn.flags`.
    samples : (N, S, R) ndarray of float or None
        Equally weighted draws from the posterior; rows of NaN pad galaxies
        that have fewer.
    neighbour_fraction : (N,) ndarray of float
        Share of the galaxy's light on pixels of other sources; NaN, as without
        it, where none were looked for.
    structure : (N, 5, 5) ndarray of float
        What structure that no Sérsic profile has adds to the covariance of an unbiased estimate, and the
        shape of chi-square to that of a fit; zero where none is seen.
    rff : (N,) ndarray of float
        Residual flux fraction.
    sheared : (N, 2, 4, 6) ndarray of float or None
        From `galshape_cnn.infer.shear.response.shear_response`.
    model : GalaxyModel
        Which parameters there are.

    Raises
    ------
    InputError
        If the shapes do not agree.
    """

    params: np.ndarray
    covariance: np.ndarray
    crb: np.ndarray
    snr: np.ndarray
    chi2: np.ndarray
    ess: np.ndarray
    flags: np.ndarray
    samples: np.ndarray | None = None
    neighbour_fraction: np.ndarray | None = None
    structure: np.ndarray | None = None
    rff: np.ndarray | None = None
    sheared: np.ndarray | None = None
    model: GalaxyModel = SINGLE

    def __post_init__(self):
        n, shapes = len(self.params), _trailing(self.model)
        for name, value in _DEFAULTS.items():
            if getattr(self, name) is None:
                object.__setattr__(self, name, np.full((n, *shapes[name]), value))
        for name, trailing in shapes.items():
            array = _read_only(getattr(self, name), np.int64 if name == "flags" else float)
            if array.shape != (n, *trailing):
                raise InputError(f"{name} has shape {array.shape}; expected {(n, *trailing)}")
            object.__setattr__(self, name, array)
        if self.samples is not None:
            samples = _read_only(self.samples, None)
            reported = len(self.model.reported_names)
            if samples.ndim != 3 or samples.shape[::2] != (n, reported):
                raise InputError(f"samples has shape {samples.shape}; expected ({n}, S, {reported})")
            object.__setattr__(self, "samples", samples)
        if self.sheared is not None:
            sheared = _read_only(self.sheared, float)
            if sheared.shape != (n, *_SHEARED):
                raise InputError(f"sheared has shape {sheared.shape}; expected {(n, *_SHEARED)}")
            object.__setattr__(self, "sheared", sheared)

    def __len__(self):
        return len(self.params)

    def __getitem__(self, index):
        """Rows of the measurement; an integer gives a measurement of one row."""
        if isinstance(index, int | np.integer):
            index = [range(len(self))[index]]
        parts = {f.name: getattr(self, f.name) for f in fields(self)}
        whole = {k for k, v in parts.items() if not isinstance(v, np.ndarray)}
        return Measurement(**{k: v if k in whole else v[index] for k, v in parts.items()})

    def in_units_of(self, unit):
        """The same measurement with fluxes counted in a number > 0 of their unit, one for all or (N,)."""
        parts = {f.name: getattr(self, f.name) for f in fields(self)}
        units = self.model.units(np.broadcast_to(unit, len(self)))
        of_flux = units[:, self.model.reported]
        parts["params"] = self.params / units
        for name in ("covariance", "crb", "structure"):
            parts[name] = parts[name] / (of_flux[:, :, None] * of_flux[:, None, :])
        if self.samples is not None:
            parts["samples"] = self.samples / of_flux[:, None]
        if self.sheared is not None:
            parts["sheared"] = self.sheared.copy()
            parts["sheared"][..., 0] /= units[:, SINGLE.flux, None, None]
        return Measurement(**parts)

    def __getstate__(self):
        return dict(self.__dict__)

    def __setstate__(self, state):
        # Unpickled arrays are writeable again.
        for name, array in state.items():
            kept = not isinstance(array, np.ndarray)
            object.__setattr__(self, name, array if kept else _read_only(array, None))

    @classmethod
    def empty(cls, n, model=SINGLE):
        """Measurement of n galaxies that were not measured: all NaN, each row flagged ``NOT_MEASURED``.

        Examples
        --------
        >>> from galshape_cnn.infer.catalog.measurement import Measurement
        >>> Measurement.empty(2).flags
        array([1, 1])
        """
        arrays = {name: np.full((n, *trailing), np.nan) for name, trailing in _trailing(model).items()}
        arrays["flags"] = np.full(n, Flag.NOT_MEASURED, dtype=np.int64)
        arrays["structure"][:] = _DEFAULTS["structure"]
        return cls(**arrays, model=model)

    @classmethod
    def scatter(cls, n, parts):
        """Put measurements of groups of rows, each after its row numbers (M,), back into their order.

        Rows that no part covers are NaN and flagged ``NOT_MEASURED``. ``InputError`` if an index has another
        length than its measurement, lies outside ``[0, n)`` or occurs twice.
        """
        parts = [(np.asarray(index, dtype=int).ravel(), part) for index, part in parts]
        _check_parts(n, parts)
        model = parts[0][1].model if parts else SINGLE
        blank, trailing = cls.empty(n, model), _trailing(model)
        out = {name: getattr(blank, name).copy() for name in trailing} | {"model": model}
        out["samples"] = _blank_samples(n, parts)
        if any(part.sheared is not None for _, part in parts):
            out["sheared"] = np.full((n, *_SHEARED), np.nan)
        for index, part in parts:
            for name in trailing:
                out[name][index] = getattr(part, name)
            if part.samples is not None:
                out["samples"][index, : part.samples.shape[1]] = part.samples
            if part.sheared is not None:
                out["sheared"][index] = part.sheared
        return cls(**out)


def _check_parts(n, parts):
    """Refuse parts that do not fit into n rows."""
    for index, part in parts:
        if len(index) != len(part):
            raise InputError(f"an index of {len(index)} rows came with a measurement of {len(part)} rows")
    rows = np.concatenate([index for index, _ in parts]) if parts else np.zeros(0, int)
    if len(rows) and (rows.min() < 0 or rows.max() >= n):
        raise InputError(f"index runs from {rows.min()} to {rows.max()}; allowed: 0 to {n - 1}")
    if len(np.unique(rows)) != len(rows):
        raise InputError("index: a row occurs in more than one part")


def _blank_samples(n, parts):
    """NaN array wide enough for the samples of each part, or None."""
    widths = [part.samples.shape[1] for _, part in parts if part.samples is not None]
    return np.full((n, max(widths), len(parts[0][1].model.reported_names)), np.nan) if widths else None


def sample_quantiles(draws, effective, probabilities):
    """Quantiles (Q, P) of equally weighted draws (S, P) of which fewer are independent.

    The i-th of m independent draws stands at i / (m + 1), for that is where a new draw, the truth for one, is
    as likely to lie below it.  Plain quantiles of the draws make intervals that cover too little, by a share
    of 2 / m.  NaN without draws; the extreme draws beyond the first and the last of them.
    """
    if not len(draws):
        return np.full((len(probabilities), draws.shape[1]), np.nan)
    middle = (np.arange(len(draws)) + 0.5) / len(draws)
    position = (effective * middle + 0.5) / (effective + 1)
    ordered = np.sort(draws, axis=0)
    return np.stack([np.interp(probabilities, position, column) for column in ordered.T], 1)
