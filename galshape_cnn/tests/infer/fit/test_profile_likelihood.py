# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""Errors of maximum likelihood where chi-square is no parabola."""

import galsim
import numpy as np
import pytest

from galshape_cnn import ShapeEstimator
from galshape_cnn.infer.fit.profile_likelihood import HIGH_N, profile_covariance
from galshape_cnn.infer.likelihood.rendering import RenderedBatch
from galshape_cnn.observe.stamps import Stamps
from galshape_cnn.tests.moffat_scene import moffat

N, SIDE = 160, 64
MOFFAT, PSF = moffat(4.0)


def galaxies(n, snr, hlr=4.0, number=N):
    """Images of one galaxy in different noise of one, and its flux."""
    light = galsim.Convolve(galsim.Sersic(n=n, half_light_radius=hlr, trunc=8 * hlr), MOFFAT)
    image = light.drawImage(nx=SIDE, ny=SIDE, scale=1.0).array.astype(float)
    image *= snr / np.sqrt((image**2).sum())
    return image + np.random.default_rng(5).normal(size=(number, SIDE, SIDE)), image


@pytest.fixture(scope="module")
def estimator():
    return ShapeEstimator()


@pytest.fixture(scope="module")
def faint(estimator):
    data, _ = galaxies(HIGH_N, 14)
    return data, estimator(data, psf=PSF, error=1.0, method="ml", neighbours="ignore")


def test_faint_galaxies_of_high_n_are_not_many_errors_off(faint):
    """Of fits with a low n a quarter are off by more than five bounds, hardly one by five errors."""
    _, catalog = faint
    off, low = np.abs(catalog.n - HIGH_N), catalog.n < 1.5
    bounds, errors = (
        np.sqrt(matrix[:, 1, 1]) for matrix in (catalog.crb_covariance, catalog.error_covariance)
    )
    assert low.sum() > 20
    assert np.mean(off[low] > 5 * bounds[low]) > 0.15
    assert np.mean(off[low] > 5 * errors[low]) < 0.03
    assert (errors >= bounds * (1 - 1e-6)).all()


@pytest.mark.parametrize(("n", "snr"), [(1.0, 300), (4.0, 300)])
def test_bright_galaxies_keep_the_bound(estimator, n, snr):
    data, _ = galaxies(n, snr, number=24)
    catalog = estimator(data, psf=PSF, error=1.0, method="ml", neighbours="ignore")
    ratio = np.diagonal(catalog.error_covariance / catalog.crb_covariance, axis1=1, axis2=2)
    assert np.median(ratio) == pytest.approx(1, abs=1e-6)


def test_errors_grow_along_one_way(faint):
    """Towards the fit with n held; rows without estimate get nothing."""
    data, catalog = faint
    batch = RenderedBatch.from_stamps(Stamps(data, np.ones(data.shape), PSF[None]), None)
    more = catalog.error_covariance - catalog.crb_covariance
    rows = np.flatnonzero(np.diagonal(more, axis1=1, axis2=2)[:, 1] > catalog.crb_covariance[:, 1, 1])
    assert len(rows) > 10
    rank = np.linalg.matrix_rank(more[rows] / np.trace(more[rows], axis1=1, axis2=2)[:, None, None], tol=1e-4)
    assert np.median(rank) == 1
    nothing = np.full((len(data), 8), np.nan)
    nan = np.full((len(data), 5, 5), np.nan)
    assert not profile_covariance(batch, nothing, np.full(len(data), np.nan), (nan, nan)).any()


def test_company_changes_nothing(estimator, faint):
    data, together = faint
    how = {"psf": PSF, "error": 1.0, "method": "ml", "neighbours": "ignore"}
    row = int(np.argmax((together.error_covariance / together.crb_covariance)[:, 1, 1]))
    alone = estimator(data[row : row + 1], **how)
    np.testing.assert_array_equal(together.error_covariance[row], alone.error_covariance[0])
