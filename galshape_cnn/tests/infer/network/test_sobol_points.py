# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""The points written down are those of SciPy."""

import numpy as np
import pytest
from scipy.stats import qmc

from galshape_cnn.infer.network.sobol_points import MOST_POINTS, sobol_points


def test_more_points_than_there_are_is_refused():
    with pytest.raises(ValueError, match="up to 1024"):
        sobol_points(2 * MOST_POINTS)


@pytest.mark.parametrize("count", [1, 256, MOST_POINTS])
def test_points_are_those_of_scipy(count):
    np.testing.assert_array_equal(sobol_points(count), qmc.Sobol(8, seed=20261122).random(count))
