# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""Measurements in physical units: results follow the unit of the pixels and nothing else does."""

import astropy.units as u
import numpy as np
import pytest
from astropy.io import fits
from astropy.nddata import InverseVariance, NDData, StdDevUncertainty
from astropy.table import QTable

from galshape_cnn import PSFConvolvedSersic2D, ShapeEstimator
from galshape_cnn.cli import main
from galshape_cnn.observe.observation import prepare

UNIT = u.erg / u.s / u.cm**2 / u.AA
EXACT = ("n", "hlr", "g1", "g2", "x_centroid", "y_centroid", "n_err", "hlr_err", "snr", "chi2", "flags")


@pytest.fixture(scope="module")
def psf():
    y, x = np.mgrid[-10:11, -10:11]
    psf = np.exp(-(x**2 + y**2) / (2 * 1.4**2))
    return psf / psf.sum()


@pytest.fixture(scope="module")
def image(psf):
    model = PSFConvolvedSersic2D(2000, 1.3, 3.5, 0.2, -0.1, 31.2, 31.7, psf=psf)
    y, x = np.mgrid[:64, :64]
    return model(x, y) + np.random.default_rng(5).normal(size=(64, 64))


@pytest.fixture(scope="module")
def estimator():
    return ShapeEstimator()


@pytest.fixture(scope="module", params=["network", "ml"])
def reference(request, estimator, image, psf):
    return estimator(image, psf=psf, error=1.0, gain=3.0, method=request.param)


def measured(estimator, reference, image, psf, scale):
    return estimator(image * scale, psf=psf, error=scale, gain=3.0 / scale, method=reference.method)


@pytest.mark.parametrize("power", [-83, -20, 1, 66])
def test_powers_of_two_are_exact(estimator, reference, image, psf, power):
    scale = 2.0**power
    catalog = measured(estimator, reference, image, psf, scale)
    for name in EXACT:
        np.testing.assert_array_equal(getattr(catalog, name), getattr(reference, name), err_msg=name)
    assert catalog.flux[0] == reference.flux[0] * scale
    np.testing.assert_allclose(catalog.flux_err, reference.flux_err * scale, rtol=1e-14)


@pytest.mark.parametrize("scale", [1e-25, 1e-20, 1e-10, 1e10, 1e20])
def test_any_unit(estimator, reference, image, psf, scale):
    catalog = measured(estimator, reference, image, psf, scale)
    bound = 0.01  # of the Cramer-Rao bound: pixels round differently
    for name in ("n", "g1", "g2"):
        change = getattr(catalog, name) - getattr(reference, name)
        assert abs(change[0]) < bound * getattr(reference, name + "_err")[0]
    assert catalog.flux[0] / scale == pytest.approx(reference.flux[0], abs=bound * reference.flux_err[0])
    assert catalog.flux_err[0] / scale == pytest.approx(reference.flux_err[0], rel=1e-3)
    assert catalog.flags[0] == reference.flags[0]


@pytest.mark.parametrize("scale", [1e-25, 1e-20, 1e20])
def test_catalogue_model_and_picture(estimator, image, psf, scale):
    error = StdDevUncertainty(np.full(image.shape, scale))
    data = NDData(image * scale, uncertainty=error, unit=UNIT)
    catalog = estimator(data, psf=psf, method="ml")
    assert catalog.flux.unit == UNIT
    assert catalog.flux[0].value == pytest.approx(2000 * scale, rel=0.1)
    y, x = np.mgrid[:64, :64]
    residual = image - catalog.model(0)(x, y) / scale
    assert residual.std() == pytest.approx(1, abs=0.05)
    axes = catalog.plot(0)
    shown = np.asarray(axes[2].images[0].get_array())
    np.testing.assert_allclose(shown, residual, atol=0.02)
    axes[0].figure.canvas.draw()


def test_posterior(estimator, image, psf):
    one, other = (
        estimator(image * scale, psf=psf, error=scale, method="posterior") for scale in (1.0, 2.0**-70)
    )
    np.testing.assert_allclose(one.n, other.n, rtol=1e-12)  # the flux is taken out by a logarithm
    np.testing.assert_allclose(one.flux_std * 2.0**-70, other.flux_std)
    np.testing.assert_allclose(one.samples(0)[:, 0] * 2.0**-70, other.samples(0)[:, 0])


def test_prior_on_flux_is_in_the_unit_of_the_data(estimator, image, psf):
    prior = {
        "n": {"kind": "uniform", "low": 0.5, "high": 6.0},
        "hlr": {"kind": "loguniform", "low": 0.5, "high": 12.0},
        "g": {"kind": "rayleigh", "sigma": 0.3, "low": 0.0, "high": 0.7},
        "flux": {"kind": "uniform", "low": 1800e-20, "high": 1900e-20},
    }
    catalog = estimator(image * 1e-20, psf=psf, error=1e-20, method="posterior", prior=prior)
    draws = catalog.samples(0)[:, 0]
    assert (draws >= 1800e-20).all()
    assert (draws <= 1900e-20).all()


def test_stamps_keep_the_numbers_they_were_given(image, psf):
    observation = prepare(image * 1e-20, psf=psf, error=1e-21)
    ((_, stamps),) = observation.groups
    assert stamps.ivar[0, 5, 5] == pytest.approx(1e42)
    np.testing.assert_allclose(stamps.data[0], image * 1e-20, rtol=1e-6, atol=1e-26)
    ((_, plain),) = prepare(image, psf=psf, error=1.0).groups
    assert plain.data.dtype == np.float32


def test_recentring_does_not_depend_on_the_unit(image, psf):
    centers = [prepare(image * s, psf=psf, error=s).groups[0][1].center for s in (1.0, 1e-20, 1e20)]
    np.testing.assert_allclose(centers[1:], [centers[0]] * 2, atol=1e-4)


def test_inverse_variance_in_the_wildest_unit(estimator, image, psf):
    weight = InverseVariance(np.full(image.shape, 1e50))
    catalog = estimator(NDData(image * 1e-25, uncertainty=weight), psf=psf, method="ml")
    assert catalog.flux[0] == pytest.approx(2000e-25, rel=0.1)


def test_command_line(image, psf, tmp_path, capsys):
    hdus = [fits.PrimaryHDU(), fits.ImageHDU((image * 1e-20).astype("f4"), name="SCI")]
    hdus[1].header["BUNIT"] = "erg / (s cm2 Angstrom)"
    hdus += [fits.ImageHDU(np.full(image.shape, 1e-20, "f4"), name="ERR"), fits.ImageHDU(psf, name="PSF")]
    fits.HDUList(hdus).writeto(tmp_path / "one.fits")
    out = tmp_path / "one.ecsv"
    assert main(["measure", str(tmp_path / "one.fits"), "--method", "ml", "-o", str(out)]) == 0
    table = QTable.read(out)
    assert table["flux"].unit == UNIT
    assert table["flux"][0].value == pytest.approx(2000e-20, rel=0.1)
    assert "1 of quality 0" in capsys.readouterr().out
