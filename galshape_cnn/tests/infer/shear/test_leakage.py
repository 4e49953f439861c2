# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""PSF leakage of catalogues with a known part of the PSF's shape in their shapes."""

from dataclasses import replace

import numpy as np
import pytest
from astropy.table import Table

from galshape_cnn import mean_shear
from galshape_cnn.errors import InputError
from galshape_cnn.tests.infer.shear.test_mean_shear import RESPONSE, N, sheared_catalog

SHAPES = np.random.default_rng(8).normal(0, 0.03, (N, 2)) + [0.02, -0.01]


def leaking(alpha, table=None):
    cat = sheared_catalog(table=table)
    sheared = cat.measurement.sheared.copy()
    sheared[:, :, 0, 3:5] += (alpha * SHAPES @ RESPONSE.T)[:, None]
    return replace(cat, measurement=replace(cat.measurement, sheared=sheared))


@pytest.mark.parametrize("alpha", [0.0, 0.5])
def test_slope_is_found_within_its_error(alpha):
    row = mean_shear(leaking(alpha), psf_shape=SHAPES)[0]
    assert 0.02 < row["leakage_err"] < 0.15  # shapes of .15 on .03, 4,000 galaxies and two components
    assert abs(row["leakage"] - alpha) < 3 * row["leakage_err"]


def test_columns_groups_and_selections():
    table = Table({"e1": SHAPES[:, 0], "e2": SHAPES[:, 1], "field": np.arange(N) % 2})
    cat = leaking(0.5, table)
    given = mean_shear(cat, by="field", psf_shape=SHAPES)
    named = mean_shear(cat, by="field", psf_shape=("e1", "e2"))
    np.testing.assert_array_equal(given["leakage"], named["leakage"])
    assert given["leakage"][0] != given["leakage"][1]
    assert np.isnan(mean_shear(cat, lambda t: t["snr"] > 1e9, psf_shape=SHAPES)["leakage"][0])
    assert np.isnan(mean_shear(cat, psf_shape=np.full((N, 2), 0.05))["leakage"][0])


@pytest.mark.parametrize("wrong", [("e1", "e2"), SHAPES[:5], SHAPES * np.nan])
def test_what_is_no_shape_is_refused(wrong):
    with pytest.raises(InputError, match="psf_shape"):
        mean_shear(sheared_catalog(), psf_shape=wrong)
