# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""Options of a measurement."""

from types import SimpleNamespace

import numpy as np
import pytest

from galshape_cnn.errors import InputError
from galshape_cnn.infer.measure.options import Options, prior_of_training
from galshape_cnn.infer.posterior.prior import Prior

LIMITED = {
    "flux": {"kind": "loguniform", "low": 10, "high": 1e5},
    "n": {"kind": "uniform", "low": 0.5, "high": 6},
    "hlr": {"kind": "uniform", "low": 0.4, "high": 2.6},
    "g": {"kind": "uniform", "low": 0, "high": 0.67},
}


@pytest.mark.parametrize("name", ["method", "neighbours"])
@pytest.mark.parametrize("value", [np.array(["ml", "mask"]), ["ml"], None, "ML"])
def test_words_are_checked_before_they_are_compared(name, value):
    keywords = {"method": "ml", "fit_sky": True, "neighbours": "mask", "prior": None, "seed": 0} | {
        name: value
    }
    with pytest.raises(InputError, match=f"^{name}="):
        Options.checked(**keywords)


@pytest.mark.parametrize(("keeps", "high"), [(True, 2.6), (False, 32.0)])
def test_prior_of_a_training_ends_where_its_galaxies_do(keeps, high):
    network = SimpleNamespace(prior=Prior(LIMITED), keeps_limits=keeps)
    assert prior_of_training(network, 64)["hlr"].high == pytest.approx(high)
