# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""Measurement of injected galaxies, at given positions or where they are found.

Stamps are cut from each realisation by `galshape_cnn.observe.observation.prepare`, and those of several
realisations are measured in one call: a batch of the estimator costs the same whether it is full or not.
"""

from dataclasses import replace

import numpy as np
from astropy.coordinates import SkyCoord
from astropy.stats import gaussian_fwhm_to_sigma
from astropy.table import QTable, Table, hstack

from galshape_cnn.errors import PositionError
from galshape_cnn.flags import Flag
from galshape_cnn.infer.catalog.columns import SHAPE_PARAMETERS
from galshape_cnn.observe.observation import prepare
from galshape_cnn.observe.stamps import Stamps

__all__ = ["BEST", "blank_rows", "cut_at", "cut_found", "given_positions", "joined_rows", "measured_table"]

#: Columns of a best fit.
BEST = (*SHAPE_PARAMETERS, "r_eff")
#: Of the columns of the truth that do not begin with ``true``.
_DESCRIPTIONS = {
    "id": "identifier of the injected galaxy",
    "kind": "what was drawn",
    "truth": "what the measurement is compared with",
    "psf_fwhm": "full width at half maximum of the PSF",
    "structure": "share of the light outside the smooth component",
    "n_near": "sources of the image within half a stamp",
    "nearest": "distance of the nearest source of the image",
    "contamination": "light of the image that a matched filter takes for the galaxy's, over its flux",
    "realisation": "copy of the image that it was drawn into",
    "found": "whether it was measured",
}

_LARGEST_ERROR = 1.0  # pixels, of a given position
_MATCHED = (2.0, 0.5)  # a source is the galaxy within so many pixels, or this part of the PSF's FWHM
_APART = 1 << 20  # pixels, between the stamps of two realisations: neither is a neighbour of the other


def given_positions(xy, snr, fwhm, seeds):
    """Positions as a detection gives them, each with the error of a centroid.

    Parameters
    ----------
    xy : (K, 2) ndarray
        Where the galaxies are.
    snr : (K,) ndarray
        Their S/N.
    fwhm : float
        Of the PSF, pixels.
    seeds : sequence of list of int
        Of each error.

    Returns
    -------
    positions : (K, 2) ndarray
        Off by FWHM / (2.35 S/N) along each axis, at most twice that and a pixel.
    """
    error = np.minimum(fwhm * gaussian_fwhm_to_sigma / np.asarray(snr), _LARGEST_ERROR / 2)
    moves = np.array([np.random.default_rng(seed).normal(size=2) for seed in seeds])
    return np.asarray(xy) + np.clip(moves, -2, 2) * error[:, None]


def cut_at(image, positions, cutting):
    """Stamps of an image at 0-based positions (K, 2), with these keywords of `prepare`."""
    return prepare(image, positions=np.asarray(positions), **cutting)


def cut_found(image, xy, fwhm, detection, cutting):
    """Find the sources of an image, and cut the stamps of those that are the galaxies.

    Parameters
    ----------
    image, cutting
        As for `cut_at`; without ``stamp_size`` each source has the size that it was found with.
    xy : (K, 2) ndarray
        Where the galaxies are.
    fwhm : float
        Of the PSF, pixels; a source within half of it, or two pixels, is the galaxy.
    detection : Detection or None
        Thresholds.

    Returns
    -------
    observation : Observation or None
        Of the galaxies that were found; all other sources are listed in it.
    found : (K,) ndarray of bool
    """
    from galshape_cnn.observe.detect.sources import find_galaxies

    try:
        sources = find_galaxies(image, None, detection)
    except PositionError:
        return None, np.zeros(len(xy), bool)
    places = np.column_stack([sources["x"], sources["y"]])
    distance = np.hypot(*np.moveaxis(places[None] - np.asarray(xy)[:, None], -1, 0))
    match = distance.argmin(1)
    found = distance[np.arange(len(xy)), match] <= max(_MATCHED[0], _MATCHED[1] * fwhm)
    if not found.any():
        return None, found
    first = match[found]
    listed = places[np.concatenate([first, np.setdiff1d(np.arange(len(places)), first)])]
    positions = Table({"x": places[first, 0], "y": places[first, 1]})
    positions["stamp_size"] = _own_stamps(np.asarray(sources["stamp_size"])[first], xy[found], xy)
    return prepare(image, positions=positions, listed=(listed, 0), **cutting), found


def _own_stamps(sizes, xy, everyone):
    """Sizes of the stamps, none so large that it holds another injected galaxy."""
    apart = np.abs(everyone[None] - xy[:, None]).max(-1)
    nearest = np.where(apart > 0, apart, np.inf).min(1)
    return np.minimum(sizes, np.minimum(2 * nearest - 2, sizes.max()).astype(int))


def measured_table(estimator, observations, call):
    """Measure the stamps of several realisations together, with these keywords; rows in their order."""
    table = estimator(_together(observations), **call).to_table()
    tile = np.repeat(np.arange(len(observations)), [one.n for one in observations])
    table["x_centroid"] -= tile * _APART * table["x_centroid"].unit
    return table


def _together(observations):
    """One observation of several, their pixels far apart along x."""
    starts = np.cumsum([0] + [one.n for one in observations])
    shifts = [np.array([k * _APART, 0]) for k in range(len(observations))]
    parts = {}
    for one, start, shift in zip(observations, starts, shifts, strict=False):
        for index, stamps in one.groups:
            moved = replace(stamps, origin=stamps.origin + shift)
            parts.setdefault(stamps.data.shape[-1], []).append((index + start, moved))
    groups = tuple(
        (np.concatenate([index for index, _ in part]), _joined_stamps([stamps for _, stamps in part]))
        for _, part in sorted(parts.items())
    )
    own = [one.listed[: one.n] + shift for one, shift in zip(observations, shifts, strict=True)]
    rest = [one.listed[one.n :] + shift for one, shift in zip(observations, shifts, strict=True)]
    n = int(starts[-1])
    return replace(
        observations[0], groups=groups, n=n, table=None, image=None, listed=np.concatenate(own + rest)
    )


def _joined_stamps(parts):
    """One batch of stamps of one size."""
    names = ("data", "ivar", "jacobian", "origin", "center", "given", "flags")
    arrays = {name: np.concatenate([getattr(one, name) for one in parts]) for name in names}
    if parts[0].skycoord is not None:
        arrays["skycoord"] = np.concatenate([one.skycoord for one in parts])
    shared = all(len(one.psf) == 1 and np.array_equal(one.psf, parts[0].psf) for one in parts)
    psf = parts[0].psf if shared else np.concatenate([_each(one) for one in parts])
    return Stamps(psf=psf, psf_oversampling=parts[0].psf_oversampling, unit=parts[0].unit, **arrays)


def _each(stamps):
    """A PSF for each stamp."""
    return np.broadcast_to(stamps.psf, (len(stamps), *stamps.psf.shape[1:]))


def blank_rows(table, found):
    """A row for each galaxy, blank and flagged NOT_MEASURED where it was not found.

    The table holds the rows of those that were found, or any row if none was.
    """
    rows = np.zeros(len(found), int)
    rows[found] = np.arange(found.sum())
    table, lost = table[rows], ~found
    for name in table.colnames if lost.any() else ():
        column = table[name]
        if name == "flags":
            column[lost] = Flag.NOT_MEASURED
        elif name == "quality":
            column[lost] = 2
        elif isinstance(column, SkyCoord):
            angles = (np.where(lost, np.nan, angle.deg) for angle in (column.ra, column.dec))
            table[name] = SkyCoord(*angles, unit="deg", frame=column.frame.name)
        elif getattr(column, "dtype", np.dtype(int)).kind == "f":
            column[lost] = np.nan
    return table


def joined_rows(truth, best, measured, found):
    """Truth and measurement side by side.

    Parameters
    ----------
    truth : `~astropy.table.Table`
        ``id``, ``kind``, ``truth``, ``realisation``, parameters and surroundings.
    best : `~astropy.table.QTable`
        The best fits, NaN where there is none.
    measured : `~astropy.table.QTable`
        The catalogue, a row for each galaxy.
    found : (K,) ndarray of bool
        Whether the row was measured.

    Returns
    -------
    table : `~astropy.table.QTable`
        Parameters of the truth are called ``true_*``, those of the best fit ``best_*``.
    """
    table, best, measured = QTable(truth), best.copy(), measured.copy()
    for name in BEST:
        unit = getattr(measured[name], "unit", None)
        if unit is not None:
            table[name] = table[name] * unit
        if name == "hlr" and unit is not None:
            table["psf_fwhm"] = table["psf_fwhm"] * unit
        best.rename_column(name, f"best_{name}")
    for name in ("x", "y", "nearest"):
        table[name] = table[name] * measured["x_centroid"].unit
    for name in (*BEST, "snr", "x", "y"):
        table.rename_column(name, f"true_{name}")
    table["found"] = found
    for name in table.colnames:
        table[name].info.description = _DESCRIPTIONS.get(name, f"true {name.removeprefix('true_')}")
    for name in best.colnames:
        best[name].info.description = f"{name.removeprefix('best_')} of the Sersic profile that fits best"
    measured.remove_column("id")
    best.meta.clear()  # lists would be appended to those of the measurement
    return hstack([table, best, measured], metadata_conflicts="silent")
