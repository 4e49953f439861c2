# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""Tables of catalogues: written in the format that a file name asks for, parts of one run joined.

The formats are those of `galshape_cnn.infer.catalog.formats`; columns that one of them cannot hold are
changed as `galshape_cnn.infer.catalog.writable` says.
"""

from functools import reduce

from astropy.table import vstack

from galshape_cnn.errors import InputError
from galshape_cnn.files import check_output_path, written_whole
from galshape_cnn.infer.catalog.formats import TABLE_SUFFIXES, write_unchanged
from galshape_cnn.infer.catalog.writable import warn_of, writable_table

__all__ = [
    "TABLE_SUFFIXES",
    "check_table",
    "check_table_path",
    "stacked",
    "write_table",
]


def check_table(table, columns=()):
    """Refuse what is no astropy table, or has not all of some columns; ``InputError``."""
    if not hasattr(table, "colnames"):
        raise InputError(f"table is a {type(table).__name__}; an astropy Table is needed")
    if missing := [name for name in columns if name not in table.colnames]:
        raise InputError(f"table has no column {missing[0]}; {', '.join(columns)} are needed")


def check_table_path(path, overwrite=False):
    """Path of a table file; refused, before any work, if it could not be written.

    As `galshape_cnn.files.check_output_path`, with the suffixes of `write_table`.
    """
    return check_output_path(path, TABLE_SUFFIXES, overwrite)


def stacked(tables):
    """Rows of the parts of one run, in one table.

    Parameters
    ----------
    tables : sequence of `~astropy.table.Table`
        Their metadata say the same, as far as they say it.

    Returns
    -------
    table : `~astropy.table.Table`
        With the metadata of the first part, and what others have beside; `~astropy.table.vstack` would append
        a list, such as an array of numbers, to itself for every part.

    Examples
    --------
    >>> from astropy.table import Table
    >>> from galshape_cnn.infer.catalog.tables import stacked
    >>> stacked([Table({"n": [k]}, meta={"range": [0.3, 6.2]}) for k in (1, 4)]).meta
    {'range': [0.3, 6.2]}
    """
    table = vstack(tables, metadata_conflicts="silent")
    table.meta = reduce(_with_those_of, [one.meta for one in tables])
    return table


def _with_those_of(first, second):
    """Metadata of the first, and what only the second has."""
    out = dict(first)
    for name, value in second.items():
        both = isinstance(value, dict) and isinstance(out.get(name), dict)
        out[name] = _with_those_of(out[name], value) if both else out.get(name, value)
    return out


def write_table(table, path, overwrite=False):
    """Write a table in the format that the suffix of the file asks for.

    The file is written beside its destination and then renamed, so that a
    failure never leaves half a file.

    Parameters
    ----------
    table : `~astropy.table.Table`
        For example from `galshape_cnn.ShapeCatalog.to_table`.
    path : str or path-like
        ``.ecsv``, ``.fits``, ``.parquet``, ``.asdf`` or ``.vot``.
    overwrite : bool, optional
        Whether an existing file may be replaced.

    Raises
    ------
    InputError
        If the suffix is unknown, or ``table`` is no table.
    FileError
        If the file cannot be written.

    Warns
    -----
    GalshapeWarning
        If columns had to be changed, because the format cannot hold them.

    Examples
    --------
    >>> import os, tempfile
    >>> import astropy.units as u
    >>> from astropy.table import QTable
    >>> from galshape_cnn.infer.catalog.tables import write_table
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = os.path.join(folder, "table.fits")
    ...     write_table(QTable({"hlr": [0.5, 0.7] * u.arcsec}), path)
    ...     QTable.read(path)["hlr"]
    <Quantity [0.5, 0.7] arcsec>
    """
    check_table(table)
    path = check_table_path(path, overwrite)
    suffix = path.suffix.lower()
    table, changes = writable_table(table, suffix)
    warn_of(changes, suffix)
    with written_whole(path) as beside:
        write_unchanged(table, beside)
