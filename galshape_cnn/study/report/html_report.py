# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""One self-contained HTML page with a picture and the numbers of every galaxy."""

import base64
import html
import io
import json
import re
import warnings
from dataclasses import replace
from pathlib import Path

import astropy.units as u
import numpy as np
from astropy.table import QTable

from galshape_cnn.errors import FileError, InputError
from galshape_cnn.files import written_whole
from galshape_cnn.flags import FLAG_DEFINITIONS
from galshape_cnn.forward.galaxy_model import SINGLE
from galshape_cnn.geometry import frame_derivative, transform_shape
from galshape_cnn.infer.catalog.catalog import METHODS, ShapeCatalog
from galshape_cnn.infer.catalog.columns import SHAPE_PARAMETERS
from galshape_cnn.infer.catalog.measurement import Measurement
from galshape_cnn.infer.catalog.tables import check_output_path
from galshape_cnn.infer.likelihood.rendering import model_images
from galshape_cnn.observe.noise.rescale import scaled_noise
from galshape_cnn.observe.observation import prepare
from galshape_cnn.study.report.html_template import PAGE
from galshape_cnn.study.report.thumbnails import thumbnails

__all__ = ["catalog_from_table", "check_report_path", "read_catalog_table", "write_report"]

#: Columns of the page, with the digits shown where there is no bound to tell how many matter.
_COLUMNS = {
    "id": 0,
    "x_centroid": 1,
    "y_centroid": 1,
    "snr": 1,
    "flux": 1,
    "n": 2,
    "hlr": 3,
    "g1": 3,
    "g2": 3,
    "q": 2,
    "pa": 1,
    "chi2": 2,
}
_SIDE = 64  # side of a picture on the page, CSS pixels


def read_catalog_table(path):
    """Read a table that `galshape_cnn.infer.catalog.tables.write_table` wrote.

    Parameters
    ----------
    path : str or path-like
        ``.ecsv``, ``.fits``, ``.parquet``, ``.asdf`` or ``.vot``.

    Returns
    -------
    table : `~astropy.table.QTable`
        With units.

    Raises
    ------
    FileError
        If it cannot be read, or is not a table of shapes.
    """
    if not Path(path).is_file():
        raise FileError(f"cannot read {str(path)!r}: no such file")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            table = QTable.read(path, format="votable" if str(path).endswith(".vot") else None)
    except Exception as error:  # each format has exceptions of its own
        raise FileError(f"cannot read {str(path)!r} as a table: {error}") from error
    needed = ["id", "x_centroid", "y_centroid", *SHAPE_PARAMETERS, "flags"]
    missing = [name for name in needed if name not in table.colnames]
    if missing:
        raise FileError(f"{str(path)!r} is not a table of shapes: no column {', '.join(missing)}")
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
    xy = np.column_stack([_numbers(table, name) for name in ("x_centroid", "y_centroid")])
    observation = prepare(data, positions=xy, recenter=False, **keywords)
    if "noise_scale" in table.meta:
        observation, _ = scaled_noise(table.meta["noise_scale"], observation)
    angular = u.Quantity(table["hlr"]).unit.is_equivalent(u.arcsec)
    if angular and not observation.has_sky:
        raise InputError("the table gives sizes in arcsec, but the image has no WCS")
    observation = replace(observation, id=np.asarray(table["id"]), table=None, has_sky=angular)
    parts = [_measurement(table[index], stamps, angular) for index, stamps in observation.groups]
    meta = {"from": "table"}
    catalog = ShapeCatalog.from_measurements(observation, parts, method=_method(table), meta=meta)
    flags = np.array(table["flags"], np.int64)
    return replace(catalog, measurement=replace(catalog.measurement, flags=flags))


def _measurement(table, stamps, angular):
    """Rows of a table in the pixel frame of their stamps."""
    size = {"hlr": u.arcsec if angular else u.pix}
    flux, n, hlr, g1, g2 = (_numbers(table, name, size.get(name)) for name in SHAPE_PARAMETERS)
    covariances = [_diagonal(table, suffix, size) for suffix in ("std", "err")]
    if angular:
        inverse = np.linalg.inv(stamps.jacobian)
        with np.errstate(invalid="ignore"):  # rows that were not measured are NaN
            back = frame_derivative(g1, g2, inverse)
            covariances = [back @ one @ np.swapaxes(back, 1, 2) for one in covariances]
            hlr, g1, g2 = transform_shape(hlr, g1, g2, inverse)
    x, y = (_numbers(table, f"{axis}_centroid") - stamps.origin[:, k] for k, axis in enumerate("xy"))
    params = SINGLE.with_sky(np.column_stack([flux, n, hlr, g1, g2, x, y]))
    params[:, SINGLE.sky] = _fitted_sky(stamps, params)
    others = [_numbers(table, name) for name in ("snr", "chi2", "ess")]
    return Measurement(params, *covariances, *others, np.asarray(table["flags"]))


def _fitted_sky(stamps, params):
    """Weighted mean of what the model leaves."""
    left = stamps.data - model_images(stamps, params)
    weight = stamps.ivar.sum((1, 2), dtype=float)
    return np.where(weight > 0, (left * stamps.ivar).sum((1, 2)) / np.where(weight > 0, weight, 1), 0.0)


def _diagonal(table, suffix, size):
    """Covariance matrices from the columns of errors."""
    sigma = np.stack([_numbers(table, f"{name}_{suffix}", size.get(name)) for name in SHAPE_PARAMETERS], -1)
    return sigma[:, :, None] ** 2 * np.eye(len(SHAPE_PARAMETERS))


def _numbers(table, name, unit=None):
    """Column as plain numbers; NaN where the table has none."""
    if name not in table.colnames:
        return np.full(len(table), np.nan)
    column = table[name]
    if unit is not None and getattr(column, "unit", None) is not None:
        column = u.Quantity(column).to(unit)
    values = np.ma.filled(np.ma.asarray(getattr(column, "value", column), dtype=float), np.nan)
    return np.asarray(values, float)


def _method(table):
    """Method in the metadata of a table, nested or as comments of FITS."""
    comments = " ".join(map(str, table.meta.get("comments", [])))
    found = re.search(r"\bmethod = (\w+)", comments)
    method = table.meta.get("method", found[1] if found else None)
    return method if method in METHODS else "network"


def check_report_path(path, overwrite=False):
    """Refuse, before any work, a page that could not be written.

    Parameters
    ----------
    path : str or path-like
        Page to be written, ``.html`` or ``.htm``.
    overwrite : bool, optional
        Whether an existing file may be replaced.

    Returns
    -------
    path : `pathlib.Path`
        The same path.

    Raises
    ------
    InputError
        If the suffix is another.
    FileError
        If the file exists and may not be replaced, or its folder is missing or not writeable.
    """
    return check_output_path(path, (".html", ".htm"), overwrite)


def write_report(catalog, path, *, title="galshape report", overwrite=False):
    """Write the page: rows that can be sorted and filtered, each with its picture.

    Parameters
    ----------
    catalog : ShapeCatalog
        With its stamps.
    path : str or path-like
        Page to write, ``.html``.
    title : str, optional
        Heading.
    overwrite : bool, optional
        Whether an existing file may be replaced.

    Raises
    ------
    InputError
        If the suffix is not ``.html``.
    FileError
        If the page cannot be written.
    """
    path = check_report_path(path, overwrite)
    page = _page(catalog, title)
    with written_whole(path) as beside:
        beside.write_text(page, encoding="utf-8")


def _page(catalog, title):
    """The filled page."""
    flags = [
        {"name": d.name, "value": d.value, "severe": d.severe, "description": d.description}
        for d in FLAG_DEFINITIONS
    ]
    constants = {"FLAGS": flags, "COLUMNS": list(_COLUMNS), "DIGITS": _COLUMNS, "SIDE": _SIDE}
    fields = {
        "title": html.escape(title),
        "intro": _intro(catalog),
        "options": _flag_options(catalog),
        "legend": _legend(catalog),
        "head": _head(catalog),
        "constants": "\n".join(f"const {name} = {_json(value)};" for name, value in constants.items()),
        "rows": _json(_rows(catalog)),
        "pictures": _json(_pictures(catalog)),
    }
    return re.sub(r"\{\{(\w+)\}\}", lambda match: fields[match[1]], PAGE)


def _json(value):
    """JSON that can stand inside a script element."""
    return json.dumps(value, allow_nan=False, separators=(",", ":")).replace("<", "\\u003c")


def _rows(catalog):
    """Columns of the page as lists, NaN as None."""
    names = [name for name in _COLUMNS if name != "id"] + [f"{name}_err" for name in SHAPE_PARAMETERS]
    rows = {"id": [value.item() if hasattr(value, "item") else value for value in catalog.id]}
    for name in names:
        values = u.Quantity(getattr(catalog, name)).value
        rows[name] = [float(f"{value:.6g}") if np.isfinite(value) else None for value in values]
    rows["flags"] = [int(value) for value in catalog.flags]
    return rows


def _intro(catalog):
    """What was measured, and how."""
    clean = int(np.count_nonzero(catalog.flags == 0))
    provenance = [f"method “{catalog.method}”"]
    provenance += [f"{name} {value}" for name, value in catalog.meta.get("versions", {}).items()]
    return f"<p>{len(catalog)} galaxies, {clean} without flags; {html.escape(', '.join(provenance))}.</p>"


def _flag_options(catalog):
    """Choices of the flag filter."""
    clean = int(np.count_nonzero(catalog.flags == 0))
    options = [("", f"all ({len(catalog)})"), ("none", f"without flags ({clean})")]
    options += [("any", f"with flags ({len(catalog) - clean})")]
    options += [(name, f"{name} ({count})") for name, count in catalog.flag_counts().items()]
    return "".join(f'<option value="{value}">{text}</option>' for value, text in options)


def _legend(catalog):
    """Table of the flags."""
    counts = catalog.flag_counts()
    lines = (
        f"<tr><td>{d.name}</td><td>{counts.get(d.name, 0)}</td>"
        f"<td>{html.escape(d.description)}{' (do not use the row)' if d.severe else ''}</td></tr>"
        for d in FLAG_DEFINITIONS
    )
    return f"<table><tr><th>flag</th><th>rows</th><th>meaning</th></tr>{''.join(lines)}</table>"


def _head(catalog):
    """Header cells, each a button that sorts."""
    cells = []
    for name in [*_COLUMNS, "flags"]:
        unit = getattr(getattr(catalog, name), "unit", None)
        unit = f" <small>{html.escape(unit.to_string())}</small>" if unit is not None and str(unit) else ""
        kind = ' class="flags"' if name == "flags" else ""
        label = name.removesuffix("_centroid")
        button = f'<button type="button" title="{name}">{label}{unit}<span class="mark"></span></button>'
        cells.append(f'<th data-key="{name}"{kind}>{button}</th>')
        if name == "id":
            cells.append('<th class="picture">data, model, residual</th>')
    return "".join(cells)


def _pictures(catalog):
    """One strip of three images for each row, as base64 text; empty where nothing was measured."""
    # A page of ten thousand rows must stay below some 30 MB.
    side, quality = (_SIDE, 70) if len(catalog) <= 1000 else (48, 50)
    pictures = [""] * len(catalog)
    for row, images in thumbnails(catalog):
        params = catalog.measurement.params[row]
        pictures[row] = _picture(images, params[SINGLE.centre], params[SINGLE.hlr], side, quality)
    return pictures


def _picture(images, center, radius, side, quality):
    """WebP of data, model and residual."""
    from matplotlib import colormaps
    from PIL import Image

    data, model = images.stretched()
    panels = ((data, "cividis"), (model, "cividis"), (images.residual / 10 + 0.5, "RdBu_r"))
    window = _window(data.shape, center, radius)
    strip = Image.new("RGB", (3 * side, side))
    for k, (image, name) in enumerate(panels):
        colors = colormaps[name].with_extremes(bad="#CC79A7")(image[window][::-1], bytes=True)[..., :3]
        strip.paste(Image.fromarray(colors).resize((side, side), Image.Resampling.NEAREST), (k * side, 0))
    buffer = io.BytesIO()
    strip.save(buffer, "WEBP", quality=quality)
    return base64.b64encode(buffer.getvalue()).decode("ascii")


def _window(shape, center, radius):
    """Square window of six half-light radii around a galaxy, at least 40 pixels."""
    wanted = 12 * radius if np.isfinite(radius) else 64
    side = int(np.clip(wanted, 40, min(shape)) if min(shape) > 40 else min(shape))
    middle = [(size - 1) / 2 for size in shape] if not np.isfinite(center).all() else center[::-1]
    starts = [
        int(np.clip(round(m - side / 2), 0, size - side)) for m, size in zip(middle, shape, strict=True)
    ]
    return tuple(slice(start, start + side) for start in starts)
