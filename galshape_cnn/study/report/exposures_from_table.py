# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""Catalogue of several exposures rebuilt from its table and the images."""

from dataclasses import replace

import astropy.units as u
import numpy as np
from astropy.coordinates import SkyCoord

from galshape_cnn.errors import InputError
from galshape_cnn.flags import Flag
from galshape_cnn.forward.galaxy_model import SINGLE
from galshape_cnn.forward.varying import shape_index
from galshape_cnn.infer.catalog.exposures_catalog import ExposuresCatalog
from galshape_cnn.infer.catalog.measurement import Measurement
from galshape_cnn.infer.catalog.placement import Placement
from galshape_cnn.infer.measure.exposures.quality import ExposureRows
from galshape_cnn.observe.exposure import axes_of, opened
from galshape_cnn.observe.exposures import prepare_exposures
from galshape_cnn.study.report.band_shapes import band_covariance, band_params, varying_in
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
        If the exposures are of other bands than the table.
    """
    exposures = [opened(one) for one in exposures]
    bands = tuple(dict.fromkeys(one.band for one in exposures))
    vary = _checked(table, bands)
    if vary:  # any wavelengths that differ will do, see `band_shapes`
        exposures = [replace(one, wavelength=1.0 + bands.index(one.band)) for one in exposures]
    noise = table.meta.get("noise")
    noise = noise if isinstance(noise, dict) else {}
    is_image = axes_of(exposures[0].data) == 2
    options = {"recenter": False, "strict": False, "vary": vary} | keywords
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


def _checked(table, bands):
    """What varies between the bands; a table that is not of these is refused."""
    wanted = [f"flux_{band}" for band in bands] if len(bands) > 1 else ["flux"]
    missing = [name for name in wanted if name not in table.colnames]
    if missing:
        raise InputError(f"the table has no column {missing[0]}; it is of other bands than the exposures")
    return varying_in(table, bands) if len(bands) > 1 else ()


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
    names, index = shape_index(model)
    sizes = {names[at] for at in index[:, 1]}
    angular = u.Quantity(table[min(sizes)]).unit.is_equivalent(u.arcsec)
    if angular and not found.has_sky:
        raise InputError("the table gives sizes in arcsec, but the exposures have no WCS")
    units = dict.fromkeys(sizes, u.arcsec if angular else u.pix)

    def numbers(suffix=""):
        return np.column_stack([column_numbers(table, name + suffix, units.get(name)) for name in names])

    frame = Placement(*(place[name] for name in ("origin", "center", "skycoord", "jacobian")), angular)
    params = np.zeros((len(rows), model.size))
    params[:, model.reported] = band_params(
        numbers(), model, np.linalg.inv(place["jacobian"]) if angular else None
    )
    spread = column_numbers(table, "hlr_gradient_err")
    covariances = [
        band_covariance(numbers(f"_{one}"), spread, params, model, frame) for one in ("std", "err")
    ]
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
