# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""From the sources found in crowded stamps to the galaxies without their neighbours."""

from dataclasses import dataclass, replace

import numpy as np

from galshape_cnn.forward.transfer import grid_for, transfer_functions
from galshape_cnn.infer.fit.joint_fit import fit_scenes
from galshape_cnn.infer.fit.moments import moment_start
from galshape_cnn.infer.measure.pipeline import measure_stamps, model_images
from galshape_cnn.observe.stamps import Stamps

__all__ = ["MOST_FITTED", "FittedNeighbours", "fit_neighbours"]

#: Neighbours of one galaxy that are fitted, the nearest; others are masked.
MOST_FITTED = 3

_OWN_SHARE = np.array([0.75, 0.5, 0.5])  # of hlr, g1, g2 of the galaxy fitted alone
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


def fit_neighbours(stamps, scenes, masked, network, options):
    """Fit galaxies together with their neighbours, and subtract these.

    Parameters
    ----------
    stamps : Stamps
        Batch of N.
    scenes : list of Scene
        Their sources.
    masked : Stamps
        The same batch with the neighbours masked: the fit of the galaxy starts there.
    network : AmortizedPosterior
        The live network.
    options : Options
        How to measure.

    Returns
    -------
    fit : FittedNeighbours
        Without the stamps whose joint fit did not converge.
    """
    unit = stamps.noise_unit
    inside, gain = stamps.in_units_of(unit), None if options.gain is None else options.gain * unit
    first = measure_stamps(masked, network, replace(options, method="ml")).in_units_of(unit).params
    fitted = [_chosen(scene, stamps.data.shape[-1]) for scene in scenes]
    pieces = []
    for count in range(1, MOST_FITTED + 1):
        rows = np.array(
            [i for i, k in enumerate(fitted) if len(k) == count and np.isfinite(first[i]).all()], int
        )
        if len(rows):
            some = [scenes[i] for i in rows], [fitted[i] for i in rows]
            pieces.append(
                _fit_group(inside[rows], *some, first[rows], rows, options.fit_sky, _of(gain, rows))
            )
    return _collected(stamps, pieces, unit)


def _of(gain, rows):
    return None if gain is None else gain[rows]


def _chosen(scene, size):
    """Indices of the neighbours to fit: the nearest that are not cut by the stamp's edge."""
    well_inside = ((scene.peaks >= _EDGE) & (scene.peaks <= size - 1 - _EDGE)).all(1)
    return np.flatnonzero(well_inside)[:MOST_FITTED]


def _fit_group(stamps, scenes, fitted, first, rows, fit_sky, gain):
    """Joint fit of stamps with the same number of neighbours to fit."""
    grid = grid_for(stamps.data.shape[-1], stamps.psf_oversampling)
    transfer = np.asarray(
        transfer_functions(np.asarray(stamps.psf, np.float32), grid, stamps.psf_oversampling)
    )
    start = np.concatenate([first[:, None], _starts(stamps, scenes, fitted, first, transfer, grid)], 1)
    start[:, 0, 2:5] *= _OWN_SHARE  # what the galaxy, fitted alone, has taken of its neighbours
    if not fit_sky:
        start[:, 0, 7] = 0
    mask = np.array([scene.mask(kept) for scene, kept in zip(scenes, fitted, strict=True)])
    ivar = np.where(mask, 0, stamps.ivar)
    fit = fit_scenes(stamps.data, ivar, transfer, grid, start, fit_sky=fit_sky, gain=gain)
    # the photons of the neighbours stay in the pixels when their mean is subtracted
    noise = 1.0 if gain is None else 1 + ivar * np.maximum(fit.others, 0) / gain[:, None, None]
    good = fit.converged
    cleaned = stamps.data - fit.others, ivar / noise, fit.slopes
    return rows[good], *(array[good] for array in cleaned)


def _starts(stamps, scenes, fitted, first, transfer, grid):
    """Round exponential neighbours, by moments; the galaxy's model subtracted and everything else masked.

    What is left beside a galaxy that has taken some of it says little of a shape.
    """
    rows = np.repeat(np.arange(len(stamps)), [len(k) for k in fitted])
    ivar, centers = [], []
    for row, k in zip(rows, np.concatenate(fitted), strict=True):
        others = ~np.isin(scenes[row].labels, [0, 2 + k])
        ivar.append(np.where(others, 0, stamps.ivar[row]))
        centers.append(scenes[row].peaks[k])
    data = (stamps.data - model_images(stamps, first))[rows]
    transfer = transfer if len(transfer) == 1 else transfer[rows]
    start = moment_start(data, np.array(ivar), transfer, grid, np.array(centers))
    start[:, 5:7] = np.where(
        np.abs(start[:, 5:7] - centers).max(1, keepdims=True) > 2, centers, start[:, 5:7]
    )
    start[:, 1], start[:, 3:5] = 1, 0
    start[:, 2] = np.maximum(start[:, 2], _SMALLEST_START)
    return start.reshape(len(stamps), -1, 8)


def _collected(stamps, pieces, unit):
    """The groups together, in the unit of the stamps."""
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
    unit = unit[rows, None, None]
    pixels = data * unit, (ivar / unit**2).astype(stamps.ivar.dtype), nuisance
    return FittedNeighbours(rows, stamps[rows].with_pixels(*pixels))
