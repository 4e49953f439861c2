# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""Sources that show in the residuals only: found once a galaxy is measured, subtracted, and measured again.

They are subtracted as the joint fit with the galaxy has them, to first order, and their images and
derivatives become images of unknown amplitude, as those of neighbours that are fitted from the start
(`galshape_cnn.infer.measure.neighbours`): the errors count that they are known only so well.
"""

import numpy as np
from scipy.special import ndtr, ndtri

from galshape_cnn.flags import Flag
from galshape_cnn.forward.render import BLOCK
from galshape_cnn.infer.residuals.examination import as_if_independent
from galshape_cnn.infer.residuals.sources import find_residual_sources

__all__ = ["without_residual_sources"]

_HIGH = 4.6  # standard deviations of a smoothed residual from which a search is worth it


def without_residual_sources(treated, rows, judged, options, images=1):
    """Take away the sources that the residuals of measured galaxies show.

    Parameters
    ----------
    treated : galshape_cnn.infer.measure.neighbours.Treated
        What was measured.
    rows : (M,) ndarray of int
        Stamps of it that were.
    judged : galshape_cnn.infer.measure.bounds.Judged
        Of these.
    options : Options
        ``neighbours="ignore"`` looks for none.
    images : int or (M,) ndarray of int, optional
        Images of each galaxy that are searched: as often as in one is a search begun for nothing in all.

    Returns
    -------
    changed : (K,) ndarray of int
        Numbers into ``rows`` of the galaxies beside which sources were found.
    close : (K,) ndarray of bool
        Whether one of them may be a clump of the galaxy.
    treated : galshape_cnn.infer.measure.neighbours.Treated
        Without these; the same object if there are none.
    batch : RenderedBatch
        The stamps of ``changed``, with ``nuisance`` images.
    """
    batch = treated.batch if len(rows) == len(treated.batch) else treated.batch[rows]
    changed, close, light, unknown = _found(batch, judged, options, images)
    some = batch[changed]
    if not len(changed):
        return changed, close, treated, some
    stamps = some.stamps
    if stamps.nuisance is not None:
        unknown = np.concatenate([stamps.nuisance, unknown], 1)
    # the photons of a source stay in the pixels when its mean is subtracted
    noise = 1.0 if some.gain is None else 1 + stamps.ivar * np.maximum(light, 0) / some.gain[:, None, None]
    cleaned = stamps.with_pixels(
        stamps.data - light, (stamps.ivar / noise).astype(stamps.ivar.dtype), unknown
    )
    treated = treated.with_fitted(rows[changed], cleaned, Flag.NEIGHBOR)
    return changed, close, treated, some.with_stamps(cleaned)


def _found(batch, judged, options, number):
    """Galaxies beside which there are sources, the light of these, and images of unknown amplitude."""
    size = batch.grid.size
    found, close, lights, images = (
        [],
        [],
        [np.zeros((0, size, size))],
        [np.zeros((0, 0, size, size), np.float32)],
    )
    rows = np.zeros(0, int) if options.neighbours == "ignore" else _worth_a_look(judged, options, number)
    errors = np.sqrt(np.maximum(np.diagonal(judged.crb + judged.structure, axis1=1, axis2=2), 0))
    for part, padded, full in batch.filled(rows, BLOCK, by_kernel=True):
        pixels = full.stamps.data, full.stamps.ivar, full.transfer, full.grid
        more = options.fit_sky, full.gain, options.correlation, judged.white[padded]
        known = judged.params[padded], errors[padded], batch.psf_width[padded]
        sources = find_residual_sources(*known, *pixels, *more)
        has = np.flatnonzero(sources.found[: len(part)])
        found.append(part[has])
        close.append(sources.close[has])
        lights.append(sources.light[has])
        images.append(sources.images[has])
    images = images[1:] or images
    rows, close = (np.concatenate([np.zeros(0, kind), *one]) for kind, one in ((int, found), (bool, close)))
    return rows, close, np.concatenate(lights), np.concatenate(images)


def _worth_a_look(judged, options, number):
    """Rows with a high residual somewhere, in one of a number of images."""
    high = -ndtri(ndtr(-_HIGH) / number)
    found = judged.examination
    if options.correlation is not None:
        found = as_if_independent(found, options.correlation)
    with np.errstate(invalid="ignore"):
        highest = found.highest[:, 1:].max(1) / np.sqrt(judged.white)
        known = np.isfinite(judged.params).all(1) & np.isfinite(judged.crb + judged.structure).all((1, 2))
        return np.flatnonzero(known & (highest > high))
