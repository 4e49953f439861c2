# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""File formats of a catalogue's table: units, metadata and sky positions in each.

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

import warnings

import astropy.units as u
from astropy.coordinates import SkyCoord
from astropy.io import fits
from astropy.table import Table

__all__ = ["TABLE_SUFFIXES", "flatten_meta", "split_sky", "write_unchanged"]


def write_unchanged(table, path):
    """Write a table from `~galshape_cnn.infer.catalog.writable.writable_table`, whatever is there.

    The suffix of the path chooses the format.
    """
    with warnings.catch_warnings():
        # Units that are no FITS or VOTable standard (nanomaggy) are kept all the same.
        warnings.filterwarnings("ignore", message=".*could not be saved in native FITS format.*")
        warnings.filterwarnings("ignore", message=".*Invalid unit string.*")
        warnings.filterwarnings("ignore", message=".*W03: Implicitly generating an ID.*")
        warnings.filterwarnings("ignore", category=u.UnitsWarning)
        _WRITERS[path.suffix.lower()](table, path)


def flatten_meta(meta, prefix=""):
    """Nested metadata as pairs of dotted name and text, for formats that cannot nest."""
    pairs = []
    for name, value in meta.items():
        if hasattr(value, "items"):
            pairs += flatten_meta(value, f"{prefix}{name}.")
        else:
            pairs.append((f"{prefix}{name}", str(value)))
    return pairs


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
    """Table with two columns of degrees, ``NAME.ra`` and ``NAME.dec``, ICRS, for each sky position."""
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
    ".ecsv": lambda table, path: table.write(path, format="ascii.ecsv"),
    ".fits": _write_fits,
    ".parquet": lambda table, path: table.write(path, format="parquet"),
    ".asdf": _write_asdf,
    ".vot": _write_votable,
}

#: Suffixes that `write_table` knows.
TABLE_SUFFIXES = tuple(_WRITERS)
