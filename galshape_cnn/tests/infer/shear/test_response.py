# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""Response of the shipped network: against differences, alone and in company, and through the estimator."""

import numpy as np
import pytest

from galshape_cnn import ShapeEstimator, Stamps, mean_shear
from galshape_cnn.errors import InputError
from galshape_cnn.forward.render import render
from galshape_cnn.forward.transfer import grid_for, transfer_functions
from galshape_cnn.infer.likelihood.rendering import RenderedBatch
from galshape_cnn.infer.network.amortized import posterior_moments
from galshape_cnn.infer.network.bundle import Bundle
from galshape_cnn.infer.shear.response import shear_response
from galshape_cnn.tests.infer.shear.test_generators import psf_array

GAMMA = 0.02
ROWS = 16


def images(g, seed=1, snr=300.0, noisy=True, moved=0j):
    """Unit-noise images of galaxies of shapes g: the same galaxies and noise for the same seed.

    Their centres are moved by a shear about the middle of the stamp.
    """
    rng = np.random.default_rng(seed)
    count = len(g)
    index, hlr, center = (
        rng.uniform(0.8, 3, count),
        rng.uniform(2.5, 4.5, count),
        rng.uniform(31, 32, (count, 2)),
    )
    across = np.array([[moved.real, moved.imag], [moved.imag, -moved.real]])
    center = 31.5 + (center - 31.5) @ (np.eye(2) + across) / np.sqrt(1 - abs(moved) ** 2)
    noise = rng.normal(size=(count, 64, 64))
    strength = np.full(count, snr)
    ones, psf, grid = np.ones(count), psf_array("moffat"), grid_for(64, 2)
    transfer = transfer_functions(psf, grid, 2)

    def draw(shape):
        params = np.column_stack([ones, index, hlr, shape.real, shape.imag, center, 0 * ones])
        return np.asarray(render(params.astype(np.float32), transfer, grid)).astype(float)

    flux = strength / np.sqrt((draw(0 * g) ** 2).sum((1, 2)))
    return draw(g) * flux[:, None, None] + noisy * noise


def stamps(data, psf="moffat", **kwargs):
    return Stamps(data, np.ones(data.shape), psf_array(psf), psf_oversampling=2, **kwargs)


def shapes(count=ROWS):
    rng = np.random.default_rng(4)
    return 0.35 * np.sqrt(rng.uniform(size=count)) * np.exp(2j * np.pi * rng.uniform(size=count))


def composed(g, gamma):
    return (g + gamma) / (1 + np.conj(gamma) * g)


@pytest.fixture(scope="module")
def estimator():
    return ShapeEstimator()


@pytest.fixture(scope="module")
def network(estimator):
    return estimator.live_network()


def measured(data, network, noise=None, **kwargs):
    batch = RenderedBatch.from_stamps(stamps(data, **kwargs))
    return shear_response(batch, network, np.zeros(len(data)), noise=noise)


def test_derivatives_without_noise_are_exact(network):
    g, nothing = shapes(), np.zeros((ROWS, 64, 64))
    quiet = {"snr": 100.0, "noisy": False}
    center = measured(images(g, **quiet), network, nothing)
    for slot, direction in ((1, 1), (2, 1j)):
        high, low = (
            measured(images(composed(g, move), moved=move, **quiet), network, nothing)
            for move in (GAMMA * direction, -GAMMA * direction)
        )
        off = center[:, :, slot] - (high - low)[:, :, 0] / (2 * GAMMA)
        assert np.abs(off[..., 3:5]).max() < 1e-3
        assert np.abs(off[..., 3:5].mean((0, 1))).max() < 1e-4
        relative = off[..., [0, 2, 5]] / center[:, :, 0][..., [0, 2, 5]]  # on them selections are made
        assert np.abs(relative).max() < 0.006


def test_derivatives_beside_missing_pixels(network):
    """Holes are filled from beside them; filled with the measured model, derivatives were off by 0.01."""
    g, nothing = shapes(), np.zeros((ROWS, 64, 64))
    ivar = np.ones(nothing.shape)
    ivar[np.random.default_rng(6).uniform(size=ivar.shape) < 0.02] = 0
    ivar[:, :, 30] = 0

    def of_masked(move):
        data = images(composed(g, move), moved=move, snr=60.0, noisy=False)
        batch = RenderedBatch.from_stamps(Stamps(data, ivar, psf_array("moffat"), psf_oversampling=2))
        return shear_response(batch, network, np.zeros(ROWS), noise=nothing)

    center = of_masked(0j)
    for slot, direction in ((1, 1), (2, 1j)):
        high, low = (of_masked(sign * GAMMA * direction) for sign in (1, -1))
        off = center[:, :, slot] - (high - low)[:, :, 0] / (2 * GAMMA)
        assert np.sqrt((off[..., 3:5] ** 2).mean()) < 0.004


def test_derivatives_are_those_of_sheared_galaxies(network):
    """The copies of the sheared stamps have other noise, so single galaxies agree up to scatter only."""
    g = shapes()
    center = measured(images(g), network)
    scale = np.ones((ROWS, 6))
    scale[:, [0, 2, 5]] = center[:, :, 0].mean(1)[:, [0, 2, 5]]
    for slot, direction in ((1, 1), (2, 1j)):
        high, low = (measured(images(composed(g, s * GAMMA * direction)), network)[:, :, 0] for s in (1, -1))
        difference = ((high - low) / (2 * GAMMA)).mean(1)
        off = ((center[:, :, slot].mean(1) - difference) / scale)[:, [0, 2, 3, 4, 5]]
        assert off[:, 2:].std(0).max() < 0.15  # of g1, g2, S/N
        assert (np.abs(off.mean(0)) < 4 * off.std(0) / np.sqrt(ROWS)).all()
        assert abs(difference[:, 2 + slot].mean() - 1) < 0.1
        # twice the response, or none of the PSF's part, would be noticed
        assert off[:, 1 + slot].std() / np.sqrt(ROWS) < 0.05


def test_numbers_do_not_depend_on_the_company(network):
    data = images(shapes())
    together = measured(data, network)
    np.testing.assert_array_equal(measured(data[5:6], network), together[5:6])
    np.testing.assert_array_equal(measured(data[::-1], network), together[::-1])


def test_unit_of_flux(network):
    data = images(shapes(4))
    one = measured(data, network)
    batch = RenderedBatch.from_stamps(
        Stamps(data * 8, np.full(data.shape, 1 / 64), psf_array("moffat"), psf_oversampling=2)
    )
    other = shear_response(batch, network, np.zeros(4))
    np.testing.assert_array_equal(other, one)
    np.testing.assert_array_equal(batch.unit, 8)


def test_large_sky_is_subtracted(network):
    data = images(shapes(4))
    batch = RenderedBatch.from_stamps(stamps(data + 50))
    found = shear_response(batch, network, np.full(4, 50.0))
    np.testing.assert_allclose(found[:, :, 0, 3:5], measured(data, network)[:, :, 0, 3:5], atol=0.02)


def test_stamps_without_data_are_nan(network):
    data = images(shapes(3))
    ivar = np.ones(data.shape)
    ivar[1] = 0
    batch = RenderedBatch.from_stamps(Stamps(data, ivar, psf_array("moffat"), psf_oversampling=2))
    found = shear_response(batch, network, np.zeros(3))
    assert np.isnan(found[1]).all()
    assert np.isfinite(found[[0, 2]]).all()


def test_symmetric_psf_has_no_influence(network):
    data = images(shapes(4))
    assert np.abs(measured(data, network)[:, :, 3]).max() < 1e-3
    assert np.abs(measured(data, network, psf="elliptical")[:, :, 3, 3:5]).max() > 1e-3


def test_means_are_those_of_the_network(network):
    """Closed forms and quadrature beside the average of draws, of the same mixtures."""
    from galshape_cnn.infer.network.architecture import posterior_from_outputs
    from galshape_cnn.infer.shear.moments import mean_parameters

    first = network.look(stamps(images(shapes(), snr=40.0)), True, np.zeros(ROWS))
    amplitude = np.ones(ROWS)
    mean, covariance = posterior_moments(posterior_from_outputs(first.outputs, amplitude, network.components))
    found = np.asarray(
        mean_parameters(first.outputs.astype(np.float32), amplitude.astype(np.float32), network.components)
    )
    sigma = np.sqrt(np.diagonal(covariance, axis1=1, axis2=2))
    assert np.abs((found - mean) / sigma)[:, 1:].max() < 0.1


def test_catalogue_has_the_response(estimator):
    cat = estimator(stamps(images(shapes())), shear_response=True, neighbours="ignore")
    assert cat.response.shape == (ROWS, 2, 2)
    assert cat.meta["options"]["shear_response"] is True
    np.testing.assert_array_equal(np.stack([cat.g1, cat.g2], 1), cat.sheared.shear)
    plain = estimator(stamps(images(shapes())), neighbours="ignore")
    assert plain.response is None
    assert np.abs(plain.g1 - cat.g1).max() < 0.05
    np.testing.assert_array_equal(plain.flux, cat.flux)


def test_sky_frame_turns_with_the_sky(estimator):
    data = images(shapes())
    turned = np.array([[0.0, -0.2], [0.2, 0.0]])
    sky = {"jacobian": turned, "skycoord": np.tile([10.0, 3.0], (ROWS, 1))}
    cat, plain = (estimator(stamps(data, **k), shear_response=True, neighbours="ignore") for k in (sky, {}))
    np.testing.assert_allclose(cat.g1, -plain.g1, atol=1e-6)
    np.testing.assert_allclose(cat.response, plain.response, atol=1e-6)


PRIOR = {"prior": Bundle.shipped().prior}


@pytest.mark.parametrize("arguments", [{"method": "posterior"}, PRIOR])
def test_other_estimators_are_refused(estimator, arguments):
    with pytest.raises(InputError, match="shear_response"):
        estimator(stamps(images(shapes(2))), shear_response=True, **arguments)


@pytest.mark.slow
def test_mean_shear_is_calibrated_and_a_wrong_response_is_not(estimator):
    """S/N 15: the plain average is 10 % and more off."""
    g, gamma = shapes(512), GAMMA * (1 + 1j)
    tables, plain = [], []
    for sign in (1, -1):
        pairs = [images(composed(s * g, sign * gamma), snr=15.0) for s in (1, -1)]
        cat = estimator(stamps(np.concatenate(pairs)), shear_response=True, neighbours="ignore")
        tables.append(mean_shear(cat)[0])
        plain.append(np.mean([cat.g1.mean(), cat.g2.mean()]))
    m = (tables[0]["g1"] - tables[1]["g1"] + tables[0]["g2"] - tables[1]["g2"]) / (4 * GAMMA) - 1
    without = (plain[0] - plain[1]) / (2 * GAMMA) - 1
    assert abs(m) < 0.05
    assert without < -0.1
