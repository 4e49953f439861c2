# Licensed under a 3-clause BSD style license - see LICENSE.rst
import json
import re
from dataclasses import replace

import numpy as np
import pytest
from astropy.nddata import NDData, StdDevUncertainty
from astropy.table import QTable

from galshape_cnn.errors import FileError, InputError
from galshape_cnn.flags import FLAG_DEFINITIONS, Flag
from galshape_cnn.infer.catalog.measurement import Measurement
from galshape_cnn.infer.catalog.tables import TABLE_SUFFIXES, write_table
from galshape_cnn.study.report.html_report import catalog_from_table, read_catalog_table, write_report
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


@pytest.mark.parametrize("suffix", TABLE_SUFFIXES)
def test_table_and_image_give_the_catalog_back(catalog, field, tmp_path, suffix):
    path = tmp_path / f"shapes{suffix}"
    write_table(catalog.to_table(), path)
    again = catalog_from_table(read_catalog_table(path), field.to_nddata(), psf=field.psf)
    assert again.method == ("ml" if suffix != ".vot" else again.method)
    np.testing.assert_allclose(again.parameters, catalog.parameters, rtol=1e-9)
    # The Jacobian is taken at a slightly different point than before.
    np.testing.assert_allclose(again.measurement.params[:, :5], catalog.measurement.params[:, :5], rtol=1e-6)
    np.testing.assert_allclose(again.x_centroid.value, catalog.x_centroid.value)
    for name in ("flux", "n", "hlr", "g1", "g2"):
        error = f"{name}_err"
        np.testing.assert_allclose(getattr(again, error), getattr(catalog, error), rtol=1e-9)
    np.testing.assert_array_equal(again.flags, catalog.flags)
    np.testing.assert_array_equal(again.id, catalog.id)


def test_noise_is_scaled_as_for_the_table(catalog, field):
    table = catalog.to_table()
    table.meta["noise_scale"] = 1.25
    scaled, plain = (
        catalog_from_table(one, field.to_nddata(), psf=field.psf) for one in (table, catalog.to_table())
    )
    np.testing.assert_allclose(scaled.stamp(0).ivar, plain.stamp(0).ivar / 1.25**2, rtol=1e-6)


def test_sky_is_fitted_again(catalog, field):
    data = field.to_nddata()
    raised = NDData(data.data + 7, uncertainty=data.uncertainty, mask=data.mask, wcs=data.wcs, unit=data.unit)
    table = catalog.to_table()
    first, second = (catalog_from_table(table, one, psf=field.psf) for one in (data, raised))
    difference = second.measurement.params[:, 7] - first.measurement.params[:, 7]
    np.testing.assert_allclose(difference, 7, rtol=1e-3)


def test_rows_not_measured_survive_the_table(catalog, field):
    parts = [([0, 1, 2, 3], catalog.measurement[:4])]
    partly = replace(catalog, measurement=Measurement.scatter(6, parts))
    again = catalog_from_table(partly.to_table(), field.to_nddata(), psf=field.psf)
    np.testing.assert_array_equal(np.isnan(again.flux), [False] * 4 + [True] * 2)
    np.testing.assert_array_equal(again.flags, partly.flags)


def test_arcsec_need_a_wcs(catalog, field):
    data = NDData(field.image, uncertainty=StdDevUncertainty(field.error))
    with pytest.raises(InputError, match="sizes in arcsec, but the image has no WCS"):
        catalog_from_table(catalog.to_table(), data, psf=np.ones((3, 3)) / 9)


def test_unreadable_tables(tmp_path):
    with pytest.raises(FileError, match="no such file"):
        read_catalog_table(tmp_path / "none.ecsv")
    broken = tmp_path / "broken.fits"
    broken.write_bytes(b"SIMPLE  = nonsense")
    with pytest.raises(FileError, match="as a table"):
        read_catalog_table(broken)
    other = tmp_path / "other.ecsv"
    QTable({"id": [1], "flux": [2.0]}).write(other)
    with pytest.raises(FileError, match="is not a table of shapes: no column x_centroid, y_centroid, n"):
        read_catalog_table(other)


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
