# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""Tables in text: CSV and columns, with the comments, headers and encodings that people have.

Lines that begin with ``#`` are comments, and the names of the columns may stand in the last of them before
the data, as `numpy.savetxt` writes them.
"""

import codecs
import csv
import io
import re

from astropy.table import Table

__all__ = ["read_text_table"]

_ENCODINGS = (
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)


class _NoTable(ValueError):
    """There is no other format to try."""


def read_text_table(content, kind=Table):
    """Read a table from the bytes of a text.

    ECSV, ASCII_HEAD of Source Extractor, CSV with commas, semicolons or tabs, columns separated by blanks,
    the TSV of VizieR, or what else `astropy.io.ascii` recognises. ``ValueError`` if it is no table, or one
    without names of columns; readers of astropy raise others.
    """
    text = _decoded(content)
    if text.startswith("# %ECSV"):
        return kind.read(text, format="ascii.ecsv")
    if re.match(r"#\s*1\s+[A-Za-z]\w*\b", text):
        return kind.read(text, format="ascii.sextractor", guess=False)
    try:
        return _delimited(text, kind)
    except _NoTable:
        raise
    except Exception:  # it may be one of the formats that astropy tells apart by trying
        return kind.read(text, format="ascii")


def _decoded(content):
    """Text of bytes, by their byte-order mark."""
    encoding = next((name for mark, name in _ENCODINGS if content.startswith(mark)), "utf-8")
    try:
        text = content.decode(encoding)
    except UnicodeDecodeError:
        text = content.decode("latin-1")
    if "\x00" in text:
        raise _NoTable("the content is binary, and of no format that is known")
    return text


def _delimited(text, kind):
    """Table of lines with a separator."""
    lines = [line for line in text.splitlines() if line.strip()]
    first = next((k for k, line in enumerate(lines) if not line.lstrip().startswith("#")), None)
    if first is None:
        raise _NoTable("the file holds comments only, and no row")
    comments = [line.lstrip().lstrip("#").strip() for line in lines[:first]]
    rows = [line for line in lines[first:] if not line.lstrip().startswith("#")]
    if rows[0].lstrip()[0] in "|+=\\":
        raise ValueError("a drawn table, not a delimited one")
    separator = _separator(rows[0])
    if any(_is_number(field) for field in _fields(rows[0], separator)):
        names = _commented_names(comments, rows[0], separator)
    else:
        names, rows = _fields(rows[0], separator), rows[1:]
    units = None
    if len(rows) > 1 and re.fullmatch(r"[-\s]*-[-\s]*", rows[1]):  # VizieR: units, then a rule
        units, rows = _fields(rows[0], separator), rows[2:]
    names = [name or f"column{k + 1}" for k, name in enumerate(names)]  # pandas leaves that of the index
    how = {"format": "ascii.basic"}
    if separator != " ":
        how = {"format": "ascii.csv", "delimiter": separator}
    table = kind.read([_line(names, separator), *rows], **how, guess=False)
    for name, unit in zip(table.colnames, units or (), strict=False):
        if unit.strip():
            table[name].unit = unit.strip()
    return table


def _separator(line):
    """What separates the fields of a line."""
    return next((one for one in ",;\t" if one in line), " ")


def _fields(line, separator):
    """Fields of a line, without quotes."""
    if separator == " ":
        line = " ".join(line.split())
    return [field.strip() for field in next(csv.reader([line], delimiter=separator, skipinitialspace=True))]


def _line(fields, separator):
    """Line of fields, quoted where that is needed."""
    out = io.StringIO()
    csv.writer(out, delimiter=separator, lineterminator="").writerow(fields)
    return out.getvalue()


def _is_number(field):
    try:
        float(field)
    except ValueError:
        return False
    return True


def _commented_names(comments, row, separator):
    """Names of the columns from the comments above the first row."""
    count = len(_fields(row, separator))
    for comment in reversed(comments):
        for one in (_separator(comment), separator):
            names = _fields(comment, one)
            if len(names) == count and not any(_is_number(name) for name in names):
                return names
    raise _NoTable(
        f"no names of the columns stand above the first row ({row.strip()[:60]!r}); write them there, "
        "for example 'x,y'"
    )
