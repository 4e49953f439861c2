# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""The sky between sources: what libraries find, in less time."""

import numpy as np
import pytest
from astropy.stats import sigma_clipped_stats
from photutils.background import Background2D, MedianBackground
from photutils.utils import circular_footprint
from scipy.ndimage import binary_dilation

from galshape_cnn.observe.detect.background import (
    clipped_level,
    grown,
    sky_level,
    sorted_values,
    without_some,
)

RNG = np.random.default_rng(11)


@pytest.mark.parametrize("size", [1, 2, 3, 50, 20_000, 20_001])
@pytest.mark.parametrize("maxiters", [1, 5, 20])
def test_clipping_is_that_of_astropy(size, maxiters):
    values = RNG.normal(size=size) + 40 * (RNG.uniform(size=size) < 0.1)
    _, level, sigma = sigma_clipped_stats(values, maxiters=maxiters)
    ours = clipped_level(sorted_values(values), maxiters)
    np.testing.assert_allclose(ours, (level, sigma), rtol=1e-12, atol=1e-15)


@pytest.mark.parametrize("kind", [np.float32, np.float64])
def test_values_are_taken_out_of_sorted_ones(kind):
    values = RNG.normal(size=3000).astype(kind).astype(float)
    values[RNG.integers(0, 3000, 2000)] = 0.5  # many are equal
    hidden = RNG.uniform(size=3000) < 0.3
    ordered = sorted_values(values)
    np.testing.assert_array_equal(ordered, np.sort(values))
    np.testing.assert_array_equal(without_some(ordered, values[hidden]), np.sort(values[~hidden]))
    assert without_some(ordered, values).shape == (0,)
    np.testing.assert_array_equal(without_some(ordered, values[:0]), ordered)


def test_numbers_beyond_single_precision_are_sorted_as_they_are():
    values = np.array([1e300, -2.0, 5.0, -1e200])
    np.testing.assert_array_equal(sorted_values(values), np.sort(values))


def test_nothing_has_no_level():
    assert np.isnan(clipped_level(np.zeros(0))).all()
    assert clipped_level(np.full(7, 3.0)) == (3.0, 0.0)


@pytest.mark.parametrize("share", [0.0, 0.002, 0.3])
@pytest.mark.parametrize(
    ("radius", "shape"),
    [
        (0, (40, 61)),
        (1, (1, 1)),
        (2, (40, 61)),
        (2.5, (40, 61)),
        (9, (3, 90)),
        (9.5, (40, 61)),
        (254, (2, 600)),
        (300, (2, 600)),
    ],
)
def test_masks_grow_by_discs(radius, shape, share):
    mask = RNG.uniform(size=shape) < share
    y, x = (np.arange(-side, side + 1) for side in shape)  # farther than any pixel from another
    disc = np.hypot(x, y[:, None]) <= radius
    np.testing.assert_array_equal(grown(mask, radius), binary_dilation(mask, disc))


@pytest.mark.parametrize(("shape", "box"), [((300, 410), 64), ((256, 256), None), ((300, 100), 200)])
def test_mesh_is_that_of_photutils(shape, box):
    y, x = np.mgrid[: shape[0], : shape[1]]
    image = 5 + 0.01 * x - 3e-5 * y**2 + RNG.normal(size=shape)
    bad, sources = RNG.uniform(size=shape) < 0.02, np.hypot(x - 60, y - 150) < min(70, shape[1] / 4)
    hidden = bad | binary_dilation(sources, circular_footprint(9))
    mesh = Background2D(
        image, box or 128, mask=hidden, filter_size=3, exclude_percentile=50, bkg_estimator=MedianBackground()
    )
    np.testing.assert_allclose(sky_level(image, bad, sources, 9, box), mesh.background, rtol=1e-12)


def test_images_without_room_for_a_mesh_have_one_level():
    image, bad = RNG.normal(size=(200, 200)) + 3, np.zeros((200, 200), bool)
    level = sigma_clipped_stats(image)[1]
    assert sky_level(image, bad, None, 9, None) == pytest.approx(level, rel=1e-12)
    sources = np.ones_like(bad)  # nothing would be left: they stay in
    assert sky_level(image, bad, sources, 9, None) == pytest.approx(level, rel=1e-12)
    most = np.indices(image.shape)[1] % 10 > 0  # no box has half of its pixels
    level = sigma_clipped_stats(image[~most])[1]
    assert sky_level(image, most, None, 9, 64) == pytest.approx(level, rel=1e-12)
    assert sky_level(image, bad, sources, 9, 0) == 0.0
