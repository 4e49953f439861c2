# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""The galaxy as an astropy model."""

import pickle

import astropy.units as u
import galsim
import numpy as np
import pytest
from astropy.modeling.fitting import LMLSQFitter, TRFLSQFitter
from astropy.utils.exceptions import AstropyDeprecationWarning

from galshape_cnn import PSFConvolvedSersic2D
from galshape_cnn.errors import InputError, PSFError
from galshape_cnn.tests import galsim_truth as truth

PSF = truth.PSFS["moffat"]
TRUTH = {"flux": 500.0, "n": 2.0, "hlr": 2.5, "g1": 0.2, "g2": -0.1, "x_0": 15.3, "y_0": 14.8, "sky": 1.0}
Y, X = np.mgrid[:32, :32]


@pytest.fixture(scope="module")
def model():
    """One model for all tests: none may change it."""
    return PSFConvolvedSersic2D(**TRUTH, psf=PSF)


def test_parameters_are_the_contract(model):
    assert model.param_names == ("flux", "n", "hlr", "g1", "g2", "x_0", "y_0", "sky")
    assert model.bounds["n"] == (0.3, 6.2)
    assert model.bounds["hlr"][0] > 0


def test_pixels_are_those_of_galsim(model):
    expected = truth.draw([*TRUTH.values()], PSF, 32)
    assert np.abs(model(X, Y) - expected).max() < 1e-3 * expected.max()


def test_any_piece_of_the_pixel_grid(model):
    # The size of the grid changes what folds back into it, at the level of 1e-4 of the peak.
    whole = model(X, Y)
    close = 2e-4 * whole.max()
    order = np.random.default_rng(1).permutation(X.size)[:100]
    np.testing.assert_allclose(model(X[5:28, 3:30], Y[5:28, 3:30]), whole[5:28, 3:30], atol=close)
    np.testing.assert_allclose(model(X.ravel()[order], Y.ravel()[order]), whole.ravel()[order], atol=close)
    assert model(15, 14) == pytest.approx(whole[14, 15], abs=2e-3 * whole.max())


def test_pixel_grid_may_start_anywhere(model):
    moved = model.copy()
    moved.x_0, moved.y_0 = TRUTH["x_0"] + 100.25, TRUTH["y_0"] - 7.5
    np.testing.assert_allclose(moved(X + 100.25, Y - 7.5), model(X, Y), rtol=1e-9)


def test_derivatives(model):
    found = model.fit_deriv(X, Y, *model.parameters)
    assert len(found) == 8
    for name, derivative in zip(model.param_names, found, strict=True):
        step = 1e-4
        up, down = ({**TRUTH, name: TRUTH[name] + sign * step}.values() for sign in (1, -1))
        numeric = (model.evaluate(X, Y, *up) - model.evaluate(X, Y, *down)) / (2 * step)
        assert derivative.shape == X.shape
        np.testing.assert_allclose(derivative, numeric, atol=1e-4 * np.abs(numeric).max(), err_msg=name)


def test_copies_share_the_psf(model):
    other = model.copy()
    assert np.shares_memory(other.psf, model.psf)
    other.flux = 1
    assert model.flux == 500
    with pytest.raises(ValueError, match="read-only"):
        other.psf[0, 0] = 1


def test_pickle(model):
    model(X, Y)  # fills the cache, which is not pickled
    text = pickle.dumps(model)
    assert len(text) < 1.2 * model.psf.nbytes + 20_000
    np.testing.assert_array_equal(pickle.loads(text)(X, Y), model(X, Y))


def test_units(model):
    with_units = PSFConvolvedSersic2D(**{**TRUTH, "flux": 500 * u.nJy, "sky": 1 * u.nJy}, psf=PSF)
    image = with_units(X, Y)
    assert image.unit == u.nJy
    np.testing.assert_allclose(image.value, model(X, Y), rtol=1e-9)
    assert PSFConvolvedSersic2D(flux=1 * u.nJy, psf=PSF).sky.unit == u.nJy
    start = with_units.copy()
    start.flux = 400 * u.nJy
    fitted = TRFLSQFitter()(start, X, Y, image.to(u.uJy), weights=np.ones(X.shape))
    assert fitted.flux.quantity.to_value(u.nJy) == pytest.approx(500, rel=1e-4)


def test_lengths_in_pixels():
    pixel = {name: TRUTH[name] * u.pix for name in ("hlr", "x_0", "y_0")}
    found = PSFConvolvedSersic2D(**{**TRUTH, **pixel}, psf=PSF)(X * u.pix, Y * u.pix)
    np.testing.assert_allclose(found, PSFConvolvedSersic2D(**TRUTH, psf=PSF)(X, Y), rtol=1e-9)


@pytest.mark.parametrize("fitter", [TRFLSQFitter, LMLSQFitter])
@pytest.mark.filterwarnings(f"ignore::{AstropyDeprecationWarning.__module__}.AstropyDeprecationWarning")
def test_fitters_find_the_truth(model, fitter):
    start = model.copy()
    start.parameters = [400, 1, 2, 0, 0, 16, 15, 0]
    fitted = fitter(calc_uncertainties=True)(start, X, Y, model(X, Y), weights=np.ones(X.shape))
    np.testing.assert_allclose(fitted.parameters, model.parameters, rtol=1e-3, atol=1e-3)
    assert len(fitted.stds.stds) == 8


@pytest.mark.parametrize(
    ("wild", "valid"),
    [({"n": 9.0}, {"n": 6.2}), ({"n": -1}, {"n": 0.3}), ({"hlr": -2}, {"hlr": 1e-3}),
     ({"g1": 3.0, "g2": 4.0}, {"g1": 0.594, "g2": 0.792})],
)  # fmt: skip
def test_fitters_may_step_out_of_range(model, wild, valid):
    found = model.evaluate(X, Y, *{**TRUTH, **wild}.values())
    np.testing.assert_allclose(found, model.evaluate(X, Y, *{**TRUTH, **valid}.values()), atol=1e-9)
    assert np.isfinite(found).all()
    outside = model.copy()
    for name, value in wild.items():
        setattr(outside, name, value)
    with pytest.raises(InputError, match="allowed"):
        outside(X, Y)


def test_nan_gives_nan_and_does_not_raise():
    lost = PSFConvolvedSersic2D(*[np.nan] * 8, psf=PSF)
    assert np.isnan(lost(X, Y)).all()


@pytest.mark.parametrize(
    ("x", "y", "message"),
    [
        (X * 0.5, Y, "whole pixels apart"),
        (X + np.nan, Y, "finite"),
        (X[:0], Y[:0], "at least one"),
        (X * 100, Y, "up to 2048"),
    ],
)
def test_coordinates_that_cannot_be_used(model, x, y, message):
    with pytest.raises(InputError, match=message):
        model(x, y)


def test_misuse():
    with pytest.raises(PSFError, match="psf is missing"):
        PSFConvolvedSersic2D(1, 1, 1)
    with pytest.raises(InputError, match=r"flux has shape \(2,\); one galaxy per model"):
        PSFConvolvedSersic2D([1, 2], 1, 1, psf=PSF)
    with pytest.raises(PSFError, match="even-sized"):
        PSFConvolvedSersic2D(1, 1, 1, psf=np.ones((4, 4)))


def test_psf_forms_agree():
    array = truth.sampled_psf(galsim.Gaussian(fwhm=3.5))
    drawn = PSFConvolvedSersic2D(**TRUTH, psf=galsim.Gaussian(fwhm=3.5))(X, Y)
    sampled = PSFConvolvedSersic2D(**TRUTH, psf=array)(X, Y)
    sky = PSFConvolvedSersic2D(**TRUTH, psf=galsim.Gaussian(fwhm=0.7), jacobian=np.eye(2) * 0.2)(X, Y)
    np.testing.assert_allclose(sampled, drawn, atol=1e-3 * drawn.max())
    np.testing.assert_allclose(sky, drawn, atol=1e-3 * drawn.max())


@pytest.mark.parametrize(
    ("x", "message"),
    [
        ([0.0, 5000.0], "x and y span 5001x1 pixels; allowed: up to 2048; evaluate the model on"),
        ([np.nan, 1.0], "x and y must hold finite pixel coordinates"),
        ([0.0, 0.5], "some are off by 0.5 pixels"),
    ],
)
def test_coordinates_that_are_no_piece_of_a_grid(model, x, message):
    with pytest.raises(InputError, match=message):
        model(np.array(x), np.zeros(2))
