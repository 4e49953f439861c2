# Licensed under a 3-clause BSD style license - see LICENSE.rst
import inspect
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import numpy as np
import pytest
from astropy.nddata import NDData
from astropy.table import QTable, Table

from galshape_cnn import inject
from galshape_cnn.errors import GalshapeError, InputError
from galshape_cnn.flags import Flag
from galshape_cnn.geometry import axis_ratio, position_angle
from galshape_cnn.infer.likelihood.rendering import BATCH_SIZE
from galshape_cnn.infer.measure.record import recorded_call
from galshape_cnn.observe.detect.sources import Detection
from galshape_cnn.study.inject import realisation
from galshape_cnn.study.inject.injection import _NOT_RECORDED
from galshape_cnn.study.inject.places import find_field
from galshape_cnn.study.inject.setup import make_job
from galshape_cnn.tests.study.inject.scene import BAD, PSF, SHAPE, Estimator, image, injected

SIDE = 64


@pytest.fixture(scope="module")
def table():
    return injected(40)


def test_columns_say_what_they_are(table):
    assert all(table[name].info.description for name in table.colnames)
    assert table["nearest"].unit == table["true_x"].unit == "pix"


class Listing(Estimator):
    """A stand-in whose metadata hold a list."""

    def __call__(self, data, **keywords):
        catalog = super().__call__(data, **keywords)
        return replace(catalog, meta=dict(catalog.meta) | {"range": [0.3, 6.2]})


def test_metadata_are_those_of_one_copy_of_the_image():
    whole = injected(BATCH_SIZE + 40, estimator=Listing())  # in two calls of the estimator
    assert whole.meta["injection"]["realisations"] > 1
    assert whole.meta["range"] == [0.3, 6.2]


def same(one, two):
    assert one.colnames == two.colnames
    for name in one.colnames:
        first, second = (np.asarray(getattr(t[name], "value", t[name])) for t in (one, two))
        np.testing.assert_array_equal(first, second, err_msg=name)


def test_same_seed_same_numbers_whoever_works(table):
    with ThreadPoolExecutor(1) as executor:
        same(table, injected(40, executor=executor))
    assert not np.array_equal(table["true_x"], injected(40, seed=4)["true_x"])


def test_more_galaxies_leave_the_first_as_they_are(table):
    fewer = injected(9)
    same(fewer, table[:9])


@pytest.mark.slow
def test_processes_give_the_same_numbers(table):
    same(table, injected(40, workers=2))


def test_the_image_is_not_modified():
    data = image()
    before = data.data.copy(), data.mask.copy(), data.uncertainty.array.copy()
    injected(3, data, gain=2.0, gain_in_map=True)
    for old, new in zip(before, (data.data, data.mask, data.uncertainty.array), strict=True):
        np.testing.assert_array_equal(old, new)
    assert data.wcs is None
    assert getattr(data, "psf", None) is None


def test_shear_changes_neither_place_nor_flux():
    gamma, kinds = 0.03 - 0.02j, {"sersic": 1, "bulge_disc": 1}
    pair = [injected(8, kinds=kinds, shear=shear) for shear in (None, (gamma.real, gamma.imag))]
    for name in ("kind", "true_x", "true_y", "true_flux"):
        np.testing.assert_array_equal(pair[0][name], pair[1][name])
    before, after = (np.asarray(one["true_g1"]) + 1j * np.asarray(one["true_g2"]) for one in pair)
    exact = np.asarray(pair[0]["kind"]) == "sersic"
    whole = (before + gamma) / (1 + np.conj(gamma) * before)
    np.testing.assert_allclose(after[exact], whole[exact], atol=1e-12)
    np.testing.assert_allclose(after[~exact], whole[~exact], atol=2e-3)  # found by a fit to the image
    assert 0 < exact.sum() < 8
    assert pair[1].meta["injection"]["shear"] == [0.03, -0.02]


def test_never_two_galaxies_in_one_stamp(table):
    xy = np.column_stack([table["true_x"].value, table["true_y"].value])
    assert len(table) == 40
    assert len(set(table["realisation"])) < 20  # several share a copy
    for number in set(table["realisation"]):
        here = xy[table["realisation"] == number]
        apart = np.abs(here[:, None] - here[None]).max(-1)[np.triu_indices(len(here), 1)]
        assert (apart >= SIDE).all()


def test_places_are_free(table):
    field = find_field(image())
    y, x = np.indices(SHAPE)
    bad = np.zeros(SHAPE, bool)
    bad[BAD] = True
    assert len(field.xy) == 3
    for row in table:
        place = row["true_x"].value, row["true_y"].value
        assert all(
            SIDE / 2 <= one <= side - 1 - SIDE / 2 for one, side in zip(place, SHAPE[::-1], strict=True)
        )
        inside = np.hypot(x - place[0], y - place[1]) <= 3 * row["true_r_eff"].value
        assert not (inside & bad).any()
        assert field.flux[field.segments[inside]].max() <= row["true_flux"]
    assert (table["n_near"] > 0).any()  # fainter sources, and brighter ones farther away


def test_nothing_avoided_comes_closer():
    near = injected(40, avoid="none")["nearest"].min()
    assert near < injected(40, avoid="all")["nearest"].min()


def test_light_is_where_and_as_much_as_the_truth_says():
    """On an empty image the summed flux and the centroid are those of the galaxy alone."""
    prior = {"n": {"kind": "uniform", "low": 0.8, "high": 1.2}}
    table = injected(12, image(empty=True), prior=prior)
    np.testing.assert_allclose(table["flux"], table["true_flux"], rtol=0.02)
    for axis in "xy":
        np.testing.assert_allclose(table[f"{axis}_centroid"], table[f"true_{axis}"], atol=0.1)
    np.testing.assert_allclose(table["snr"], table["true_snr"], rtol=0.01)
    assert np.ptp(table["true_snr"]) > 50


def test_photon_noise_raises_the_flux_of_a_wanted_signal_to_noise_ratio():
    quiet, noisy = (injected(6, image(empty=True), gain=gain) for gain in (None, 0.5))
    np.testing.assert_allclose(noisy["true_snr"], quiet["true_snr"], rtol=1e-6)
    assert (noisy["true_flux"] > 1.05 * quiet["true_flux"]).all()


def test_the_gain_is_told_once():
    """The estimator hears of it, or the noise map holds the galaxies' photons: never both."""
    told, mapped = Estimator(), Estimator()
    bright = {"prior": {"snr": {"kind": "loguniform", "low": 99, "high": 100}}, "gain": 0.1}
    injected(3, image(empty=True), estimator=told, **bright)
    in_map = injected(3, image(empty=True), gain_in_map=True, estimator=mapped, **bright)
    assert told.calls[0]["gain"] == 0.1
    assert "gain" not in mapped.calls[0]
    # the stand-in sums squares, to which the photon noise of each of the 64 x 64 pixels adds up to one; with
    # the photons left out of the map the sum would be many times as much
    added = in_map["snr"] ** 2 - in_map["true_snr"] ** 2
    error = 2 * in_map["true_snr"] + np.sqrt(2) * SIDE  # of that sum
    assert ((added > -4 * error) & (added < SIDE**2 + 4 * error)).all()


def test_a_catalogue_is_injected_in_turn():
    q, pa = np.array([0.5, 0.8]), np.array([20.0, 110.0])
    catalogue = Table({"flux": [3000.0, 5000.0], "n": [1.0, 2.0], "r_eff": [3.0, 4.0], "q": q, "pa": pa})
    table = injected(4, image(empty=True), catalogue=catalogue)
    np.testing.assert_allclose(table["true_flux"], [3000, 5000, 3000, 5000])
    np.testing.assert_allclose(axis_ratio(table["true_g1"], table["true_g2"]), np.tile(q, 2))
    np.testing.assert_allclose(position_angle(table["true_g1"], table["true_g2"]), np.tile(pa, 2))
    np.testing.assert_allclose(table["true_r_eff"].value, [3, 4, 3, 4])


def test_sizes_are_in_the_units_of_the_results_with_a_wcs():
    table = injected(4, image(empty=True, wcs=True))
    assert table["true_hlr"].unit == table["hlr"].unit == "arcsec"
    ratio = table["true_hlr"].value / 0.2 / (table["psf_fwhm"].value / 0.2)
    assert ((ratio > 0.29) & (ratio < 1.6)).all()


def test_found_galaxies_are_measured_and_the_others_blank():
    prior = {"snr": {"kind": "loguniform", "low": 2, "high": 200}}
    table = injected(40, find=True, prior=prior)
    found = table["found"]
    assert found[table["true_snr"] > 30].all()
    assert not found[table["true_snr"] < 3].any()
    assert (table["flags"][~found] == Flag.NOT_MEASURED).all()
    assert np.isnan(table["hlr"][~found]).all()
    assert np.isfinite(table["hlr"][found]).all()
    offset = np.hypot(*((table[f"{a}_centroid"] - table[f"true_{a}"]).value for a in "xy"))
    assert (offset[found] < 3).all()


def test_without_any_source_found_all_rows_are_blank():
    prior = {"snr": {"kind": "loguniform", "low": 0.5, "high": 1.0}}
    table = injected(3, image(empty=True), find=True, prior=prior)
    assert not table["found"].any()
    assert (table["flags"] == Flag.NOT_MEASURED).all()


def test_kinds_have_the_truth_that_is_said():
    kinds = {"sersic": 1, "bulge_disc": 1, "clumpy": 1, "spiral": 1}
    table = injected(24, image(empty=True), kinds=kinds)
    assert set(table["kind"]) == set(kinds)
    structured = table["kind"] != "sersic"
    assert np.isnan(table["best_hlr"][~structured]).all()
    assert np.isfinite(table["best_hlr"][structured]).all()
    assert (table["truth"][table["kind"] == "bulge_disc"] == "best fit").all()
    assert (table["truth"][table["kind"] == "clumpy"] == "smooth component").all()
    np.testing.assert_allclose(table["flux"], table["true_flux"], rtol=0.1)


def test_an_interrupted_run_goes_on(tmp_path, monkeypatch):
    monkeypatch.setattr(realisation, "BATCH_SIZE", 8)  # several chunks of few galaxies
    broken = Estimator()
    broken.fails_at = 1
    many = 16
    with pytest.raises(KeyboardInterrupt):
        with ThreadPoolExecutor(1) as pool:  # the first chunk is done when the second fails
            injected(many, estimator=broken, output=tmp_path, executor=pool)
    again = Estimator()
    resumed = injected(many, estimator=again, output=tmp_path, executor=_Now())
    whole = Estimator()
    same(resumed, injected(many, estimator=whole, executor=_Now()))
    assert len(again.calls) == len(whole.calls) - 1
    assert (tmp_path / "index.html").exists()
    finished = Estimator()
    same(injected(many, estimator=finished, output=tmp_path), QTable.read(tmp_path / "injected.ecsv"))
    assert finished.calls == []


def test_a_folder_of_another_run_is_left_alone(tmp_path):
    injected(3, output=tmp_path)
    before = (tmp_path / "injected.ecsv").read_bytes()
    with pytest.raises(InputError, match="holds an injection with another image or other options"):
        injected(3, output=tmp_path, seed=4)
    assert (tmp_path / "injected.ecsv").read_bytes() == before


class _Now:
    """An executor that works when it is asked."""

    def submit(self, function, *arguments):
        from concurrent.futures import Future

        future = Future()
        future.set_result(function(*arguments))
        return future


@pytest.mark.parametrize(
    ("keywords", "message"),
    [
        ({"n": 0}, "n=0; allowed: a whole number, at least 1"),
        ({"n": 2.5}, "n=2.5"),
        ({"seed": -1}, "seed=-1"),
        ({"kinds": "galaxy"}, "kinds={'galaxy': 1.0}; allowed: 'sersic'"),
        ({"kinds": {"sersic": -1}}, "weights >= 0"),
        ({"kinds": "real"}, "real galaxies need the arcsec per pixel"),
        ({"kinds": "real", "pixel_scale": 0.2}, "give real_galaxies="),
        ({"avoid": "stars"}, "avoid='stars'"),
        ({"find": "no"}, "find='no'; allowed: True or False"),
        ({"clearance": -1}, "clearance=-1"),
        ({"shear": 0.02}, "shear="),
        ({"shear": (0.8, 0.6)}, "shear="),
        ({"clearance": 80}, "find no free place"),
        ({"gain": -2}, "gain=-2"),
        ({"gain_in_map": True}, "gain_in_map is given without gain"),
        ({"psf": None}, "psf is missing"),
        ({"psf": "moffat"}, "psf='moffat'"),
        ({"error": "guess"}, "error='guess'"),
        ({"stamp_size": 4}, "stamp_size=4"),
        ({"stamp_size": 300}, "a smaller stamp_size"),
        ({"prior": {"n": {"kind": "uniform"}}}, "prior 'n'"),
        ({"prior": {"size": 1}}, "a prior needs"),
        ({"catalogue": Table({"flux": [1.0]})}, "catalogue has no column n"),
        ({"catalogue": Table({"flux": [1.0], "n": [1.0], "hlr": [2.0]})}, "g1 and g2, or q and pa"),
        (
            {"catalogue": Table({"snr": [9.0], "n": [9.0], "hlr": [2.0], "g1": [0.0], "g2": [0.0]})},
            "column n, row 0",
        ),
        ({"catalogue": Table(), "prior": {}}, "give one of them"),
        ({"catalogue": [1, 2]}, "an astropy Table is needed"),
        ({"workers": 0}, "workers=0"),
        ({"workers": 2, "executor": object()}, "workers and executor"),
    ],
)
def test_misuse_is_refused_before_any_work(keywords, message):
    estimator = Estimator()
    with pytest.raises(GalshapeError, match=message):
        injected(data=image(), estimator=estimator, **{"n": 4} | keywords)
    assert estimator.calls == []


def test_one_image_with_noise_is_needed():
    with pytest.raises(GalshapeError, match="noise"):
        injected(2, np.zeros(SHAPE))
    with pytest.raises(InputError, match="image holds 3 images"):
        injected(2, np.zeros((3, 200, 200)), error=1.0)


def test_noise_of_an_image_without_noise_map_is_measured():
    bare = NDData(3 * image().data)
    table = injected(6, bare, error="background")
    reference = injected(6, NDData(3 * image().data), error=3.0)
    np.testing.assert_allclose(table["true_flux"], reference["true_flux"], rtol=0.1)


def test_any_psf_draws_the_same_galaxy():
    import galsim

    sigma = 1.5
    profile = galsim.Gaussian(sigma=sigma)
    drawn = (
        galsim.Convolve(profile, galsim.Pixel(1.0))
        .drawImage(nx=25, ny=25, scale=1.0, method="no_pixel")
        .array
    )
    one, two, three = (
        injected(5, image(empty=True), psf=psf, prior={"snr": {"kind": "loguniform", "low": 99, "high": 100}})
        for psf in (profile, drawn.astype(float), lambda x, y: profile)
    )
    np.testing.assert_allclose(one["true_flux"], two["true_flux"], rtol=2e-3)
    np.testing.assert_array_equal(one["true_flux"], three["true_flux"])
    assert PSF.shape == (25, 25)


def test_every_argument_is_recorded():
    """An argument that is added has to be recorded, or to be named here with a reason."""
    not_recorded = {
        "image", "mask", "wcs", "estimator",  # data; the network by its hash
        "output", "workers", "executor", "progress", "record", "options", "measuring",
    }  # fmt: skip
    given = {"kinds": {"sersic": 2.0, "spiral": 1.0}, "clearance": 1.0, "detection": Detection(threshold=5.0)}
    given |= {"prior": {"n": {"kind": "uniform", "low": 1.0, "high": 2.0}}, "fit_sky": False}
    table = inject(image(), n=2, psf=PSF, estimator=Estimator(), record={"more": 1}, **given)
    found = table.meta["injection"]["options"]
    assert found["more"] == 1
    for name in ("kinds", "clearance", "prior", "fit_sky"):
        assert found[name] == given[name]
    assert found["detection"]["threshold"] == 5.0
    assert found["psf"].startswith("array of")
    arguments = {*inspect.signature(inject).parameters, *inspect.signature(make_job).parameters}
    asked = dict.fromkeys(arguments - not_recorded, 3)
    assert set(recorded_call(asked)) == set(asked)
    assert not set(asked) & set(_NOT_RECORDED)
