# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""Catalogue rebuilt from its table and the data."""

import re
from dataclasses import replace

import astropy.units as u
import numpy as np
from astropy.table import QTable

from galshape_cnn.errors import FileError, InputError
from galshape_cnn.forward.galaxy_model import SINGLE
from galshape_cnn.geometry import frame_derivative, transform_shape
from galshape_cnn.infer.catalog.catalog import ShapeCatalog
from galshape_cnn.infer.catalog.columns import COLUMN_DEFINITIONS, SHAPE_PARAMETERS
from galshape_cnn.infer.catalog.measurement import Measurement
from galshape_cnn.infer.likelihood.rendering import model_images
from galshape_cnn.infer.measure.options import METHODS
from galshape_cnn.observe.io.tables.table_files import read_table
from galshape_cnn.observe.noise.rescale import scaled_noise
from galshape_cnn.observe.observation import prepare

__all__ = ["catalog_from_table", "column_numbers", "fitted_sky", "method_of", "read_catalog_table"]

_NEEDED = ("id", "x_centroid", "y_centroid", *SHAPE_PARAMETERS, "flags")
#: What a table of several exposures has in any case.
_NEEDED_OF_SEVERAL = ("id", "x_centroid", "y_centroid", "n_exposures", "flags")
#: What the table of a catalogue is made of; everything else came with the positions or was added later.
_OWN = {d.name for d in COLUMN_DEFINITIONS} | {"sky_centroid.ra", "sky_centroid.dec"}


def read_catalog_table(path, exposures=False):
    """Read, with units, a table that `galshape_cnn.infer.catalog.tables.write_table` wrote.

    ``exposures`` says whether it is of several; ``FileError`` if it cannot be read, or is no table of shapes.
    """
    needed = _NEEDED_OF_SEVERAL if exposures else _NEEDED
    table = read_table(path, wanted=lambda names: set(needed) <= set(names), kind=QTable)
    missing = [name for name in needed if name not in table.colnames]
    if missing:
        of = "shapes in several exposures" if exposures else "shapes"
        raise FileError(f"{str(path)!r} is not a table of {of}: no column {', '.join(missing)}")
    return table


def catalog_from_table(table, data, **keywords):
    """Join a table of shapes with the data that were measured.

    Parameters
    ----------
    table : `~astropy.table.QTable`
        From `ShapeCatalog.to_table` or `read_catalog_table`.
    data : NDData or sequence of NDData
        What was measured.
    **keywords
        Further arguments of `galshape_cnn.observe.observation.prepare`, such as ``psf``.

    Returns
    -------
    catalog : ShapeCatalog
        The sky level, which the table does not hold, is fitted again.

    Raises
    ------
    InputError
        If the table is in arcsec and the data have no WCS.
    """
    xy = np.column_stack([column_numbers(table, name) for name in ("x_centroid", "y_centroid")])
    observation = prepare(data, positions=xy, recenter=False, **keywords)
    scale = _recorded(table, "noise_scale")
    if scale is not None:
        observation, _ = scaled_noise(float(scale), observation)
    angular = u.Quantity(table["hlr"]).unit.is_equivalent(u.arcsec)
    if angular and not observation.has_sky:
        raise InputError("the table gives sizes in arcsec, but the image has no WCS")
    others = [name for name in table.colnames if name == "id" or name not in _OWN]
    observation = replace(observation, table=table[others], has_sky=angular)
    parts = [_measurement(table[index], stamps, angular) for index, stamps in observation.groups]
    meta = {"from": "table"}
    catalog = ShapeCatalog.from_measurements(observation, parts, method=method_of(table), meta=meta)
    flags = np.array(table["flags"], np.int64)
    return replace(catalog, measurement=replace(catalog.measurement, flags=flags))


def _measurement(table, stamps, angular):
    """Rows of a table in the pixel frame of their stamps."""
    size = {"hlr": u.arcsec if angular else u.pix}
    flux, n, hlr, g1, g2 = (column_numbers(table, name, size.get(name)) for name in SHAPE_PARAMETERS)
    covariances = [_diagonal(table, suffix, size) for suffix in ("std", "err")]
    if angular:
        inverse = np.linalg.inv(stamps.jacobian)
        with np.errstate(invalid="ignore"):  # rows that were not measured are NaN
            back = frame_derivative(g1, g2, inverse)
            covariances = [back @ one @ np.swapaxes(back, 1, 2) for one in covariances]
            hlr, g1, g2 = transform_shape(hlr, g1, g2, inverse)
    x, y = (column_numbers(table, f"{axis}_centroid") - stamps.origin[:, k] for k, axis in enumerate("xy"))
    params = SINGLE.with_sky(np.column_stack([flux, n, hlr, g1, g2, x, y]))
    params[:, SINGLE.sky] = fitted_sky(stamps, params)
    others = [column_numbers(table, name) for name in ("snr", "chi2", "ess")]
    return Measurement(params, *covariances, *others, np.asarray(table["flags"]))


def fitted_sky(stamps, params):
    """Weighted mean (N,) of what models (N, 8) without sky, in the stamps' pixels and unit, leave of them."""
    left = stamps.data - model_images(stamps, params)
    weight = stamps.ivar.sum((1, 2), dtype=float)
    return np.where(weight > 0, (left * stamps.ivar).sum((1, 2)) / np.where(weight > 0, weight, 1), 0.0)


def _diagonal(table, suffix, size):
    """Covariance matrices from the columns of errors."""
    sigma = np.stack(
        [column_numbers(table, f"{name}_{suffix}", size.get(name)) for name in SHAPE_PARAMETERS], -1
    )
    return sigma[:, :, None] ** 2 * np.eye(len(SHAPE_PARAMETERS))


def column_numbers(table, name, unit=None):
    """A column as plain numbers, in a unit where it has one; NaN where the table has none."""
    if name not in table.colnames:
        return np.full(len(table), np.nan)
    column = table[name]
    if unit is not None and getattr(column, "unit", None) is not None:
        column = u.Quantity(column).to(unit)
    values = np.ma.filled(np.ma.asarray(getattr(column, "value", column), dtype=float), np.nan)
    return np.asarray(values, float)


def method_of(table):
    """Method that the metadata of a table name; ``'network'`` where they name none."""
    method = _recorded(table, "method")
    return method if method in METHODS else "network"


def _recorded(table, name):
    """Entry of the metadata of a table, nested or, in FITS and VOTable, a line of its comments; or None."""
    if name in table.meta:
        return table.meta[name]
    for line in table.meta.get("comments", []):
        found = re.fullmatch(rf"{name} = (\S+)", str(line).strip())
        if found:
            return found[1]
    return None
