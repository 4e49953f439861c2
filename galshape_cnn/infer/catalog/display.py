# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""HTML display of a catalogue in notebooks."""

import html

import astropy.units as u
import numpy as np

from galshape_cnn.flags import decode_flags
from galshape_cnn.infer.catalog.columns import ERROR_NAMES

__all__ = ["CatalogDisplay"]

_PLACES = {"id": None, "x_centroid": 1, "y_centroid": 1, "snr": 1}  # digits behind the point
_SHOWN = 12  # rows; of more, the first and the last half of them


class CatalogDisplay:
    """Methods of `galshape_cnn.ShapeCatalog` that make it readable."""

    def _repr_html_(self):
        """Table of the main columns for notebooks, each number with its error."""
        measured = [name for name in self.column_names if f"{name}_std" in self.column_names]
        widths = any(np.isfinite(u.Quantity(self[f"{name}_std"]).value).any() for name in measured)
        suffix = "std" if widths else "err"
        n, half = len(self), _SHOWN // 2
        shown = range(n) if n <= _SHOWN else [*range(half), *range(n - half, n)]
        part = self[list(shown)]
        own = [*_PLACES, *measured]
        inputs = {} if part.inputs is None else {name: part.inputs[name] for name in part.inputs.colnames}
        inputs = {name: column for name, column in inputs.items() if _is_plain(column)}
        columns = {name: part._cells(name, suffix) for name in own}
        columns |= {name: [_text(value) for value in column] for name, column in inputs.items()}
        columns["flags"] = [", ".join(decode_flags(value)) for value in part.flags]
        units = {name: getattr(self[name], "unit", None) for name in own}
        units |= {name: getattr(column, "unit", None) for name, column in inputs.items()}
        head = "".join(f"<th>{_heading(name, units.get(name))}</th>" for name in columns)
        lines = []
        for row in range(len(part)):
            if n > _SHOWN and row == half:
                lines.append(f"<tr><td colspan={len(columns)}>… {n - 2 * half} more …</td></tr>")
            cells = "".join(f"<td>{html.escape(columns[name][row])}</td>" for name in columns)
            lines.append(f"<tr>{cells}</tr>")
        error = ERROR_NAMES[suffix]
        about = f"{html.escape(repr(self))}; ± is the {error}; all columns: <code>to_table()</code>"
        return f"<p>{about}</p><table><thead><tr>{head}</tr></thead><tbody>{''.join(lines)}</tbody></table>"

    def _cells(self, name, suffix):
        """Texts of a column of the catalogue."""
        if name == "id":
            return [_text(value) for value in self.id]
        values = u.Quantity(self[name]).value
        if name in _PLACES:
            return [f"{value:.{_PLACES[name]}f}" if np.isfinite(value) else "–" for value in values]
        errors = u.Quantity(self[f"{name}_{suffix}"]).value
        return [with_error(value, error) for value, error in zip(values, errors, strict=True)]


def with_error(value, error):
    """A number with its error, to the two digits of the error that matter; a NaN is left out.

    Examples
    --------
    >>> from galshape_cnn.infer.catalog.display import with_error
    >>> with_error(1234.567, 8.91), with_error(0.5, float("nan")), with_error(3e7, 2e6)
    ('1234.6 ± 8.9', '0.5', '30000000 ± 2000000')
    """
    if not np.isfinite(value):
        return "–"
    if not (np.isfinite(error) and error > 0):
        return f"{value:.4g}"
    digits = min(max(0, 1 - int(np.floor(np.log10(error)))), 6)
    return f"{value:.{digits}f} ± {error:.{digits}f}"


def _heading(name, unit):
    """Name of a column and its unit."""
    unit = "" if unit is None or not str(unit) else f"<br><small>{html.escape(str(unit))}</small>"
    return html.escape(name.removesuffix("_centroid")) + unit


def _is_plain(column):
    """Whether each row of a column is one number or text."""
    return getattr(column, "ndim", 1) == 1 and hasattr(column, "dtype")


def _text(value):
    """One cell."""
    if value is np.ma.masked or (np.ndim(value) == 0 and bool(np.any(getattr(value, "mask", False)))):
        return "–"
    value = getattr(value, "value", value)
    if isinstance(value, bytes):
        return value.decode("utf-8", "replace")
    return f"{value:.6g}" if isinstance(value, float | np.floating) else str(value)
