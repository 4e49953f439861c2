# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""Shapes that vary with wavelength: the truth is found, with the errors that are stated."""

from dataclasses import replace

import numpy as np
import pytest

from galshape_cnn import ShapeEstimator
from galshape_cnn.errors import InputError
from galshape_cnn.flags import Flag
from galshape_cnn.forward.galaxy_model import GalaxyModel
from galshape_cnn.forward.sersic import N_RANGE
from galshape_cnn.infer.posterior.varying_prior import SLOPES, coefficient_widths
from galshape_cnn.scale import measure_stream, read_blocks
from galshape_cnn.tests.exposure_scene import SETUP, exposure, galaxies
from galshape_cnn.tests.gradient_scene import FLUXES, SIZE_SLOPE, WAVELENGTHS, gradient_exposures, shape_in
from galshape_cnn.tests.stream_scene import assert_same

COUNT = 48
OPTIONS = {"method": "ml", "neighbours": "ignore"}


@pytest.fixture(scope="module")
def estimator():
    return ShapeEstimator()


@pytest.fixture(scope="module")
def scene():
    return gradient_exposures(COUNT)


@pytest.fixture(scope="module")
def catalog(scene, estimator):
    return estimator(scene[0], vary={"hlr": 1, "n": 1, "g": 0}, **OPTIONS)


def pulls(catalog, truth):
    table = catalog.to_table()
    for band in FLUXES:
        n, hlr = shape_in(band, hlr=truth[:, 0])
        true = {f"n_{band}": n, f"hlr_{band}": hlr, "g1": truth[:, 1], "g2": truth[:, 2]}
        for name, value in (true | {f"flux_{band}": truth[:, 3] * FLUXES[band]}).items():
            yield name, (np.asarray(table[name]) - value) / np.asarray(table[f"{name}_err"])


@pytest.mark.parametrize("count", [COUNT, pytest.param(400, marks=pytest.mark.slow)])
def test_the_truth_is_found_with_the_errors_that_are_stated(scene, catalog, estimator, count):
    """The mean of the pulls is 0 and their standard deviation 1, to four standard errors."""
    truth = scene[1]
    if count > COUNT:
        exposures, truth = gradient_exposures(count, seed=2)
        catalog = estimator(exposures, vary={"hlr": 1, "n": 1, "g": 0}, **OPTIONS)
    found = dict(pulls(catalog, truth))
    found["gradient"] = (catalog.hlr_gradient - SIZE_SLOPE * np.log(920 / 480)) / catalog.hlr_gradient_err
    for name, pull in found.items():
        assert abs(pull.mean()) < 4 / np.sqrt(count), name
        assert pull.std() == pytest.approx(1, abs=4 / np.sqrt(2 * count)), name
    assert (catalog.flags & Flag.SHAPE_VARIES == 0).all()


@pytest.fixture(scope="module")
def posteriors(scene, estimator):
    return {
        method: estimator(scene[0], vary={"hlr": 1, "n": 1}, method=method, neighbours="ignore")
        for method in ("network", "posterior")
    }


@pytest.mark.parametrize("method", ["network", "posterior"])
def test_posteriors_hold_the_truth(scene, posteriors, method):
    """These galaxies are bright: what the prior adds is small, and pulls are those of the errors."""
    found, truth = posteriors[method].to_table(), scene[1]
    for band in FLUXES:
        n, hlr = shape_in(band, hlr=truth[:, 0])
        for name, value in ((f"n_{band}", n), (f"hlr_{band}", hlr), ("g1", truth[:, 1])):
            pull = (np.asarray(found[name]) - value) / np.asarray(found[f"{name}_std"])
            assert abs(pull.mean()) < 4 / np.sqrt(COUNT), name
            assert pull.std() == pytest.approx(1, abs=4 / np.sqrt(2 * COUNT)), name
    assert posteriors[method].meta["vary_prior"] == {"n": SLOPES["n"], "hlr": SLOPES["hlr"]}
    assert (posteriors[method].flags & Flag.SHAPE_VARIES == 0).all()


def test_nested_laplace_is_the_sampled_posterior_of_what_varies(posteriors):
    fast, exact = (posteriors[method] for method in ("network", "posterior"))
    sigma = np.sqrt(np.diagonal(exact.covariance, axis1=1, axis2=2))
    apart = (fast.parameters - exact.parameters) / sigma  # 256 draws leave 0.06 to 0.1
    assert np.sqrt((apart**2).mean(0)).max() < 0.2
    ratio = np.sqrt(np.diagonal(fast.covariance, axis1=1, axis2=2)) / sigma
    assert np.median(ratio, axis=0) == pytest.approx(1, abs=0.05)
    draws = exact.samples(3)  # in the order of the columns, each band's own
    assert draws.shape[1] == exact.parameters.shape[1]
    assert np.abs((draws.mean(0) - exact.parameters[3]) / sigma[3]).max() < 0.3
    assert draws.std(0) == pytest.approx(sigma[3], rel=0.3)


def test_the_prior_of_slopes_counts_where_data_say_little(scene, estimator):
    """Of galaxies lost in noise the size in z over that in g is known as well as before."""
    rng = np.random.default_rng(7)
    faint = [
        replace(one, data=one.data[:6] + rng.normal(0, 60, one.data[:6].shape), error=np.hypot(60, one.error))
        for one in scene[0]
    ]
    before = SLOPES["hlr"] * np.log(WAVELENGTHS["z"] / WAVELENGTHS["g"])
    for method in ("network", "posterior"):
        found = estimator(faint, vary={"hlr": 1}, method=method, neighbours="ignore")
        assert np.median(found.hlr_gradient_err) == pytest.approx(before, rel=0.3)
        assert np.abs(found.hlr_gradient).max() < 2 * before


def test_widths_of_the_prior_do_not_depend_on_units_or_bands():
    def widths(wavelengths, **vary):
        bands = tuple("abcdef"[: len(wavelengths)])
        return coefficient_widths(GalaxyModel(bands, (0,), True, tuple(vary.items()), wavelengths))

    line = widths((480.0, 920.0), hlr=1)
    assert line == pytest.approx([SLOPES["hlr"] * np.log(920 / 480) / 2])
    assert widths((4800.0, 6400.0, 9200.0), hlr=1) == pytest.approx(line)
    more = widths((480.0, 640.0, 920.0), n=2, hlr=1, g=1)
    ratio = np.log(920 / 480) / 2
    assert more == pytest.approx(ratio * np.array([0.4, 0.3, 0.1, 0.1, 0.2]))


def test_one_shape_does_not_fit_them(scene, catalog, estimator):
    some = [replace(one, data=one.data[:6]) for one in scene[0]]
    one = estimator(some, **OPTIONS)
    assert (one.flags & Flag.SHAPE_VARIES > 0).all()
    assert (one.chi2 > catalog.chi2[:6]).all()
    assert_same(estimator(some, vary={"hlr": 0, "n": 0, "g": 0}, **OPTIONS).to_table(), one.to_table())
    assert (catalog.snr_g > 0).all()


def test_columns(catalog):
    names = catalog.to_table().colnames
    shape = ["flux_g", "flux_r", "flux_z", "n_g", "n_r", "n_z", "hlr_g", "hlr_r", "hlr_z", "g1", "g2"]
    assert names[3:14] == shape
    assert names[14:25] == [f"{name}_err" for name in shape]
    assert {"r_eff_g", "r_eff_z_err", "q", "pa_err"} <= set(names)
    assert not {"n", "hlr", "r_eff", "q_g", "n_1"} & set(names)
    assert catalog.parameters.shape == (COUNT, 11)
    assert catalog.crb_covariance.shape == (COUNT, 11, 11)
    assert "band z" in catalog.to_table()["hlr_z"].info.description
    assert catalog.meta["options"]["vary"] == {"n": 1, "hlr": 1}
    with pytest.raises(AttributeError, match="'hlr'; it has hlr_g, hlr_r, hlr_z"):
        catalog.hlr  # noqa: B018
    colour, error = catalog.color("g", "r")
    assert np.isfinite(colour.value).all()
    assert (error > 0).all()
    model = catalog.model(3, "z1")
    assert model.hlr.value == pytest.approx(catalog.hlr_z[3].value, rel=1e-6)


def test_rows_of_blocks_are_the_same(scene, estimator, tmp_path):
    some = [replace(one, data=one.data[:6]) for one in scene[0]]
    whole = estimator(some, vary={"hlr": 2, "g": 1}, **OPTIONS).to_table()
    measure_stream(estimator, some, tmp_path / "out", vary={"hlr": 2, "g": 1}, block_rows=4, **OPTIONS)
    assert_same(read_blocks(tmp_path / "out"), whole)


def test_on_the_sky_the_frame_does_not_matter(estimator):
    """One shape holds: what varies agrees between bands, and with that of a fit of one shape."""
    rng = np.random.default_rng(5)
    sky, truth = galaxies(rng)
    exposures = [
        replace(exposure(rng, sky, truth, one), wavelength=wavelength)
        for one, wavelength in zip(SETUP, (480.0, 640.0, 640.0), strict=True)
    ]
    one = estimator(exposures, positions=sky, **OPTIONS)
    found = estimator(exposures, positions=sky, vary={"n": 1, "hlr": 1, "g": 1}, **OPTIONS)
    assert found.hlr_g.unit == one.hlr.unit
    for name in ("n", "hlr", "g1", "g2"):
        for band in "gr":
            values, error = (np.asarray(getattr(found, f"{name}_{band}{end}")) for end in ("", "_err"))
            assert np.abs((values - truth[name]) / error).max() < 4.5
            # of two independent halves of the data the errors are larger than that of all
            assert (error > 0.95 * np.asarray(getattr(one, f"{name}_err"))).all()
    apart = (found.hlr_g - found.hlr_r) / np.hypot(found.hlr_g_err, found.hlr_r_err)
    assert np.abs(apart).max() < 4.5


def test_a_band_without_data_takes_a_coefficient(scene, estimator):
    """With two of three bands a parabola is a line; what is unknown in the third is NaN."""
    some = [replace(one, data=one.data[:5]) for one in scene[0]]
    blind = replace(some[3], mask=np.ones(some[3].data.shape, bool))
    two = estimator([*some[:3], blind], vary={"hlr": 2, "n": 1}, **OPTIONS)
    assert np.isnan(two.hlr_z).all()
    assert np.isnan(two.hlr_z_err).all()
    assert (two.flags & Flag.BAND_MISSING > 0).all()
    line = estimator(some[:3], vary={"hlr": 1, "n": 1}, **OPTIONS)
    for name in ("hlr_g", "hlr_r", "n_g", "hlr_g_err", "flux_r"):
        first, second = (np.asarray(getattr(one, name)) for one in (two, line))
        np.testing.assert_allclose(first, second, rtol=0.01, err_msg=name)
    one = estimator([blind, *some[:1]], vary={"hlr": 1}, **OPTIONS)
    assert np.isfinite(one.hlr_g_err).all()
    for method in ("network", "posterior"):
        one, alone = (
            estimator(images, vary=vary, method=method, neighbours="ignore")
            for images, vary in (([blind, *some[:1]], {"hlr": 1}), ([*some[:1], *some[:1]], None))
        )
        assert np.isnan(one.hlr_z_std).all()
        assert np.isfinite(one.hlr_g_std).all()
        # the same pixels twice have errors smaller by a root of two
        ratio = np.asarray(one.hlr_g_std) / np.asarray(alone.hlr_std)
        assert np.median(ratio) == pytest.approx(np.sqrt(2), rel=0.15)


def test_an_index_at_its_limit_is_flagged_and_has_an_error(estimator):
    """A line in ln(wavelength) takes n beyond its range in z; an error of zero would say that it is known."""
    exposures, _ = gradient_exposures(4, n=5.6)
    found = estimator(exposures, vary={"n": 1}, **OPTIONS)
    high = np.asarray(found.n_z) >= N_RANGE[1]
    assert high.any()
    assert (found.flags[high] & Flag.N_AT_BOUND > 0).all()
    assert (found.n_z_err > 0).all()


@pytest.mark.parametrize(
    ("vary", "change", "message"),
    [
        ({"size": 1}, {}, "vary={'size': ...}; allowed: 'n', 'hlr', 'g'"),
        ({"hlr": -1}, {}, r"vary\['hlr'\]"),
        ({"hlr": 0.5}, {}, r"vary\['hlr'\]"),
        (["hlr"], {}, "allowed: a mapping"),
        ({"hlr": 3}, {}, "vary={'hlr': 3} with 3 wavelengths"),
        ({"hlr": 1}, {"wavelength": None}, "exposure 'r2' of band 'r' has no wavelength"),
        ({"hlr": 1}, {"wavelength": 700}, "exposure 'r2' of band 'r' has wavelength 700"),
    ],
)
def test_what_cannot_be_is_refused(scene, estimator, vary, change, message):
    exposures = list(scene[0])
    exposures[2] = replace(exposures[2], **change)
    with pytest.raises(InputError, match=message):
        estimator(exposures, vary=vary, **OPTIONS)


def test_single_images_are_refused(scene, estimator):
    with pytest.raises(InputError, match="vary= is given, but data is no list of Exposures"):
        estimator(scene[0][0].data, psf=scene[0][0].psf, error=1.0, vary={"hlr": 1}, **OPTIONS)
    assert WAVELENGTHS["g"] == scene[0][0].wavelength
