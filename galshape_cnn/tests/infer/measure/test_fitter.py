# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""The estimator behind astropy's interface for fitters."""

import astropy.units as u
import numpy as np
import pytest
from astropy.modeling.fitting import UnsupportedConstraintError
from astropy.modeling.models import Gaussian2D

from galshape_cnn import CNNFitter, PSFConvolvedSersic2D
from galshape_cnn.errors import GalshapeWarning, InputError, NoiseError
from galshape_cnn.flags import Flag
from galshape_cnn.infer.catalog.catalog import ShapeCatalog
from galshape_cnn.infer.catalog.measurement import Measurement
from galshape_cnn.observe.observation import prepare

PSF = np.exp(-np.sum(np.mgrid[-5:6, -5:6] ** 2, axis=0) / 4.0)
Y, X = np.mgrid[10:42, 20:60].astype(float)
ANSWER = np.array([900.0, 2.5, 3.1, 0.12, -0.2, 18.9, 16.2, 0.7])
COVARIANCE = np.diag([4.0, 0.25, 0.04, 0.01, 0.01])


class FakeEstimator:
    """Remembers the stamps it was given and always returns the same answer."""

    def __init__(self, flags=0):
        self.flags, self.calls = flags, []

    def __call__(self, stamps, **options):
        self.calls.append((stamps, options))
        one = np.ones(1)
        params = ANSWER[None] if not self.flags else np.full((1, 8), np.nan)
        raw = Measurement(params, COVARIANCE[None], 4 * COVARIANCE[None], 40 * one, one, one, [self.flags])
        return ShapeCatalog.from_measurements(prepare(stamps), [raw], method=options["method"], meta={})


def start(**kwargs):
    return PSFConvolvedSersic2D(1, 1, 1, 0, 0, x_0=39, y_0=26, psf=PSF, **kwargs)


def data():
    return np.random.default_rng(3).normal(10, 1, X.shape)


def test_returns_a_fitted_copy_in_the_frame_of_x_and_y():
    model, fake = start(), FakeEstimator()
    before = model.parameters.copy()
    fitted = CNNFitter(fake)(model, X, Y, data(), weights=np.full(X.shape, 0.5))
    assert fitted is not model
    np.testing.assert_array_equal(model.parameters, before)
    np.testing.assert_allclose(fitted.parameters, ANSWER + [0, 0, 0, 0, 0, 20, 10, 0])
    assert fitted.meta["flags"] == 0
    assert fitted.meta["snr"] == 40


def test_the_stamp_holds_data_noise_psf_and_centre():
    fake, z = FakeEstimator(), data()
    CNNFitter(fake)(start(), X, Y, z, weights=np.full(X.shape, 0.5))
    stamps, options = fake.calls[0]
    np.testing.assert_allclose(stamps.data[0], z, rtol=1e-6)
    np.testing.assert_allclose(stamps.ivar, 0.25)
    np.testing.assert_allclose(stamps.psf[0], PSF / PSF.sum())
    np.testing.assert_allclose(stamps.center, [[19, 16]])
    assert options == {"method": "network", "fit_sky": True}


@pytest.mark.parametrize(("method", "factor"), [("network", 1), ("posterior", 1), ("ml", 4)])
def test_uncertainties_as_astropy_gives_them(method, factor):
    fitted = CNNFitter(FakeEstimator(), method=method)(start(), X, Y, data(), weights=np.ones(X.shape))
    assert fitted.stds["hlr"] == pytest.approx(0.2 * np.sqrt(factor))
    assert fitted.cov_matrix["n", "n"] == pytest.approx(0.25 * factor)
    assert fitted.hlr.std == fitted.stds["hlr"]
    assert fitted.stds.param_names == list(fitted.param_names)
    assert np.isnan(fitted.stds["x_0"])
    assert "x_0 | nan" in str(fitted.stds)


def test_pixels_in_any_order_and_some_missing():
    fake, z = FakeEstimator(), data()
    order = np.random.default_rng(1).permutation(X.size)[:-7]
    z[0, 5] = np.nan
    CNNFitter(fake)(start(), X.ravel()[order], Y.ravel()[order], z.ravel()[order], weights=1.0)
    stamps, _ = fake.calls[0]
    assert stamps.data.shape == (1, 32, 40)
    used = stamps.ivar[0] > 0
    assert X.size - 8 <= used.sum() <= X.size - 7
    np.testing.assert_allclose(stamps.data[0][used], z[used], rtol=1e-6)


def test_fixed_sky_is_subtracted():
    fake, z = FakeEstimator(), data()
    fitted = CNNFitter(fake)(start(sky=10.0, fixed={"sky": True}), X, Y, z, weights=np.ones(X.shape))
    stamps, options = fake.calls[0]
    np.testing.assert_allclose(stamps.data[0], z - 10, rtol=1e-4, atol=1e-5)
    assert options["fit_sky"] is False
    assert fitted.sky == 10


def test_units_come_back():
    model = PSFConvolvedSersic2D(1 * u.nJy, 1, 1, x_0=39, y_0=26, psf=PSF)
    fake = FakeEstimator()
    fitted = CNNFitter(fake)(model, X, Y, data() * u.nJy, weights=np.ones(X.shape) * 1000 / u.uJy)
    assert fitted.flux.quantity == 900 * u.nJy
    assert fitted.sky.unit == u.nJy
    np.testing.assert_allclose(fake.calls[0][0].ivar, 1.0)


def test_failure_warns_and_is_flagged():
    with pytest.warns(GalshapeWarning, match="not fitted: NOT_MEASURED"):
        fitted = CNNFitter(FakeEstimator(Flag.NOT_MEASURED))(start(), X, Y, data(), weights=np.ones(X.shape))
    assert np.isnan(fitted.parameters).all()
    assert fitted.meta["flag_names"] == ["NOT_MEASURED"]


@pytest.mark.parametrize(
    ("constraint", "message"),
    [
        ({"fixed": {"n": True}}, "cannot fix parameters but sky: n"),
        ({"tied": {"g2": lambda model: model.g1}}, "cannot tie parameters: g2"),
        ({"bounds": {"n": (0.5, 4)}}, "bounds on n"),
        ({"bounds": {"flux": (0, None)}}, "bounds on flux"),
    ],
)
def test_constraints_that_cannot_be_honoured(constraint, message):
    with pytest.raises(UnsupportedConstraintError, match=message):
        CNNFitter(FakeEstimator())(start(**constraint), X, Y, data(), weights=np.ones(X.shape))


@pytest.mark.parametrize(
    ("weights", "message"),
    [
        (None, "weights is missing; give 1/sigma"),
        (-np.ones(X.shape), "values <= 0"),
        (np.zeros(X.shape), "masked in every pixel"),
        (np.ones(5), r"weights has shape \(5,\)"),
    ],
)
def test_bad_weights(weights, message):
    with pytest.raises(NoiseError, match=message):
        CNNFitter(FakeEstimator())(start(), X, Y, data(), weights=weights)


def test_misuse():
    with pytest.raises(InputError, match="model is a Gaussian2D; allowed: PSFConvolvedSersic2D"):
        CNNFitter(FakeEstimator())(Gaussian2D(), X, Y, data(), weights=1.0)
    with pytest.raises(InputError, match="method='mcmc'; allowed"):
        CNNFitter(method="mcmc")
    with pytest.raises(InputError, match="z has shape"):
        CNNFitter(FakeEstimator())(start(), X, Y, data()[1:], weights=1.0)
    with pytest.raises(InputError, match="whole pixels apart"):
        CNNFitter(FakeEstimator())(start(), X * 1.1, Y, data(), weights=1.0)
