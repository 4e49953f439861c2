# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""Segments and their division are those of photutils, pixel by pixel."""

import numpy as np
import photutils
import pytest
from astropy.utils import minversion
from photutils.segmentation import SegmentationImage, deblend_sources, detect_sources
from scipy.ndimage import gaussian_filter

from galshape_cnn.observe.detect.deblending import deblended, detected

NPIXELS = 8


def crowded(seed, noise=0.3, count=60, level=0.0, whole=False):
    """Smooth image of many sources, some of them on top of others; in whole numbers peaks are plateaus."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:300, :300]
    image = gaussian_filter(rng.normal(size=x.shape), 1.3) * noise * 4 + level
    for x_0, y_0 in rng.uniform(5, 295, (count, 2)):
        radius = np.hypot(x - x_0, (y - y_0) / rng.uniform(0.3, 1))
        image += rng.uniform(5, 40) * np.exp(-0.5 * (radius / rng.uniform(2, 9)) ** 2)
    return np.round(image) if whole else image


@pytest.mark.parametrize("npixels", [1, 8, 40])
def test_segments(npixels):
    image = crowded(3)
    bad = np.random.default_rng(4).uniform(size=image.shape) < 0.05
    theirs = detect_sources(image, 4.0, npixels, mask=bad).data
    np.testing.assert_array_equal(detected(image, 4.0, npixels, bad), theirs)
    assert not detected(image, 1e3, npixels, bad).any()


@pytest.mark.filterwarnings("ignore:The deblending mode")
@pytest.mark.parametrize("contrast", [0.0, 0.005, 0.2, 1.0])
@pytest.mark.parametrize(
    "scene",
    [
        crowded(8),
        crowded(9, whole=True),
        crowded(10, noise=3.0)[:110, :110],
        crowded(11, level=-6.0),
    ],
    ids=["blends", "plateaus", "noise", "below zero"],
)
def test_division(scene, contrast):
    compare_division(scene, contrast)


@pytest.mark.filterwarnings("ignore:The deblending mode")
def test_division_of_hundreds_of_peaks():
    compare_division(crowded(12, noise=2.5, level=3.0)[:250, :250], 0.0)


def compare_division(scene, contrast):
    threshold = -2.0 if scene.min() < -8 else 3.0
    labels = detected(scene, threshold, NPIXELS)
    how = {"progress_bar": False}
    if minversion(photutils, "3.1"):  # levels of segments that reach below zero are no longer linear there
        how = {"mode": "linear" if threshold < 0 else "exponential"}
    theirs = deblend_sources(scene, SegmentationImage(labels), NPIXELS, contrast=contrast, **how)
    ours = deblended(scene, labels, NPIXELS, contrast)
    np.testing.assert_array_equal(ours, theirs.data)
    assert (ours.max() > labels.max()) == (contrast < 1)


def test_flat_and_missing_sources_stay_as_they_are():
    flat = np.zeros((40, 40))
    flat[10:20, 10:20] = 7.0
    labels = detected(flat, 1.0, NPIXELS)
    np.testing.assert_array_equal(deblended(flat, labels, NPIXELS, 0.005), labels)
    none = np.zeros_like(labels)
    np.testing.assert_array_equal(deblended(flat, none, NPIXELS, 0.005), none)
