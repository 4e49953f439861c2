# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""Pixels that are no galaxy cost their own row, and skies and shapes of stamps cost nothing."""

from dataclasses import replace

import galsim
import numpy as np
import pytest

from galshape_cnn import CNNFitter, PSFConvolvedSersic2D, ShapeEstimator, Stamps
from galshape_cnn.errors import InputError, PositionError
from galshape_cnn.flags import Flag
from galshape_cnn.infer.likelihood.rendering import RenderedBatch
from galshape_cnn.infer.measure.bounds import bounded, without_errors
from galshape_cnn.infer.measure.options import Options
from galshape_cnn.linalg import cholesky_or_nan, inverse_or_nan

PSF = galsim.Moffat(beta=3, fwhm=3)
NOISE = 5.0
METHODS = ("network", "ml", "posterior")


@pytest.fixture(scope="module")
def estimator():
    return ShapeEstimator()


@pytest.fixture(scope="module")
def psf():
    return galsim.Convolve(PSF, galsim.Pixel(1)).drawImage(nx=41, ny=41, scale=1, method="no_pixel").array


def galaxy(seed, ny=64, nx=64, flux=1e4):
    profile = galsim.Exponential(half_light_radius=3, flux=flux).shear(g1=0.2, g2=0.1)
    image = galsim.Convolve(profile, PSF).drawImage(nx=nx, ny=ny, scale=1).array
    return image + np.random.default_rng(seed).normal(0, NOISE, (ny, nx))


#: Of some rows nothing may be left.
MAY_BE_LOST = pytest.mark.filterwarnings("ignore::galshape_cnn.errors.LostRowsWarning")


def assert_no_absurd_number(catalog, data):
    """Each row is a galaxy of its stamp, or has no numbers and says so."""
    params, lost = catalog.measurement.params, np.isnan(catalog.measurement.params[:, 0])
    assert (np.asarray(catalog.quality)[lost] == 2).all()
    flux, light = np.abs(params[~lost, 0]), np.abs(data[~lost]).sum((1, 2))
    assert (flux < 1.01e3 * light).all()
    assert (params[~lost, 2] <= data.shape[-1]).all()


@pytest.mark.parametrize("method", METHODS)
@MAY_BE_LOST
def test_what_is_no_galaxy_has_no_absurd_numbers(estimator, psf, method):
    y, x = np.mgrid[:64, :64]
    rng = np.random.default_rng(1)
    radius = np.hypot(x - 32, y - 32)
    shapes = [(x + y) * 20.0, 1e4 * np.sin(x / 9) * np.sin(y / 7), -200 * np.exp(-radius / 4),
              np.where(x > 32, 500.0, 0), 500 * np.exp(-abs(y - x) / 3), 1e5 * (x > 60.0), 0.0 * x,
              1e3 * rng.standard_cauchy(x.shape), 1e6 * np.exp(-radius / 30)]  # fmt: skip
    data = np.array(shapes) + rng.normal(size=(len(shapes), 64, 64))
    for neighbours in ("mask", "ignore"):
        catalog = estimator(data, psf=psf, error=1.0, method=method, neighbours=neighbours)
        assert_no_absurd_number(catalog, data)
        assert (np.asarray(catalog.quality)[[0, 3, 5]] > 0).all()


@pytest.mark.parametrize("method", METHODS)
@MAY_BE_LOST
def test_negative_galaxies_are_flagged_rows(estimator, psf, method):
    catalog = estimator(-np.array([galaxy(i) for i in range(8)]), psf=psf, error=NOISE, method=method)
    assert (np.asarray(catalog.flags) != 0).all()


@pytest.mark.parametrize("method", METHODS)
@MAY_BE_LOST
def test_wild_pixels_cost_their_own_row(estimator, psf, method):
    data = np.array([galaxy(i) for i in range(8)])
    alone = estimator(data[::2], psf=psf, error=NOISE, method=method)
    wild = [(-32768, (31, 33)), (-1e6, (20, 20)), (1e6, (31, 31)), (-1e12, (31, 50))]
    for row, (value, pixel) in zip(data[1::2], wild, strict=True):
        row[pixel] = value
    catalog = estimator(data, psf=psf, error=NOISE, method=method)
    np.testing.assert_array_equal(catalog.flux[::2], alone.flux)
    assert (np.asarray(catalog.flags)[1::2] != 0).all()


@pytest.mark.parametrize("level", [-1e4, -10.0, -2.0, 3.0, 20.0, 1e4])
def test_sky_of_any_level_is_fitted(estimator, psf, level):
    """In units of the noise; the network has seen up to 0.3."""
    data = np.array([galaxy(i, flux=2e4) for i in range(24)])
    flat, raised = (estimator(data + sky, psf=psf, error=NOISE) for sky in (0, level * NOISE))
    for name in ("flux", "n", "hlr", "g1", "g2"):
        moved = (getattr(raised, name) - getattr(flat, name)) / getattr(flat, f"{name}_err")
        assert np.abs(moved).max() < 1, name
    sky = raised.measurement.params[:, 7] - flat.measurement.params[:, 7]
    np.testing.assert_allclose(sky, level * NOISE, atol=0.1 * NOISE + 1e-5 * abs(level * NOISE))


def test_known_sky_is_not_fitted(estimator, psf):
    data = galaxy(1)[None]
    off = estimator(data + 10 * NOISE, psf=psf, error=NOISE, fit_sky=False)
    assert off.flux[0] > 2 * estimator(data, psf=psf, error=NOISE, fit_sky=False).flux[0] or off.flags[0]


@pytest.mark.parametrize("shape", [(64, 60), (40, 64), (63, 61), (90, 48)])
def test_stamps_of_any_shape(estimator, psf, shape):
    data = galaxy(3, *shape)[None]
    stamps = Stamps(data, np.full(data.shape, NOISE**-2), psf)
    fluxes = []
    for method in METHODS:
        catalog = estimator(stamps, method=method)
        array = estimator(data, psf=psf, error=NOISE, method=method, normalize_psf=False)
        assert abs(catalog.flux[0] - array.flux[0]) < 0.3 * array.flux_err[0]
        assert abs(catalog.measurement.params[0, 5] - (shape[1] - 1) / 2) < 1
        fluxes.append(catalog.flux[0])
    y, x = np.mgrid[: shape[0], : shape[1]]
    model = PSFConvolvedSersic2D(1e4, 1.5, 3.5, 0.2, -0.1, (shape[1] - 1) / 2, (shape[0] - 1) / 2, psf=psf)
    fitted = CNNFitter(estimator, method="ml")(model, x, y, data[0], weights=np.full(shape, 1 / NOISE))
    np.testing.assert_allclose(fitted.flux.value, fluxes[1], rtol=1e-3)


def test_a_fitter_needs_an_estimator():
    with pytest.raises(InputError, match="estimator='ml'; allowed: a ShapeEstimator"):
        CNNFitter("ml")


def test_whole_image_without_positions_is_refused(estimator, psf):
    image = np.zeros((600, 520))
    with pytest.raises(PositionError, match="positions is missing for an image of 600x520 pixels"):
        estimator(image, psf=psf, error=NOISE)
    image[268:332, 228:292] = galaxy(1)
    assert len(estimator(image, psf=psf, error=NOISE, stamp_size=64)) == 1


def test_matrices_that_are_impossible_cost_their_own():
    matrices = np.array([[[2.0, 0], [0, 3]], [[1, 2], [2, 1]], [[0, 0], [0, 0]]])
    factors, inverses = cholesky_or_nan(matrices), inverse_or_nan(matrices)
    np.testing.assert_array_equal(np.isfinite(factors).all((1, 2)), [True, False, False])
    np.testing.assert_array_equal(np.isfinite(inverses).all((1, 2)), [True, True, False])
    np.testing.assert_array_equal(factors[0], np.linalg.cholesky(matrices[0]))
    np.testing.assert_array_equal(inverses[:2], np.linalg.inv(matrices[:2]))


def test_no_error_of_a_size_exceeds_the_stamp(estimator, psf):
    """What structure adds is known to first order only, and may be any number."""
    data = np.array([galaxy(i) for i in range(3)])
    stamps = Stamps(data, np.full(data.shape, NOISE**-2), psf[None] / psf.sum())
    batch = RenderedBatch.from_stamps(stamps, None)
    params = np.tile([1e4 / NOISE, 1.0, 3.0, 0.2, 0.1, 31.5, 31.5, 0.0], (3, 1))
    judged = without_errors(batch, params, Options("ml"))
    known = np.tile(np.eye(5), (3, 1, 1))
    structure = known * np.array([1.0, 500**2, 1.0])[:, None, None]
    judged = replace(judged, crb=known, structure=structure, covariance=known + structure)
    within = bounded(judged, 64)
    width = np.sqrt([one[:, 2, 2] for one in (within.structure, within.covariance)])
    assert width == pytest.approx(np.array([[1, 64, 1], [2**0.5, 64, 2**0.5]]))
    assert (within.flags & Flag.SINGULAR > 0).tolist() == [False, True, False]
    assert not bounded(within[[0, 2]], 64).flags.any()
