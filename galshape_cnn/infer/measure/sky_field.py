# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""Galaxies on a sky with structure: that is fitted with the galaxy, subtracted, and they are measured again.

See `galshape_cnn.infer.residuals.sky_field`.  Errors grow as what is left of the sky is unknown.
"""

import numpy as np

from galshape_cnn.forward.render import BLOCK
from galshape_cnn.infer.residuals.sky_field import fit_sky_field

__all__ = ["without_sky_field"]


def without_sky_field(treated, batch, rows, judged, options):
    """Take away the structure of the sky that the residuals of measured galaxies show.

    Parameters
    ----------
    treated : galshape_cnn.infer.measure.neighbours.Treated
        What was measured.
    batch : RenderedBatch
        M stamps as they were measured, with ``nuisance`` images.
    rows : (M,) ndarray of int
        Their numbers in ``treated``.
    judged : galshape_cnn.infer.measure.bounds.Judged
        Of these.
    options : Options
        ``fit_sky`` is used.

    Returns
    -------
    changed : (K,) ndarray of int
        Numbers into ``rows`` of the galaxies whose sky has structure.
    treated : galshape_cnn.infer.measure.neighbours.Treated
        Without it; the same object if there is none.
    cleaned : RenderedBatch
        The stamps of ``changed``.
    stretch : (K, 5, 5) ndarray
        By what errors grow.
    """
    known = np.isfinite(judged.params).all(1) & np.isfinite(judged.crb).all((1, 2))
    changed = np.flatnonzero(known & (judged.sky_level > 0))
    cleaned = batch[changed]
    if not len(changed):
        return changed, treated, cleaned, np.zeros((0, 5, 5))
    lights, stretches = [], []
    for some, padded, full in batch.filled(changed, BLOCK, by_kernel=True):
        pixels = full.stamps.data, full.stamps.ivar, full.transfer, full.grid
        params, level = judged.params[padded], judged.sky_level[padded]
        light, stretch = fit_sky_field(
            params, level, *pixels, options.fit_sky, full.gain, full.stamps.nuisance
        )
        lights.append(light[: len(some)])
        stretches.append(stretch[: len(some)])
    stamps = cleaned.stamps
    stamps = stamps.with_pixels(stamps.data - np.concatenate(lights), stamps.ivar, stamps.nuisance)
    treated = treated.with_fitted(rows[changed], stamps)
    return changed, treated, cleaned.with_stamps(stamps), np.concatenate(stretches)
