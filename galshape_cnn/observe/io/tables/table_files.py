# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""Tables in files of any kind, told apart by what they hold and not by their names.

Of a file with several tables one is chosen as ``file.fits[NAME]``, by number or name.
"""

import bz2
import gzip
import lzma
import re
import warnings
import zipfile
from pathlib import Path

from astropy.io import fits
from astropy.table import Table

from galshape_cnn.errors import FileError
from galshape_cnn.observe.io.fits_hdus import as_index, find_hdu, open_fits
from galshape_cnn.observe.io.fits_scan import check_declared_sizes
from galshape_cnn.observe.io.tables.text_tables import read_text_table

__all__ = ["read_table", "split_choice"]

_HEAD = 4096  # bytes that tell a format


def read_table(path, wanted=None, kind=Table):
    """Read a table in any format: FITS, ECSV, CSV and other text, VOTable, Parquet, ASDF or HDF5.

    Among them those of Source Extractor (FITS_LDAC, ASCII_HEAD). Of several tables in a file one is named as
    ``file[TABLE]``, or is the only one of whose column names ``wanted`` is true. ``FileError`` if the file is
    missing, is no table, or holds several.
    """
    path, choice = split_choice(path)
    if path.is_dir():
        raise FileError(f"{path} is a folder; a file with a table is needed")
    if not path.is_file():
        raise FileError(f"{path} does not exist")
    if path.stat().st_size == 0:
        raise FileError(f"{path} is empty (0 bytes)")
    check_declared_sizes(path)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return _read(path, choice, wanted or (lambda names: True), kind)
    except FileError:
        raise
    except Exception as error:  # each format raises its own kinds
        raise FileError(f"{path} cannot be read as a table: {_first_line(error)}") from error


def split_choice(path):
    """Path, and name or number of a table or None, of the text ``file[TABLE]``."""
    path = Path(path).expanduser()
    match = re.fullmatch(r"(.+?)\[([^\[\]]+)\]", str(path))
    if match is None or path.exists():
        return path, None
    return Path(match[1]), match[2]


def _first_line(error):
    return next((line.strip() for line in str(error).splitlines() if line.strip()), repr(error))


def _read(path, choice, wanted, kind):
    """The table, by the reader of its format."""
    head = _unpacked(path, _HEAD)
    if head.startswith(b"SIMPLE  ="):
        return _from_fits(path, choice, wanted, kind)
    if head.startswith(b"\x89HDF"):
        return kind.read(path, format="hdf5", path=choice or _only_dataset(path))
    if head.startswith(b"#ASDF"):
        return kind.read(path, format="asdf", **({} if choice is None else {"data_key": choice}))
    if b"<VOTABLE" in head:
        return _from_votable(path, choice, wanted, kind)
    if choice is not None:
        raise FileError(f"{path} holds one table only; leave out [{choice}]")
    if head.startswith(b"PAR1"):
        return kind.read(path, format="parquet")
    if path.suffix.lower() in (".fits", ".fit", ".fz", ".ldac"):
        raise FileError(f"{path} cannot be read as FITS: it does not begin as a FITS file")
    return read_text_table(_unpacked(path), kind)


def _unpacked(path, count=-1):
    """The first bytes of a file, or all, unpacked if it is packed."""
    with open(path, "rb") as stream:
        head = stream.read(6)
    unpack = next((one for magic, one in _PACKED.items() if head.startswith(magic)), open)
    with unpack(path, "rb") as stream:
        return stream.read(count)


def _open_zip(path, mode):
    """First file of an archive."""
    archive = zipfile.ZipFile(path)
    return archive.open(archive.namelist()[0])


_PACKED = {b"\x1f\x8b": gzip.open, b"BZh": bz2.open, b"\xfd7zXZ": lzma.open, b"PK\x03\x04": _open_zip}


def _from_fits(path, choice, wanted, kind):
    """Table of an HDU: the one that is named, or the only one that will do."""
    with open_fits(path) as hdus:
        tables = {index: hdu for index, hdu in enumerate(hdus) if _is_catalog(hdu)}
        if choice is not None:
            index = find_hdu(hdus, as_index(choice), path, "the table")
            if hdus[index].is_image:
                raise FileError(f"{path}: HDU {index} holds no table; {_listed(tables)}")
        else:
            index = _only(tables, lambda hdu: hdu.columns.names, wanted, path, _listed)
    return kind.read(path, format="fits", hdu=index)


def _is_catalog(hdu):
    """Whether an HDU holds a table, and not the header of an image that Source Extractor keeps in one."""
    tabular = isinstance(hdu, (fits.BinTableHDU, fits.TableHDU)) and not isinstance(hdu, fits.CompImageHDU)
    return tabular and hdu.name != "LDAC_IMHEAD"


def _listed(tables):
    """Tables of a file, for a message."""
    texts = []
    for index, hdu in tables.items():
        version = f",{hdu.ver}" if hdu.ver != 1 else ""
        texts.append(f"[{index}] {hdu.name + version + ', ' if hdu.name else ''}{hdu.header['NAXIS2']} rows")
    return "it holds " + ("; ".join(texts) or "no table")


def _only(tables, names_of, wanted, path, listed):
    """Key of the only table that will do."""
    if not tables:
        raise FileError(f"{path} holds no table")
    good = (
        [key for key, one in tables.items() if wanted(list(names_of(one)))]
        if len(tables) > 1
        else list(tables)
    )
    if len(good) != 1:
        raise FileError(
            f"{path} holds {len(tables)} tables; say which as {path.name}[TABLE], by number or name: "
            f"{listed(tables)}"
        )
    return good[0]


def _from_votable(path, choice, wanted, kind):
    """Table of a VOTable file, by ID, name or number."""
    from astropy.io.votable import parse

    file = parse(str(path))
    tables = dict(enumerate(file.iter_tables()))
    if choice is None:
        index = _only(tables, lambda one: [field.name for field in one.fields], wanted, path, _listed_votable)
    else:
        names = [(str(number), one.ID, one.name) for number, one in tables.items()]
        index = next((number for number, known in enumerate(names) if choice in known), None)
        if index is None:
            raise FileError(f"{path} has no table {choice!r}; {_listed_votable(tables)}")
    table = kind(tables[index].to_table(use_names_over_ids=True))
    infos = [info for resource in file.resources for info in resource.infos]
    table.meta["comments"] = [f"{info.name} = {info.value}" for info in infos]
    return table


def _listed_votable(tables):
    return "it holds " + "; ".join(
        f"[{k}] {one.ID or one.name or ''}, {one.nrows} rows" for k, one in tables.items()
    )


def _only_dataset(path):
    """Name of the only table of an HDF5 file."""
    import h5py

    found = []
    with h5py.File(path) as file:
        file.visititems(
            lambda name, one: found.append(name) if getattr(one, "dtype", None) and one.dtype.names else None
        )
    found = [name for name in found if not name.endswith(".__table_column_meta__")]
    if len(found) != 1:
        raise FileError(
            f"{path} holds {len(found)} tables; say which as {path.name}[NAME]: {', '.join(found) or 'none'}"
        )
    return found[0]
