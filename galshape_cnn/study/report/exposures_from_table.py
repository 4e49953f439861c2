# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""Catalogue of several exposures rebuilt from its table and the images."""

from dataclasses import replace

import astropy.units as u
import numpy as np
from astropy.coordinates import SkyCoord

from galshape_cnn.errors import InputError
from galshape_cnn.flags import Flag
from galshape_cnn.forward.galaxy_model import SINGLE
from galshape_cnn.geometry import frame_derivative, transform_shape
from galshape_cnn.infer.catalog.exposures_catalog import ExposuresCatalog
from galshape_cnn.infer.catalog.measurement import Measurement
from galshape_cnn.infer.measure.exposures.quality import ExposureRows
from galshape_cnn.observe.exposure import axes_of, opened
from galshape_cnn.observe.exposures import prepare_exposures
from galshape_cnn.study.report.from_table import column_numbers, fitted_sky, method_of

__all__ = ["exposures_from_table"]

_SKY = ("sky_centroid.ra", "sky_centroid.dec")


def exposures_from_table(table, exposures, **keywords):
    """Join a table of galaxies in several exposures with these.

    Parameters
    ----------
    table : `~astropy.table.QTable`
        From `ExposuresCatalog.to_table` or a file of it.
    exposures : sequence of Exposure
        What was measured.
    **keywords
        Further arguments of `galshape_cnn.observe.exposures.prepare_exposures`, such as ``stamp_size``.

    Returns
    -------
    catalog : ExposuresCatalog
        Sky levels, which the table does not hold, are fitted again; S/N and chi-square of each exposure are
        unknown.

    Raises
    ------
    InputError
        If the exposures are of other bands than the table, or its shapes vary with wavelength.
    """
    exposures = [opened(one) for one in exposures]
    bands = tuple(dict.fromkeys(one.band for one in exposures))
    _check(table, bands)
    noise = table.meta.get("noise")
    noise = noise if isinstance(noise, dict) else {}
    is_image = axes_of(exposures[0].data) == 2
    options = {"recenter": False, "strict": False} | keywords
    found = prepare_exposures(exposures, _places(table) if is_image else None, **options)
    if len(found) != len(table):
        raise InputError(f"the table has {len(table)} rows, the exposures hold {len(found)} cutouts")
    scales = [noise.get(name, {}).get("noise_scale") for name in found.names]
    if any(scales):
        exposures = [
            replace(one, noise_scale=scale) if scale else one
            for one, scale in zip(exposures, scales, strict=True)
        ]
        found = prepare_exposures(exposures, _places(table) if is_image else None, **options)
    measurement, place = _measurement(table, found)
    by_exposure, measured = _each(found, measurement, table)
    meta = {"from": "table"}
    catalog = ExposuresCatalog.from_exposures(
        found, replace(measurement, flags=np.array(table["flags"], np.int64)), by_exposure, measured,
        method=method_of(table), meta=meta,
    )  # fmt: skip
    own = {d.name for d in catalog.definitions} | set(_SKY)
    others = [name for name in table.colnames if name not in own]
    return replace(catalog, ids=np.ma.array(table["id"]), inputs=table[others] if others else None)


def _check(table, bands):
    """Refuse a table that is not of these bands, or whose shapes vary."""
    wanted = [f"flux_{band}" for band in bands] if len(bands) > 1 else ["flux"]
    missing = [name for name in wanted if name not in table.colnames]
    if missing:
        raise InputError(f"the table has no column {missing[0]}; it is of other bands than the exposures")
    if "hlr" not in table.colnames or "n" not in table.colnames or "g1" not in table.colnames:
        raise InputError(
            "the shapes of the table vary with wavelength; only write_report of the catalogue itself makes a "
            "page of these"
        )


def _places(table):
    """Where the galaxies were found: on the sky, or in the pixels that all exposures share."""
    if "sky_centroid" in table.colnames:
        return SkyCoord(table["sky_centroid"])
    if set(_SKY) <= set(table.colnames):
        return SkyCoord(*(column_numbers(table, name, u.deg) for name in _SKY), unit="deg")
    return np.column_stack([column_numbers(table, f"{axis}_centroid") for axis in "xy"])


def _measurement(table, found):
    """Rows of the table in the pixels of their reference exposures, and where these are."""
    model, rows = found.model, np.arange(len(found))
    place = found.placement(rows, found.reference)
    angular = u.Quantity(table["hlr"]).unit.is_equivalent(u.arcsec)
    if angular and not found.has_sky:
        raise InputError("the table gives sizes in arcsec, but the exposures have no WCS")
    size = {"hlr": u.arcsec if angular else u.pix}
    names = model.reported_names
    values = np.column_stack([column_numbers(table, name, size.get(name)) for name in names])
    turn = np.tile(np.eye(len(names)), (len(rows), 1, 1))
    if angular:
        inverse, shape = np.linalg.inv(place["jacobian"]), slice(model.hlr, model.shear.stop)
        framed = slice(SINGLE.hlr, SINGLE.shear.stop)
        with np.errstate(invalid="ignore"):  # rows that were not measured are NaN
            turn[:, shape, shape] = frame_derivative(*values[:, model.shear].T, inverse)[:, framed, framed]
            values[:, shape] = np.stack(transform_shape(*values[:, shape].T, inverse), -1)
    covariances = []
    for suffix in ("std", "err"):
        sigma = np.stack([column_numbers(table, f"{name}_{suffix}", size.get(name)) for name in names], -1)
        known = np.isfinite(sigma)
        variance = np.where(known, sigma, 0)[:, :, None] ** 2 * np.eye(len(names))
        moved = turn @ variance @ np.swapaxes(turn, 1, 2)
        covariances.append(np.where(known[:, :, None] & known[:, None, :], moved, np.nan))
    params = np.zeros((len(rows), model.size))
    params[:, model.reported] = values
    xy = np.column_stack([column_numbers(table, f"{axis}_centroid") for axis in "xy"])
    params[:, model.centre] = xy - place["origin"]
    others = [column_numbers(table, name) for name in ("snr", "chi2", "ess")]
    nothing = np.zeros(len(rows), np.int64)
    return Measurement(params, *covariances, *others, nothing, model=model), place


def _each(found, measurement, table):
    """What is known of each exposure, and its stamps."""
    rows, measured = ExposureRows.blank(found), []
    for number, band in enumerate(found.model.exposures):
        measured.append(list(found.rows_of(number)))
        for index, stamps in measured[-1]:
            own = found.view(index, number).params(measurement.params[index])
            own[:, SINGLE.sky] = fitted_sky(stamps, own)
            rows.params[index, number] = own
        first = found.seen[:, number].copy()  # of a band stands with the first exposure that shows the galaxy
        for before in range(number):
            first &= ~(found.seen[:, before] & (found.model.exposures[before] == band))
        name = f"snr_{found.model.bands[band]}"
        rows.snr[first, number] = column_numbers(table, name)[first]
    rows.gradient[:] = column_numbers(table, "hlr_gradient")
    rows.gradient_error[:] = column_numbers(table, "hlr_gradient_err")
    rows.flags[:] &= ~np.int64(Flag.NOT_MEASURED)
    return rows, measured
