# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""A table in a file and its image give the catalogue back."""

from dataclasses import replace

import numpy as np
import pytest
from astropy.io import fits
from astropy.nddata import NDData, StdDevUncertainty
from astropy.table import QTable

from galshape_cnn.errors import FileError, InputError
from galshape_cnn.infer.catalog.columns import pass_through
from galshape_cnn.infer.catalog.measurement import Measurement
from galshape_cnn.infer.catalog.tables import TABLE_SUFFIXES, write_table
from galshape_cnn.study.report.from_table import catalog_from_table, read_catalog_table
from galshape_cnn.study.simulate.field import simulate_field
from galshape_cnn.tests.standin import StandInEstimator


@pytest.fixture(scope="module")
def field():
    return simulate_field(seed=3, n_galaxies=6, size=320)


@pytest.fixture(scope="module")
def catalog(field):
    return StandInEstimator()(field.to_nddata(), psf=field.psf, positions=field.positions, method="ml")


@pytest.mark.parametrize("suffix", TABLE_SUFFIXES)
def test_table_and_image_give_the_catalog_back(catalog, field, tmp_path, suffix):
    path = tmp_path / f"shapes{suffix}"
    write_table(catalog.to_table(), path)
    again = catalog_from_table(read_catalog_table(path), field.to_nddata(), psf=field.psf)
    assert again.method == "ml"
    np.testing.assert_allclose(again.parameters, catalog.parameters, rtol=1e-9)
    # The Jacobian is taken at a slightly different point than before.
    np.testing.assert_allclose(again.measurement.params[:, :5], catalog.measurement.params[:, :5], rtol=1e-6)
    np.testing.assert_allclose(again.x_centroid.value, catalog.x_centroid.value)
    for name in ("flux", "n", "hlr", "g1", "g2"):
        error = f"{name}_err"
        np.testing.assert_allclose(getattr(again, error), getattr(catalog, error), rtol=1e-9)
    np.testing.assert_array_equal(again.flags, catalog.flags)
    np.testing.assert_array_equal(again.id, catalog.id)


@pytest.mark.parametrize("suffix", TABLE_SUFFIXES)
def test_identifiers_and_columns_of_the_user_come_back(catalog, field, tmp_path, suffix):
    ids = np.ma.array(["a", "b", "", "d", "e", "f"], mask=[False, True, False, False, False, False])
    inputs = QTable({"band": ["r"] * 6, "FLUX": np.arange(6.0)})
    named = replace(catalog, ids=ids, inputs=pass_through(inputs))
    path = tmp_path / f"shapes{suffix}"
    write_table(named.to_table(), path)
    again = catalog_from_table(read_catalog_table(path), field.to_nddata(), psf=field.psf)
    assert [str(one) for one in np.ma.filled(again.id, "")] == ["a", "", "", "d", "e", "f"]
    assert again.inputs.colnames == ["band", "input_FLUX"]
    np.testing.assert_array_equal(again.inputs["input_FLUX"], np.arange(6.0))


def test_a_file_with_several_tables(catalog, field, tmp_path):
    path = tmp_path / "shapes.fits"
    write_table(catalog.to_table(), path)
    with fits.open(path, mode="update") as hdus:
        hdus.append(fits.BinTableHDU(QTable({"a": [1]}), name="LOG"))
    assert len(read_catalog_table(path)) == 6
    with fits.open(path, mode="update") as hdus:
        hdus.append(hdus[1].copy())
    with pytest.raises(FileError, match="3 tables; say which"):
        read_catalog_table(path)
    assert len(read_catalog_table(f"{path}[1]")) == 6


@pytest.mark.parametrize("suffix", TABLE_SUFFIXES)
def test_noise_is_scaled_as_for_the_table(catalog, field, tmp_path, suffix):
    table = catalog.to_table()
    table.meta["noise_scale"] = 1.25
    write_table(table, tmp_path / f"shapes{suffix}")
    table = read_catalog_table(tmp_path / f"shapes{suffix}")
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
    with pytest.raises(FileError, match="does not exist"):
        read_catalog_table(tmp_path / "none.ecsv")
    broken = tmp_path / "broken.fits"
    broken.write_bytes(b"SIMPLE  = nonsense")
    with pytest.raises(FileError, match="truncated"):
        read_catalog_table(broken)
    other = tmp_path / "other.ecsv"
    QTable({"id": [1], "flux": [2.0]}).write(other)
    with pytest.raises(FileError, match="is not a table of shapes: no column x_centroid, y_centroid, n"):
        read_catalog_table(other)
