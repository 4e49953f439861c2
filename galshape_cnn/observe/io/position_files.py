# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""Lists of positions in files."""

import warnings
from pathlib import Path

from astropy.table import Table

from galshape_cnn.errors import FileError
from galshape_cnn.observe.io.fits_scan import check_declared_sizes

__all__ = ["read_positions"]


def read_positions(path):
    """Read a list of positions from any table astropy reads.

    Parameters
    ----------
    path : str or Path
        FITS (also SExtractor's FITS_LDAC), ECSV, CSV, VOTable, Parquet or text.

    Returns
    -------
    table : astropy.table.Table

    Raises
    ------
    FileError
        If the file is missing or is no table.
    """
    path = Path(path).expanduser()
    if not path.is_file():
        raise FileError(f"{path} does not exist")
    if path.stat().st_size == 0:
        raise FileError(f"{path} is empty (0 bytes)")
    check_declared_sizes(path)
    problems = []
    for options in _table_options(path):
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                table = Table.read(path, **options)
        except Exception as error:  # each format raises its own kinds
            problems.append(str(error).strip().splitlines()[0] if str(error).strip() else repr(error))
            continue
        if len(table.colnames) >= 2:
            return table
        problems.append("fewer than two columns")
    raise FileError(f"{path} cannot be read as a table of positions: {problems[0]}")


def _table_options(path):
    """Ways to read a table, the likeliest first."""
    suffix = path.suffix.lower()
    if suffix in (".fits", ".fit", ".fz", ".gz", ".ldac", ".cat"):
        yield {"format": "fits", "hdu": "LDAC_OBJECTS"}
    yield {}
    if suffix not in (".fits", ".fit", ".fz", ".parquet", ".asdf"):
        yield {"format": "ascii"}
