# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""Lists of positions in files."""

import warnings

from galshape_cnn.errors import FileError, PositionError
from galshape_cnn.observe.catalog_conventions import READ_AS, holds_positions
from galshape_cnn.observe.io.tables.table_files import read_table, split_choice

__all__ = ["read_positions"]


def read_positions(path):
    """Read a list of positions from any table, or the centres in a file of regions of DS9.

    Tables as for `galshape_cnn.observe.io.tables.table_files.read_table`; of a file with several the only one
    that has positions. Regions need the package ``regions``. ``FileError`` if the file is missing, is no
    table, or holds several lists of positions.
    """
    file, _ = split_choice(path)
    if file.is_file() and file.stat().st_size and _is_region_file(file):
        return _from_regions(file)
    table = read_table(path, wanted=holds_positions)
    if len(table.colnames) < 2:
        raise FileError(f"{file} has one column only ({table.colnames[0]}); x, y or ra, dec are needed")
    return table


def _is_region_file(path):
    """Whether a file is one of DS9."""
    with open(path, "rb") as stream:
        return path.suffix.lower() == ".reg" or stream.read(64).startswith(b"# Region file format: DS9")


def _from_regions(path):
    """Centres of the regions of DS9; what is not understood is refused rather than left out."""
    try:
        from regions import Regions
    except ImportError as error:
        raise FileError(f"{path} is a file of regions; install the package regions to read it") from error
    from galshape_cnn.observe.region_positions import table_of_regions

    with warnings.catch_warnings(record=True) as problems:
        warnings.simplefilter("always")
        try:
            regions = Regions.read(str(path), format="ds9")
        except Exception as error:  # of a damaged file
            raise FileError(f"{path} cannot be read as regions of DS9: {error}") from error
    skipped = [" ".join(str(one.message).split()) for one in problems if "skipping" in str(one.message)]
    if skipped:
        raise FileError(f"{path} cannot be read as regions of DS9 ({len(skipped)} problems): {skipped[0]}")
    try:
        table = table_of_regions(regions)
    except PositionError as error:
        raise FileError(f"{path}: {error}") from error
    table.meta[READ_AS] = table.meta[READ_AS].replace("regions", "regions of DS9", 1)
    return table
