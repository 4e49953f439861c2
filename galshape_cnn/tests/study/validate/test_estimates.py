# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""A validation measures as users do: arrays, the estimator's own defaults, and its own centres."""

import numpy as np
import pytest

from galshape_cnn import ShapeEstimator
from galshape_cnn.errors import InputError
from galshape_cnn.forward.galaxy_model import SINGLE
from galshape_cnn.observe.stamps import Stamps
from galshape_cnn.study.validate.estimates import ValidatedNetwork
from galshape_cnn.tests.infer.network.test_conditions import cutouts, shipped


class Spy:
    """An estimator that remembers how it was called."""

    def __init__(self, estimator):
        self.estimator, self.calls = estimator, []

    def __call__(self, data, **keywords):
        self.calls.append(keywords)
        return self.estimator(data, **keywords)


@pytest.fixture(scope="module")
def stamps():
    """Galaxies that are not where the middle of the stamp is."""
    images, psf = cutouts(3)
    ivar = np.ones_like(images)
    ivar[0, 5, 5] = 0
    return Stamps(np.roll(images, 2, axis=2), ivar, psf / psf.sum())


@pytest.fixture(scope="module")
def bundle():
    return shipped(sky=0)


def test_no_option_is_set_that_users_do_not_set(bundle, stamps):
    network = ValidatedNetwork(bundle)
    network.estimator = spy = Spy(network.estimator)
    measured = network.measure(stamps, np.zeros(3, bool))
    described = {"error", "mask", "psf", "psf_oversampling", "normalize_psf"}  # what the user has
    assert [set(call) for call in spy.calls] == [described | {"method", "seed"}]
    plain = {"error": 1.0, "mask": stamps.ivar == 0, "psf": stamps.psf, "normalize_psf": False}
    catalog = ShapeEstimator(bundle)(stamps.data, **plain)
    np.testing.assert_array_equal(measured.params[:, SINGLE.reported], catalog.parameters)
    assert (catalog.placement.origin != 0).any()  # the galaxies were found where they are
    np.testing.assert_allclose(
        measured.params[:, SINGLE.centre] - catalog.measurement.params[:, SINGLE.centre],
        catalog.placement.origin,
    )


def test_what_is_not_the_default_is_told(bundle, stamps):
    """A network that cannot serve a sky is not judged as if it had been asked for another."""
    with pytest.raises(InputError, match="fit_sky=True: this network"):
        ValidatedNetwork(bundle).measure(stamps, [False, True, False])
