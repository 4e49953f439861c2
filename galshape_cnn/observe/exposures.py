# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""`Exposures`: stamps of the same galaxies in several images.

Each exposure is cut into stamps by itself, as a single image would be, so exposures may differ in pixel
scale, WCS, orientation, size, unit, depth, PSF and mask.  What ties them together is a point on the sky
(or, without WCS, in the pixels that all share) that is known in each stamp.
"""

import warnings
from contextlib import contextmanager
from dataclasses import dataclass, replace

import numpy as np

from galshape_cnn.errors import GalshapeWarning, warn
from galshape_cnn.flags import SEVERE, Flag
from galshape_cnn.forward.galaxy_model import GalaxyModel
from galshape_cnn.forward.view import View
from galshape_cnn.observe.exposure import axes_of
from galshape_cnn.observe.exposure_agreement import agreed_exposures, check_counts
from galshape_cnn.observe.noise.blank_sky import AUTO
from galshape_cnn.observe.noise.model import NoiseModel
from galshape_cnn.observe.observation import prepare
from galshape_cnn.wcs import offset_on_sky

__all__ = [
    "Exposures",
    "prepare_exposures",
    "settled_noise",
]


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
        """Centre in the stamp, corner, sky position and Jacobian of rows (M,) in an exposure of each (M,).

        By name: ``center``, ``origin``, ``skycoord`` (M, 2), ``jacobian`` (M, 2, 2), ``side`` (M,); NaN where
        unseen.
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
        """How an exposure sees the galaxies of rows (M,), from the pixels of their reference exposures."""
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
    exposures,
    positions=None,
    *,
    fit_sky=True,
    vary=(),
    noise_correlation=None,
    noise_scale=None,
    strict=True,
    **cutting,
):
    """Cut the galaxies out of several images.

    Parameters
    ----------
    exposures : sequence of Exposure
        All images, or all cutouts.
    positions : Table, SkyCoord, (N, 2) array_like or ExposurePositions, optional
        On the sky, or x, y of the first exposure.  None for cutouts.
    fit_sky : bool, optional
        Whether the sky levels are to be fitted.
    vary : tuple of (str, int), optional
        What of the shape varies between bands, as of `GalaxyModel`.
    noise_correlation, noise_scale : optional
        Of exposures that say nothing of it; as for `galshape_cnn.ShapeEstimator`.
    strict : bool, optional
        Refuse cutouts without noise; otherwise such rows are only flagged.
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
    agreed = agreed_exposures(exposures, positions, fit_sky, vary)
    names, model = agreed.names, agreed.model
    defaults = {"noise_correlation": noise_correlation, "noise_scale": noise_scale}
    made = agreed.of_each(_observation, defaults, cutting, strict)
    observations, correlations, records, unasked = zip(*made, strict=True)
    _say_of_noise(dict(zip(names, unasked, strict=True)))
    check_counts(names, observations)
    seen = np.stack([_has_data(one) for one in observations], 1)
    first = [model.exposures.index(band) for band in range(len(model.bands))]
    return Exposures(
        names,
        model,
        observations,
        agreed.factors,
        tuple(agreed.units[number] for number in first),
        tuple(agreed.exposures[number].zeropoint for number in first),
        tuple(one.gain for one in agreed.exposures),
        correlations,
        {name: record for name, record in zip(names, records, strict=True) if record},
        seen,
        np.argmax(seen, 1),
    )


def settled_noise(exposures, positions=None, *, noise_correlation=None, noise_scale=None, **cutting):
    """Exposures with nothing of their noise left to estimate, for runs that measure galaxies in parts.

    Arguments as of `prepare_exposures`; what is to be estimated from stamps is so from these galaxies.
    Returns ``noise_correlation`` and ``noise_scale`` of each exposure, by name.
    """
    agreed = agreed_exposures(exposures, positions)
    defaults = {"noise_correlation": noise_correlation, "noise_scale": noise_scale}
    found, unasked = zip(*agreed.of_each(_settled, defaults, cutting), strict=True)
    _say_of_noise(dict(zip(agreed.names, unasked, strict=True)))
    return list(found)


def _noise(exposure, defaults):
    """`NoiseModel` of an exposure, and the names of what is measured without having been asked for."""
    own = {name: getattr(exposure, name) for name in defaults}
    own = {name: defaults[name] if value is None else value for name, value in own.items()}
    return NoiseModel(exposure.gain, **own), {n for n, v in own.items() if isinstance(v, str) and v == AUTO}


def _cut(exposure, where, cutting, strict):
    """Stamps of an exposure, which need not show any galaxy."""
    positions, listed = where
    return prepare(
        exposure.data, psf=exposure.psf, error=exposure.error, mask=exposure.mask, wcs=exposure.wcs,
        positions=positions, listed=listed, strict=strict and positions is None, **cutting,
    )  # fmt: skip


@contextmanager
def _without_word_of_noise():
    """What is measured of the noise is said once, of all exposures."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="blank pixels of the image", category=GalshapeWarning)
        yield


def _observation(exposure, where, defaults, cutting, strict):
    """Stamps of an exposure; correlation and records of its noise.

    The last record is of what was measured without having been asked for.
    """
    noise, automatic = _noise(exposure, defaults)
    observation = _cut(exposure, where, cutting, strict)
    with _without_word_of_noise():
        observation, correlation, record = noise.applied(observation)
    return observation, correlation, record, {name: record[name] for name in automatic & set(record)}


def _settled(exposure, where, defaults, cutting):
    """Noise of an exposure with nothing left to estimate, and what was measured without being asked for."""
    noise, automatic = _noise(exposure, defaults)
    if axes_of(exposure.data) != 2:  # of cutouts nothing is measured without being asked for
        noise = replace(noise, **dict.fromkeys(automatic))
    if noise.is_estimated:
        with _without_word_of_noise():
            noise = noise.settled(_cut(exposure, where, cutting, strict=False))
    found = {name: getattr(noise, name) for name in defaults}
    unasked = {name: found[name] for name in automatic if found[name] is not None}
    if "noise_correlation" in unasked:
        unasked["noise_correlation"] = {"area": unasked["noise_correlation"].array.sum()}
    return found, unasked


def _say_of_noise(records):
    """One warning of the exposures whose noise is not what their maps say."""
    parts = []
    for name, record in records.items():
        scale, correlation = record.get("noise_scale"), record.get("noise_correlation")
        said = [] if scale is None else [f"scatter {scale:.2f} times"]
        said += [] if correlation is None else [f"correlated over {correlation['area']:.1f} pixels"]
        parts += [f"{name} ({', '.join(said)})"] if said else []
    if parts:
        warn(
            f"blank pixels differ from what the noise maps say in {', '.join(parts)}: errors and flags take "
            "that into account; noise_scale=None and noise_correlation=None take the maps at their word"
        )


def _has_data(observation):
    """Rows of which an exposure has any pixel, (N,)."""
    seen = np.zeros(len(observation), bool)
    for index, stamps in observation.groups:
        bad = (stamps.flags & (SEVERE & ~Flag.NOT_MEASURED)) > 0
        seen[index] = (stamps.ivar > 0).any((1, 2)) & ~bad
    return seen
