# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""Autocorrelation of the noise from sums over blank pixels; bumps of the sky apart from the noise."""

import numpy as np
import pytest
from scipy.ndimage import gaussian_filter
from scipy.signal import fftconvolve

from galshape_cnn import Stamps
from galshape_cnn.infer.residuals.smoothers import SKY_SCALE
from galshape_cnn.observe.noise.blank_pixels import (
    BUMP_SCALE,
    BlankPixelSums,
    blank_pixel_sums,
    estimate_from_sums,
)

PSF = np.exp(-np.add.outer(np.arange(-8, 9.0) ** 2, np.arange(-8, 9.0) ** 2) / (2 * 1.3**2))


def tiles_of(image, side=64):
    """Stamps that an image is cut into."""
    starts = range(0, len(image) - side + 1, side)
    data = np.array([image[y : y + side, x : x + side] for y in starts for x in starts], np.float32)
    return Stamps(data, np.ones_like(data), PSF / PSF.sum())


def lanczos(shift):
    """What a shift of pixels by a part of one convolves them with."""
    x = np.arange(-3, 5) - shift
    kernel = np.where(np.abs(x) < 3, np.sinc(x) * np.sinc(x / 3), 0)
    return kernel / kernel.sum()


def autocorrelation(kernel):
    """Of white noise that was convolved with it."""
    whole = fftconvolve(kernel, kernel[::-1, ::-1])
    return whole / whole.max()


def smoothed(rng, kernel, side=300):
    noise = rng.normal(size=(side + len(kernel) - 1, side + kernel.shape[1] - 1))
    return fftconvolve(noise, kernel / np.sqrt((kernel**2).sum()), "valid")


RESAMPLED = np.outer(lanczos(0.3), lanczos(0.4))


def sums_of(image):
    return blank_pixel_sums([(None, tiles_of(image))])


def resized(array, side):
    """Cut, or padded with zeros."""
    more = max(side - len(array), 0) // 2
    array = np.pad(array, more)
    less = (len(array) - side) // 2
    return array[less : less + side, less : less + side]


@pytest.mark.parametrize("amplitude", [0.15, 0.2])
def test_bumps_are_told_from_the_noise_of_resampling(amplitude):
    """Near lags are of the kernel and of smooth bumps, far ones of bumps; cut off they were rough, and the
    kernel's own, which are negative, not seen."""
    share, found, cut = amplitude**2 / (1 + amplitude**2), [], []
    for seed in range(6):
        rng = np.random.default_rng(seed)
        bumps = gaussian_filter(rng.normal(size=(300, 300)), BUMP_SCALE)
        sums = sums_of(smoothed(rng, RESAMPLED) + amplitude * bumps / bumps.std())
        found.append(estimate_from_sums(sums, bumps=True)[0])
        cut.append(estimate_from_sums(sums)[0])
    lag = np.arange(-16, 17)
    bump = share * np.exp(-np.add.outer(lag**2, lag**2) / (4 * BUMP_SCALE**2))
    true = (1 - share) * resized(autocorrelation(RESAMPLED), 33) + bump
    np.testing.assert_allclose(np.mean(found, 0), true, atol=0.012)
    noise = np.mean([one.sum() for one in found]) - bump.sum()
    assert noise == pytest.approx(autocorrelation(RESAMPLED).sum(), rel=0.1)
    assert np.mean([one.sum() for one in cut]) < 0.8 * true.sum()  # without


def test_noise_without_bumps_has_none():
    for seed in range(4):
        sums = sums_of(smoothed(np.random.default_rng(seed), RESAMPLED))
        plain, looked = (estimate_from_sums(sums, bumps)[0] for bumps in (False, True))
        np.testing.assert_allclose(resized(looked, 33), resized(plain, 33), atol=0.002)
    white = sums_of(np.random.default_rng(1).normal(size=(300, 300)))
    looked = resized(estimate_from_sums(white, bumps=True)[0], 33)
    np.testing.assert_allclose(looked, resized(np.ones((1, 1)), 33), atol=0.002)


def test_noise_that_reaches_far_is_not_taken_for_bumps():
    x = np.arange(-9, 10)
    kernel = np.exp(-np.add.outer(x**2, x**2) / (2 * 1.5**2))
    sums = sums_of(smoothed(np.random.default_rng(1), kernel))
    np.testing.assert_array_equal(estimate_from_sums(sums, bumps=True)[0], estimate_from_sums(sums)[0])


@pytest.mark.parametrize(("share", "told"), [(0.3, True), (0.9, False)])
def test_what_is_most_of_the_variance_is_no_bumps_on_noise(share, told):
    lag, pairs = np.arange(-8, 9), np.full((17, 17), 5000.0)
    correlation = share * np.exp(-np.add.outer(lag**2, lag**2) / (4 * BUMP_SCALE**2))
    correlation[8, 8] = 1
    sums = BlankPixelSums(pairs * correlation, pairs, levels=0, used=5000.0)
    found, plain = (estimate_from_sums(sums, bumps=bumps)[0] for bumps in (True, False))
    if told:
        np.testing.assert_allclose(found[8:25, 8:25], correlation, atol=1e-9)
    else:
        np.testing.assert_array_equal(found, plain)


def test_bumps_are_those_of_each_galaxy():
    assert BUMP_SCALE == SKY_SCALE
