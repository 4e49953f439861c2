# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""One self-contained HTML page with a picture and the numbers of every galaxy."""

import base64
import html
import io
import json
import re
from dataclasses import asdict

import numpy as np

from galshape_cnn.files import check_output_path, written_whole
from galshape_cnn.flags import FLAG_DEFINITIONS
from galshape_cnn.forward.galaxy_model import SINGLE
from galshape_cnn.infer.catalog.columns import ERROR_NAMES
from galshape_cnn.study.report.html_template import PAGE
from galshape_cnn.study.report.page_rows import has_widths, page_columns, page_rows
from galshape_cnn.study.report.thumbnails import exposure_thumbnails, thumbnails

__all__ = ["check_report_path", "write_report"]

_SIDE = 64  # side of a picture on the page, CSS pixels
_QUALITIES = ("use", "with care", "do not use")


def check_report_path(path, overwrite=False):
    """Path of a page; refused, before any work, if it could not be written.

    As `galshape_cnn.files.check_output_path`, with the suffixes ``.html`` and ``.htm``.
    """
    return check_output_path(path, (".html", ".htm"), overwrite)


def write_report(catalog, path, *, title="galshape report", overwrite=False):
    """Write the page: rows that can be sorted and filtered, each with its picture.

    The catalogue needs its stamps; the path is refused as by `check_report_path`.
    """
    path = check_report_path(path, overwrite)
    page = _page(catalog, title)
    with written_whole(path) as beside:
        beside.write_text(page, encoding="utf-8")


def _page(catalog, title):
    """The filled page."""
    flags = [
        {"name": d.name, "value": d.value, "level": d.level, "description": d.description}
        for d in FLAG_DEFINITIONS
    ]
    columns = page_columns(catalog)
    constants = {
        "FLAGS": flags,
        "COLUMNS": [asdict(one) for one in columns],
        "SIDE": _SIDE,
        "SHOWN": _shown(catalog),
    }
    fields = {
        "title": html.escape(title),
        "intro": _intro(catalog),
        "errors": _error_options(catalog),
        "options": _flag_options(catalog),
        "legend": _legend(catalog),
        "constants": "\n".join(f"const {name} = {_json(value)};" for name, value in constants.items()),
        "rows": _json(page_rows(catalog)),
        "pictures": _json(_pictures(catalog)),
    }
    return re.sub(r"\{\{(\w+)\}\}", lambda match: fields[match[1]], PAGE)


def _json(value):
    """JSON that can stand inside a script element."""
    return json.dumps(value, allow_nan=False, separators=(",", ":")).replace("<", "\\u003c")


def _intro(catalog):
    """What was measured, and how."""
    provenance = [f"method “{catalog.method}”"]
    provenance += [f"{name} {value}" for name, value in catalog.meta.get("versions", {}).items()]
    return f"<p>{len(catalog)} galaxies, {_counts(catalog)}; {html.escape(', '.join(provenance))}.</p>"


def _shown(catalog):
    """For each row, names of the exposures in its picture; nothing for single images."""
    if not hasattr(catalog, "exposures"):
        return []
    there = catalog.location[..., 0] >= 0
    return [[name for name, one in zip(catalog.exposures, row, strict=True) if one] for row in there]


def _counts(catalog):
    """How many rows there are of each quality."""
    quality = np.asarray(catalog.quality)
    return ", ".join(f"{np.count_nonzero(quality == k)} {text}" for k, text in enumerate(_QUALITIES))


def _error_options(catalog):
    """What ± may be: the width of a posterior mean first, the standard error if wanted."""
    names = list(ERROR_NAMES) if has_widths(catalog) else ["err"]
    return "".join(f'<option value="{name}">{ERROR_NAMES[name]}</option>' for name in names)


def _flag_options(catalog):
    """Choices of the flag filter."""
    clean = int(np.count_nonzero(catalog.flags == 0))
    options = [("", f"all ({len(catalog)})")]
    for worst in (0, 1):
        count = np.count_nonzero(catalog.quality <= worst)
        options.append((f"quality{worst}", f"quality: {' or '.join(_QUALITIES[: worst + 1])} ({count})"))
    options += [("none", f"without flags ({clean})"), ("any", f"with flags ({len(catalog) - clean})")]
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


def _pictures(catalog):
    """A strip of three images for each row and exposure, as base64 text; empty where nothing was measured."""
    # A page of ten thousand rows must stay below some 30 MB.
    side, quality = (_SIDE, 70) if len(catalog) <= 1000 else (48, 50)
    strips = [[] for _ in range(len(catalog))]
    for row, params, images in _images(catalog):
        strips[row].append(_strip(images, params[SINGLE.centre], params[SINGLE.hlr], side))
    return [_encoded(one, quality) if one else "" for one in strips]


def _images(catalog):
    """Row number, parameters in the pixels of the image, and data, model and residual of each image."""
    if not hasattr(catalog, "exposures"):
        for row, images in thumbnails(catalog):
            yield row, catalog.measurement.params[row], images
        return
    for row, exposure, images in exposure_thumbnails(catalog):
        yield row, catalog.by_exposure.params[row, exposure], images


def _strip(images, center, radius, side):
    """Picture of data, model and residual."""
    from matplotlib import colormaps
    from PIL import Image

    data, model = images.stretched()
    panels = ((data, "cividis"), (model, "cividis"), (images.residual / 10 + 0.5, "RdBu_r"))
    window = _window(data.shape, center, radius)
    strip = Image.new("RGB", (3 * side, side))
    for k, (image, name) in enumerate(panels):
        colors = colormaps[name].with_extremes(bad="#CC79A7")(image[window][::-1], bytes=True)[..., :3]
        strip.paste(Image.fromarray(colors).resize((side, side), Image.Resampling.NEAREST), (k * side, 0))
    return strip


def _encoded(strips, quality):
    """WebP of strips, one below the other."""
    from PIL import Image

    width, height = strips[0].size
    whole = Image.new("RGB", (width, height * len(strips)))
    for k, one in enumerate(strips):
        whole.paste(one, (0, k * height))
    buffer = io.BytesIO()
    whole.save(buffer, "WEBP", quality=quality)
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
