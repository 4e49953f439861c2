# Licensed under a 3-clause BSD style license - see LICENSE.rst
r"""Shear response of galaxies in several exposures.

Each exposure's copies are measured by themselves, and their mean is taken with weights
:math:`w_e = \mathrm{S/N}_e^2`:

.. math:: q = \frac{\sum_e w_e q_e}{\sum_e w_e}, \qquad
          \frac{\partial q}{\partial\gamma_a} = \frac{\sum_e w_e\,\partial q_e/\partial\gamma_a
          + \sum_e (q_e - q)\,\partial w_e/\partial\gamma_a}{\sum_e w_e}.

The noise of exposures is independent, and so is the noise that is added to their copies, so the theory of
`galshape_cnn.infer.shear.response` holds for q, a function of the pixels of all, and its derivative is exact:
that of the weights, which depend on shear as S/N does, is in it.
"""

from dataclasses import replace

import numpy as np

from galshape_cnn.infer.likelihood.rendering import RenderedBatch
from galshape_cnn.infer.shear.copies import MEASURED
from galshape_cnn.infer.shear.frames import ShearedColumns, reported_columns
from galshape_cnn.infer.shear.grids import grid_jacobian
from galshape_cnn.infer.shear.response import shear_response
from galshape_cnn.parallel import mapped

__all__ = ["exposures_response", "weighted_columns"]

_FLUX, _SNR = MEASURED.index("flux"), MEASURED.index("snr")


def exposures_response(exposures, measurement, by_exposure, measured, network, options, threads=1):
    """Measure copies of the stamps of each exposure, and combine them.

    Parameters
    ----------
    exposures : Exposures
        Of N galaxies.
    measurement, by_exposure, measured
        From `galshape_cnn.infer.measure.exposures.pipeline.measure_exposures`.
    network : AmortizedPosterior
        The live network.
    options : Options
        ``fit_sky`` and ``seed``.
    threads : int, optional
        Stamps measured at the same time.

    Returns
    -------
    measurement : Measurement
        With ``sheared``, in the frame of the catalogue, without influence of PSFs; fluxes as of the first
        exposure of each band; NaN where no exposure can be measured.
    by_exposure, measured
        As they were.
    """
    skies = np.nan_to_num(measurement.params[:, measurement.model.skies])
    pieces = [(number, *piece) for number, groups in enumerate(measured) for piece in groups]

    def one(piece):
        number, rows, stamps = piece
        batch = RenderedBatch.from_stamps(stamps, exposures.gains[number])
        how = options.fit_sky, options.seed, exposures.correlations[number]
        with np.errstate(all="ignore"):  # rows that cannot be measured are NaN
            found = shear_response(batch, network, skies[rows, number] / batch.unit, *how)
            found[..., _FLUX] *= (batch.unit / exposures.factors[number])[:, None, None]
            grid = None if stamps.skycoord is None else grid_jacobian(stamps.jacobian)
            return reported_columns(found, grid)

    shape = len(measured), len(exposures), 2, len(MEASURED)
    values, slopes = np.full(shape, np.nan), np.full((*shape, 2), np.nan)
    for (number, rows, _), columns in zip(pieces, mapped(one, pieces, threads), strict=True):
        values[number, rows], slopes[number, rows] = columns.values, columns.slopes
    return replace(measurement, sheared=weighted_columns(values, slopes).slots), by_exposure, measured


def weighted_columns(values, slopes):
    """Mean of the copies of several exposures, weighted by the square of their S/N.

    Parameters
    ----------
    values : (E, N, 2, 6) ndarray
        As of `ShearedColumns`, of each exposure; one that has any NaN of a galaxy does not count.
    slopes : (E, N, 2, 6, 2) ndarray

    Returns
    -------
    columns : ShearedColumns
        S/N is that of all exposures.
    """
    known = (np.isfinite(values).all((2, 3)) & np.isfinite(slopes).all((2, 3, 4)))[..., None]
    values = np.where(known[..., None], values, 0)
    slopes = np.where(known[..., None, None], slopes, 0)
    snr, of_snr = values[..., _SNR], slopes[..., _SNR, :]
    weight, of_weight = snr**2, 2 * snr[..., None] * of_snr
    with np.errstate(invalid="ignore", divide="ignore"):
        weight = weight / weight.sum(0)
        of_weight = of_weight / (snr**2).sum(0)[..., None]
        mean = (weight[..., None] * values).sum(0)
        moved = weight[..., None, None] * slopes + (values - mean)[..., None] * of_weight[..., None, :]
        moved, total = moved.sum(0), np.sqrt((snr**2).sum(0))
        moved[..., _SNR, :] = (snr[..., None] * of_snr).sum(0) / total[..., None]
    mean[..., _SNR] = total
    lost = ~known.any(0)[..., 0]
    mean[lost], moved[lost] = np.nan, np.nan
    return ShearedColumns(mean, moved)
