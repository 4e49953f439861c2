# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""Errors of maximum likelihood where chi-square is no parabola."""

import galsim
import numpy as np
import pytest

from galshape_cnn import ShapeEstimator
from galshape_cnn.forward.render import render
from galshape_cnn.infer.fit import profile_likelihood
from galshape_cnn.infer.fit.profile_likelihood import profile_covariance
from galshape_cnn.infer.likelihood.rendering import RenderedBatch
from galshape_cnn.observe.stamps import Stamps
from galshape_cnn.tests.moffat_scene import moffat

N, SIDE = 160, 64
HIGH_N = 5.5
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
    assert (errors < 6).mean() > 0.98  # the range of n


def test_errors_hold_for_any_galaxy(estimator):
    """The bound is too wide where the fit finds a high n, and too narrow where it finds a low one."""
    rng, number = np.random.default_rng(3), 480
    truth = np.zeros((number, 8))
    truth[:, 0], truth[:, 1], truth[:, 2] = 1, rng.uniform(0.5, 5, number), rng.uniform(1.2, 6, number)
    truth[:, 3:5], truth[:, 5:7] = rng.uniform(-0.3, 0.3, (number, 2)), 31.5
    batch = RenderedBatch.from_stamps(Stamps(*np.ones((2, number, SIDE, SIDE)), PSF[None]), None)
    light = np.asarray(render(truth, batch.transfer, batch.grid), float)
    truth[:, 0] = np.exp(rng.uniform(*np.log([10, 60]), number)) / np.sqrt((light**2).sum((1, 2)))
    data = light * truth[:, :1, None] + rng.normal(size=light.shape)
    catalog = estimator(data, psf=PSF, error=1.0, method="ml", neighbours="ignore")
    off = np.abs(catalog.parameters[:, :5] - truth[:, :5])
    bounds, errors = (
        off / np.sqrt(np.diagonal(matrix, axis1=1, axis2=2))
        for matrix in (catalog.crb_covariance, catalog.error_covariance)
    )
    inside, before = ((one < 1).mean(0) for one in (errors, bounds))  # to 0.021
    of_many = 0.71, 0.68, 0.74, 0.69, 0.69  # of 1,485 galaxies, to 0.012
    assert inside == pytest.approx(np.array(of_many), abs=0.065)
    assert (errors < 2).mean(0).min() > 0.92
    assert (errors > 5).any(1).mean() < 0.005 < (bounds > 5).any(1).mean()
    high, low = catalog.n > 4.5, catalog.n < 1
    assert (bounds[high, :3] < 1).mean() > 0.85 > (errors[high, :3] < 1).mean() + 0.1
    assert (bounds[low, :3] < 2).mean() < (errors[low, :3] < 2).mean() - 0.08
    assert before[1] > inside[1]


@pytest.mark.parametrize(("n", "snr"), [(1.0, 300), (4.0, 300)])
def test_bright_galaxies_keep_the_bound(estimator, n, snr):
    data, _ = galaxies(n, snr, number=24)
    catalog = estimator(data, psf=PSF, error=1.0, method="ml", neighbours="ignore")
    ratio = np.diagonal(catalog.error_covariance / catalog.crb_covariance, axis1=1, axis2=2)
    assert np.median(ratio) == pytest.approx(1, abs=1e-6)


def test_three_held_fits_stand_for_many(faint, monkeypatch):
    data, catalog = faint
    batch = RenderedBatch.from_stamps(Stamps(data, np.ones(data.shape), PSF[None]), None)
    params = np.column_stack([catalog.parameters[:, :5], np.full((N, 2), 31.5), np.zeros(N)])
    found = profile_likelihood.maximize_likelihood(
        batch.stamps.data, batch.stamps.ivar, batch.transfer, batch.grid, params
    )
    crb, _ = profile_likelihood.bound(found.fisher)
    few = profile_covariance(batch, found.params, found.chi2, (crb, crb)) + crb
    monkeypatch.setattr(profile_likelihood, "_HELD_N", tuple(np.geomspace(0.35, 6, 14)))
    monkeypatch.setattr(profile_likelihood, "_SAME", (0.05,) * 14)
    monkeypatch.setattr(profile_likelihood, "_STEPS", 20)
    many = profile_covariance(batch, found.params, found.chi2, (crb, crb)) + crb
    good = np.isfinite(crb).all((1, 2))
    few, many = (np.sqrt(np.diagonal(one[good], axis1=1, axis2=2)) for one in (few, many))
    assert good.mean() > 0.9
    np.testing.assert_allclose(np.median(few / many, 0), 1, atol=0.08)
    assert np.percentile(np.abs(np.log(few / many)), 90) < 0.25


@pytest.mark.parametrize("noise", [1.0, 4.0])
def test_a_parabola_keeps_its_errors(noise):
    """Whatever the noise that chi-square does not know of."""
    rng = np.random.default_rng(1)
    root = rng.normal(size=(5, 5)) * 0.05 + 0.1 * np.eye(5)
    supposed, n = (root @ root.T)[None], np.array([2.9])
    way = supposed[:, :, 1] / supposed[:, 1, 1, None]
    distance = np.array(profile_likelihood._HELD_N)[:, None] - n
    own = supposed - supposed[:, :, 1, None] * way[:, None]
    found = distance[..., None] * way, distance**2 / supposed[:, 1, 1], np.tile(own, (3, 1, 1, 1))
    stated = noise * supposed
    moments = profile_likelihood._moments(n, found, supposed, stated, np.ones((1, 5)))
    np.testing.assert_allclose(moments, stated, atol=0.02 * np.abs(stated).max())


def test_errors_of_galaxies_with_structure_become_no_smaller(faint):
    data, catalog = faint
    batch = RenderedBatch.from_stamps(Stamps(data, np.ones(data.shape), PSF[None]), None)
    params = np.column_stack([catalog.parameters[:, :5], np.full((N, 2), 31.5), np.zeros(N)])
    crb, chi2 = catalog.crb_covariance, catalog.chi2 * (SIDE**2 - 8)
    free = profile_covariance(batch, params, chi2, (crb, crb))
    bound = profile_covariance(batch, params, chi2, (crb, crb), structured=np.ones(N, bool))
    unit = np.sqrt(np.diagonal(crb, axis1=1, axis2=2))
    units = unit[:, :, None] * unit[:, None, :]
    lowest, before = (np.linalg.eigvalsh(more / units)[:, 0] for more in (bound, free))
    assert (before < -0.1).mean() > 0.3
    assert (lowest > -1e-3).all()
    wider = np.diagonal(free, axis1=1, axis2=2) > np.diagonal(crb, axis1=1, axis2=2)
    assert (np.diagonal(bound, axis1=1, axis2=2)[wider] > 0).all()


def test_points_keep_errors_of_n_and_none_is_that_of_a_point(estimator):
    """At another n a star's size has a bound beyond any number; and no error of n is beyond its range."""
    data, _ = galaxies(2.0, 20, hlr=0.02, number=64)
    catalog = estimator(data, psf=PSF, error=1.0, method="ml", neighbours="ignore")
    known = np.isfinite(catalog.error_covariance).all((1, 2))
    errors, bounds = (
        np.sqrt(np.diagonal(one[known], axis1=1, axis2=2))
        for one in (catalog.error_covariance, catalog.crb_covariance)
    )
    assert known.sum() > 40
    assert ((errors[:, 1] > 0.5) & (errors[:, 1] < 6.2)).mean() > 0.9
    assert (errors[:, 2] < 3 * np.maximum(bounds[:, 2], 1)).mean() > 0.95


def test_a_fit_that_failed_leaves_the_errors(faint, monkeypatch):
    data, catalog = faint
    batch = RenderedBatch.from_stamps(Stamps(data, np.ones(data.shape), PSF[None]), None)
    params = np.column_stack([catalog.parameters[:, :5], np.full((N, 2), 31.5), np.zeros(N)])
    crb, chi2 = catalog.crb_covariance, catalog.chi2 * (SIDE**2 - 8)
    search = profile_likelihood.maximize_likelihood

    def failing(data, *rest, **how):
        found = search(data, *rest, **how)
        found.params[:] = np.nan
        return found

    assert profile_covariance(batch, params, chi2, (crb, crb)).any()
    monkeypatch.setattr(profile_likelihood, "maximize_likelihood", failing)
    more = profile_covariance(batch, params, chi2, (crb, crb))
    near = np.abs(np.log(params[:, 1:2] / profile_likelihood._HELD_N)) <= profile_likelihood._SAME
    assert not more[~near.all(1)].any()


def test_rows_without_estimate_get_nothing(faint):
    data, _ = faint
    batch = RenderedBatch.from_stamps(Stamps(data, np.ones(data.shape), PSF[None]), None)
    nan = np.full((len(data), 5, 5), np.nan)
    nothing = np.full((len(data), 8), np.nan)
    assert not profile_covariance(batch, nothing, np.full(len(data), np.nan), (nan, nan)).any()


def test_company_changes_nothing(estimator, faint):
    data, together = faint
    how = {"psf": PSF, "error": 1.0, "method": "ml", "neighbours": "ignore"}
    row = int(np.argmax((together.error_covariance / together.crb_covariance)[:, 1, 1]))
    alone = estimator(data[row : row + 1], **how)
    np.testing.assert_array_equal(together.error_covariance[row], alone.error_covariance[0])
