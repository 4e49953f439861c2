# Licensed under a 3-clause BSD style license - see LICENSE.rst
import pickle
from concurrent.futures import ThreadPoolExecutor
from functools import partial

import galsim
import numpy as np
import pytest
from astropy.modeling.fitting import TRFLSQFitter
from astropy.nddata import NDData, StdDevUncertainty

from galshape_cnn import ShapeEstimator, Stamps, cramer_rao_bound
from galshape_cnn.errors import GalshapeWarning, InputError
from galshape_cnn.flags import Flag
from galshape_cnn.forward.kernel.library import call, instructions
from galshape_cnn.infer.measure.pipeline import measured_together

PSF = galsim.Moffat(2.5, fwhm=3.0)
TRUTH = np.array(
    [
        [4000.0, 1.0, 3.0, 0.2, -0.1],
        [9000.0, 2.0, 4.0, -0.3, 0.1],
        [3000.0, 0.7, 2.0, 0.0, 0.3],
        [6000.0, 3.0, 2.5, 0.1, 0.1],
    ]
)


@pytest.fixture(scope="module")
def psf():
    return galsim.Convolve(PSF, galsim.Pixel(1)).drawImage(nx=41, ny=41, scale=1, method="no_pixel").array


@pytest.fixture(scope="module")
def images():
    rng = np.random.default_rng(1)
    stamps = []
    for flux, n, hlr, g1, g2 in TRUTH:
        galaxy = galsim.Sersic(n, half_light_radius=hlr, flux=flux).shear(g1=g1, g2=g2)
        stamps.append(galsim.Convolve(galaxy, PSF).drawImage(nx=64, ny=64, scale=1).array)
    return np.array(stamps) + rng.normal(size=(len(TRUTH), 64, 64))


@pytest.fixture(scope="module")
def estimator():
    return ShapeEstimator()


@pytest.fixture(scope="module")
def catalogs(estimator, images, psf):
    methods = ("network", "ml", "posterior")
    return {method: estimator(images, psf=psf, error=1.0, method=method) for method in methods}


@pytest.mark.parametrize("method", ["ml", "posterior"])
def test_estimates_lie_within_their_errors(catalogs, method):
    catalog = catalogs[method]
    sigma = np.sqrt(np.diagonal(catalog.crb_covariance, axis1=1, axis2=2))
    assert (np.abs(catalog.parameters - TRUTH) < 5 * sigma).all()
    assert (catalog.flags == 0).all()
    np.testing.assert_allclose(catalog.chi2, 1, atol=0.15)


def test_bound_is_the_stand_alone_one(catalogs, psf):
    catalog = catalogs["ml"]
    flux, n, hlr, g1, g2 = catalog.parameters[0]
    center = (float(catalog.x_centroid[0].value), float(catalog.y_centroid[0].value))
    alone = cramer_rao_bound((flux, n, hlr, g1, g2), psf, 1.0, center=center)
    sigma = np.sqrt(np.diagonal(catalog.crb_covariance[0]))
    np.testing.assert_allclose(sigma, np.sqrt(np.diagonal(alone.covariance)), rtol=0.01)


def test_models_continue_in_a_fitter_of_astropy(catalogs, images):
    """From the network's answer, least squares ends at the maximum that "ml" finds."""
    y, x = np.mgrid[:64, :64]
    for row, image in enumerate(images):
        start, best = catalogs["network"].model(row), catalogs["ml"]
        sigma = np.sqrt(np.diagonal(best.crb_covariance[row]))
        fitted = TRFLSQFitter()(start, x, y, image, weights=np.full(image.shape, 1 / 1.0))
        assert (np.abs(fitted.parameters[:5] - best.parameters[row]) < 0.02 * sigma).all()
        assert (np.abs(start.parameters[:5] - best.parameters[row]) > 0.05 * sigma).any()  # it had to move


def test_methods_fill_what_the_contract_says(catalogs):
    assert np.isnan(catalogs["ml"].flux_std).all()
    assert np.isfinite(catalogs["network"].flux_std).all()
    assert "ess" not in catalogs["network"].to_table().colnames
    assert (catalogs["posterior"].ess > 10).all()
    assert catalogs["posterior"].samples(0).shape[1] == 5


def rows(catalog):
    return np.column_stack([catalog.parameters, np.diagonal(catalog.crb_covariance, axis1=1, axis2=2)])


def test_order_and_size_of_the_batch_do_not_matter(estimator, images, psf, catalogs):
    order = [2, 0, 3, 1]
    turned = estimator(images[order], psf=psf, error=1.0, method="ml")
    np.testing.assert_allclose(rows(turned), rows(catalogs["ml"])[order], rtol=2e-3, atol=1e-6)
    alone = estimator(images[1:2], psf=psf, error=1.0, method="ml")
    np.testing.assert_allclose(rows(alone), rows(catalogs["ml"])[1:2], rtol=2e-3, atol=1e-6)


@pytest.fixture(scope="module")
def many(images):
    """Eighty galaxies, of which some take a long search."""
    rng = np.random.default_rng(5)
    faint = np.repeat([1.0, 0.02], [60, 20])[:, None, None]
    return faint * np.resize(images, (80, 64, 64)) + rng.normal(size=(80, 64, 64))


@pytest.mark.parametrize("method", ["network", "ml"])
def test_company_does_not_matter_to_the_last_bit(estimator, many, psf, method):
    run = partial(estimator, psf=psf, error=1.0, method=method)
    whole = run(many, threads=1)
    for catalog, part in ((run(many, threads=2), slice(80)), (run(many[55:80]), slice(55, 80))):
        for name in ("params", "crb", "chi2", "flags"):
            expected = getattr(whole.measurement, name)[part]
            np.testing.assert_array_equal(getattr(catalog.measurement, name), expected, err_msg=name)


@pytest.mark.skipif(not instructions(), reason="the kernel was not built")
@pytest.mark.parametrize("neighbours", ["mask", "fit"])
def test_transfer_functions_are_computed_once(estimator, images, psf, monkeypatch, neighbours):
    """Network, fit, sandwich, residuals and model images take those of the batch."""
    computed = []

    def counted(name, *arguments):
        computed.extend([name] * (name == "transfer"))
        return call(name, *arguments)

    monkeypatch.setattr("galshape_cnn.forward.kernel.calls.call", counted)
    crowded = images + 0.5 * np.roll(images, 14, 2)
    catalog = estimator(crowded, psf=psf, error=1.0, method="ml", neighbours=neighbours, threads=1)
    assert np.isfinite(catalog.flux_err).all()
    assert len(computed) == 1


@pytest.mark.parametrize(
    ("method", "side", "count", "threads", "size"),
    [
        ("network", 64, 999, 2, 250),
        ("network", 64, 9, 2, 16),
        ("ml", 64, 9999, 2, 500),
        ("ml", 64, 300, 2, 150),
        ("ml", 256, 999, 1, 63),
    ],
)
def test_galaxies_that_are_measured_together(method, side, count, threads, size):
    assert measured_together(method, side, count, threads) == size


def test_nddata_equals_arrays(estimator, images, psf, catalogs):
    noise = StdDevUncertainty(np.ones((64, 64)))
    cutouts = [NDData(image, uncertainty=noise, psf=psf) for image in images]
    np.testing.assert_array_equal(rows(estimator(cutouts)), rows(catalogs["network"]))


def test_unit_of_flux_does_not_matter(estimator, images, psf, catalogs):
    scaled = estimator(images * 1024, psf=psf, error=1024.0)
    expected = rows(catalogs["network"]) * np.array([1024, 1, 1, 1, 1, 1024**2, 1, 1, 1, 1])
    np.testing.assert_allclose(rows(scaled), expected, rtol=1e-5)


def test_quarter_turn_turns_the_shear(estimator, images, psf, catalogs):
    turned = estimator(np.rot90(images, axes=(1, 2)), psf=psf, error=1.0, method="ml")
    expected = catalogs["ml"].parameters * [1, 1, 1, -1, -1]
    sigma = np.sqrt(np.diagonal(catalogs["ml"].crb_covariance, axis1=1, axis2=2))
    assert (np.abs(turned.parameters - expected) < 0.05 * sigma).all()


def test_pickled_estimator_gives_the_same(estimator, images, psf, catalogs):
    again = pickle.loads(pickle.dumps(estimator))
    np.testing.assert_array_equal(rows(again(images, psf=psf, error=1.0)), rows(catalogs["network"]))


def test_threads_share_one_estimator(images, psf, catalogs):
    estimator = ShapeEstimator()
    with ThreadPoolExecutor(4) as pool:
        results = list(pool.map(lambda _: rows(estimator(images, psf=psf, error=1.0)), range(8)))
    for result in results:
        np.testing.assert_array_equal(result, rows(catalogs["network"]))


def test_galaxy_without_data_is_a_flagged_row(estimator, images, psf):
    mask = np.zeros(images.shape, bool)
    mask[1] = True
    with pytest.warns(GalshapeWarning, match="1 of 4 galaxies could not be measured"):
        catalog = estimator(images, psf=psf, error=1.0, mask=mask)
    assert catalog.flags[1] & Flag.NO_DATA
    assert catalog.flags[1] & Flag.NOT_MEASURED
    assert np.isnan(catalog.flux[1])
    assert np.isfinite(catalog.flux[[0, 2, 3]]).all()


def test_stamps_are_measured_as_they_are(estimator, images, psf, catalogs):
    stamps = Stamps(images, np.ones(images.shape), psf / psf.sum())
    found = estimator(stamps, method="ml")
    sigma = np.sqrt(np.diagonal(catalogs["ml"].crb_covariance, axis1=1, axis2=2))
    assert (np.abs(found.parameters - catalogs["ml"].parameters) < 0.1 * sigma).all()


def test_large_galaxy_in_a_large_cutout(estimator):
    galaxy = galsim.Convolve(galsim.Sersic(1.0, half_light_radius=20, flux=1e6).shear(g1=0.2, g2=0), PSF)
    image = galaxy.drawImage(nx=192, ny=192, scale=1).array + np.random.default_rng(2).normal(size=(192, 192))
    catalog = estimator(image, psf=PSF, error=1.0, method="ml")
    assert abs(catalog.hlr[0].value - 20) < 5 * catalog.hlr_err[0].value
    assert not catalog.flags[0] & Flag.SIZE_OUT_OF_DOMAIN  # the likelihood has no training
    assert catalog.quality[0] == 0
    assert estimator(image, psf=PSF, error=1.0).flags[0] & Flag.SIZE_OUT_OF_DOMAIN


def test_source_noise_widens_the_bound(estimator, images, psf, catalogs):
    noisy = estimator(images, psf=psf, error=1.0, gain=0.5, method="ml")
    assert (noisy.flux_err > 1.05 * catalogs["ml"].flux_err).all()


@pytest.mark.parametrize(
    ("keywords", "message"),
    [
        ({"method": "magic"}, "method='magic'; allowed: 'network', 'ml', 'posterior'"),
        ({"gain": -1}, "gain=-1; allowed: a positive number"),
        ({"prior": {"n": 1}}, "a prior needs"),
    ],
)
def test_misuse_is_refused(estimator, images, psf, keywords, message):
    with pytest.raises(InputError, match=message):
        estimator(images, psf=psf, error=1.0, **keywords)


def test_bundle_must_be_a_bundle():
    with pytest.raises(InputError, match="use ShapeEstimator.load"):
        ShapeEstimator("universal.asdf")


def test_is_not_changed():
    estimator = ShapeEstimator()
    for name in ("bundle", "_bundle", "load", "anything"):
        with pytest.raises(AttributeError, match=f"{name} cannot be set"):
            setattr(estimator, name, None)


@pytest.mark.parametrize("name", ["fit_sky", "progress", "strict", "shear_response"])
def test_words_are_no_truth_values(name):
    with pytest.raises(InputError, match=f"{name}='no'; allowed: True or False"):
        ShapeEstimator()(np.zeros((64, 64)), psf=np.ones((3, 3)), error=1.0, **{name: "no"})
