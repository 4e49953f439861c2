# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""Sources that show only in the residuals of galaxies in several images.

Each image is searched by itself, at the parameters that fit all of them, as a single one would be
(`galshape_cnn.infer.measure.residual_sources`): where a source is seen it is subtracted, its flux and place
in that image are unknowns of their own, and the galaxy is measured again in all images.  The residuals of the
others then show what the wrong shape had hidden, so the search goes on for a few rounds.
"""

from dataclasses import dataclass, replace

import numpy as np

from galshape_cnn.infer.likelihood.sandwich import on_known, widened
from galshape_cnn.infer.measure.residual_sources import without_residual_sources
from galshape_cnn.infer.residuals.sources import MOST_SOURCES

__all__ = ["Cleaned", "cleaned_parts", "pixels_measured", "with_shifts"]


@dataclass(frozen=True, eq=False)
class Cleaned:
    """What a search of the residuals of N galaxies found.

    Attributes
    ----------
    changed, close : (N,) ndarray of bool
        Whether there are sources in an image, and whether one may be a clump of the galaxy.
    parts : list of ExposurePart
        Without the sources, of the galaxies that changed.
    pixels : list of (exposure, (K,) ndarray of int, Stamps)
        The galaxies of which an exposure changed, and their pixels in the unit of the user.
    """

    changed: np.ndarray
    close: np.ndarray
    parts: list
    pixels: list


def cleaned_parts(looks, rows):
    """What the residuals of galaxies show, (N,) ndarray of int, of looks at them; `Cleaned`."""
    changed, close = np.zeros((2, len(rows)), bool)
    found, number = [], np.zeros(len(rows), int)  # of images that show a galaxy
    for look, _ in looks:
        number[look.here] += 1
    for look, judged in looks:
        some, near, treated, batch = without_residual_sources(
            look.part.treated, look.there, judged, look.options, number[look.here]
        )
        changed[look.here[some]] = True
        close[look.here[some[near]]] = True
        found.append((look.there[some], treated, batch.stamps.nuisance))
    parts, pixels = [], []
    for (look, _), (places, treated, images) in zip(looks, found, strict=True):
        wanted = look.there[changed[look.here]]
        if not len(wanted):
            continue
        own = np.searchsorted(wanted, places)
        part = _with_unknowns(_some_of(replace(look.part, treated=treated), wanted), own, images)
        parts.append(part)
        if len(own):
            pixels.append((part.exposure, part.rows[own], part.measured[own]))
    return Cleaned(changed, close, parts, pixels)


def _some_of(part, rows):
    """The same of some rows, (M,) ascending int ndarray."""
    return replace(
        part, rows=part.rows[rows], treated=part.treated[rows], measured=part.measured[rows],
        mean=part.mean[rows], chol=part.chol[rows],
    )  # fmt: skip


def _with_unknowns(part, rows, images):
    """A part with images (K, I, size, size) of unknown amplitude in some rows, and the pixels as treated.

    The other rows have as many, all zero, and count as fitted, so that no number depends on a row's company.
    """
    treated, stamps = part.treated, part.treated.batch.stamps
    old = np.zeros((len(stamps.data), 0, *stamps.data.shape[1:]), np.float32)
    old = old if stamps.nuisance is None else stamps.nuisance
    more = np.zeros((len(old), 3 * MOST_SOURCES, *old.shape[2:]), np.float32)
    nuisance = np.concatenate([old, more], 1)
    if len(rows):
        nuisance[rows] = images
    batch = treated.batch.with_stamps(stamps.with_pixels(stamps.data, stamps.ivar, nuisance))
    treated = replace(treated, batch=batch, fitted=np.ones(len(old), bool))
    return replace(part, treated=treated, measured=treated.in_units_of_user(part.measured))


def with_shifts(again, first, close):
    """Measurements as uncertain as it is whether a close source is a clump, by what its removal changed."""
    reported = again.model.reported
    shift = np.where(close[:, None], np.nan_to_num((again.params - first.params)[:, reported]), 0)
    more = shift[:, :, None] * shift[:, None, :]
    noise = again.crb + again.structure
    covariance = on_known(widened, again.covariance, noise, noise + more, again.covariance)
    covariance = np.where(close[:, None, None], covariance, again.covariance)
    return replace(again, structure=again.structure + more, covariance=covariance)


def pixels_measured(part, pixels):
    """Stamps of a part as they were measured in the end, given `Cleaned.pixels` of all searches in turn."""
    out = part.measured
    for exposure, rows, stamps in pixels:
        inside = np.isin(rows, part.rows)
        if exposure == part.exposure and inside.any():
            at, data, ivar = np.searchsorted(part.rows, rows[inside]), out.data.copy(), out.ivar.copy()
            data[at], ivar[at] = stamps.data[inside], stamps.ivar[inside]
            out = out.with_pixels(data, ivar)
    return out
