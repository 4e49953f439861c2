# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""Names of the user's columns beside those of the catalogue."""

import astropy.units as u
import numpy as np
import pytest
from astropy.table import QTable

from galshape_cnn import add_magnitudes
from galshape_cnn.infer.catalog.columns import COLUMN_DEFINITIONS, join_identifiers, pass_through
from galshape_cnn.infer.catalog.tables import write_table
from galshape_cnn.tests.infer.catalog.test_catalog import make_catalog


@pytest.mark.parametrize("change", [str.lower, str.upper, str.title])
def test_no_name_is_that_of_a_column_in_any_case(change):
    table = QTable({change(d.name): [1] for d in COLUMN_DEFINITIONS})
    names = pass_through(table).colnames
    own = {d.name for d in COLUMN_DEFINITIONS}
    assert not own & {name.lower() for name in names}
    assert len({name.lower() for name in names}) == len(names) >= len(own) - 1


def test_fits_gives_the_right_column_back(tmp_path):
    """Names in FITS are unique without regard to case; readers returned the user's FLUX for flux."""
    inputs = QTable({"ID": [7, 8, 9], "FLUX": [-1.0, -1, -1], "Hlr": [-2.0, -2, -2], "input_flux": [1, 2, 3]})
    table = make_catalog(3, unit=u.nJy, table=inputs).to_table()
    write_table(table, tmp_path / "a.fits")
    from astropy.io import fits

    data = fits.getdata(tmp_path / "a.fits")
    for name in ("flux", "FLUX"):
        np.testing.assert_array_equal(data[name], table["flux"].value)
    np.testing.assert_array_equal(data["hlr"], table["hlr"].value)
    np.testing.assert_array_equal(data["input_Hlr"], [-2, -2, -2])
    assert len({name.lower() for name in data.names}) == len(data.names)


def test_magnitudes_of_the_user_are_kept():
    inputs = QTable({"MAG": [1.0, 2, 3], "mag_err": [4, 5, 6]})
    table = make_catalog(3, table=inputs).to_table()
    add_magnitudes(table, 22.5)
    first = table["mag"].copy()
    add_magnitudes(table, 25.0)
    np.testing.assert_allclose((table["mag"] - first).value, 2.5)
    np.testing.assert_array_equal(table["input_MAG"], [1, 2, 3])
    np.testing.assert_array_equal(table["input_mag_err"], [4, 5, 6])
    assert table.colnames[-4:] == ["input_MAG", "input_mag_err", "mag", "mag_err"]


def test_identifiers_of_several_parts():
    masked = np.ma.array([3, 4], mask=[False, True])
    assert join_identifiers([np.array([1, 2]), masked]).tolist() == [1, 2, 3, None]
    assert type(join_identifiers([np.array(["a"]), np.array(["bcd"])])) is np.ndarray
