# Licensed under a 3-clause BSD style license - see LICENSE.rst
import numpy as np
import pytest

from galshape_cnn import ShapeEstimator
from galshape_cnn.flags import Flag
from galshape_cnn.study.inject.measuring import (
    blank_rows,
    cut_at,
    cut_found,
    given_positions,
    measured_table,
)
from galshape_cnn.tests.standin import StandInEstimator
from galshape_cnn.tests.study.inject.scene import PSF, SOURCES, image

PLACES = np.array([[60.0, 80.0], [100.0, 150.0], [210.0, 150.0]])


def equal_rows(one, two):
    for name in one.colnames:
        first, second = (t[name].ra if name == "sky_centroid" else t[name] for t in (one, two))
        first, second = (np.asarray(getattr(values, "value", values)) for values in (first, second))
        if first.dtype.kind == "f" and name in ("x_centroid", "y_centroid", "sky_centroid"):
            np.testing.assert_allclose(first, second, rtol=1e-11, err_msg=name)
        else:
            np.testing.assert_array_equal(first, second, err_msg=name)


@pytest.mark.parametrize("wcs", [False, True])
def test_stamps_of_several_images_are_measured_as_by_themselves(wcs):
    """Whatever shares the call; centroids to a part in 1e11, everything else to the last bit."""
    images = [image(wcs=wcs), image(empty=True, wcs=wcs), image(wcs=wcs)]
    cutting = {"psf": PSF, "stamp_size": 64}
    together = measured_table(StandInEstimator(), [cut_at(one, PLACES, cutting) for one in images], {})
    for k, one in enumerate(images):
        alone = StandInEstimator()(one, positions=PLACES, **cutting).to_table()
        part = together[3 * k : 3 * k + 3]
        equal_rows(part[[n for n in part.colnames if n != "id"]], alone)


@pytest.mark.slow
@pytest.mark.parametrize("neighbours", ["mask", "fit"])
def test_the_network_measures_found_galaxies_as_in_their_image(neighbours):
    """Sources found beside a galaxy are listed neighbours, as in a call with all positions."""
    from galshape_cnn.observe.detect.sources import find_galaxies

    one, estimator = image(), ShapeEstimator()
    sources = find_galaxies(one)
    direct = estimator(one, positions=sources, psf=PSF, neighbours=neighbours, method="ml").to_table()
    xy = np.array([source[:2] for source in SOURCES])
    parts = [cut_found(one, xy[rows], 3.5, None, {"psf": PSF}) for rows in ([2, 0], [1])]
    call = {"neighbours": neighbours, "method": "ml"}
    table = measured_table(estimator, [part for part, _ in parts], call)
    order = [np.hypot(direct["x_centroid"].value - x, direct["y_centroid"].value - y).argmin() for x, y in xy]
    names = [name for name in table.colnames if name != "id"]
    equal_rows(table[names], direct[[order[2], order[0], order[1]]])


def test_sources_that_are_not_there_are_not_found():
    observation, found = cut_found(image(), np.array([[60.0, 80.0], [30.0, 250.0]]), 3.5, None, {"psf": PSF})
    assert found.tolist() == [True, False]
    assert observation.n == 1
    assert len(observation.listed) == 3


def test_no_found_stamp_holds_another_galaxy():
    """Sizes of stamps that were found end before the next injected galaxy."""
    xy = np.array([[60.0, 80.0], [60.0, 130.0]])
    observation, _ = cut_found(image(), xy, 3.5, None, {"psf": PSF})
    stamps = observation.groups[0][1]
    rows = np.flatnonzero((stamps.ivar[0] > 0).any(1)) + stamps.origin[0, 1]
    assert rows.max() < 130


def test_blank_rows_keep_their_place():
    table = StandInEstimator()(image(wcs=True), positions=PLACES[:2], psf=PSF).to_table()
    found = np.array([False, True, True, False])
    whole = blank_rows(table, found)
    assert (whole["flags"] == Flag.NOT_MEASURED).tolist() == (~found).tolist()
    np.testing.assert_array_equal(np.isfinite(whole["flux"]), found)
    np.testing.assert_array_equal(np.isfinite(whole["sky_centroid"].ra), found)
    np.testing.assert_array_equal(whole["hlr"][found], table["hlr"])


def test_given_positions_have_the_error_of_a_centroid():
    xy, snr = np.zeros((4000, 2)), np.repeat([10.0, 100.0], 2000)
    moved = given_positions(xy, snr, 3.5, [[1, k] for k in range(4000)])
    for rows, sigma in ((snr == 10, 3.5 / 23.55), (snr == 100, 3.5 / 235.5)):
        assert moved[rows].std() == pytest.approx(0.88 * sigma, rel=0.1)  # cut at two sigma
    assert np.abs(given_positions(xy, np.full(4000, 0.01), 3.5, [[1, k] for k in range(4000)])).max() <= 1.0
