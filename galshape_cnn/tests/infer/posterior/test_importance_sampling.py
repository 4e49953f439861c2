# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""Posteriors: calibrated on draws from the prior, and a wrong likelihood must show."""

import numpy as np
import pytest
from scipy.stats import chisquare, multivariate_t

from galshape_cnn.errors import InputError
from galshape_cnn.flags import Flag
from galshape_cnn.forward.coordinates import POSTERIOR
from galshape_cnn.forward.grid import FourierGrid
from galshape_cnn.forward.render import render
from galshape_cnn.forward.transfer import transfer_functions
from galshape_cnn.infer.catalog.measurement import sample_quantiles
from galshape_cnn.infer.fit.maximum_likelihood import maximize_likelihood
from galshape_cnn.infer.posterior.importance_sampling import sample_posterior
from galshape_cnn.infer.posterior.mixture import MixturePosterior
from galshape_cnn.infer.posterior.prior import Prior
from galshape_cnn.infer.posterior.proposal import DEGREES, StudentMixture

GRID = FourierGrid(32)
PRIOR = Prior(
    {
        "flux": {"kind": "uniform", "low": 200.0, "high": 1500.0},
        "n": {"kind": "uniform", "low": 0.5, "high": 5.0},
        "hlr": {"kind": "uniform", "low": 0.6, "high": 3.0},
        "g": {"kind": "uniform", "low": 0.0, "high": 0.6},
    }
)
SIGMA = 1.0


def moffat(fwhm, beta=2.5, side=31):
    """Pixel-integrated Moffat PSF by ten-fold supersampling."""
    x = (np.arange(side * 10) - (side * 10 - 1) / 2) / 10
    radius = fwhm / 2 / np.sqrt(2 ** (1 / beta) - 1)
    fine = (1 + np.add.outer(x**2, x**2) / radius**2) ** -beta
    return fine.reshape(1, side, 10, side, 10).sum((2, 4)) * (beta - 1) / (100 * np.pi * radius**2)


TRANSFER = np.asarray(transfer_functions(moffat(2.5), GRID))


def mocks(n, rng, sigma=SIGMA):
    """Galaxies from the prior and their stamps; the centre is flat within the central pixel."""
    truth = np.zeros((n, 8))
    truth[:, :5] = PRIOR.sample(rng, n)
    truth[:, 5:7] = rng.uniform(15, 16, (n, 2))
    images = np.asarray(render(truth.astype(np.float32), TRANSFER, GRID))
    data = (images + sigma * rng.normal(size=images.shape)).astype(np.float32)
    return truth, data, np.full(data.shape, sigma**-2.0, np.float32)


def spread_about(params, rng, sigmas=(0.15, 0.7, 0.25, 0.2, 0.2, 0.1, 0.1)):
    """A stand-in for the network: two Gaussians near some parameters."""
    u = POSTERIOR.of(params[:, :7])
    means = u[:, None] + rng.normal(size=(len(u), 2, 7)) * sigmas
    chols = np.broadcast_to(np.diag(sigmas), (len(u), 2, 7, 7))
    return MixturePosterior(np.full((len(u), 2), 0.5), means, chols)


def ranks(result, truth):
    """Fraction of the samples below the truth, (N, 5)."""
    return (result.samples < truth[:, None, :5]).mean(1)


def uniformity(ranks):
    """Probability of rank histograms as uneven as these, one for each parameter."""
    return np.array([chisquare(np.histogram(r, 10, (0, 1))[0]).pvalue for r in ranks.T])


@pytest.fixture(scope="module")
def batch():
    return mocks(24, np.random.default_rng(1))


@pytest.fixture(scope="module")
def sampled(batch):
    _, data, ivar = batch
    return sample_posterior(data, ivar, TRANSFER, GRID, None, PRIOR)


@pytest.fixture(scope="module")
def mixture():
    rng = np.random.default_rng(2)
    roots = np.tril(rng.normal(size=(3, 2, 4, 4))) * 0.3 + np.eye(4)
    weights = rng.dirichlet([2, 2], 3)
    return StudentMixture(weights, rng.normal(size=(3, 2, 4)), roots)


def deviates(rng, n, s, d):
    return rng.uniform(size=(n, s)), rng.normal(size=(n, s, d)), rng.chisquare(DEGREES, (n, s))


def test_mixture_density_is_scipys(mixture):
    u = np.random.default_rng(3).normal(size=(3, 7, 4))
    for i in range(3):
        parts = [
            w * multivariate_t(m, c @ c.T, DEGREES).pdf(u[i])
            for w, m, c in zip(mixture.weights[i], mixture.means[i], mixture.chols[i], strict=True)
        ]
        np.testing.assert_allclose(mixture.log_density(u)[i], np.log(sum(parts)), rtol=1e-10)


def test_mixture_draws_follow_its_density(mixture):
    rng = np.random.default_rng(4)
    u = mixture.draw(*deviates(rng, 3, 40000, 4))
    mean = np.einsum("nk,nki->ni", mixture.weights, mixture.means)
    np.testing.assert_allclose(u.mean(1), mean, atol=0.06)
    # importance weights of a shifted copy average to one
    moved = StudentMixture(mixture.weights, mixture.means + 0.2, mixture.chols)
    ratio = np.exp(moved.log_density(u) - mixture.log_density(u))
    np.testing.assert_allclose(ratio.mean(1), 1, atol=0.03)


def test_mixture_learns(mixture):
    rng = np.random.default_rng(5)
    target = StudentMixture(mixture.weights, mixture.means + 0.7, 0.6 * mixture.chols)
    u = mixture.draw(*deviates(rng, 3, 800, 4))

    def fraction(proposal, u):
        w = np.exp(target.log_density(u) - proposal.log_density(u))
        w /= w.sum(1, keepdims=True)
        return w, 1 / (w**2).sum(1) / u.shape[1]

    weights, before = fraction(mixture, u)
    learned = mixture.learned(u, weights)
    _, after = fraction(learned, learned.draw(*deviates(rng, 3, 800, 4)))
    assert (after > 1.3 * before).all()
    np.testing.assert_allclose(learned.weights.sum(1), 1)


def test_shapes_and_order(sampled):
    n, s = 24, 256
    assert sampled.samples.shape == (n, s, 5)
    np.testing.assert_allclose(sampled.samples.mean(1), sampled.mean, rtol=0.05, atol=0.02)
    assert (np.linalg.eigvalsh(sampled.covariance) > 0).all()


def test_samples_stay_inside_the_prior(sampled):
    flux, n, hlr, g1, g2 = np.moveaxis(sampled.samples, -1, 0)
    assert ((flux > 200) & (flux < 1500) & (n > 0.5) & (n < 5) & (hlr > 0.6) & (hlr < 3)).all()
    assert (np.hypot(g1, g2) < 0.6).all()


def test_effective_fraction(sampled):
    assert np.median(sampled.ess / sampled.n_draws) > 0.2
    assert ((sampled.flags & Flag.LOW_ESS) != 0).sum() <= 2


def test_truth_is_covered(batch, sampled):
    z = (sampled.mean - batch[0][:, :5]) / np.sqrt(np.einsum("nii->ni", sampled.covariance))
    assert np.abs(z).max() < 4.5
    assert 0.6 < z.std() < 1.4


def test_the_proposal_does_not_change_the_answer(batch, sampled):
    truth, data, ivar = batch
    network = spread_about(truth, np.random.default_rng(6))
    other = sample_posterior(data, ivar, TRANSFER, GRID, network, PRIOR, seed=8)
    sigma = np.sqrt(np.einsum("nii->ni", sampled.covariance))
    error = sigma * np.sqrt(1 / sampled.ess + 1 / other.ess)[:, None]
    difference = (other.mean - sampled.mean) / error
    assert np.abs(difference).max() < 5
    assert difference.std() < 1.5


def test_high_signal_is_gaussian_about_the_maximum():
    rng = np.random.default_rng(7)
    truth, data, ivar = mocks(6, rng, sigma=0.02)
    result = sample_posterior(data, ivar, TRANSFER, GRID, None, PRIOR)
    fit = maximize_likelihood(data, ivar, TRANSFER, GRID, truth)
    sigma = np.sqrt(np.einsum("nii->ni", np.linalg.inv(fit.fisher)))[:, :5]
    assert np.abs((result.mean - fit.params[:, :5]) / sigma).max() < 0.4
    np.testing.assert_allclose(np.sqrt(np.einsum("nii->ni", result.covariance)), sigma, rtol=0.3)
    assert (result.ess > 0.4 * result.n_draws).all()


def test_rest_of_the_batch_does_not_matter(batch, sampled):
    _, data, ivar = batch
    order = [9, 2]
    some = sample_posterior(data[order], ivar[order], TRANSFER, GRID, None, PRIOR)
    np.testing.assert_allclose(some.mean, sampled.mean[order], rtol=2e-2, atol=1e-2)
    again = sample_posterior(data[order], ivar[order], TRANSFER, GRID, None, PRIOR)
    np.testing.assert_array_equal(again.samples, some.samples)
    other = sample_posterior(data[order], ivar[order], TRANSFER, GRID, None, PRIOR, seed=1)
    assert (other.mean != some.mean).any()


def test_masked_pixels_do_not_matter(batch):
    _, data, ivar = batch
    ivar, spoiled = ivar[:2].copy(), data[:2].copy()
    ivar[:, :8], spoiled[:, :8] = 0, 1e5
    a = sample_posterior(data[:2], ivar, TRANSFER, GRID, None, PRIOR, n_samples=64)
    b = sample_posterior(spoiled, ivar, TRANSFER, GRID, None, PRIOR, n_samples=64)
    np.testing.assert_array_equal(a.samples, b.samples)


def test_known_sky_is_zero_whatever_the_search_starts_from(batch):
    """Moments bring a level of the border along, which must not stay."""
    truth, data, ivar = (a[:8] for a in batch)
    network = spread_about(truth, np.random.default_rng(6))
    known = {"fit_sky": False, "n_samples": 1024}
    alone = sample_posterior(data, ivar, TRANSFER, GRID, None, PRIOR, **known)
    other = sample_posterior(data, ivar, TRANSFER, GRID, network, PRIOR, **known)
    error = np.sqrt(np.einsum("nii->ni", other.covariance) * (1 / alone.ess + 1 / other.ess)[:, None])
    assert np.abs((alone.mean - other.mean) / error).max() < 5


def test_known_sky_narrows_the_flux(batch):
    _, data, ivar = batch
    free = sample_posterior(data[:8], ivar[:8], TRANSFER, GRID, None, PRIOR)
    known = sample_posterior(data[:8], ivar[:8], TRANSFER, GRID, None, PRIOR, fit_sky=False)
    width = lambda r: np.sqrt(r.covariance[:, 0, 0])  # noqa: E731
    assert np.median(width(known) / width(free)) < 0.95


def test_photon_noise_widens(batch):
    _, data, ivar = batch
    quiet = sample_posterior(data[:8], ivar[:8], TRANSFER, GRID, None, PRIOR)
    noisy = sample_posterior(data[:8], ivar[:8], TRANSFER, GRID, None, PRIOR, gain=0.1)
    assert (noisy.covariance[:, 0, 0] > quiet.covariance[:, 0, 0]).mean() > 0.8


def test_rows_without_data_or_prior(batch):
    _, data, ivar = batch
    ivar = ivar[:3].copy()
    ivar[1] = 0
    result = sample_posterior(data[:3], ivar, TRANSFER, GRID, None, PRIOR, n_samples=64)
    assert result.flags[1] == Flag.NO_DATA | Flag.LOW_ESS
    assert np.isnan(result.mean[1]).all()
    assert np.isfinite(result.mean[[0, 2]]).all()
    elsewhere = Prior(PRIOR.config | {"flux": {"kind": "uniform", "low": 1e8, "high": 2e8}})
    result = sample_posterior(data[:2], ivar[[0, 2]], TRANSFER, GRID, None, elsewhere, n_samples=64)
    assert np.isnan(result.mean).all()
    assert (result.flags & Flag.LOW_ESS).all()
    assert (result.ess == 0).all()


def test_caller_keeps_its_arrays(batch):
    _, data, ivar = batch
    before = data.copy(), ivar.copy(), TRANSFER.copy()
    sample_posterior(data[:2], ivar[:2], TRANSFER, GRID, None, PRIOR, n_samples=64, gain=2.0)
    for now, then in zip((data, ivar, TRANSFER), before, strict=True):
        np.testing.assert_array_equal(now, then)


def test_misuse_is_named(batch):
    truth, data, ivar = batch
    with pytest.raises(InputError, match="n_samples=10; at least 64"):
        sample_posterior(data, ivar, TRANSFER, GRID, None, PRIOR, n_samples=10)
    network = spread_about(truth[:3], np.random.default_rng(0))
    with pytest.raises(InputError, match="proposal holds 3 galaxies; data holds 24"):
        sample_posterior(data, ivar, TRANSFER, GRID, network, PRIOR)


@pytest.fixture(scope="module")
def calibration():
    rng = np.random.default_rng(11)
    truth, data, ivar = mocks(300, rng)
    return truth, data, ivar, spread_about(truth, rng)


@pytest.mark.slow
def test_calibration(calibration):
    truth, data, ivar, network = calibration
    result = sample_posterior(data, ivar, TRANSFER, GRID, network, PRIOR)
    assert (uniformity(ranks(result, truth)) > 1e-3).all()
    probabilities = (0.025, 0.16, 0.5, 0.84, 0.975)
    quantiles = np.stack(
        [sample_quantiles(*one, probabilities) for one in zip(result.samples, result.ess, strict=True)]
    )
    inside = (truth[:, :5] > quantiles[:, 1]) & (truth[:, :5] < quantiles[:, 3])
    assert np.abs(inside.mean() - 0.68) < 0.04
    inside = (truth[:, :5] > quantiles[:, 0]) & (truth[:, :5] < quantiles[:, 4])
    assert np.abs(inside.mean() - 0.95) < 0.02


@pytest.mark.slow
def test_calibration_notices_a_wrong_likelihood(calibration):
    """The noise taken for half of what it is."""
    truth, data, ivar, network = calibration
    result = sample_posterior(data, 4 * ivar, TRANSFER, GRID, network, PRIOR)
    assert (uniformity(ranks(result, truth)) < 1e-3).sum() >= 4


@pytest.mark.slow
def test_agrees_with_emcee(batch):
    """A Markov chain over all eight parameters, that knows nothing of conditional Gaussians."""
    emcee = pytest.importorskip("emcee")
    truth, data, ivar = batch
    for i in (0, 1):

        def log_probability(p, i=i):
            inside = np.abs(p[:, 5:7] - 15.5).max(1) < 8
            prior = np.where(inside, PRIOR.log_density(*p[:, :5].T), -np.inf)
            legal = np.where(np.isfinite(prior)[:, None], p, truth[i])
            images = np.asarray(render(legal.astype(np.float32), TRANSFER, GRID), float)
            return prior - 0.5 * ((data[i] - images) ** 2 * ivar[i]).sum((1, 2))

        rng = np.random.default_rng(i)
        start = truth[i] + rng.normal(size=(500, 8)) * [10, 0.1, 0.05, 0.02, 0.02, 0.02, 0.02, 0.01]
        start = start[np.isfinite(PRIOR.log_density(*start[:, :5].T))][:32]
        moves = [(emcee.moves.DEMove(), 0.7), (emcee.moves.DESnookerMove(), 0.3)]
        chain = emcee.EnsembleSampler(32, 8, log_probability, moves=moves, vectorize=True)
        chain.random_state = np.random.RandomState(i).get_state()  # noqa: NPY002 (emcee's own)
        chain.run_mcmc(start, 3000)
        draws = chain.get_chain(discard=600, flat=True)[:, :5]
        many = sample_posterior(data[i : i + 1], ivar[i : i + 1], TRANSFER, GRID, None, PRIOR, n_samples=2048)
        sigma = draws.std(0)
        assert np.abs((many.mean[0] - draws.mean(0)) / sigma).max() < 0.15
        np.testing.assert_allclose(np.sqrt(np.diag(many.covariance[0])), sigma, rtol=0.15)
