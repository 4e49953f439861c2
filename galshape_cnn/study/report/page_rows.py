# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""Columns and rows of the HTML page, as JSON holds them."""

from dataclasses import dataclass

import astropy.units as u
import numpy as np

from galshape_cnn.infer.catalog.columns import SHAPE_PARAMETERS
from galshape_cnn.infer.catalog.formats import split_sky

__all__ = ["PageColumn", "has_widths", "page_columns", "page_rows"]

#: Columns of the catalogue, with the digits shown where there is no error to tell how many matter.
_OWN = {
    "id": 0,
    "x_centroid": 1,
    "y_centroid": 1,
    "snr": 1,
    "flux": 1,
    "mag": 2,
    "n": 2,
    "hlr": 3,
    "r_eff": 3,
    "g1": 3,
    "g2": 3,
    "q": 2,
    "pa": 1,
    "chi2": 2,
    "n_exposures": 0,
    "hlr_gradient": 2,
    "quality": 0,
}
_ADDED = ("mag", "mag_err")  # by `add_magnitudes`, after the measurement
_SHOWN = 8  # columns of the user's that are shown from the beginning
_LONGEST = 60  # characters of a text


@dataclass(frozen=True)
class PageColumn:
    """One column of the page.

    Attributes
    ----------
    key : str
        Name in the table, and in the filter.
    unit : str
        Empty for a plain number.
    digits : int or None
        Shown where there is no error; None for six significant ones.
    text : bool
        Whether its values are text.
    shown : bool
        Whether it is shown from the beginning.
    """

    key: str
    unit: str = ""
    digits: int | None = None
    text: bool = False
    shown: bool = True


def has_widths(catalog):
    """Whether the errors of the numbers are posterior standard deviations, as of means, and not the bound."""
    return bool(np.isfinite(catalog.covariance).any())


def page_columns(catalog):
    """Columns of the page: those of the catalogue, then those that came with the positions."""
    inputs = _inputs(catalog)
    columns = [
        PageColumn(name, _unit(_column(catalog, inputs, name)), digits, name == "id")
        for name, digits in _own(catalog, inputs).items()
    ]
    for number, name in enumerate(name for name in inputs if name not in _ADDED):
        text = _is_text(inputs[name])
        columns.append(PageColumn(name, _unit(inputs[name]), None, text, number < _SHOWN))
    return columns


def page_rows(catalog):
    """Values of every column by name, ``NAME_std``, ``NAME_err`` and ``flags``; None for nothing."""
    inputs = _inputs(catalog)
    rows = {}
    for column in page_columns(catalog):
        values = _column(catalog, inputs, column.key)
        digits = 10 if column.key in inputs else 6
        rows[column.key] = _texts(values) if column.text else _numbers(values, digits)
    for suffix in ("std", "err"):
        for name in _with_errors(catalog, inputs):
            rows[f"{name}_{suffix}"] = _numbers(getattr(catalog, f"{name}_{suffix}"), 6)
    for name in (name for name in _own(catalog, inputs) if _stem(name, catalog) in ("mag", "hlr_gradient")):
        if name not in inputs:  # of several exposures
            rows |= _errors_of_bands(catalog, name)
    rows |= _magnitude_errors(catalog, inputs)
    if catalog.meta.get("from") != "table":  # else the covariances are lost
        for name in (name for name in _own(catalog, inputs) if _stem(name, catalog) == "r_eff"):
            rows[f"{name}_err"] = _numbers(getattr(catalog, f"{name}_err"), 6)
    rows["flags"] = [int(value) for value in catalog.flags]
    return rows


def _stem(name, catalog):
    """What a column is of, without the band."""
    for band in getattr(catalog, "bands", ()):
        if band and name.endswith(f"_{band}") and name.removesuffix(f"_{band}") in _OWN:
            return name.removesuffix(f"_{band}")
    return name


def _own(catalog, inputs):
    """Columns of the catalogue that the page shows, those of bands side by side, and their digits."""
    names = ({"mag"} & set(inputs)) | set(catalog.column_names) - set(inputs)
    ordered = [name for name in catalog.column_names if name in names] + sorted(names & set(inputs))
    stems = {name: _stem(name, catalog) for name in ordered}
    return {name: digits for stem, digits in _OWN.items() for name in ordered if stems[name] == stem}


def _with_errors(catalog, inputs):
    """Names of the parameters, which have errors."""
    return [name for name in _own(catalog, inputs) if _stem(name, catalog) in SHAPE_PARAMETERS]


def _inputs(catalog):
    """Columns that came with the positions or were added, by name; sky positions as two."""
    if catalog.inputs is None:
        return {}
    table = split_sky(catalog.inputs)
    return {name: table[name] for name in table.colnames}


def _column(catalog, inputs, name):
    return inputs[name] if name in inputs else getattr(catalog, name)


def _unit(column):
    unit = getattr(column, "unit", None)
    return "" if unit is None else unit.to_string()


def _plain(column):
    """Values without unit, and which of them are none."""
    mask = np.asarray(getattr(column, "mask", False))
    values = getattr(column, "unmasked", column)
    values = np.asarray(getattr(values, "value", values))
    return values, np.broadcast_to(mask, values.shape)


def _is_text(column):
    values, _ = _plain(column)
    return values.dtype.kind not in "fiu" or values.ndim != 1


def _texts(column):
    """Values as text, or as whole numbers where they are some."""
    values, mask = _plain(column)
    if values.dtype.kind in "iu" and values.ndim == 1:
        return [None if none else int(value) for value, none in zip(values, mask, strict=True)]
    rows = zip(values, mask, strict=True)
    return [None if np.all(none) or value is None else _text(value) for value, none in rows]


def _text(value):
    value = value.decode("utf-8", "replace") if isinstance(value, bytes) else value
    value = " ".join(str(value.tolist() if isinstance(value, np.ndarray) else value).split())
    return value if len(value) <= _LONGEST else value[: _LONGEST - 1] + "…"


def _numbers(column, digits):
    """Numbers of so many digits, None where there is none."""
    values, mask = _plain(column)
    if values.dtype.kind in "iu":
        return [None if none else int(value) for value, none in zip(values, mask, strict=True)]
    good = np.isfinite(values) & ~mask
    return [float(f"{value:.{digits}g}") if ok else None for value, ok in zip(values, good, strict=True)]


def _errors_of_bands(catalog, name):
    """Errors of a band's magnitude of both kinds; of the gradient, which has one, that in place of both."""
    error = getattr(catalog, f"{name}_err")
    out = {f"{name}_err": _numbers(error, 6)}
    if not has_widths(catalog):
        return out
    if name == "hlr_gradient":
        return out | {f"{name}_std": out[f"{name}_err"]}
    flux = name.replace("mag", "flux", 1)
    width, bound = (u.Quantity(getattr(catalog, f"{flux}_{suffix}")).value for suffix in ("std", "err"))
    with np.errstate(divide="ignore", invalid="ignore"):
        return out | {f"{name}_std": _numbers(u.Quantity(error).value * width / bound, 6)}


def _magnitude_errors(catalog, inputs):
    """Errors of ``mag``: the bound of the table, and the posterior width of the flux relative to it."""
    if not all(name in inputs for name in _ADDED):
        return {}
    bound, mask = _plain(inputs["mag_err"])
    bound = np.where(mask, np.nan, bound).astype(float)
    width, of_flux = (u.Quantity(getattr(catalog, f"flux_{suffix}")).value for suffix in ("std", "err"))
    with np.errstate(divide="ignore", invalid="ignore"):
        return {"mag_err": _numbers(bound, 6), "mag_std": _numbers(bound * width / of_flux, 6)}
