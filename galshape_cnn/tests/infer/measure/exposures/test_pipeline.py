# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""Several images of the same galaxies, measured together."""

from dataclasses import replace

import numpy as np
import pytest
from astropy.table import Table

from galshape_cnn import Exposure, ShapeEstimator, cramer_rao_bound
from galshape_cnn.errors import GalshapeWarning, InputError
from galshape_cnn.flags import Flag
from galshape_cnn.tests.exposure_scene import SETUP, TRUTH, exposure, galaxies


@pytest.fixture(scope="module")
def estimator():
    return ShapeEstimator()


@pytest.fixture(scope="module")
def scene():
    rng = np.random.default_rng(5)
    sky, truth = galaxies(rng)
    return sky, truth, [exposure(rng, sky, truth, one, zeropoint=25.0) for one in SETUP]


@pytest.fixture(scope="module")
def catalog(scene, estimator):
    sky, _, exposures = scene
    return estimator(exposures, positions=sky, method="ml", neighbours="ignore")


def test_warnings_name_their_exposures(scene, estimator):
    sky, _, exposures = scene
    array = exposures[1].psf.drawImage(nx=31, ny=31, scale=0.2, offset=(1, 0)).array
    off = [*exposures[:2], replace(exposures[2], psf=array)]
    with pytest.warns(GalshapeWarning, match="^exposure 'r2': psf: the array is not on the central sample"):
        estimator(off, positions=sky[:1], method="ml", neighbours="ignore")


def sigma(covariance):
    return np.sqrt(np.diagonal(covariance, axis1=1, axis2=2))


def test_parameters_are_the_true_ones_within_their_errors(scene, catalog):
    """54 numbers: the mean square of their pulls has an expected scatter of 0.19."""
    truth = np.column_stack([scene[1][name] for name in TRUTH])
    pull = (catalog.parameters - truth) / sigma(catalog.crb_covariance)
    assert catalog.galaxy_model.reported_names == TRUTH
    assert np.abs(pull).max() < 4
    assert (pull**2).mean() == pytest.approx(1, abs=4 * 0.19)
    assert (catalog.n_exposures == 3).all()


def test_bound_is_that_of_the_summed_fisher_matrices(scene, catalog):
    """Independent of the joint fit: `cramer_rao_bound` of three PSFs at the measured parameters."""
    exposures = scene[2]
    jacobians = [np.diag([-1, 1]) @ one.wcs.pixel_scale_matrix * 3600 for one in exposures]
    for row in (0, 4):
        params = dict(zip(TRUTH, catalog.parameters[row], strict=True))
        centers = [catalog.by_exposure.params[row, k, 5:7] for k in range(3)]
        least = cramer_rao_bound(
            params, [one.psf for one in exposures], [one.error for one in exposures], shape=(64, 64),
            jacobian=jacobians, center=[tuple(one) for one in centers], bands=[one.band for one in exposures],
        )  # fmt: skip
        np.testing.assert_allclose(catalog.crb_covariance[row], least.covariance, rtol=0.02, atol=1e-9)
        assert catalog.snr[row] == pytest.approx(least.snr, rel=2e-3)


def test_columns(catalog):
    table = catalog.to_table()
    names = table.colnames
    start = ["id", "x_centroid", "y_centroid", "sky_centroid", *TRUTH]
    assert names[: len(start)] == start
    errors = [f"{name}_err" for name in TRUTH]
    assert names[len(start) : len(start) + len(errors)] == errors
    assert {"snr", "snr_g", "snr_r", "mag_g", "mag_r_err", "n_exposures", "flags"} <= set(names)
    assert "flux" not in names
    assert "band g" in table["flux_g"].info.description
    np.testing.assert_allclose(catalog.snr_g**2 + catalog.snr_r**2, catalog.snr**2)
    np.testing.assert_allclose(catalog.mag_g.value, 25 - 2.5 * np.log10(catalog.flux_g))


def test_a_galaxy_does_not_depend_on_its_company(scene, estimator, catalog):
    sky, _, exposures = scene
    some = estimator(exposures, positions=sky[[7, 2]], method="ml", neighbours="ignore")
    np.testing.assert_array_equal(some.parameters, catalog.parameters[[7, 2]])
    np.testing.assert_array_equal(some.crb_covariance, catalog.crb_covariance[[7, 2]])


def test_colours_use_the_covariance_of_the_fluxes(scene, catalog):
    truth = scene[1]
    colour, error = catalog.color("g", "r")
    expected = -2.5 * np.log10(truth["flux_g"] / truth["flux_r"])
    assert (np.abs(colour.value - expected) / error.value).max() < 4
    apart = np.hypot(catalog.mag_g_err, catalog.mag_r_err)
    assert (error < apart).all()
    with pytest.raises(InputError, match="band 'z' is not in this catalogue; allowed: g, r"):
        catalog.color("g", "z")


def test_table_of_exposures(scene, catalog):
    table = catalog.exposure_table()
    assert len(table) == 27
    assert all(table[name].info.description for name in table.colnames)
    assert table["exposure"][:3].tolist() == ["g1", "r1", "r2"]
    np.testing.assert_allclose(table["chi2"], 1, atol=0.15)
    x, y = scene[2][1].wcs.world_to_pixel(catalog.sky_centroid)
    second = table[table["exposure"] == "r1"]
    np.testing.assert_allclose(second["x"].value, x, atol=2e-3)
    np.testing.assert_allclose(second["y"].value, y, atol=2e-3)
    np.testing.assert_allclose(second["flux"], catalog.flux_r, rtol=1e-6)


def test_model_and_stamp_of_each_exposure(catalog):
    for number, name in enumerate(catalog.exposures):
        stamp, model = catalog.stamp(3, number), catalog.model(3, name)
        y, x = np.indices(stamp.data.shape[1:])
        left, bottom = stamp.origin[0]
        rest = (stamp.data[0] - model(x + left, y + bottom)) * np.sqrt(stamp.ivar[0])
        assert rest.std() == pytest.approx(1, abs=0.06)
    with pytest.raises(InputError, match="exposure='x'; allowed: g1, r1, r2"):
        catalog.model(0, "x")


def test_one_exposure_is_a_single_image(scene, estimator):
    sky, _, exposures = scene
    one, options = exposures[1], {"positions": sky, "method": "ml", "neighbours": "ignore"}
    joint = estimator([one], **options)
    single = estimator(one.data, psf=one.psf, error=one.error, wcs=one.wcs, **options)
    assert joint.to_table().colnames[:9] == single.to_table().colnames[:9]
    difference = (joint.parameters - single.parameters) / sigma(single.crb_covariance)
    assert np.abs(difference).max() < 0.1
    np.testing.assert_allclose(sigma(joint.crb_covariance), sigma(single.crb_covariance), rtol=0.02)


def test_zero_points_bring_exposures_of_a_band_together(scene, estimator, catalog):
    sky, _, exposures = scene
    last = exposures[2]
    brighter = replace(last, data=last.data * 10.0, error=last.error * 10.0, zeropoint=27.5)
    again = estimator([*exposures[:2], brighter], positions=sky, method="ml", neighbours="ignore")
    difference = (again.parameters - catalog.parameters) / sigma(catalog.crb_covariance)
    assert np.abs(difference).max() < 0.05


def test_photon_noise_of_the_galaxies_widens_the_errors(scene, estimator, catalog):
    sky, _, exposures = scene
    with_gain = [replace(one, gain=0.5) for one in exposures]
    noisy = estimator(with_gain, positions=sky[:2], method="ml", neighbours="ignore")
    assert (sigma(noisy.crb_covariance) > 1.02 * sigma(catalog.crb_covariance[:2])).all()


def test_a_band_without_data_is_nan_and_flagged(scene, estimator):
    sky, _, exposures = scene
    mask = np.ones(exposures[0].data.shape, bool)
    blind = [replace(exposures[0], mask=mask), *exposures[1:]]
    catalog = estimator(blind, positions=sky[:2], method="ml", neighbours="ignore")
    assert (catalog.flags & Flag.BAND_MISSING > 0).all()
    assert (catalog.n_exposures == 2).all()
    for name in ("flux_g", "flux_g_err", "snr_g", "mag_g"):
        assert np.isnan(np.asarray(getattr(catalog, name))).all()
    assert np.isfinite(catalog.flux_r).all()
    assert np.isfinite(catalog.crb_covariance[:, 1:, 1:]).all()
    assert catalog.is_usable.all()
    red = estimator(exposures[1:], positions=sky[:2], method="ml", neighbours="ignore")
    np.testing.assert_allclose(catalog.n, red.n, rtol=1e-4)


@pytest.mark.filterwarnings("ignore:.*could not be measured")
def test_a_galaxy_that_no_exposure_shows_keeps_its_row(scene, estimator):
    sky, _, exposures = scene
    ra, dec = sky[0].ra.deg, sky[0].dec.deg
    table = Table({"ra": [ra, ra], "dec": [dec, dec + 1], "name": ["here", "away"]})
    catalog = estimator(exposures, positions=table, method="ml", neighbours="ignore")
    assert catalog.n_exposures.tolist() == [3, 0]
    assert catalog.flags[1] & Flag.NO_DATA
    assert np.isnan(catalog.parameters[1]).all()
    assert catalog.to_table()["name"].tolist() == ["here", "away"]


def test_posterior_of_several_exposures(scene, estimator, catalog):
    sky, truth, exposures = scene
    options = {"method": "posterior", "neighbours": "ignore", "seed": 3}
    found = estimator(exposures, positions=sky[:2], **options)
    true = np.column_stack([truth[name] for name in TRUTH])[:2]
    assert (np.abs(found.parameters - true) < 4.5 * sigma(found.covariance)).all()
    assert (found.ess > 40).all()
    ratio = sigma(found.covariance) / sigma(found.crb_covariance)
    assert ((ratio > 0.6) & (ratio < 1.3)).all()
    draws = found.samples(1)
    assert draws.shape == (256, 6)
    offset = (draws.mean(0) - found.parameters[1]) / sigma(found.covariance)[1]
    assert np.abs(offset).max() < 0.3
    again = estimator(exposures, positions=sky[1:2], **options)
    np.testing.assert_array_equal(again.parameters, found.parameters[1:])


def test_rows_and_slices(catalog):
    some = catalog[catalog.snr > np.median(catalog.snr)]
    assert len(some) == 4
    np.testing.assert_array_equal(some.exposure_table()["id"][::3], some.id)
    assert len(catalog[0].exposure_table()) == 3


def test_what_belongs_to_an_exposure_is_refused_beside_a_list(scene, estimator):
    with pytest.raises(InputError, match="psf= is given beside a list of Exposures"):
        estimator(scene[2], positions=scene[0], method="ml", psf=np.ones((5, 5)))


def test_data_must_be_exposures_all(scene, estimator):
    with pytest.raises(InputError, match=r"data\[1\] is a ndarray"):
        estimator([scene[2][0], np.zeros((64, 64))], positions=scene[0])
    with pytest.raises(InputError, match="data is one Exposure"):
        estimator(scene[2][0], positions=scene[0])
    with pytest.raises(InputError, match="gain=-1"):
        Exposure(np.zeros((64, 64)), gain=-1)


def test_columns_by_name_and_a_table_in_notebooks(catalog):
    band = catalog.bands[0]
    np.testing.assert_array_equal(catalog[f"flux_{band}"], getattr(catalog, f"flux_{band}"))
    assert catalog[["id", "hlr"]].colnames == ["id", "hlr"]
    assert len(catalog[[0, 1]]) == 2
    page = catalog._repr_html_()
    assert all(f"flux_{one}" in page for one in catalog.bands)
    assert catalog["quality"].shape == (len(catalog),)


def test_what_each_exposure_was_said_to_be_is_recorded(catalog):
    options = catalog.meta["options"]
    assert options["method"] == "ml"
    assert options["neighbours"] == "ignore"
    assert list(options["exposures"]) == list(catalog.meta["exposures"])
    assert all(one["zeropoint"] == 25.0 for one in options["exposures"].values())


def test_columns_of_the_user_are_kept_apart_from_those_of_bands(scene, estimator):
    sky, _, exposures = scene
    positions = Table({"ra": sky.ra.deg[:1], "dec": sky.dec.deg[:1], "FLUX_G": [-1.0], "Snr": [-2.0]})
    found = estimator(exposures, positions=positions, method="ml", neighbours="ignore")
    names = [name.lower() for name in found.column_names]
    assert len(set(names)) == len(names)
    assert list(found["input_Snr"]) == [-2]
