# Licensed under a 3-clause BSD style license - see LICENSE.rst
import numpy as np
import pytest

from galshape_cnn.study.simulate.config import load_config
from galshape_cnn.study.simulate.psf_families import PSF_ARRAYS
from galshape_cnn.study.simulate.stream import MockStream, _simulate


@pytest.fixture(scope="module")
def config():
    return load_config()


@pytest.fixture(scope="module")
def mock(config):
    return MockStream(config, 5).simulate(0, 64)


def test_batches_depend_on_seed_and_number_alone(config):
    first = MockStream(config, 5).batch(3, 64)
    again = MockStream(config, 5).batch(3, 64)
    np.testing.assert_array_equal(first[0][0], again[0][0])
    np.testing.assert_array_equal(first[1], again[1])
    other = MockStream(config, 6).batch(3, 64)
    assert not np.array_equal(first[1], other[1])


def test_snr_is_the_one_drawn(config, mock):
    limits = config["prior"]["snr"]
    assert (mock["snr"] > 0.99 * limits["low"]).all()
    assert (mock["snr"] < 1.01 * limits["high"]).all()


def test_noise_has_the_stated_variance(mock):
    corners = np.s_[:, [0, 1, 2, -3, -2, -1], :]
    small = (mock["params"][:, 2] < 2) & (mock["snr"] < 100)
    data, ivar = np.asarray(mock["data"])[corners][small], np.asarray(mock["ivar"])[corners][small]
    pulls = (data * np.sqrt(ivar))[ivar > 0]
    assert len(pulls) > 5000
    assert pulls.std() == pytest.approx(1, abs=0.1)  # sky offsets add up to a few per cent


def test_masked_pixels_carry_no_data(mock):
    data, ivar = np.asarray(mock["data"]), np.asarray(mock["ivar"])
    assert (ivar == 0).any()
    assert (data[ivar == 0] == 0).all()


def test_targets_are_finite(config):
    inputs, targets, weights = MockStream(config, 1).batch(0, 64)
    assert np.isfinite(targets).all()
    assert all(np.isfinite(a).all() for a in inputs)
    assert weights.sum() > 32


def test_galaxies_that_are_used_twice_are_those_of_their_parameters(config):
    """A turned stamp is the one that rendering the turned parameters gives, PSF included."""
    drawn = MockStream(config, 5, paired=True).draw(0, 16)
    params, psfs = np.asarray(drawn["params"], np.float32), drawn["psfs"]
    np.testing.assert_array_equal(params[8:, 3:5], -params[:8, 3:5])
    assert not np.array_equal(params[8:, 0], params[:8, 0])
    arrays = {key: np.asarray(psfs[key], np.float32) for key in PSF_ARRAYS}
    nuisance = {
        key: np.asarray(value, bool if value.dtype == bool else np.float32)
        for key, value in drawn["nuisance"].items()
    }
    turned, direct = (
        _simulate(params, arrays, nuisance, 3, sharp=0, paired=paired, masks=True) for paired in (True, False)
    )
    np.testing.assert_allclose(turned[0], direct[0], atol=0.02)  # of the noise of a pixel
    np.testing.assert_allclose(turned[3], direct[3], rtol=1e-3)


def test_photon_noise_of_a_gain_is_told_or_in_the_map():
    config = load_config("seed")
    nuisance = MockStream(config, 1).draw(0, 400)["nuisance"]
    told, stated = nuisance["poisson"] > 0, nuisance["poisson_in_map"] > 0
    assert not (told & stated).any()
    assert 60 < told.sum() < 140
    assert 60 < stated.sum() < 140
    everywhere = config | {"noise": config["noise"] | {"poisson_fraction": 0.0}}  # only the gain is given
    nuisance = MockStream(everywhere, 1).draw(0, 400)["nuisance"]
    assert ((nuisance["poisson"] > 0) | (nuisance["poisson_in_map"] > 0)).all()


def test_the_kernel_renders_the_same_mocks(config, monkeypatch):
    stream = MockStream(config, 5, paired=True, cut_wings=True)
    ours = stream.simulate(0, 32)
    monkeypatch.setenv("GALSHAPE_KERNEL", "off")
    theirs = MockStream(config, 5, paired=True, cut_wings=True).simulate(0, 32)
    np.testing.assert_array_equal(ours["ivar"] > 0, theirs["ivar"] > 0)
    scale = np.asarray(ours["data"]).max((1, 2))[:, None, None]
    np.testing.assert_allclose(ours["data"] / scale, theirs["data"] / scale, atol=2e-4)
    np.testing.assert_allclose(ours["snr"], theirs["snr"], rtol=1e-3)
