# Licensed under a 3-clause BSD style license - see LICENSE.rst
import json
import re
from dataclasses import replace

import astropy.units as u
import numpy as np
import pytest
from astropy.coordinates import SkyCoord
from astropy.table import Column, MaskedColumn, QTable

from galshape_cnn.errors import FileError, InputError
from galshape_cnn.flags import FLAG_DEFINITIONS, Flag
from galshape_cnn.infer.catalog.measurement import Measurement
from galshape_cnn.study.report.html_report import write_report
from galshape_cnn.study.simulate.field import simulate_field
from galshape_cnn.tests.standin import StandInEstimator


@pytest.fixture(scope="module")
def field():
    return simulate_field(seed=3, n_galaxies=6, size=320)


@pytest.fixture(scope="module")
def catalog(field):
    return StandInEstimator()(field.to_nddata(), psf=field.psf, positions=field.positions, method="ml")


def blocks(path):
    """The two JSON blocks of a page."""
    text = path.read_text(encoding="utf-8")
    found = re.findall(r'<script type="application/json" id="(\w+)">(.*?)</script>', text, re.DOTALL)
    return {name: json.loads(body) for name, body in found}


def test_page_holds_numbers_pictures_and_flags(catalog, tmp_path):
    path = tmp_path / "report.html"
    write_report(catalog, path, title="<field> & more")
    page = blocks(path)
    np.testing.assert_allclose(page["rows"]["flux"], catalog.flux.value, rtol=1e-5)
    np.testing.assert_allclose(page["rows"]["g1_err"], catalog.g1_err, rtol=1e-5)
    assert all(picture.startswith("UklGR") for picture in page["pictures"])
    text = path.read_text(encoding="utf-8")
    assert "&lt;field&gt; &amp; more" in text
    assert all(definition.description in text for definition in FLAG_DEFINITIONS)
    assert "{{" not in re.sub(r"<script.*</script>", "", text, flags=re.DOTALL)
    assert "http" not in text


def test_page_survives_rows_not_measured_and_hostile_ids(catalog, tmp_path):
    ids = np.array(["a", "</script><b>", "c", "d", "e", "f"])
    empty = replace(catalog, measurement=Measurement.empty(6), ids=ids)
    path = tmp_path / "report.html"
    write_report(empty, path)
    page = blocks(path)
    assert page["rows"]["flux"] == [None] * 6
    assert page["rows"]["flags"] == [Flag.NOT_MEASURED] * 6
    assert page["rows"]["id"] == list(ids)


def test_numbers_beside_those_of_the_catalogue(catalog, tmp_path):
    """Magnitudes, radii and the columns of the user, whatever they hold."""
    inputs = QTable({"band": ["r"] * 6, "z": [0.5, np.nan, 1, 2, 3, 4], "size": np.arange(6) * u.arcsec})
    inputs["name"] = MaskedColumn(["<b>", *"abcde"], mask=[False, True, False, False, False, False])
    inputs["place"] = SkyCoord(np.arange(6), np.arange(6), unit="deg")
    inputs["object"] = Column([{"a": 1}, None, 3, 4, 5, 6], dtype=object)
    inputs["mag"], inputs["mag_err"] = 20 * np.ones(6) * u.mag, 0.5 * np.ones(6) * u.mag
    path = tmp_path / "report.html"
    write_report(replace(catalog, inputs=inputs), path)
    rows = blocks(path)["rows"]
    assert rows["band"] == ["r"] * 6
    assert rows["z"] == [0.5, None, 1, 2, 3, 4]
    assert rows["size"] == list(range(6))
    assert rows["name"] == ["<b>", None, "b", "c", "d", "e"]
    assert rows["place.dec"] == list(range(6))
    assert rows["object"][:3] == ["{'a': 1}", None, "3"]
    assert rows["mag"] == [20] * 6
    assert rows["mag_err"] == [0.5] * 6
    np.testing.assert_allclose(rows["r_eff"], catalog.r_eff.value, rtol=1e-5)


def test_errors_are_those_of_the_numbers(catalog, tmp_path):
    """Posterior widths of posterior means, and the bound on demand; of maximum likelihood the bound alone."""
    path = tmp_path / "report.html"
    none = replace(catalog.measurement, covariance=np.full((6, 5, 5), np.nan))
    write_report(replace(catalog, measurement=none), path)
    page = path.read_text(encoding="utf-8")
    assert '<option value="err">standard error' in page
    assert '<option value="std">' not in page
    wide = replace(catalog.measurement, covariance=4 * catalog.measurement.crb)
    inputs = QTable({"mag": np.full(6, 20.0), "mag_err": np.full(6, 0.5)})
    write_report(replace(catalog, measurement=wide, inputs=inputs), path, overwrite=True)
    page, rows = path.read_text(encoding="utf-8"), blocks(path)["rows"]
    assert page.index('<option value="std">') < page.index('<option value="err">')
    np.testing.assert_allclose(rows["flux_std"], 2 * catalog.flux_err.value, rtol=1e-5)
    np.testing.assert_allclose(rows["mag_std"], 1.0, rtol=1e-5)


def test_output_is_checked(catalog, tmp_path):
    with pytest.raises(InputError, match=r"suffix '.pdf'; allowed: .html"):
        write_report(catalog, tmp_path / "report.pdf")
    path = tmp_path / "report.html"
    path.write_text("precious")
    with pytest.raises(FileError, match="it exists"):
        write_report(catalog, path)
    assert path.read_text() == "precious"
    with pytest.raises(FileError, match="no folder"):
        write_report(catalog, tmp_path / "missing" / "report.html")
