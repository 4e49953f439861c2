# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""Text that people call CSV."""

import io

import numpy as np
import pandas as pd
import pytest

from galshape_cnn.observe.io.tables.text_tables import read_text_table


def savetxt(**options):
    out = io.StringIO()
    np.savetxt(out, [[1, 3], [2, 4]], **options)
    return out.getvalue()


@pytest.mark.parametrize(
    "content",
    [
        "x,y\n1,3\n2,4\n".encode("utf-8-sig"),
        "x,y\r\n1,3\r\n2,4\r\n".encode("utf-16"),
        b"x;y\n1;3\n2;4\n",
        b"x\ty\n1\t3\n2\t4\n",
        b"x y\n1 3\n2 4\n",
        b"  x   y\n  1   3\n  2   4\n",
        savetxt(header="x,y", delimiter=",").encode(),
        savetxt(header="x y").encode(),
        savetxt(header="made by me\nx, y", delimiter=",").encode(),
        savetxt(header="x, y").encode(),
        b"# made by me\n# on a day, with love\nx,y\n1,3\n2,4\n",
        b"#\n\nx,y\n# left out\n1,3\n\n2,4\n",
        b'"x","y"\n"1","3"\n2,4\n',
        b"# %ECSV 1.0\n# ---\n# datatype:\n# - {name: x, datatype: int64}\n# - {name: y, datatype: int64}\n"
        b"# schema: astropy-2.0\nx y\n1 3\n2 4\n",
    ],
)
def test_tables_that_are_all_the_same(content):
    table = read_text_table(content)
    assert table.colnames == ["x", "y"]
    np.testing.assert_array_equal(table["x"], [1, 2])
    np.testing.assert_array_equal(table["y"], [3, 4])


def test_index_of_pandas_and_missing_values():
    frame = pd.DataFrame({"id": pd.array([7, None], dtype="Int64"), "x": [1, 2], "y": [3, 4]})
    table = read_text_table(frame.to_csv().encode())
    assert table.colnames == ["column1", "id", "x", "y"]
    assert table["id"][0] == 7
    assert list(table["id"].mask) == [False, True]


def test_fields_with_commas_and_other_alphabets():
    table = read_text_table('name,x,y\n"Malin 1, α",1,3\n'.encode())
    assert table["name"][0] == "Malin 1, α"
    assert read_text_table("name,x,y\né,1,3\n".encode("latin-1"))["name"][0] == "é"


def test_ascii_head_of_source_extractor():
    content = (
        b"#   1 NUMBER      Running object number\n#   2 X_IMAGE     Object position along x      [pixel]\n"
        b"#   3 Y_IMAGE     Object position along y      [pixel]\n   4   101.000    51.500\n   9   11  21.0\n"
    )
    table = read_text_table(content)
    assert table.colnames == ["NUMBER", "X_IMAGE", "Y_IMAGE"]
    np.testing.assert_array_equal(table["X_IMAGE"], [101, 11])


def test_tsv_of_vizier():
    content = (
        b"#RESOURCE=yCat\n#Name: I/355\n_RAJ2000\t_DEJ2000\tGmag\ndeg\tdeg\tmag\n---\t---\t---\n"
        b"150.1\t2.2\t18.1\n"
    )
    table = read_text_table(content)
    assert table.colnames == ["_RAJ2000", "_DEJ2000", "Gmag"]
    assert str(table["Gmag"].unit) == "mag"
    assert table["_RAJ2000"][0] == 150.1


@pytest.mark.parametrize(
    ("content", "match"),
    [
        (b"1 2\n3 4\n", r"no names of the columns stand above the first row \('1 2'\)"),
        (b"# a long remark\n1,2\n", "no names of the columns"),
        (b"# x,y\n", "comments only"),
        (b"\x00\x01", "binary"),
    ],
)
def test_what_is_refused(content, match):
    with pytest.raises(ValueError, match=match):
        read_text_table(content)
