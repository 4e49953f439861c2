# Licensed under a 3-clause BSD style license - see LICENSE.rst
import numpy as np
import pytest

from galshape_cnn.forward.coordinates import POSTERIOR
from galshape_cnn.forward.galaxy_model import SINGLE
from galshape_cnn.forward.grid import FourierGrid
from galshape_cnn.forward.transfer import transfer_functions
from galshape_cnn.infer.likelihood.fisher import score_and_fisher
from galshape_cnn.infer.network.amortized import AmortizedPosterior, FirstLook
from galshape_cnn.infer.network.architecture import build_network, build_update, import_keras
from galshape_cnn.infer.network.bundle import Bundle
from galshape_cnn.infer.network.likelihood_update import (
    expansion_point,
    frame_at,
    likelihood_features,
    update_features,
)
from galshape_cnn.infer.posterior.mixture import MixturePosterior
from galshape_cnn.tests.infer.network.test_architecture import TINY

N = 24
UPDATE = {"dense": [8], "components": 2}


@pytest.fixture(scope="module")
def galaxies():
    """Bright galaxies, a first answer off by several bounds, and the derivatives there."""
    from galshape_cnn.forward.render import render

    rng = np.random.default_rng(3)
    truth = np.column_stack(
        [
            rng.uniform(3e3, 6e3, N), rng.uniform(0.8, 4, N), rng.uniform(2, 5, N),
            rng.uniform(-0.3, 0.3, (N, 2)), rng.uniform(31, 32, (N, 2)), np.zeros(N),
        ]
    ).astype(np.float32)  # fmt: skip
    grid = FourierGrid(64, 1)
    y, x = np.mgrid[-12:13, -12:13]
    psf = np.exp(-(x**2 + y**2) / (2 * 1.4**2))
    transfer = transfer_functions((psf / psf.sum())[None].astype(np.float32), grid, 1)
    data = np.asarray(render(truth, transfer, grid)) + rng.normal(size=(N, 64, 64)).astype(np.float32)
    spread = np.array([0.02, 0.1, 0.04, 0.02, 0.02, 0.05, 0.05])
    u = POSTERIOR.of(truth[:, :7])
    chol = np.tile(np.diag(spread), (N, 1, 1))
    mean = u + rng.normal(size=(N, 7)) * spread
    params = SINGLE.with_sky(POSTERIOR.params(mean)).astype(np.float32)
    ivar = np.ones_like(data)
    _, score, fisher = (np.asarray(a) for a in score_and_fisher(params, data, ivar, transfer, grid))
    return {"u": u, "mean": mean, "chol": chol, "score": score, "fisher": fisher}


def test_one_step_makes_the_truth_a_standard_normal(galaxies):
    g = galaxies
    frame, _, _ = frame_at(g["mean"], g["chol"], g["score"], g["fisher"], False)
    w = frame.inward(g["u"])
    # 168 numbers of unit variance: a standard error of 0.055
    assert 0.8 < w.std() < 1.2
    before = np.linalg.solve(frame.chol, (g["u"] - g["mean"])[..., None])[..., 0]
    assert before.std() > 1.5


def test_a_step_with_the_wrong_sign_is_noticed(galaxies):
    g = galaxies
    frame, _, _ = frame_at(g["mean"], g["chol"], -g["score"], g["fisher"], False)
    assert frame.inward(g["u"]).std() > 2


def test_unknown_sky_is_marginalised(galaxies):
    g = galaxies
    known, _, _ = frame_at(g["mean"], g["chol"], g["score"], g["fisher"], False)
    unknown, _, _ = frame_at(g["mean"], g["chol"], g["score"], g["fisher"], True)
    volume = [np.log(np.einsum("nii->ni", f.chol)).sum(1) for f in (known, unknown)]
    assert (volume[1] > volume[0]).all()
    # a row of either kind is the same in a mixed batch
    mixed, _, _ = frame_at(g["mean"], g["chol"], g["score"], g["fisher"], np.arange(N) % 2 == 0)
    np.testing.assert_allclose(mixed.chol[::2], unknown.chol[::2])
    np.testing.assert_allclose(mixed.chol[1::2], known.chol[1::2])


def test_outward_and_inward_are_inverse(galaxies):
    g = galaxies
    frame, _, _ = frame_at(g["mean"], g["chol"], g["score"], g["fisher"], False)
    rng = np.random.default_rng(5)
    means, chols = rng.normal(size=(N, 2, 7)), np.tile(0.5 * np.eye(7), (N, 2, 1, 1))
    mixture = frame.outward(np.full((N, 2), 0.5), means, chols)
    np.testing.assert_allclose(frame.inward(mixture.means[:, 1]), means[:, 1], atol=1e-8)
    assert (np.triu(mixture.chols, 1) == 0).all()


def test_long_steps_are_cut_short(galaxies):
    g = galaxies
    _, step, _ = frame_at(g["mean"], g["chol"], 1e3 * g["score"], g["fisher"], False)
    np.testing.assert_allclose(np.linalg.norm(step, axis=1), 10.0)


def test_expansion_point_is_the_mixtures_moments():
    rng = np.random.default_rng(1)
    chols = np.tril(rng.normal(size=(1, 3, 7, 7))) + 2 * np.eye(7)
    mixture = MixturePosterior(np.array([[0.2, 0.5, 0.3]]), rng.normal(size=(1, 3, 7)), chols)
    mean, chol = expansion_point(mixture)
    draws = mixture.sample(np.random.default_rng(2), 200_000)[0]
    np.testing.assert_allclose(mean[0], draws.mean(0), atol=0.05)
    np.testing.assert_allclose((chol @ np.swapaxes(chol, 1, 2))[0], np.cov(draws.T), atol=0.2)


def tiny_bundle():
    to_numpy = import_keras().ops.convert_to_numpy
    first = build_network(TINY)
    weights = [to_numpy(w.value) for w in first.weights]
    size = update_features(
        np.zeros((1, 72)), np.zeros((1, len(weights[0]))),
        np.eye(7)[None], np.zeros((1, 7)), np.eye(7)[None],
    ).shape[1]  # fmt: skip
    second = build_update(UPDATE, size, np.zeros(size), np.ones(size))
    weights += [to_numpy(w.value) for w in second.weights]
    return Bundle(TINY | {"update": UPDATE}, tuple(weights), {}, {}, {})


def test_rows_without_a_likelihood_keep_the_first_answer(galaxies):
    g = galaxies
    network = AmortizedPosterior(tiny_bundle())
    posterior = MixturePosterior(np.ones((N, 1)), g["mean"][:, None], g["chol"][:, None])
    context = np.zeros((N, len(network._mean)))
    first = FirstLook(posterior, np.zeros(N), np.zeros((N, 72), np.float32), context)
    score = g["score"].copy()
    score[3, 2] = np.nan
    updated = network.update(first, lambda u: (score, g["fisher"]), False)
    assert updated.weights.shape == (N, 2)
    np.testing.assert_array_equal(updated.means[3, 0], posterior.means[3, 0])
    np.testing.assert_array_equal(updated.weights[3], [1, 0])
    distance = np.abs(updated.means - g["mean"][:, None]).max((1, 2))
    assert (np.delete(distance, 3) > 1e-3).all()


def test_features_of_hopeless_rows_are_finite(galaxies):
    g = galaxies
    mean = g["mean"].copy()
    mean[0] = np.inf
    fisher = g["fisher"].copy()
    fisher[1] = np.nan
    zeros = np.zeros((N, 4))
    _, features, usable = likelihood_features(zeros, zeros, mean, g["chol"], g["score"], fisher, True)
    assert np.isfinite(features).all()
    assert usable.tolist() == [False, False] + [True] * (N - 2)


def test_a_psf_that_cuts_its_wings_means_more_flux_and_nothing_else():
    from galshape_cnn import PSFConvolvedSersic2D, ShapeEstimator, Stamps

    y, x = np.mgrid[-12:13, -12:13]
    psf = np.exp(-(x**2 + y**2) / (2 * 1.4**2))
    psf /= psf.sum()
    model = PSFConvolvedSersic2D(6000, 1.5, 3.0, 0.2, -0.1, 31.5, 31.5, psf=psf)
    yy, xx = np.mgrid[:64, :64]
    images = model(xx, yy) + np.random.default_rng(2).normal(size=(4, 64, 64))
    whole, cut = (
        ShapeEstimator()(Stamps(images, np.ones_like(images), total * psf[None])) for total in (1.0, 0.9)
    )
    np.testing.assert_allclose(cut.flux, whole.flux / 0.9, rtol=1e-4)
    for name in ("n", "hlr", "g1", "g2"):
        np.testing.assert_allclose(getattr(cut, name), getattr(whole, name), rtol=1e-3, atol=1e-4)
