# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""Columns that a format cannot hold: what is written instead, and that it is said."""

import warnings

import astropy.units as u
import numpy as np
import pytest
from astropy.coordinates import Angle, SkyCoord
from astropy.table import Column, MaskedColumn, QTable
from astropy.time import Time, TimeDelta

from galshape_cnn.errors import GalshapeWarning
from galshape_cnn.infer.catalog.formats import TABLE_SUFFIXES
from galshape_cnn.infer.catalog.tables import write_table
from galshape_cnn.infer.catalog.writable import warn_of_changes, writable_table

COLUMNS = {
    "unicode": Column(["α", "b", "é"]),
    "time": Time(["2020-01-01", "2020-01-02", "2020-01-03"]),
    "duration": TimeDelta([1.0, 2, 3], format="sec"),
    "date": np.array(["2020-01-01", "NaT", "2020-01-03"], "M8[s]"),
    "seconds": np.array([1, 2, 3], "m8[s]"),
    "objects": Column(["a", 1, None], dtype=object),
    "nested": Column([{"a": 1}, [1], None], dtype=object),
    "arrays": Column([np.arange(2), np.arange(3), None], dtype=object),
    "complex": np.array([1j, 2, 3]),
    "half": np.arange(3, dtype="f2"),
    "long": np.arange(3, dtype=np.longdouble),
    "byte": np.array([-1, 2, 3], "i1"),
    "unsigned": np.array([1, 2, 2**63 + 1], "u8"),
    "structured": np.array([(1, 2.0)] * 3, dtype=[("a", int), ("b", float)]),
    "texts": Column([["a", "b"]] * 3),
    "cube": np.arange(12.0).reshape(3, 2, 2),
    "angle": Angle([1, 2, 3], "deg"),
    "magnitude": Column([1.0, 2, 3], unit="mag(AB)"),
    "name with blank": [1, 2, 3],
    "nämé": [1, 2, 3],
    "long_name_" + 70 * "x": [1, 2, 3],
}


def written(table, path):
    """The table as it is read back, and what was said."""
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        write_table(table, path)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        back = QTable.read(path, format="votable" if path.suffix == ".vot" else None)
    return back, [str(one.message) for one in said if issubclass(one.category, GalshapeWarning)]


@pytest.mark.parametrize("suffix", TABLE_SUFFIXES)
@pytest.mark.parametrize("name", COLUMNS)
def test_every_column_is_written(name, suffix, tmp_path):
    table = QTable({"flux": [1.0, 2, 3], name: COLUMNS[name]})
    back, said = written(table, tmp_path / f"out{suffix}")
    assert len(back) == 3
    assert len(back.colnames) == 2
    assert len(said) <= 1
    np.testing.assert_array_equal(back["flux"], [1, 2, 3])
    assert table.colnames == ["flux", name]  # the user's is not touched


@pytest.mark.parametrize("suffix", TABLE_SUFFIXES)
def test_all_of_them_at_once_with_one_warning(suffix, tmp_path):
    back, said = written(QTable(COLUMNS), tmp_path / f"out{suffix}")
    assert len(back) == 3
    assert len(said) == 1
    assert said[0].startswith(f"columns changed for {suffix}: ")


def test_values_that_stand_for_others(tmp_path):
    back, said = written(QTable(COLUMNS), tmp_path / "out.fits")
    assert [str(one).encode().decode("unicode_escape") for one in back["unicode"]] == ["α", "b", "é"]
    assert list(back["time"]) == [f"2020-01-0{k}T00:00:00.000" for k in (1, 2, 3)]
    assert list(back["date"].filled("")) == ["2020-01-01T00:00:00", "", "2020-01-03T00:00:00"]
    np.testing.assert_array_equal(back["seconds"], [1, 2, 3] * u.s)
    assert list(back["objects"].filled("")) == ["a", "1", ""]
    assert list(back["nested"].filled("")) == ["{'a': 1}", "[1]", ""]
    np.testing.assert_array_equal(back["byte"], [-1, 2, 3])  # astropy reads booleans
    np.testing.assert_array_equal(back["name"], [1, 2, 3])
    for text in ("unicode (not ASCII, escaped)", "time (ISO text, utc)", "nämé (now name)", "byte (16 bits)"):
        assert text in said[0]
    back, _ = written(QTable(COLUMNS), tmp_path / "out.parquet")
    np.testing.assert_array_equal(back["cube"], COLUMNS["cube"].reshape(3, 4))


@pytest.mark.parametrize("suffix", TABLE_SUFFIXES)
def test_masks_survive(suffix, tmp_path):
    masked = {"mask": [False, True, False]}
    table = QTable(
        {
            "id": MaskedColumn([999999, 2, 3], **masked),  # the value that numpy puts in place of none
            "small": MaskedColumn(np.array([-32768, 2, 3], "i2"), **masked),
            "real": MaskedColumn([1.0, 2, 3], **masked),
            "good": MaskedColumn([True, True, False], **masked),
            "name": MaskedColumn(["a", "b", "c"], **masked),
        }
    )
    back, _ = written(table, tmp_path / f"out{suffix}")
    for name in table.colnames[:4]:
        assert list(np.ma.getmaskarray(back[name])) == masked["mask"], name
        assert back[name][0] == table[name][0], name
        assert back[name][2] == table[name][2], name
    assert str(back["name"][1]) in ("--", "")


def test_names_that_differ_in_case_only(tmp_path):
    table = QTable({"flux": [1.0], "FLUX": [2.0], "Flux": [3.0]})
    back, said = written(table, tmp_path / "out.fits")
    assert back.colnames == ["flux", "FLUX_2", "Flux_3"]
    assert "FLUX (now FLUX_2)" in said[0]
    back, said = written(table, tmp_path / "out.ecsv")
    assert back.colnames == ["flux", "FLUX", "Flux"]
    assert not said


def test_nothing_is_said_of_what_every_format_holds(tmp_path):
    sky = SkyCoord([1, 2], [3, 4], unit="deg")
    table = QTable(
        {"sky": sky, "n": [1, 2], "x": [1.0, 2.0] * u.pix, "name": ["a", "b"], "good": [True, False]}
    )
    for suffix in TABLE_SUFFIXES:
        assert writable_table(table, suffix) == (table, [])
        warn_of_changes(table, suffix)
    warn_of_changes(None, ".fits")
