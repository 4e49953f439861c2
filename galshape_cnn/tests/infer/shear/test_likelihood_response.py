# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""Response of maximum likelihood: exact without noise, and calibrated with it."""

import numpy as np
import pytest

from galshape_cnn import ShapeEstimator, mean_shear
from galshape_cnn.infer.fit.maximum_likelihood import maximize_likelihood
from galshape_cnn.infer.likelihood.rendering import RenderedBatch
from galshape_cnn.infer.shear.likelihood_response import likelihood_response
from galshape_cnn.tests.infer.shear.test_response import GAMMA, composed, images, shapes, stamps

ROWS = 6


def measured(data, noise=None, gain=None):
    batch = RenderedBatch.from_stamps(stamps(data), gain)
    start = np.tile([500, 1.5, 3.0, 0, 0, 31.5, 31.5, 0], (len(data), 1))
    fit = maximize_likelihood(
        batch.stamps.data, batch.stamps.ivar, batch.transfer, batch.grid, start, gain=batch.gain
    )
    return likelihood_response(batch, fit.params, noise=noise)


@pytest.mark.parametrize("gain", [None, 2.0])
def test_derivatives_without_noise_are_those_of_sheared_galaxies(gain):
    g, nothing = shapes(ROWS), np.zeros((ROWS, 64, 64))
    quiet = {"snr": 60.0, "noisy": False}
    center = measured(images(g, **quiet), nothing, gain)
    assert np.isfinite(center).all()
    for slot, direction in ((1, 1), (2, 1j)):
        high, low = (
            measured(images(composed(g, s * GAMMA * direction), **quiet), nothing, gain)[:, 0, 0]
            for s in (1, -1)
        )
        difference = (high - low) / (2 * GAMMA)
        off = center[:, 0, slot] - difference
        assert np.abs(off[:, 3:5]).max() < 0.002  # of the response, which is near one
        assert np.abs(difference[:, 2 + slot] - 1).max() < 0.2
        assert np.abs(off[:, 1:3]).max() < 0.03


def test_numbers_do_not_depend_on_the_company():
    data = images(shapes(ROWS), snr=40.0)
    together = measured(data)
    np.testing.assert_array_equal(measured(data[3:4]), together[3:4])
    np.testing.assert_array_equal(measured(data[::-1]), together[::-1])


def test_catalogue_of_maximum_likelihood_has_the_response():
    data = images(shapes(ROWS), snr=60.0)
    data[0] = 0  # no galaxy: no maximum
    cat = ShapeEstimator()(stamps(data), method="ml", shear_response=True, neighbours="ignore")
    plain = ShapeEstimator()(stamps(data), method="ml", neighbours="ignore")
    assert np.abs(cat.g1 - plain.g1)[1:].max() < 0.05
    np.testing.assert_array_equal(cat.flux, plain.flux)
    assert 0.7 < np.nanmean(cat.response[1:, 0, 0]) < 1.4
    assert mean_shear(cat)["N"][0] >= ROWS - 2
