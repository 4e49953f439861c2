# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""Options of a measurement."""

from types import SimpleNamespace

import pytest

from galshape_cnn.infer.measure.options import prior_of_training
from galshape_cnn.infer.posterior.prior import Prior

LIMITED = {
    "flux": {"kind": "loguniform", "low": 10, "high": 1e5},
    "n": {"kind": "uniform", "low": 0.5, "high": 6},
    "hlr": {"kind": "uniform", "low": 0.4, "high": 2.6},
    "g": {"kind": "uniform", "low": 0, "high": 0.67},
}


@pytest.mark.parametrize(("keeps", "high"), [(True, 2.6), (False, 32.0)])
def test_prior_of_a_training_ends_where_its_galaxies_do(keeps, high):
    network = SimpleNamespace(prior=Prior(LIMITED), keeps_limits=keeps)
    assert prior_of_training(network, 64)["hlr"].high == pytest.approx(high)
