# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""Write a catalogue's table to a file, in the format its name asks for.

=============  =========  ====================================================
suffix         format     what is special
=============  =========  ====================================================
``.ecsv``      ECSV       everything, metadata too
``.fits``      FITS       metadata as COMMENT cards ``name = value``; TCOMM, TUCD
``.parquet``   Parquet    everything, metadata too (needs pyarrow)
``.asdf``      ASDF       the table under ``data``, descriptions, UCDs beside it
``.vot``       VOTable    metadata as INFO elements
=============  =========  ====================================================

Units survive in each of them.  A `~astropy.coordinates.SkyCoord` column such as
``sky_centroid`` is stored as the two columns ``sky_centroid.ra`` and
``sky_centroid.dec`` in degrees.  `astropy.table.QTable.read` joins them again,
except for VOTable.
"""

import os
import warnings
from pathlib import Path

import astropy.units as u
from astropy.coordinates import SkyCoord
from astropy.io import fits
from astropy.table import Table

from galshape_cnn.errors import FileError, InputError
from galshape_cnn.files import written_whole

__all__ = [
    "TABLE_SUFFIXES",
    "check_output_path",
    "check_table_path",
    "flatten_meta",
    "split_sky",
    "write_table",
]


def check_table_path(path, overwrite=False):
    """Refuse, before any work, a table file that could not be written.

    Parameters
    ----------
    path : str or path-like
        File to be written; its suffix chooses the format.
    overwrite : bool, optional
        Whether an existing file may be replaced.

    Returns
    -------
    path : `pathlib.Path`
        The same path.

    Raises
    ------
    InputError
        If the suffix is not one of `TABLE_SUFFIXES`.
    FileError
        If the file exists and may not be replaced, or its folder is missing or not writeable.
    """
    return check_output_path(path, TABLE_SUFFIXES, overwrite)


def check_output_path(path, suffixes, overwrite=False):
    """Refuse, before any work, a file that could not be written.

    Parameters
    ----------
    path : str or path-like
        File to be written.
    suffixes : sequence of str
        What its name may end in.
    overwrite : bool, optional
        Whether an existing file may be replaced.

    Returns
    -------
    path : `pathlib.Path`
        The same path.

    Raises
    ------
    InputError
        If the suffix is not one of ``suffixes``.
    FileError
        If the file exists and may not be replaced, or its folder is missing or not writeable.
    """
    path = Path(path)
    if path.suffix.lower() not in suffixes:
        raise InputError(
            f"output {str(path)!r} has the suffix {path.suffix!r}; allowed: {', '.join(suffixes)}"
        )
    if path.is_dir():
        raise FileError(f"cannot write {str(path)!r}: it is a folder")
    if path.exists() and not overwrite:
        raise FileError(
            f"cannot write {str(path)!r}: it exists; allow it to be overwritten or choose another name"
        )
    folder = path.absolute().parent
    if not folder.is_dir():
        raise FileError(f"cannot write {str(path)!r}: no folder {str(folder)!r}")
    if not os.access(folder, os.W_OK):
        raise FileError(f"cannot write {str(path)!r}: the folder {str(folder)!r} is not writeable")
    return path


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
        If the suffix is unknown.
    FileError
        If the file cannot be written.

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
    path = check_table_path(path, overwrite)
    writer = _WRITERS[path.suffix.lower()]
    with written_whole(path) as beside, warnings.catch_warnings():
        # Units that are no FITS or VOTable standard (nanomaggy) are kept all the same.
        warnings.filterwarnings("ignore", message=".*could not be saved in native FITS format.*")
        warnings.filterwarnings("ignore", message=".*Invalid unit string.*")
        warnings.filterwarnings("ignore", category=u.UnitsWarning)
        writer(table, beside)


def flatten_meta(meta, prefix=""):
    """Nested metadata as pairs of dotted name and text.

    Parameters
    ----------
    meta : mapping
        Possibly nested.
    prefix : str, optional
        Put before each name.

    Returns
    -------
    pairs : list of (str, str)
        For formats that cannot nest.
    """
    pairs = []
    for name, value in meta.items():
        if hasattr(value, "items"):
            pairs += flatten_meta(value, f"{prefix}{name}.")
        else:
            pairs.append((f"{prefix}{name}", str(value)))
    return pairs


def _write_ecsv(table, path):
    table.write(path, format="ascii.ecsv")


def _write_fits(table, path):
    flat = table.copy(copy_data=False)
    flat.meta = {"comments": [f"{name} = {value}" for name, value in flatten_meta(table.meta)]}
    flat.write(path, format="fits")
    with fits.open(path, mode="update") as hdus:
        _describe_columns(hdus[1].header, split_sky(table))


def _describe_columns(header, columns):
    """Descriptions and UCDs where TOPCAT looks for them; astropy finds its own in comments."""
    for number in range(1, header["TFIELDS"] + 1):
        name = header[f"TTYPE{number}"]
        if name not in columns.colnames:
            continue
        info = columns[name].info
        for key, text in (
            (f"TUCD{number}", (info.meta or {}).get("ucd")),
            (f"TCOMM{number}", info.description),
        ):
            if text:
                header.insert(f"TTYPE{number}", (key, text), after=True)


def _write_parquet(table, path):
    table.write(path, format="parquet")


def _write_asdf(table, path):
    descriptions = {name: table[name].info.description or "" for name in table.colnames}
    ucds = {name: (table[name].info.meta or {}).get("ucd", "") for name in table.colnames}
    tree = {"descriptions": descriptions, "ucds": ucds}
    table.write(path, format="asdf", make_tree=lambda t: {"data": t} | tree)


def _write_votable(table, path):
    from astropy.io.votable import from_table
    from astropy.io.votable.tree import Info

    votable = from_table(split_sky(table))
    for name, value in flatten_meta(table.meta):
        votable.resources[0].infos.append(Info(name=name, value=value))
    votable.to_xml(str(path))


def split_sky(table):
    """Table with each sky position as two columns of degrees.

    Parameters
    ----------
    table : `~astropy.table.Table`
        Possibly with `~astropy.coordinates.SkyCoord` columns.

    Returns
    -------
    table : `~astropy.table.Table`
        With ``NAME.ra`` and ``NAME.dec`` (ICRS) in place of each such column ``NAME``.
    """
    out = Table()
    for name in table.colnames:
        column = table[name]
        if not isinstance(column, SkyCoord):
            out[name] = column
            continue
        for part, ucd in (("ra", "pos.eq.ra"), ("dec", "pos.eq.dec")):
            out[f"{name}.{part}"] = getattr(column.icrs, part).to(u.deg)
            out[f"{name}.{part}"].info.description = column.info.description
            out[f"{name}.{part}"].info.meta = {"ucd": ucd}
    return out


_WRITERS = {
    ".ecsv": _write_ecsv,
    ".fits": _write_fits,
    ".parquet": _write_parquet,
    ".asdf": _write_asdf,
    ".vot": _write_votable,
}

#: Suffixes that `write_table` knows.
TABLE_SUFFIXES = tuple(_WRITERS)
