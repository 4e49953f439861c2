# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""Files with several tables, and formats told apart by what they hold."""

import bz2
import gzip
import lzma

import numpy as np
import pytest
from astropy.io import fits
from astropy.io.votable.tree import Resource, VOTableFile
from astropy.table import Table

from galshape_cnn.errors import FileError
from galshape_cnn.observe.io.tables.position_files import read_positions
from galshape_cnn.observe.io.tables.table_files import read_table

FIRST = Table({"x": [1.0, 2.0], "y": [3.0, 4.0]})
SECOND = Table({"x": [5.0], "y": [6.0]})
OTHER = Table({"step": [1], "remark": ["bias"]})


def fits_file(path, *named):
    hdus = [fits.BinTableHDU(table, name=name) for name, table in named]
    fits.HDUList([fits.PrimaryHDU(), *hdus]).writeto(path)
    return path


def test_several_tables_of_positions_are_refused(tmp_path):
    path = fits_file(tmp_path / "a.fits", ("A", FIRST), ("B", SECOND), ("LOG", OTHER))
    with pytest.raises(
        FileError,
        match=r"3 tables; say which as a.fits\[TABLE\], .*: it holds \[1\] A, 2 rows; \[2\] B, 1 rows",
    ):
        read_positions(path)
    for choice, length in (("A", 2), ("1", 2), ("B", 1), ("b", 1)):
        assert len(read_positions(f"{path}[{choice}]")) == length
    with pytest.raises(FileError, match="no HDU 'C'"):
        read_positions(f"{path}[C]")
    with pytest.raises(FileError, match="HDU 0 holds no table"):
        read_positions(f"{path}[0]")


def test_the_only_table_with_positions_is_meant(tmp_path):
    path = fits_file(tmp_path / "a.fits", ("LOG", OTHER), ("B", SECOND))
    assert list(read_positions(path)["x"]) == [5]
    with pytest.raises(FileError, match="2 tables"):
        read_table(path)


def test_ldac_of_one_and_of_several_images(tmp_path):
    extractor = Table({"X_IMAGE": [101.0], "Y_IMAGE": [51.5]})
    pair = [("LDAC_IMHEAD", OTHER), ("LDAC_OBJECTS", extractor)]
    path = fits_file(tmp_path / "one.cat", *pair)
    assert read_positions(path).colnames == ["X_IMAGE", "Y_IMAGE"]
    path = fits_file(tmp_path / "two.cat", *pair, *pair)
    with pytest.raises(FileError, match=r"\[2\] LDAC_OBJECTS, 1 rows; \[4\] LDAC_OBJECTS"):
        read_positions(path)
    assert len(read_positions(f"{path}[4]")) == 1


def test_votable_with_several_tables(tmp_path):
    file = VOTableFile()
    for name, table in (("A", FIRST), ("B", SECOND)):
        resource = Resource()
        file.resources.append(resource)
        from astropy.io.votable import from_table

        made = from_table(table).get_first_table()
        made.ID = name
        resource.tables.append(made)
    path = tmp_path / "a.vot"
    file.to_xml(str(path))
    with pytest.raises(FileError, match=r"2 tables; say which as .*\[0\] A, 2 rows; \[1\] B, 1 rows"):
        read_positions(path)
    assert list(read_positions(f"{path}[B]")["x"]) == [5]
    with pytest.raises(FileError, match="no table 'C'"):
        read_positions(f"{path}[C]")


def test_hdf5_with_several_tables(tmp_path):
    pytest.importorskip("h5py")
    path = tmp_path / "a.h5"
    FIRST.write(path, path="A", serialize_meta=True)
    assert len(read_positions(path)) == 2
    SECOND.write(path, path="B", append=True)
    with pytest.raises(FileError, match="2 tables; say which as .*: A, B"):
        read_positions(path)
    assert list(read_positions(f"{path}[B]")["x"]) == [5]


@pytest.mark.parametrize("name", ["a.cat", "a", "a.dat"])
@pytest.mark.parametrize("form", ["fits", "ascii.ecsv", "votable", "parquet", "asdf"])
def test_the_content_decides_and_not_the_name(tmp_path, name, form):
    FIRST.write(tmp_path / name, format=form)
    np.testing.assert_array_equal(read_positions(tmp_path / name)["x"], [1, 2])


@pytest.mark.parametrize("pack", [gzip.compress, bz2.compress, lzma.compress])
def test_compressed_tables(tmp_path, pack):
    path = fits_file(tmp_path / "a.fits", ("A", FIRST))
    for name, content in (("b.fits.z", path.read_bytes()), ("a.csv.z", b"x,y\n1,3\n2,4\n")):
        suffix = {gzip.compress: "gz", bz2.compress: "bz2", lzma.compress: "xz"}[pack]
        packed = tmp_path / name.replace(".z", f".{suffix}")
        packed.write_bytes(pack(content))
        np.testing.assert_array_equal(read_positions(packed)["x"], [1, 2])


def test_a_file_whose_name_has_brackets(tmp_path):
    path = tmp_path / "a[1].csv"
    path.write_text("x,y\n1,3\n")
    assert len(read_positions(path)) == 1


@pytest.mark.parametrize(
    ("name", "content", "match"),
    [
        ("a.csv[B]", b"x,y\n1,2\n", r"one table only; leave out \[B\]"),
        ("a.csv", b"", "is empty"),
        ("a.csv", b"x\n1\n", "one column only"),
        ("a.csv", b"\x00\x01\x02", "binary"),
        ("a.fits", b"x,y\n1,2\n", "does not begin as a FITS file"),
        ("a.fits", b"SIMPLE  =                    T", "truncated"),
    ],
)
def test_what_is_refused(tmp_path, name, content, match):
    (tmp_path / name.split("[")[0]).write_bytes(content)
    with pytest.raises(FileError, match=match):
        read_positions(tmp_path / name)
    with pytest.raises(FileError, match="is a folder"):
        read_table(tmp_path)
