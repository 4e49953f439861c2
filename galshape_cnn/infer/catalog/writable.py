# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""Conversion of columns that a file format cannot hold.

Columns that came with the positions may be of any kind.  Astropy's writers raise on some of them, and
silently change others (signed bytes are read back from FITS as booleans).  What is changed is said.
"""

import tempfile
import unicodedata
import warnings
from pathlib import Path

import astropy.units as u
import numpy as np
from astropy.coordinates import SkyCoord
from astropy.table import Column, MaskedColumn, Table
from astropy.time import Time, TimeDelta

from galshape_cnn.errors import warn
from galshape_cnn.infer.catalog.formats import write_unchanged

__all__ = ["CHANGED", "warn_of", "warn_of_changes", "writable_table"]

#: How the warning begins.
CHANGED = "columns changed for"
_LONGEST_FITS_NAME = 60  # characters that fit into a card with its keyword
_SAFE = {"f4", "f8", "i2", "i4", "i8", "b1"}  # what every format holds


def writable_table(table, suffix):
    """The table as the format of a suffix can hold it, and what was changed, one text for each column.

    The same object if nothing has to be changed.
    """
    changed, names = {}, {}
    for name in table.colnames:
        column, what = _adapted(table[name], suffix)
        if column is not table[name]:
            changed[name] = (column, what)
    if suffix == ".fits":
        names = _fits_names(table.colnames)
    if not changed and not names:
        return table, []
    out = table.copy(copy_data=False)
    for name, (column, _) in changed.items():
        if column is None:
            out.remove_column(name)
        else:
            out.replace_column(name, _with_info(column, table[name]))
    for name, new in names.items():
        if name in out.colnames:
            out.rename_column(name, new)
    texts = [f"{name} ({what})" for name, (_, what) in changed.items() if what]
    return out, texts + [f"{name} (now {new})" for name, new in names.items()]


def warn_of_changes(table, suffix):
    """Say which columns that came with the positions a format, of a suffix, cannot hold as they are."""
    if table is not None:
        warn_of(writable_table(table, suffix)[1], suffix)


def warn_of(changes, suffix):
    """One warning for all changes, if there are any."""
    if changes:
        warn(f"{CHANGED} {suffix}: {'; '.join(changes)}")


def _with_info(column, old):
    """The column with the description and the metadata that the old one had."""
    if getattr(column, "info", None) is not None:
        column.info.description = column.info.description or old.info.description
        column.info.meta = old.info.meta
    return column


def _adapted(column, suffix):
    """A column that the format holds, and what was done; the same one and an empty text if nothing."""
    if isinstance(column, SkyCoord):
        return column, ""
    if isinstance(column, TimeDelta):
        return (column.to(u.s), "seconds") if suffix == ".vot" else (column, "")
    if isinstance(column, Time):
        return _time(column, suffix)
    kind = getattr(column, "dtype", np.dtype(object)).kind
    if isinstance(column, u.Quantity):
        return _quantity(column, suffix)
    if kind == "O":
        return _as_text(column), "objects as text"
    if kind in "mM":
        return _date(column)
    if kind == "U" and column.ndim == 1:
        return _ascii(column) if suffix == ".fits" else (column, "")
    if suffix == ".parquet" and column.ndim > 2:
        return Column(np.reshape(column, (len(column), -1))), f"flattened from {column.shape[1:]}"
    adapted, what = _number(column, suffix) if kind in "fiu" else _boolean(column, suffix)
    if adapted.dtype.str[1:] in _SAFE or _is_written(adapted, suffix):
        return adapted, what
    text = _as_text(adapted)
    return (text, "as text") if _is_written(text, suffix) else (None, "left out")


def _time(column, suffix):
    """Times as ISO text in formats whose readers know no others."""
    if suffix in (".fits", ".vot"):
        return Column(column.isot, description=f"ISO 8601, {column.scale}"), f"ISO text, {column.scale}"
    return column, ""


def _quantity(column, suffix):
    """Quantities that ASDF has no schema for: angles are plain ones, magnitudes numbers."""
    if suffix != ".asdf" or type(column) is u.Quantity:
        return column, ""
    if isinstance(column, u.function.FunctionQuantity):
        return Column(column.value, description=f"unit {column.unit}"), f"numbers in {column.unit}"
    return (
        (u.Quantity(column, subok=False), "plain quantity") if not hasattr(column, "mask") else (column, "")
    )


def _date(column):
    """Dates of numpy as ISO text, durations as seconds."""
    values = np.ma.asarray(column)
    unknown = np.ma.getmaskarray(values) | np.isnat(values.data)
    if values.dtype.kind == "m":
        seconds = values.data / np.timedelta64(1, "s")
        return MaskedColumn(seconds, mask=unknown, unit=u.s), "seconds"
    return MaskedColumn(np.datetime_as_string(values.data), mask=unknown), "ISO text"


def _number(column, suffix):
    """Types of numbers that a format lacks, as the next larger one."""
    code = column.dtype.str[1:]
    if column.dtype.kind == "f" and column.dtype.itemsize > 8 and suffix != ".ecsv":
        return column.astype(float), "double precision"
    if code == "f2" and suffix == ".vot":
        return column.astype(np.float32), "single precision"
    if code == "i1" and suffix in (".fits", ".vot"):
        return column.astype(np.int16), "16 bits"
    if suffix == ".fits" and column.dtype.kind in "iu":
        return _with_free_null(column), ""
    if code in ("u2", "u4") and suffix == ".vot":
        return column.astype(np.int64), "64 bits"
    if code == "u8" and suffix == ".vot":
        fits = len(column) == 0 or np.ma.max(column) <= np.iinfo(np.int64).max
        return (column.astype(np.int64), "signed") if fits else (_as_text(column), "as text")
    return column, ""


def _boolean(column, suffix):
    """FITS loses the masks of booleans; other columns stay as they are."""
    if suffix == ".fits" and column.dtype.kind == "b" and np.ma.getmaskarray(column).any():
        return _with_free_null(MaskedColumn(column.astype(np.int16))), "0 and 1"
    return column, ""


def _with_free_null(column):
    """A masked column whose value for nothing is none of its numbers, or FITS would lose that number."""
    masked = np.ma.getmaskarray(column)
    if not masked.any():
        return column
    limits = np.iinfo(column.dtype)
    present = np.unique(np.asarray(column.data)[~masked])
    free = next((one for one in (limits.min, limits.max) if one not in present), None)
    if free is None or free == column.fill_value:
        return column
    out = MaskedColumn(column, copy=True)
    out.fill_value = free
    return out


def _ascii(column):
    """FITS knows ASCII only; other characters are escaped as in Python, so that they can be had back."""
    values = np.ma.asarray(column)
    if values.size == 0 or values.dtype.itemsize == 0:
        return column, ""
    codes = np.ascontiguousarray(values.data).view(np.uint32)
    if codes.max() < 128:
        return column, ""
    texts = [str(one).encode("ascii", "backslashreplace").decode("ascii") for one in values.data]
    return _text_column(texts, np.ma.getmaskarray(values)), "not ASCII, escaped"


def _as_text(column):
    """Any column as text; masked where there is nothing."""
    mask = getattr(column, "mask", None)
    mask = np.zeros(len(column), bool) if mask is None else np.asarray(mask)
    values = getattr(column, "unmasked", getattr(column, "data", column))
    mask = [bool(np.all(one)) or value is None for one, value in zip(mask, values, strict=True)]
    texts = ["" if none else _one_line(value) for none, value in zip(mask, values, strict=True)]
    return _text_column(texts, np.array(mask, bool))


def _one_line(value):
    """Text of one value, in ASCII so that every format holds it."""
    value = value.tolist() if isinstance(value, np.ndarray) else value
    return " ".join(str(value).split()).encode("ascii", "backslashreplace").decode("ascii")


def _text_column(texts, mask):
    return MaskedColumn(texts, mask=mask, dtype=str) if np.any(mask) else Column(texts, dtype=str)


def _is_written(column, suffix):
    """Whether a writer takes the first rows of a column."""
    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            write_unchanged(Table({"column": column[:4]}), Path(folder) / f"column{suffix}")
        except Exception:  # whatever a writer raises for what it cannot write
            return False
    return True


def _fits_names(names):
    """New names of columns, where FITS cannot have them: ASCII, short, different whatever their case."""
    new, taken = {}, set()
    for name in names:
        plain = unicodedata.normalize("NFKD", name).encode("ascii", "ignore").decode("ascii")
        plain = "".join(c for c in plain if c.isprintable())[:_LONGEST_FITS_NAME].strip() or "column"
        candidate, number = plain, 2
        while candidate.lower() in taken:
            candidate, number = f"{plain}_{number}", number + 1
        taken.add(candidate.lower())
        if candidate != name:
            new[name] = candidate
    return new
