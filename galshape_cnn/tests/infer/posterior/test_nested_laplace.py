# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""Moments from a few evaluations of the likelihood against those of many draws."""

import numpy as np
import pytest

from galshape_cnn.forward.galaxy_model import GalaxyModel
from galshape_cnn.forward.grid import FourierGrid
from galshape_cnn.forward.render import render
from galshape_cnn.forward.transfer import transfer_functions
from galshape_cnn.forward.view import View
from galshape_cnn.infer.likelihood.exposures import ExposureStamps, JointLikelihood
from galshape_cnn.infer.likelihood.gaussian import StampLikelihood
from galshape_cnn.infer.posterior.exposures_target import ExposuresTarget
from galshape_cnn.infer.posterior.importance_sampling import sample_target
from galshape_cnn.infer.posterior.nested_laplace import Neighbourhood, nested_moments
from galshape_cnn.infer.posterior.prior import Prior
from galshape_cnn.infer.posterior.result import PosteriorResult
from galshape_cnn.infer.posterior.target import first_proposal, prior_penalty

GRID, MODEL, N = FourierGrid(32), GalaxyModel(("g", "r"), (0, 1)), 24
PRIOR = Prior(
    {
        "n": {"kind": "lognormal", "median": 1.5, "sigma": 0.6, "low": 0.3, "high": 6.2},
        "hlr": {"kind": "lognormal", "median": 2.2, "sigma": 0.6, "low": 0.3, "high": 10.0},
        "g": {"kind": "rayleigh", "sigma": 0.25, "low": 0.0, "high": 0.7},
        "snr": {"kind": "loguniform", "low": 1.0, "high": 1e5},
    }
)


def truth():
    rng = np.random.default_rng(1)
    _, n, hlr, g1, g2 = PRIOR.sample(rng, N).T
    place = 15.5 + rng.uniform(-0.5, 0.5, (N, 2))
    return np.column_stack([np.ones(N), n, hlr.clip(1, 5), g1, g2, place, np.zeros(N)])


def likelihood(params, gain=None):
    """Galaxies of S/N 20 to 80 in each of two exposures with different PSFs."""
    rng, parts = np.random.default_rng(2), []
    snr = np.exp(rng.uniform(*np.log([20, 80]), N))
    for number, width in enumerate((1.3, 2.0)):
        r2 = np.add.outer(np.arange(-9, 10.0) ** 2, np.arange(-9, 10.0) ** 2)
        psf = np.exp(-r2 / (2 * width**2))[None]
        transfer = np.asarray(transfer_functions((psf / psf.sum()).astype(np.float32), GRID))
        image = np.asarray(render(params, transfer, GRID))
        image *= (snr / np.sqrt((image**2).sum((1, 2))))[:, None, None]
        data = image + rng.normal(size=image.shape)
        stamps = StampLikelihood.from_stamps(data, np.ones(data.shape), transfer, GRID)
        parts.append(ExposureStamps(np.arange(N), stamps, View(MODEL, number), gain))
    return JointLikelihood(MODEL, tuple(parts), np.ones((N, MODEL.size)))


def near_and_target(joint, params):
    start = np.zeros((len(joint), MODEL.size))
    start[:, MODEL.fluxes] = 1.0
    start[:, MODEL.searched] = params[:, 1:7]
    near = Neighbourhood.of(joint, start, 32, prior_penalty(PRIOR, MODEL))
    return near, ExposuresTarget(near.problem.likelihood, near.params, near.fisher, PRIOR, 32)


@pytest.fixture(scope="module")
def case():
    params = truth()
    joint = likelihood(params)
    near, target = near_and_target(joint, params)
    return joint, params, near, target, *nested_moments(target, near)


def test_moments_are_those_of_many_draws(case):
    *_, target, result, doubtful = case
    exact = PosteriorResult.blank(N, 1024, np.zeros(N, int), MODEL)
    sample_target(exact, np.arange(N), target, first_proposal(target), 1024, 0)
    sure = ~doubtful & (exact.ess > 200)
    assert sure.sum() > 0.7 * N
    width = np.sqrt(np.diagonal(exact.covariance, axis1=1, axis2=2))[sure]
    off = (result.mean[sure] - exact.mean[sure]) / width
    assert np.abs(off).max() < 0.45  # draws alone are off by up to 0.07 of a sigma
    assert np.sqrt((off**2).mean(0)).max() < 0.16
    assert np.abs(off.mean(0)).max() < 0.1
    ratio = np.sqrt(np.diagonal(result.covariance, axis1=1, axis2=2))[sure] / width
    assert (np.abs(np.log(ratio).mean(0)) < 0.08).all()
    correlation = [one / np.sqrt(np.einsum("nii,njj->nij", one, one)) for one in
                   (result.covariance[sure], exact.covariance[sure])]  # fmt: skip
    assert np.abs(np.median(correlation[0] - correlation[1], 0)).max() < 0.08


def test_it_is_more_than_the_mode(case):
    """The posterior's mean of size differs from its mode in galaxies that the PSF hides."""
    *_, near, _, result, doubtful = case
    sure = ~doubtful
    width = np.sqrt(result.covariance[sure, MODEL.n, MODEL.n])
    assert np.abs((result.mean[sure, MODEL.n] - near.params[sure, MODEL.n]) / width).max() > 0.3


def test_rows_do_not_depend_on_each_other(case):
    joint, params, _, _, result, doubtful = case
    rows = np.array([5, 2, 17])
    near, target = near_and_target(joint[rows], params[rows])
    some, alone = nested_moments(target, near)
    np.testing.assert_array_equal(some.mean, result.mean[rows])
    np.testing.assert_array_equal(some.covariance, result.covariance[rows])
    np.testing.assert_array_equal(alone, doubtful[rows])


def test_rows_without_sense_are_doubtful(case):
    """Of an n at its limit, and of noise without a galaxy; their numbers are not to be used."""
    joint, params, *_ = case
    parts = []
    for part in joint.parts:
        data = part.likelihood.data.copy()
        data[0] = 0.0
        data[1] = np.where(np.add.outer(*2 * [np.abs(np.arange(32) - 15.5)]) < 5, 30.0, 0.0)  # a box
        stamps = StampLikelihood(
            data, part.likelihood.ivar, part.likelihood.transfer, GRID, part.likelihood.scale
        )
        parts.append(ExposureStamps(part.rows, stamps, part.view))
    near, target = near_and_target(JointLikelihood(MODEL, tuple(parts), joint.units), params)
    _, doubtful = nested_moments(target, near)
    assert doubtful[:2].all()
    assert not doubtful.all()


def test_photon_noise_is_that_of_the_galaxy_itself(case):
    """With a gain of few electrons the errors are larger, and the weights are final."""
    joint, params, *_ = case
    bright = likelihood(params, gain=np.full(N, 0.5))
    near, target = near_and_target(bright, params)
    noisy, doubtful = nested_moments(target, near)
    sure = ~doubtful & ~case[5]
    ratio = (
        np.diagonal(noisy.covariance, axis1=1, axis2=2)[sure]
        / np.diagonal(case[4].covariance, axis1=1, axis2=2)[sure]
    )
    assert (np.median(ratio, 0)[: MODEL.n] > 1.05).all()
