# Licensed under a 3-clause BSD style license - see LICENSE.rst
import numpy as np
import pytest

from galshape_cnn.study.simulate.config import load_config
from galshape_cnn.study.simulate.stream import MockStream


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
