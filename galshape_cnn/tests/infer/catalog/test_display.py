# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""Columns by name, and the table that notebooks show."""

import re
from dataclasses import replace

import astropy.units as u
import numpy as np
import pytest
from astropy.table import QTable

from galshape_cnn.errors import InputError
from galshape_cnn.flags import Flag
from galshape_cnn.infer.catalog.display import with_error
from galshape_cnn.tests.infer.catalog.test_catalog import make_catalog, make_measurement

INPUTS = QTable(
    {"id": np.ma.array([5, 6, 7], mask=[False, True, False]), "band": list("g<r"), "FLUX": [1.0, 2, 3]}
)


def test_columns_by_name():
    catalog = make_catalog(3, unit=u.nJy, table=INPUTS)
    np.testing.assert_array_equal(catalog["flux"], catalog.flux)
    assert catalog["flux"].unit == u.nJy
    assert list(catalog["band"]) == list("g<r")
    assert list(catalog["input_FLUX"]) == [1, 2, 3]
    assert catalog[["id", "hlr"]].colnames == ["id", "hlr"]
    assert len(catalog[[0, 2]]) == 2
    with pytest.raises(InputError, match=r"\['fluxx'\] not in this catalogue; allowed: \['id', "):
        catalog["fluxx"]


def test_masked_identifiers_stay_masked():
    catalog = make_catalog(3, table=INPUTS)
    for ids in (catalog.id, catalog["id"], catalog.to_table()["id"], catalog[[0, 1, 2]].id):
        assert list(np.ma.getmaskarray(ids)) == [False, True, False]
    assert catalog[1].id.mask.all()


def test_identifiers_of_bytes_are_text():
    catalog = make_catalog(3, table=QTable({"id": [b"a", b"b", b"c"]}))
    assert catalog.id.tolist() == ["a", "b", "c"]


def cells(page):
    rows = re.findall(r"<tr>(.*?)</tr>", page)
    return [re.findall(r"<t[dh][^>]*>(.*?)</t[dh]>", row) for row in rows]


@pytest.mark.parametrize("method", ["network", "ml"])
def test_notebooks_show_numbers_with_their_errors(method):
    measurement = make_measurement(3, flags=np.array([0, Flag.EDGE, 0]))
    if method == "ml":
        measurement = replace(measurement, covariance=np.full((3, 5, 5), np.nan))
    catalog = make_catalog(3, method, measurement=measurement, unit=u.nJy, table=INPUTS)
    page = catalog._repr_html_()
    head, first, second, _ = cells(page)
    assert head[:5] == [
        "id",
        "x<br><small>pix</small>",
        "y<br><small>pix</small>",
        "snr",
        "flux<br><small>nJy</small>",
    ]
    error = catalog.flux_std if method == "network" else catalog.flux_err
    assert first[4] == with_error(catalog.flux[0].value, error[0].value)
    assert ("posterior standard deviation" in page) == (method == "network")
    assert first[-3:] == ["g", "1", ""]
    assert second[0] == "–"
    assert second[-3:] == ["&lt;", "2", "EDGE"]


def test_long_catalogues_are_cut_in_the_middle():
    rows = cells(make_catalog(40)._repr_html_())
    assert len(rows) == 1 + 12 + 1
    assert rows[7] == ["… 28 more …"]
    assert [row[0] for row in rows[1:7]] == [str(k) for k in range(1, 7)]
    assert rows[-1][0] == "40"


def test_rows_that_were_not_measured():
    catalog = make_catalog(3, measurement=make_measurement(3, params=np.full((3, 8), np.nan)))
    assert cells(catalog._repr_html_())[1][1:5] == ["–", "–", catalog._cells("snr", "err")[0], "–"]
