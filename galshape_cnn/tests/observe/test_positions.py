# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""Positions as people have them: in every container, under every name, and what is refused."""

import astropy.units as u
import numpy as np
import pandas as pd
import pytest
from astropy.coordinates import SkyCoord
from astropy.table import QTable, Table
from astropy.wcs import WCS

from galshape_cnn.errors import PositionError
from galshape_cnn.observe.positions import nearer_to_another, read_positions_argument

XY = np.array([[100.0, 50.5], [10.0, 20.0]])
CENTER = SkyCoord("12h34m56.7s", "-01d02m02.4s")


def celestial():
    wcs = WCS(naxis=2)
    wcs.wcs.ctype, wcs.wcs.crval = ["RA---TAN", "DEC--TAN"], [CENTER.ra.deg, CENTER.dec.deg]
    wcs.wcs.crpix, wcs.wcs.cdelt = [50, 50], [-5e-5, 5e-5]
    return wcs


def structured():
    return np.array(list(map(tuple, XY)), dtype=[("x", float), ("y", float)])


# --- containers --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "positions",
    [
        pd.DataFrame(XY),
        pd.DataFrame(XY, columns=["x", "y"]),
        {"x": XY[:, 0], "y": XY[:, 1]},
        structured(),
        structured().view(np.recarray),
        Table({"x": XY[:, 0].astype(str), "Y": XY[:, 1]}),
        Table({"x": XY[:, 0], "y": XY[:, 1]}, units={"x": "pixel", "y": "pix"}),
    ],
    ids=["frame without names", "frame", "dict", "structured", "recarray", "text", "units"],
)
def test_containers(positions):
    np.testing.assert_array_equal(read_positions_argument(positions).xy, XY)


def test_one_row_of_a_table_and_a_list_of_coordinates():
    row = Table({"x": XY[:, 0], "y": XY[:, 1], "id": [7, 8]})[1]
    found = read_positions_argument(row)
    np.testing.assert_array_equal(found.xy, XY[1:])
    assert list(found.table["id"]) == [8]
    found = read_positions_argument([CENTER, CENTER.galactic], celestial())
    np.testing.assert_allclose(found.xy, [[49, 49], [49, 49]], atol=1e-6)


def test_masked_positions_are_unknown():
    masked = np.ma.array(XY, mask=[[False, False], [True, False]])
    for positions in (masked, Table({"x": masked[:, 0], "y": masked[:, 1]})):
        np.testing.assert_array_equal(read_positions_argument(positions).xy, [XY[0], [np.nan, 20]])


@pytest.mark.parametrize(
    ("positions", "match"),
    [
        (pd.DataFrame([[1, 2, 3]]), "positions has columns 0, 1, 2; a Table"),
        (pd.DataFrame([[1, 2]], columns=["x", "x"]), "two columns 'x'"),
        (Table({"x": [[1, 2]], "y": [[1, 2]]}), r"column x of positions has shape \(1, 2\)"),
        (
            Table({"ra": [1.0], "dec": [100.0]}),
            "column dec of positions is 100 degrees in row 0; allowed: -90",
        ),
        (
            Table({"ra": ["188:44:10"], "dec": ["1:2:3"]}),
            "'188:44:10', which is no angle: .* in hours, 0 to 24",
        ),
        (Table({"ra": ["spam"], "dec": ["1:2:3"]}), "column ra of positions holds 'spam', which is no angle"),
        (
            Table({"ra": ["1.5", "1:2:3"], "dec": [1.0, 2.0]}),
            "column ra of positions mixes '1:2:3' with '1.5'",
        ),
        (Table({"ra": [1.0], "dec": [2.0]}, units={"dec": "s"}), "column dec of positions has unit s"),
        (Table({"ra": [[1.0]], "dec": [[2.0]]}), "one angle a row"),
    ],
)
def test_what_is_refused(positions, match):
    with pytest.raises(PositionError, match=match):
        read_positions_argument(positions, celestial())


# --- angles ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("ra", "dec"),
    [
        ("12:34:56.7", "-01:02:02.4"),
        ("12 34 56.7", "-01 02 02.4"),
        ("12h34m56.7s", "-01d02m02.4s"),
        ("188d44m10.5s", "-1:02:02.4"),
        ("188.73625", "-1.034"),
        (b"12:34:56.7", b"-01:02:02.4"),
    ],
)
def test_angles_as_text(ra, dec):
    found = read_positions_argument(Table({"RA": [ra, ra], "DEC": [dec, dec]}), celestial())
    np.testing.assert_allclose(found.xy, [[49, 49]] * 2, atol=1e-6)
    assert ("hours" in found.understood) == ("12" in str(ra)[:5])


@pytest.mark.parametrize("unit", ["hourangle", "h", "deg", "rad"])
def test_angles_with_a_unit(unit):
    value = CENTER.ra.to_value("hourangle" if unit == "h" else unit)
    table = Table({"ra": [value], "dec": [CENTER.dec.deg]}, units={"ra": unit, "dec": "deg"})
    np.testing.assert_allclose(read_positions_argument(table, celestial()).xy, [[49, 49]], atol=1e-5)


def test_blank_angles_are_unknown():
    table = Table(
        {"ra": ["12:34:56.7", ""], "dec": np.ma.array(["-01:02:02.4", "1:2:3"], mask=[False, True])}
    )
    np.testing.assert_allclose(
        read_positions_argument(table, celestial()).xy, [[49, 49], [np.nan] * 2], atol=1e-6
    )


# --- catalogues of tools -----------------------------------------------------------------------------


@pytest.mark.parametrize("names", [("X_IMAGE", "Y_IMAGE"), ("XWIN_IMAGE", "YWIN_IMAGE")])
def test_source_extractor_counts_from_one(names):
    table = Table({"NUMBER": [5, 6], names[0]: XY[:, 0] + 1, names[1]: XY[:, 1] + 1})
    found = read_positions_argument(table)
    np.testing.assert_array_equal(found.xy, XY)
    assert found.understood == f"{names[0]}, {names[1]} of Source Extractor, counted from 1"
    assert list(found.table["id"]) == list(found.table["NUMBER"]) == [5, 6]


def test_windowed_positions_are_preferred_and_the_others_pass_through():
    table = Table({"X_IMAGE": [1.0], "Y_IMAGE": [1.0], "XWIN_IMAGE": [11.0], "YWIN_IMAGE": [21.0]})
    found = read_positions_argument(table)
    np.testing.assert_array_equal(found.xy, [[10, 20]])
    assert found.table.colnames == ["X_IMAGE", "Y_IMAGE"]


@pytest.mark.parametrize(
    "names", [("ALPHA_J2000", "DELTA_J2000"), ("RAJ2000", "DEJ2000"), ("RIGHT_ASCENSION", "DECLINATION")]
)
def test_sky_columns_of_tools(names):
    table = Table({names[0]: [CENTER.ra.deg], names[1]: [CENTER.dec.deg]})
    found = read_positions_argument(table, celestial())
    np.testing.assert_allclose(found.xy, [[49, 49]], atol=1e-6)
    assert found.understood.startswith(f"{names[0]}, {names[1]} of ")


def test_brick_pixels_of_the_legacy_surveys():
    """Their pixels are those of a brick, which a cutout is not: the sky is believed where it is known."""
    table = Table({"bx": [3.0], "by": [4.0], "ra": [CENTER.ra.deg], "dec": [CENTER.dec.deg]})
    found = read_positions_argument(table, celestial())
    np.testing.assert_allclose(found.xy, [[49, 49]], atol=1e-6)
    assert found.table.colnames == ["bx", "by"]
    found = read_positions_argument(table)
    np.testing.assert_array_equal(found.xy, [[3, 4]])
    assert found.understood == "bx, by of the Legacy Surveys, counted from 0"


def test_pixels_and_sky_of_source_extractor_that_disagree():
    table = Table({"X_IMAGE": [90.0], "Y_IMAGE": [50.0], "ALPHA_J2000": [CENTER.ra.deg]})
    table["DELTA_J2000"] = CENTER.dec.deg
    with pytest.raises(
        PositionError, match="X_IMAGE, Y_IMAGE and ALPHA_J2000, DELTA_J2000, which differ by 40"
    ):
        read_positions_argument(table, celestial())


def test_common_names_need_no_explanation():
    for table in (Table({"x": [1.0], "y": [2.0]}), QTable({"ra": [CENTER.ra], "dec": [CENTER.dec]})):
        assert read_positions_argument(table, celestial()).understood == ""


# --- identifiers -------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["id", "ID", "Id"])
def test_identifiers_in_any_case(name):
    table = Table({name: [7, 8], "x": XY[:, 0], "y": XY[:, 1]})
    assert list(read_positions_argument(table).table["id"]) == [7, 8]
    assert table.colnames[0] == name  # not the user's


def test_identifiers_in_the_index_of_a_frame():
    frame = pd.DataFrame(XY, columns=["x", "y"], index=pd.Index(["a", "b"], name="id"))
    assert list(read_positions_argument(frame).table["id"]) == ["a", "b"]
    assert list(frame.columns) == ["x", "y"]


def test_missing_values_of_a_frame_are_masked():
    frame = pd.DataFrame({"x": XY[:, 0], "y": XY[:, 1], "id": pd.array([1, None], dtype="Int64")})
    frame["name"] = pd.Series(["a", None], dtype=object)
    frame["z"] = pd.Series([None, 0.5], dtype=object)
    frame["spectrum"] = pd.Series([np.arange(2), np.arange(3)], dtype=object)  # stays as it is
    table = read_positions_argument(frame).table
    for name in ("id", "name", "z"):
        assert list(np.ma.getmaskarray(table[name])) == [name == "z", name != "z"]
        assert table[name].dtype.kind != "O"


def test_units_of_pixels_only():
    with pytest.raises(PositionError, match="column x of positions has unit deg"):
        read_positions_argument(QTable({"x": [1] * u.deg, "y": [1] * u.deg}))


def test_who_moved_to_another_of_the_list():
    listed = np.array([[50.0, 50.0], [62.0, 50.0], [50.5, 50.5]])
    moved = np.array([[61.0, 50.0], [62.0, 50.5], [50.4, 51.8]])
    # the first went to the second; the third is the first galaxy given again, and no other
    assert nearer_to_another(moved, listed, listed).tolist() == [True, False, False]
    assert not nearer_to_another(moved, listed, None).any()


def test_sky_that_the_image_does_not_show_disagrees_with_pixels():
    """A tangent plane ends 90 degrees away; beyond it there are no pixels to compare with."""
    table = Table({"x": [40.0, 50.0], "y": [50.0, 60.0]})
    table["ra"], table["dec"] = (CENTER.ra.deg + 170) % 360, -CENTER.dec.deg
    with pytest.raises(PositionError, match="x, y and ra, dec, which differ by inf pixels"):
        read_positions_argument(table, celestial())
    table["ra"] = np.nan  # unknown is no contradiction
    np.testing.assert_array_equal(read_positions_argument(table, celestial()).xy, [[40, 50], [50, 60]])
