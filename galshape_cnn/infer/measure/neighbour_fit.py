# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""Joint fits of galaxies with their neighbours, which are then subtracted."""

from dataclasses import dataclass

import numpy as np

from galshape_cnn.forward.galaxy_model import SINGLE
from galshape_cnn.forward.transfer import of_rows
from galshape_cnn.infer.fit.joint_fit import fit_scenes
from galshape_cnn.infer.fit.moments import moment_start
from galshape_cnn.infer.measure.estimates import estimate
from galshape_cnn.observe.detect.segmentation import masks
from galshape_cnn.observe.stamps import Stamps

__all__ = ["MOST_FITTED", "FittedNeighbours", "fit_neighbours"]

#: Neighbours of one galaxy that are fitted, the nearest; others are masked.
MOST_FITTED = 3

_OWN_SHARE = np.array([1, 0.75, 0.5, 0.5])  # of n, hlr, g1, g2 of the galaxy fitted alone
_SMALLEST_START = 1.5  # pixels: a needle of a neighbour is a minimum of its own
_EDGE = 2.0  # pixels from the stamp's edge, within which a neighbour is masked


@dataclass(frozen=True, eq=False)
class FittedNeighbours:
    """Galaxies whose neighbours could be fitted.

    Attributes
    ----------
    rows : (M,) int ndarray
        Which of the stamps.
    stamps : Stamps
        Those without their neighbours' light; the neighbours' derivatives are their
        ``nuisance``.
    """

    rows: np.ndarray
    stamps: Stamps


def fit_neighbours(batch, scenes, masked, network, options):
    """Fit galaxies together with their neighbours, the sources of ``scenes``, and subtract these.

    The fit of a galaxy starts from the same stamps with the neighbours ``masked``. Those whose joint fit did
    not converge are left out.
    """
    first = _first_fits(masked, network, options)
    fitted = [_chosen(scene, batch.grid.size) for scene in scenes]
    pieces = []
    for count in range(1, MOST_FITTED + 1):
        rows = np.array(
            [i for i, k in enumerate(fitted) if len(k) == count and np.isfinite(first[i]).all()], int
        )
        if len(rows):
            some = [scenes[i] for i in rows], [fitted[i] for i in rows]
            pieces.append(_fit_group(batch[rows], *some, first[rows], rows, options.fit_sky))
    return _collected(batch.stamps, pieces)


def _first_fits(masked, network, options):
    """Maximum-likelihood parameters of the galaxies alone; NaN without data."""
    params = np.full((len(masked), SINGLE.size), np.nan)
    rows = np.flatnonzero((masked.stamps.ivar > 0).any((1, 2)))
    if len(rows):
        params[rows] = estimate(masked[rows], network, options.with_method("ml")).params
    return params


def _chosen(scene, size):
    """Indices of the neighbours to fit: the nearest that are not cut by the stamp's edge."""
    well_inside = ((scene.peaks >= _EDGE) & (scene.peaks <= size - 1 - _EDGE)).all(1)
    return np.flatnonzero(well_inside)[:MOST_FITTED]


def _fit_group(batch, scenes, fitted, first, rows, fit_sky):
    """Joint fit of stamps with the same number of neighbours to fit."""
    stamps, gain = batch.stamps, batch.gain
    start = np.concatenate([first[:, None], _starts(batch, scenes, fitted, first)], 1)
    start[:, 0, SINGLE.shape] *= _OWN_SHARE  # what the galaxy, fitted alone, has taken of its neighbours
    if not fit_sky:
        start[:, 0, SINGLE.sky] = 0
    mask = masks(scenes, fitted)
    ivar = np.where(mask, 0, stamps.ivar)
    fit = fit_scenes(stamps.data, ivar, batch.transfer, batch.grid, start, fit_sky=fit_sky, gain=gain)
    # the photons of the neighbours stay in the pixels when their mean is subtracted
    noise = 1.0 if gain is None else 1 + ivar * np.maximum(fit.others, 0) / gain[:, None, None]
    good = fit.converged
    cleaned = stamps.data - fit.others, ivar / noise, fit.slopes
    return rows[good], *(array[good] for array in cleaned)


def _starts(batch, scenes, fitted, first):
    """Round exponential neighbours, by moments; the galaxy's model subtracted and everything else masked.

    What is left beside a galaxy that has taken some of it says little of a shape.
    """
    stamps, transfer = batch.stamps, batch.transfer
    rows = np.repeat(np.arange(len(stamps)), [len(k) for k in fitted])
    ivar, centers = [], []
    for row, k in zip(rows, np.concatenate(fitted), strict=True):
        others = ~np.isin(scenes[row].labels, [0, 2 + k])
        ivar.append(np.where(others, 0, stamps.ivar[row]))
        centers.append(scenes[row].peaks[k])
    data = (stamps.data - batch.images(first))[rows]
    transfer = of_rows(transfer, rows)
    start = moment_start(data, np.array(ivar), transfer, batch.grid, np.array(centers))
    strayed = np.abs(start[:, SINGLE.centre] - centers).max(1, keepdims=True) > 2
    start[:, SINGLE.centre] = np.where(strayed, centers, start[:, SINGLE.centre])
    start[:, SINGLE.n], start[:, SINGLE.shear] = 1, 0
    start[:, SINGLE.hlr] = np.maximum(start[:, SINGLE.hlr], _SMALLEST_START)
    return start.reshape(len(stamps), -1, SINGLE.size)


def _collected(stamps, pieces):
    """The groups together."""
    size = stamps.data.shape[-1]
    rows = np.concatenate([piece[0] for piece in pieces]) if pieces else np.zeros(0, int)
    count = max((piece[3].shape[1] for piece in pieces if len(piece[0])), default=7)
    data, ivar = np.zeros((2, len(rows), size, size))
    nuisance = np.zeros((len(rows), count, size, size), np.float32)
    start = 0
    for index, some_data, some_ivar, slopes in pieces:
        here = slice(start, start + len(index))
        data[here], ivar[here] = some_data, some_ivar
        nuisance[here, : slopes.shape[1]] = slopes
        start += len(index)
    return FittedNeighbours(rows, stamps[rows].with_pixels(data, ivar.astype(stamps.ivar.dtype), nuisance))
