# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""Stamps of the same galaxies in several images.

Each exposure is cut into stamps by itself, as a single image would be, so exposures may differ in pixel
scale, WCS, orientation, size, unit, depth, PSF and mask.  What ties them together is a point on the sky
(or, without WCS, in the pixels that all share) that is known in each stamp.
"""

import warnings
from collections import Counter
from dataclasses import dataclass, replace

import numpy as np

from galshape_cnn.errors import GalshapeWarning, InputError, PositionError
from galshape_cnn.flags import SEVERE, Flag
from galshape_cnn.forward.galaxy_model import GalaxyModel
from galshape_cnn.forward.view import View
from galshape_cnn.observe.inputs import read_frames
from galshape_cnn.observe.noise.blank_sky import AUTO
from galshape_cnn.observe.noise.ccd import checked_gain
from galshape_cnn.observe.noise.model import NoiseModel
from galshape_cnn.observe.observation import Observation, prepare
from galshape_cnn.observe.positions import Positions, read_positions_argument
from galshape_cnn.wcs import offset_on_sky, pixel_positions

__all__ = ["Exposures", "prepare_exposures"]


@dataclass(frozen=True, eq=False)
class Exposures:
    """Stamps of N galaxies in E exposures, and how they hang together.

    Attributes
    ----------
    names : tuple of str
        Of the exposures.
    model : GalaxyModel
        With a flux for each band and a sky level for each exposure.
    observations : tuple of Observation
        Of N rows each; a galaxy that an exposure does not show has no data there.
    factors : (E,) ndarray
        Pixel values of each exposure over those of the first one of its band, for the same light.
    units : tuple
        Astropy unit, or None, of the flux in each band.
    zeropoints : tuple
        Magnitude of a flux of one in each band, or None.
    gains : tuple
        Electrons per unit of pixel value of each exposure, or None.
    correlations : tuple
        Autocorrelation of the noise of each exposure, or None.
    records : dict
        What was estimated of the noise, by exposure, for the metadata.
    seen : (N, E) ndarray of bool
        Whether a galaxy has data in an exposure.
    reference : (N,) ndarray of int
        First exposure with data: centre, size and shear of a row are fitted in its pixels.
    """

    names: tuple
    model: GalaxyModel
    observations: tuple
    factors: np.ndarray
    units: tuple
    zeropoints: tuple
    gains: tuple
    correlations: tuple
    records: dict
    seen: np.ndarray
    reference: np.ndarray

    def __len__(self):
        return len(self.reference)

    @property
    def table(self):
        """Columns that came with the positions, or None."""
        return self.observations[0].table

    @property
    def has_sky(self):
        """Whether positions on the sky are known."""
        return self.observations[0].has_sky

    def rows_of(self, exposure):
        """Groups of (rows with data, their Stamps) of an exposure."""
        for index, stamps in self.observations[exposure].groups:
            some = np.flatnonzero(self.seen[index, exposure])
            if len(some):
                yield index[some], stamps[some]

    def placement(self, rows, exposure):
        """Centre in the stamp, corner, sky position and Jacobian of rows in an exposure, NaN where unseen.

        Parameters
        ----------
        rows : (M,) ndarray of int
        exposure : (M,) ndarray of int
            One for each row.

        Returns
        -------
        place : dict of ndarray
            ``center``, ``origin``, ``skycoord`` (M, 2), ``jacobian`` (M, 2, 2), ``side`` (M,).
        """
        n = len(self)
        out = {name: np.full((n, 2), np.nan) for name in ("center", "origin", "skycoord")}
        out |= {"jacobian": np.tile(np.eye(2), (n, 1, 1)), "side": np.zeros(n, int)}
        for number in np.unique(exposure):
            for index, stamps in self.observations[number].groups:
                inside = np.zeros(n, bool)
                inside[rows[exposure == number]] = True
                some = np.flatnonzero(inside[index])
                at = index[some]
                out["side"][at] = stamps.data.shape[-1]
                for name in ("center", "origin", "skycoord", "jacobian"):
                    value = getattr(stamps, name)
                    if value is not None:
                        out[name][at] = value[some]
        return {name: value[rows] for name, value in out.items()}

    def view(self, rows, exposure):
        """How an exposure sees the galaxies of some rows, from the pixels of their reference exposures.

        Parameters
        ----------
        rows : (M,) ndarray of int
            With data in the exposure.
        exposure : int

        Returns
        -------
        view : View
        """
        here = self.placement(rows, np.full(len(rows), exposure))
        there = self.placement(rows, self.reference[rows])
        back = np.linalg.inv(there["jacobian"])
        if self.has_sky:
            offset = offset_on_sky(there["skycoord"], here["skycoord"])
        else:
            offset = here["center"] + here["origin"] - there["center"] - there["origin"]
        reference = there["center"] + (back @ offset[..., None])[..., 0]
        frame = np.linalg.solve(here["jacobian"], there["jacobian"])
        return View(
            self.model, exposure, frame, reference, here["center"], np.full(len(rows), self.factors[exposure])
        )


def prepare_exposures(
    exposures, positions=None, *, fit_sky=True, noise_correlation=None, noise_scale=None, **cutting
):
    """Cut the galaxies out of several images.

    Parameters
    ----------
    exposures : sequence of Exposure
        All images, or all cutouts.
    positions : Table, SkyCoord or (N, 2) array_like, optional
        On the sky, or x, y of the first exposure.  None for cutouts.
    fit_sky : bool, optional
        Whether the sky levels are to be fitted.
    noise_correlation, noise_scale : optional
        Of exposures that say nothing of it; as for `galshape_cnn.ShapeEstimator`.
    **cutting
        ``stamp_size``, ``recenter``, ``psf_oversampling``, ``psf_includes_pixel``, ``normalize_psf``: see
        `galshape_cnn.observe.observation.prepare`.

    Returns
    -------
    exposures : Exposures

    Raises
    ------
    InputError
        If the exposures contradict each other; its subclasses if noise, PSF or positions cannot be used.
    """
    names = _names(exposures)
    frames = [_named(name, _frames_of, one) for name, one in zip(names, exposures, strict=True)]
    model = _model(exposures, fit_sky)
    units = [unit for _, unit in frames]
    exposures = [
        replace(one, gain=_named(name, checked_gain, one.gain, unit))
        for name, one, unit in zip(names, exposures, units, strict=True)
    ]
    factors = _factors(exposures, names, model, units)
    places = _positions(exposures, names, [wcs for wcs, _ in frames], positions)
    defaults = {"noise_correlation": noise_correlation, "noise_scale": noise_scale}
    made = [
        _named(name, _observation, one, place, defaults, cutting)
        for name, one, place in zip(names, exposures, places, strict=True)
    ]
    observations, correlations, records, unasked = zip(*made, strict=True)
    _say_of_noise(dict(zip(names, unasked, strict=True)))
    counts = {len(one) for one in observations}
    if len(counts) > 1:
        listed = ", ".join(f"{name}: {len(one)}" for name, one in zip(names, observations, strict=True))
        raise InputError(f"the exposures hold different numbers of cutouts ({listed}); they must be equal")
    seen = np.stack([_has_data(one) for one in observations], 1)
    _refuse_unseen(observations, positions)
    first = [model.exposures.index(band) for band in range(len(model.bands))]
    return Exposures(
        names,
        model,
        observations,
        factors,
        tuple(units[number] for number in first),
        tuple(exposures[number].zeropoint for number in first),
        tuple(one.gain for one in exposures),
        correlations,
        {name: record for name, record in zip(names, records, strict=True) if record},
        seen,
        np.argmax(seen, 1),
    )


def _names(exposures):
    """A name for each exposure, all different."""
    if not len(exposures):
        raise InputError("data is an empty list; at least one Exposure is needed")
    count, names = Counter(), []
    for one in exposures:
        count[one.band] += 1
        names.append(one.name or f"{one.band or 'exposure'}{count[one.band]}")
    twice = [name for name, number in Counter(names).items() if number > 1]
    if twice:
        raise InputError(f"two exposures have the name {twice[0]!r}; give each its own name=")
    return tuple(names)


def _named(name, function, *args):
    """Call a function; errors of the input say which exposure they are about."""
    try:
        return function(*args)
    except InputError as error:
        raise type(error)(f"exposure {name!r}: {error}") from error


def _frames_of(exposure):
    """WCS and unit of an exposure, pixels untouched; a list of WCS for cutouts."""
    frames, unit = read_frames(exposure.data, error=exposure.error, mask=exposure.mask, wcs=exposure.wcs)
    return (frames[0].wcs if len(frames) == 1 else [one.wcs for one in frames]), unit


def _model(exposures, fit_sky):
    """Bands in the order of their first exposures."""
    bands = tuple(dict.fromkeys(one.band for one in exposures))
    if len(bands) > 1 and "" in bands:
        missing = [k for k, one in enumerate(exposures) if not one.band]
        raise InputError(f"data[{missing[0]}] has no band, others have; give band= to all exposures")
    return GalaxyModel(bands, tuple(bands.index(one.band) for one in exposures), bool(fit_sky))


def _factors(exposures, names, model, units):
    """Pixel values of each exposure over those of the first one of its band, for the same light."""
    factors = np.ones(len(exposures))
    for number, (one, band) in enumerate(zip(exposures, model.exposures, strict=True)):
        first = model.exposures.index(band)
        other = exposures[first]
        if (one.zeropoint is None) != (other.zeropoint is None):
            without = names[number] if one.zeropoint is None else names[first]
            raise InputError(
                f"exposure {without!r} of band {one.band!r} has no zeropoint, others of the band have; give "
                "it to all exposures of the band, or to none if their pixels count the same light alike"
            )
        if one.zeropoint is not None:
            factors[number] = 10 ** (0.4 * (one.zeropoint - other.zeropoint))
        elif units[number] != units[first]:
            factors[number] = 1 / _unit_ratio(units[number], units[first], names[number], one.band)
    return factors


def _unit_ratio(unit, other, name, band):
    """One unit in another."""
    import astropy.units as u

    try:
        return (unit or u.dimensionless_unscaled).to(other or u.dimensionless_unscaled)
    except u.UnitConversionError as error:
        raise InputError(
            f"exposure {name!r} of band {band!r} has unit {unit}, another one of the band {other}; units "
            "that can be converted are needed, or zeropoint= for each"
        ) from error


def _positions(exposures, names, wcses, positions):
    """Positions of the galaxies in each exposure; None for cutouts."""
    if positions is None:
        return [None] * len(exposures)
    have = [wcs is not None for wcs in wcses]
    for name, wcs in zip(names, wcses, strict=True):
        if isinstance(wcs, list):
            raise PositionError(f"positions are given, but exposure {name!r} holds cutouts; leave them out")
    if any(have) and not all(have):
        without, other = names[have.index(False)], names[have.index(True)]
        raise InputError(
            f"exposure {without!r} has no WCS, {other!r} has one; give one to all, or to none if the images "
            "are aligned pixel to pixel"
        )
    first = read_positions_argument(positions, wcses[0])
    if not any(have):
        shapes = {np.shape(getattr(one.data, "data", one.data)) for one in exposures}
        if len(shapes) > 1:
            raise InputError(f"exposures without WCS must be aligned, but have shapes {sorted(shapes)}")
        return [first, *(replace(first, table=None) for _ in exposures[1:])]
    coords = first.on_sky(wcses[0])
    return [first, *(Positions(pixel_positions(wcs, coords)) for wcs in wcses[1:])]


def _observation(exposure, positions, defaults, cutting):
    """Stamps of an exposure, which need not show any galaxy; correlation and records of its noise.

    The last record is of what was measured without having been asked for.
    """
    own = {name: getattr(exposure, name) for name in defaults}
    own = {name: defaults[name] if value is None else value for name, value in own.items()}
    noise = NoiseModel(exposure.gain, **own)
    observation = prepare(
        exposure.data, psf=exposure.psf, error=exposure.error, mask=exposure.mask, wcs=exposure.wcs,
        positions=positions, strict=positions is None, **cutting,
    )  # fmt: skip
    with warnings.catch_warnings():  # said once, of all exposures
        warnings.filterwarnings("ignore", message="blank pixels of the image", category=GalshapeWarning)
        observation, correlation, record = noise.applied(observation)
    unasked = {name for name, value in own.items() if isinstance(value, str) and value == AUTO}
    return observation, correlation, record, {name: record[name] for name in unasked & set(record)}


def _say_of_noise(records):
    """One warning of the exposures whose noise is not what their maps say."""
    parts = []
    for name, record in records.items():
        scale, correlation = record.get("noise_scale"), record.get("noise_correlation")
        said = [] if scale is None else [f"scatter {scale:.2f} times"]
        said += [] if correlation is None else [f"correlated over {correlation['area']:.1f} pixels"]
        parts += [f"{name} ({', '.join(said)})"] if said else []
    if parts:
        warnings.warn(
            f"blank pixels differ from what the noise maps say in {', '.join(parts)}: errors and flags take "
            "that into account; noise_scale=None and noise_correlation=None take the maps at their word",
            GalshapeWarning,
            stacklevel=4,
        )


def _has_data(observation):
    """Rows of which an exposure has any pixel, (N,)."""
    seen = np.zeros(len(observation), bool)
    for index, stamps in observation.groups:
        bad = (stamps.flags & (SEVERE & ~Flag.NOT_MEASURED)) > 0
        seen[index] = (stamps.ivar > 0).any((1, 2)) & ~bad
    return seen


def _refuse_unseen(observations: tuple[Observation, ...], positions):
    """Refuse a call in which no exposure shows any of the positions."""
    if positions is None:
        return
    flags = np.array([np.concatenate([s.flags for _, s in one.groups]) for one in observations])
    if (flags & Flag.OFF_IMAGE > 0).all():
        raise PositionError(
            f"positions: none of the {len(observations[0])} lies inside any of the {len(observations)} images"
        )
