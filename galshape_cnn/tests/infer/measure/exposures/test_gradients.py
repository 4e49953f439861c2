# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""Whether one shape holds in all bands, and the size of what differs."""

import numpy as np
import pytest

from galshape_cnn import ShapeEstimator
from galshape_cnn.flags import Flag
from galshape_cnn.tests.exposure_scene import SETUP, exposure, galaxies

CHANGE = 1.3  # of the half-light radius, from g to r


@pytest.fixture(scope="module")
def scenes():
    """Catalogues of the same galaxies, without and with a larger size in r."""
    rng = np.random.default_rng(3)
    sky, truth = galaxies(rng)
    truth["flux_g"] *= 4
    truth["flux_r"] *= 4
    larger = truth.copy()
    larger["hlr"] *= CHANGE
    images = [
        [exposure(rng, sky, truth if one[0] == "g" else red, one) for one in SETUP] for red in (truth, larger)
    ]
    return [ShapeEstimator()(one, positions=sky, method="ml", neighbours="ignore") for one in images]


def test_one_shape_is_not_doubted_where_it_holds(scenes):
    catalog = scenes[0]
    assert (catalog.flags & Flag.SHAPE_VARIES == 0).all()
    pull = np.asarray(catalog.hlr_gradient) / np.asarray(catalog.hlr_gradient_err)
    assert np.abs(pull).max() < 4
    assert (pull**2).mean() == pytest.approx(1, abs=4 * np.sqrt(2 / 9))


def test_a_gradient_is_found_and_measured(scenes):
    """To first order: of ln 1.3 = 0.26 between the bands."""
    catalog = scenes[1]
    assert (catalog.flags & Flag.SHAPE_VARIES > 0).sum() >= 8
    assert (catalog.quality >= 1).sum() >= 8
    assert np.median(catalog.hlr_gradient) == pytest.approx(np.log(CHANGE), abs=0.1)
    assert "band r minus that in band g" in catalog.to_table()["hlr_gradient"].info.description


def test_a_row_with_one_band_has_no_gradient(scenes):
    catalog = scenes[0]
    assert {"hlr_gradient", "hlr_gradient_err"} <= set(catalog.to_table().colnames)
    rng = np.random.default_rng(1)
    sky, truth = galaxies(rng)
    one = ShapeEstimator()(
        [exposure(rng, sky, truth, SETUP[1])], positions=sky[:1], method="ml", neighbours="ignore"
    )
    assert "hlr_gradient" not in one.to_table().colnames
    assert one.flags[0] & Flag.SHAPE_VARIES == 0
