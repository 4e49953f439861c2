# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""One realisation: a copy of the image with galaxies in it, drawn, found, measured.

A realisation is a function of the job and of its number alone, so that it does not matter which process
does it, and when.
"""

from dataclasses import dataclass

import galsim
import numpy as np
from astropy.nddata import NDData, StdDevUncertainty
from astropy.table import Table

from galshape_cnn.geometry import semi_major_radius
from galshape_cnn.infer.likelihood.rendering import BATCH_SIZE
from galshape_cnn.study.inject.drawing import PointSpread, draw_unit, flux_for_snr, photon_noise, snr_of
from galshape_cnn.study.inject.galaxies import TRUTHS
from galshape_cnn.study.inject.measuring import (
    BEST,
    blank_rows,
    cut_at,
    cut_found,
    given_positions,
    joined_rows,
    measured_table,
)
from galshape_cnn.study.inject.places import Field, Room
from galshape_cnn.study.inject.profiles import galaxy_profile
from galshape_cnn.wcs import sky_geometry

__all__ = ["Job", "run_chunk"]

_MORE_TRIES = 500  # places for a galaxy whose light, once drawn, is too faint for the one that was planned


@dataclass(frozen=True, eq=False)
class Job:
    """Everything that a realisation needs.

    Attributes
    ----------
    estimator : ShapeEstimator
        That measures.
    image : NDData
        The user's, with noise; never changed.
    field : Field
        What is in it.
    room : Room
        What each galaxy needs.
    galaxies : `~astropy.table.Table`
        From `galshape_cnn.study.inject.galaxies.galaxy_rows`.
    realisation : (N,) ndarray of int
        Of each.
    xy : (N, 2) ndarray
        Planned places.
    drawn_psf : PointSpread
        That they are drawn with.
    cutting : dict
        How stamps are cut: PSF and size.
    call : dict
        Keywords of the estimator: method, noise.
    seed : int
        Of the run.
    side : int
        Of the part of the image that a galaxy is drawn on.
    fwhm : float
        Of the PSF, pixels.
    noise_scale : float
        By which the noise map is too small.
    gain : float or None
        Electrons per unit of flux.
    gain_in_map : bool
        Whether the noise map holds the sources' photon noise.
    find : bool
        Find the galaxies; otherwise their positions are given.
    detection : Detection or None
        How they are found.
    real : object
        Catalogue of HST galaxies, or its path.
    real_scale : float
        Multiplies their sizes, which are in arcsec.
    stamp_size : int
        Side of the stamps, pixels.
    is_sized : bool
        Whether that holds for galaxies that are found, too.
    shear : tuple of float
        Both components of the shear of the sky.
    asked : dict or None
        What the user gave, for the metadata.
    """

    estimator: object
    image: NDData
    field: Field
    room: Room
    galaxies: Table
    realisation: np.ndarray
    xy: np.ndarray
    drawn_psf: PointSpread
    cutting: dict
    call: dict
    seed: int
    side: int
    fwhm: float
    noise_scale: float = 1.0
    gain: float | None = None
    gain_in_map: bool = False
    find: bool = False
    detection: object = None
    real: object = None
    real_scale: float = 1.0
    stamp_size: int = 64
    is_sized: bool = False
    shear: tuple = (0.0, 0.0)
    asked: dict | None = None

    @property
    def cutting_found(self):
        """How stamps of galaxies that are found are cut."""
        sized = self.is_sized
        return {name: value for name, value in self.cutting.items() if sized or name != "stamp_size"}

    def chunks(self):
        """Numbers of the realisations measured together: as many as fill a batch of the estimator."""
        chunks, room = [], 0
        for number, count in enumerate(np.bincount(self.realisation[self.realisation >= 0])):
            if count > room:
                chunks, room = [*chunks, []], max(BATCH_SIZE, int(count))
            chunks[-1].append(number)
            room -= int(count)
        return chunks

    def galaxies_in(self, number):
        """Number of galaxies of a chunk."""
        return int(np.isin(self.realisation, self.chunks()[number]).sum())

    @property
    def middle(self):
        """x, y of the middle of the image."""
        return (np.array(self.image.data.shape[::-1]) - 1) / 2

    def jacobian_at(self, xy):
        """d(u, v)/d(x, y) at a place: arcsec per pixel, or the identity."""
        return np.eye(2) if self.image.wcs is None else sky_geometry(self.image.wcs, [xy])[0][0]

    def record(self):
        """What was done, for the metadata: plain numbers and texts."""
        return {
            "n": len(self.galaxies),
            "without_place": int(np.count_nonzero(self.realisation < 0)),
            "realisations": int(self.realisation.max(initial=-1)) + 1,
            "seed": self.seed,
            **{
                name: value
                for name, value in self.call.items()
                if isinstance(value, str | bool | int | float)
            },
            "correlated_noise": self.call.get("noise_correlation") is not None,
            "find": self.find,
            "shear": list(self.shear),
            "clearance": self.room.clearance,
            "avoid": self.room.avoid,
            "stamp_size": self.stamp_size,
            "psf_fwhm_pixels": self.fwhm,
            "noise_scale": self.noise_scale,
            "gain": self.gain,
            "gain_in_map": self.gain_in_map,
            "sources_in_image": len(self.field.xy),
            "image_shape": list(self.image.data.shape),
            "options": self.asked,
        }


@dataclass(frozen=True, eq=False)
class _Injected:
    """A galaxy at its place: its row of the truth, and its light."""

    truth: dict
    drawn: object
    xy: np.ndarray


def run_chunk(job, number):
    """Draw and measure the galaxies of a chunk: a row, truth and measurement, for each that found a place.

    None if none did.
    """
    rows, seen, found, alone = [], [], [], []
    for realisation in job.chunks()[number]:
        injected = _place_all(job, np.flatnonzero(job.realisation == realisation))
        if injected:
            rows += [one.truth | {"realisation": realisation} for one in injected]
            clean, counted = _light(job, injected)
            observation, here = _observed(job, _with_light(job, counted, clean), injected)
            found.append(here)
            seen += [] if observation is None else [observation]
            alone += _alone(job, clean, injected)
    if not rows:
        return None
    truth, found = Table(rows=rows), np.concatenate(found)
    if not seen:  # a row for the columns
        seen = [cut_at(job.image, [job.xy[np.isfinite(job.xy).all(1)][0]], job.cutting)]
    measured = blank_rows(measured_table(job.estimator, seen, job.call | {"threads": 1}), found)
    return joined_rows(truth, _best_fits(job, truth, alone, measured), measured, found)


def _light(job, injected):
    """Light of the galaxies, expected and as it is counted."""
    clean = np.zeros(job.image.data.shape)
    counted = clean.copy()
    for one in injected:
        part = one.drawn.rows, one.drawn.columns
        clean[part] += one.drawn.image
        counted[part] += _counted(job, one)
    return clean, counted


def _observed(job, image, injected):
    """Stamps of the galaxies, and which of them were found."""
    xy = np.array([one.xy for one in injected])
    if job.find:
        return cut_found(image, xy, job.fwhm, job.detection, job.cutting_found)
    seeds = [[job.seed, one.truth["id"] - 1, 5] for one in injected]
    positions = given_positions(xy, [one.truth["snr"] for one in injected], job.fwhm, seeds)
    return cut_at(image, positions, job.cutting), np.ones(len(xy), bool)


def _alone(job, clean, injected):
    """Stamps without noise of the galaxies that have no parameters of their own, or are structured."""
    xy = [one.xy for one in injected if one.truth["kind"] != "sersic"]
    return [cut_at(_with_light(job, clean, clean, alone=True), xy, job.cutting)] if xy else []


def _best_fits(job, truth, alone, measured):
    """The Sérsic profiles that fit structured galaxies best, without noise; NaN for Sérsic galaxies."""
    table = measured[list(BEST)].copy()
    for name in BEST:
        table[name][:] = np.nan
    rows = np.flatnonzero(np.asarray(truth["kind"]) != "sersic")
    if len(rows):
        call = job.call | {"method": "ml", "neighbours": "ignore", "threads": 1}
        fits = measured_table(job.estimator, alone, call)
        for name in BEST:
            table[name][rows] = fits[name]
    return table


def _place_all(job, rows):
    """The galaxies of one realisation, each with its light, where they are free in the end."""
    injected = []
    for place, row in enumerate(rows):
        galaxy = job.galaxies[row]
        profile = galaxy_profile(galaxy, job.seed, job.real)
        taken = [one.xy for one in injected] + [job.xy[other] for other in rows[place + 1 :]]
        for xy in _places(job, row):
            if not job.room.is_apart(xy, taken):
                continue
            one = _drawn(job, galaxy, profile, xy)
            if one is not None:
                injected.append(one)
                break
    return injected


def _places(job, row):
    """The planned place, then others."""
    yield job.xy[row]
    yield from job.room.candidates(job.field, np.random.default_rng([job.seed, row, 3]), _MORE_TRIES)


def _drawn(job, galaxy, profile, xy):
    """A galaxy at a place with its flux, or None if that place is not free for it."""
    jacobian = job.jacobian_at(xy)
    scale = np.sqrt(np.abs(np.linalg.det(jacobian)))
    truth = {name: galaxy[name] for name in galaxy.colnames}
    hlr = float(truth["hlr"])
    if truth["kind"] == "real":
        profile = profile.dilate(job.real_scale)
    r_eff = float(semi_major_radius(hlr, truth["g1"], truth["g2"])) / scale
    if job.field.is_bad_within(xy, job.room.radius(r_eff)):
        return None
    effective = job.drawn_psf.effective(xy, jacobian)
    drawn = draw_unit(profile, effective, xy, jacobian, job.side, job.image.data.shape)
    part = drawn.rows, drawn.columns
    sigma = np.where(job.field.bad[part], np.inf, job.field.sigma[part] * job.noise_scale)
    flux = float(truth["flux"])
    if not np.isfinite(flux):
        flux = flux_for_snr(drawn.image, sigma, float(truth["snr"]), job.gain)
    if not (np.isfinite(flux) and job.room.is_free(job.field, xy, r_eff, flux)):
        return None
    if any(job.shear):  # which changes neither flux nor place
        shear = galsim.Shear(g1=job.shear[0], g2=job.shear[1])
        drawn = draw_unit(profile.shear(shear), effective, xy, jacobian, job.side, job.image.data.shape)
        whole = shear + galsim.Shear(g1=float(truth["g1"]), g2=float(truth["g2"]))
        truth |= {"g1": whole.g1, "g2": whole.g2}
        r_eff = float(semi_major_radius(hlr, whole.g1, whole.g2)) / scale
    image = flux * drawn.image
    drawn = type(drawn)(image, *part)
    weight = image / sigma**2
    near = job.stamp_size / 2
    found = {
        "id": int(truth["id"]),
        "kind": str(truth["kind"]),
        "truth": TRUTHS[str(truth["kind"])],
        "x": float(xy[0]),
        "y": float(xy[1]),
        "flux": flux,
        **_shape(truth),
        "snr": snr_of(image, sigma, job.gain),
        "r_eff": np.nan if truth["kind"] == "real" else r_eff * scale,
        "psf_fwhm": job.fwhm * scale,
        "structure": float(truth["structure"]),
        "n_near": job.field.sources_within(xy, near),
        "nearest": job.field.nearest(xy),
        "contamination": float(np.sum(weight * job.field.light[part]) / np.sum(weight * image)),
    }
    return _Injected(found, drawn, np.asarray(xy, float))


def _shape(galaxy):
    """Parameters of shape; a real galaxy has none, and those drawn for it only make room."""
    real = galaxy["kind"] == "real"
    return {name: np.nan if real else float(galaxy[name]) for name in ("n", "hlr", "g1", "g2")}


def _counted(job, one):
    """Light of a galaxy as the detector counts it."""
    if job.gain is None:
        return one.drawn.image
    rng = np.random.default_rng([job.seed, one.truth["id"] - 1, 4])
    return photon_noise(one.drawn.image, job.gain, rng)


def _with_light(job, counted, clean, alone=False):
    """A copy of the image with galaxies in it, or with nothing else."""
    image = job.image
    uncertainty = image.uncertainty
    if job.gain is not None and job.gain_in_map:
        sigma = np.sqrt(np.asarray(uncertainty.array, float) ** 2 + np.maximum(clean, 0) / job.gain)
        uncertainty = StdDevUncertainty(sigma)
    return NDData(
        counted if alone else image.data + counted,
        uncertainty=uncertainty,
        mask=image.mask,
        wcs=image.wcs,
        unit=image.unit,
        meta=image.meta,
    )


def example_stamps(job, rows):
    """Some of the galaxies in the image, drawn again.

    Parameters
    ----------
    job : Job
        What was done.
    rows : sequence of int
        Of the job, galaxies that have a place.

    Returns
    -------
    stamps : list of (dict, (k, k) ndarray, (k, k) ndarray)
        Truth, pixels with and without the galaxy in units of the noise.
    """
    stamps = []
    for row in rows:
        alike = np.flatnonzero(job.realisation == job.realisation[row])
        one = next(one for one in _place_all(job, alike) if one.truth["id"] == row + 1)
        part = one.drawn.rows, one.drawn.columns
        before = np.where(job.field.bad[part], np.nan, job.field.light[part])
        sigma = job.field.sigma[part]
        stamps.append((one.truth, (before + _counted(job, one)) / sigma, before / sigma))
    return stamps
