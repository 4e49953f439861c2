# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""Recentring against the truth, against photutils, and in trouble."""

import galsim
import numpy as np
import pytest
from photutils.centroids import centroid_quadratic
from photutils.detection import find_peaks

from galshape_cnn.flags import Flag
from galshape_cnn.forward.psf.convert import psf_arrays
from galshape_cnn.observe.detect.centroids import find_centers, mask_flags, psf_sigma
from galshape_cnn.observe.detect.levels import local_maxima, quadratic_peak
from galshape_cnn.observe.detect.scale_space import build_levels

SIDE, MIDDLE = 64, 31.5
PSF = galsim.Moffat(beta=2.5, fwhm=3.0)
SIGMA = psf_sigma(psf_arrays(PSF))


def drawn(snr, x, y, n=1.0, hlr=3.0, g1=0.0, g2=0.0):
    """Noise-free galaxy whose signal-to-noise ratio is given for unit noise."""
    galaxy = galsim.Convolve(galsim.Sersic(n, half_light_radius=hlr).shear(g1=g1, g2=g2), PSF)
    image = galaxy.drawImage(nx=SIDE, ny=SIDE, scale=1, offset=(x - MIDDLE, y - MIDDLE)).array
    return image * snr / np.sqrt(np.sum(image**2))


def sample(count, snr, seed=0, **fixed):
    """Galaxies of all sizes and shapes, with their true centres."""
    rng = np.random.default_rng(seed)
    center = MIDDLE + rng.uniform(-1, 1, (count, 2))
    data = rng.normal(size=(count, SIDE, SIDE)).astype(np.float32)
    for i in range(count):
        shear, angle = rng.uniform(0, 0.7), rng.uniform(0, 2 * np.pi)
        shape = {
            "n": rng.choice([0.5, 1.0, 2.0, 4.0, 6.0]),
            "hlr": np.exp(rng.uniform(np.log(0.5), np.log(8))),
            "g1": shear * np.cos(angle),
            "g2": shear * np.sin(angle),
        }
        data[i] += drawn(snr, *center[i], **{**shape, **fixed})
    return data, np.ones_like(data), center


def run(data, ivar, guess=(MIDDLE, MIDDLE), **options):
    return find_centers(data, ivar, np.broadcast_to(guess, (len(data), 2)), SIGMA, **options)


def has(centers, flag):
    return centers.flags & flag != 0


@pytest.mark.parametrize(
    ("snr", "largest_rms", "most_failures"), [(10, 0.7, 0.25), (30, 0.35, 0.1), (300, 0.1, 0.01)]
)
def test_error_of_the_centroid(snr, largest_rms, most_failures):
    data, ivar, truth = sample(150, snr, seed=snr)
    found = run(data, ivar)
    failed = has(found, Flag.RECENTER_FAILED)
    assert failed.mean() <= most_failures
    np.testing.assert_array_equal(found.center[failed], MIDDLE)
    error = (found.center - truth)[~failed]
    assert np.sqrt(np.mean(error**2)) < largest_rms
    assert np.abs(error.mean(axis=0)).max() < 4 * largest_rms / np.sqrt(len(error))
    assert not has(found, Flag.FAR_CENTROID).any()


def test_centroid_is_better_than_a_bad_guess():
    data, ivar, truth = sample(100, 15, seed=5, hlr=2.0)
    guess = truth + np.random.default_rng(1).uniform(-2, 2, truth.shape)
    found = find_centers(data, ivar, guess, SIGMA)
    assert np.std(found.center - truth) < 0.4 * np.std(guess - truth)


def test_false_alarms_of_neighbours():
    flagged = []
    for snr in (10, 50, 300, 2000):
        data, ivar, _ = sample(100, snr, seed=snr)
        flagged.append(has(run(data, ivar), Flag.NEIGHBOR))
    assert np.mean(flagged) < 0.02


@pytest.mark.parametrize("distance", [8, 12, 20])
def test_neighbours_are_flagged_and_do_not_attract(distance):
    data, ivar, truth = sample(40, 60, seed=distance, n=1.0, hlr=2.0)
    for i, angle in enumerate(np.linspace(0, 6, 40)):
        x, y = truth[i] + distance * np.array([np.cos(angle), np.sin(angle)])
        data[i] += drawn(60, x, y, hlr=2.0)
    found = run(data, ivar)
    assert has(found, Flag.NEIGHBOR).mean() > 0.95
    assert np.median(np.hypot(*(found.center - truth).T)) < 0.8
    assert has(found, Flag.FAR_CENTROID).mean() < 0.05


def test_brighter_neighbour_does_not_attract():
    data, ivar, truth = sample(20, 30, seed=2, hlr=1.5)
    for i in range(20):
        data[i] += drawn(300, *(truth[i] + [12, 5]), hlr=1.5)
    found = run(data, ivar)
    assert np.abs(found.center - truth).max() < 1.0
    assert has(found, Flag.NEIGHBOR).all()


def test_far_galaxy_is_followed_and_flagged():
    data = np.random.default_rng(0).normal(size=(1, SIDE, SIDE)).astype(np.float32)
    data[0] += drawn(60, 40.2, 25.1)
    found = run(data, np.ones_like(data))
    np.testing.assert_allclose(found.center[0], [40.2, 25.1], atol=0.3)
    assert has(found, Flag.FAR_CENTROID)[0]


def test_guess_on_the_flank_of_a_bright_galaxy():
    data = np.random.default_rng(0).normal(size=(20, SIDE, SIDE)).astype(np.float32)
    data += drawn(500, 38.0, 31.5, hlr=6.0)
    found = run(data, np.ones_like(data))
    np.testing.assert_allclose(found.center, np.broadcast_to([38.0, 31.5], (20, 2)), atol=0.2)
    assert has(found, Flag.FAR_CENTROID).all()


def test_nothing_there():
    data = np.random.default_rng(3).normal(size=(200, SIDE, SIDE)).astype(np.float32)
    found = run(data, np.ones_like(data), guess=(30.2, 33.3))
    failed = has(found, Flag.RECENTER_FAILED)
    assert failed.mean() > 0.97
    np.testing.assert_array_equal(found.center[failed], np.broadcast_to([30.2, 33.3], (failed.sum(), 2)))
    assert has(found, Flag.NEIGHBOR).mean() < 0.02


def test_without_data_the_guess_is_kept():
    empty = np.zeros((3, SIDE, SIDE), np.float32)
    found = run(empty, empty)
    np.testing.assert_array_equal(found.center, MIDDLE)
    assert has(found, Flag.RECENTER_FAILED).all()
    assert not has(found, Flag.NEIGHBOR).any()


def test_masked_pixels_and_sky_do_not_matter():
    data, ivar, truth = sample(20, 100, seed=8, hlr=3.0)
    plain = run(data, ivar)
    holes = np.random.default_rng(1).random(data.shape) < 0.1
    holes[:, :, 34] = True
    data[holes], ivar[holes] = 1e6, 0
    found = run(data + 3000, ivar)
    assert np.abs(found.center - truth).max() < 1.0
    assert np.sqrt(np.mean((found.center - plain.center) ** 2)) < 0.3
    assert not has(found, Flag.NEIGHBOR).any()


def test_noise_that_varies():
    data, ivar, truth = sample(20, 60, seed=9, hlr=2.0)
    sigma = np.where(np.arange(SIDE) < 32, 1.0, 2.0)
    found = run(data * sigma, ivar / sigma**2)
    assert not has(found, Flag.NEIGHBOR).any()
    assert np.isfinite(found.center).all()


def test_correlated_noise_is_no_neighbour():
    from scipy.ndimage import gaussian_filter

    noise = np.random.default_rng(0).normal(size=(60, SIDE, SIDE))
    noise = gaussian_filter(noise, (0, 1, 1))
    data = (noise / noise.std() + drawn(50, MIDDLE, MIDDLE)).astype(np.float32)
    assert has(run(data, np.ones_like(data)), Flag.NEIGHBOR).mean() < 0.05


def test_move_can_be_forbidden():
    data, ivar, _ = sample(5, 100)
    found = run(data, ivar, guess=(29.0, 30.0), move=False)
    np.testing.assert_array_equal(found.center, np.broadcast_to([29.0, 30.0], (5, 2)))
    assert not found.flags.any()


@pytest.mark.parametrize("side", [96, 192, 512])
def test_large_stamps(side):
    data = np.random.default_rng(1).normal(size=(1, side, side)).astype(np.float32)
    data[0, side // 2 - 32 : side // 2 + 32, side // 2 - 32 : side // 2 + 32] += drawn(100, 32.6, 30.2)
    middle = (side - 1) / 2
    found = find_centers(data, np.ones_like(data), [[middle, middle]], SIGMA)
    np.testing.assert_allclose(found.center[0], [middle + 1.1, middle - 1.3], atol=0.15)


def test_quadratic_fit_is_that_of_photutils():
    rng = np.random.default_rng(6)
    y, x = np.mgrid[:21, :21]
    for _ in range(10):
        x0, y0 = rng.uniform(9.4, 10.6, 2)
        image = np.exp(-((x - x0) ** 2) / 9 - (y - y0) ** 2 / 6 + (x - x0) * (y - y0) / 20)
        image += 0.01 * rng.normal(size=image.shape)
        peak = np.array([np.unravel_index(np.argmax(image), image.shape)])[:, ::-1]
        offset, _, valid = quadratic_peak(image[None], peak)
        assert valid[0]
        np.testing.assert_allclose(peak[0] + offset[0], centroid_quadratic(image, fit_boxsize=5), atol=1e-8)


def test_local_maxima_are_those_of_photutils():
    image = build_levels(*(np.asarray(a, np.float32) for a in sample(1, 50)[:2]), SIGMA[0])[0].amplitude
    ours = np.argwhere(local_maxima(image)[0] & (image[0] > 0.1))
    theirs = find_peaks(image[0], 0.1, box_size=3)
    np.testing.assert_array_equal(ours, np.column_stack([theirs["y_peak"], theirs["x_peak"]]))


def test_noise_of_smoothed_pixels():
    noise = np.random.default_rng(0).normal(size=(200, SIDE, SIDE)).astype(np.float32)
    sigma = np.where(np.arange(SIDE) < 20, 3.0, 1.0).astype(np.float32)
    for data, ivar in ((noise, np.ones_like(noise)), (noise * sigma, np.ones_like(noise) / sigma**2)):
        for level in build_levels(data, ivar, 1.5)[:2]:
            inner = slice(20 // level.step, 44 // level.step)
            significance = (level.amplitude / level.noise)[:, inner, inner]
            # the correction for correlated noise only ever raises the noise
            assert 0.85 < significance.std() < 1.05


def test_psf_width():
    assert psf_sigma(psf_arrays(galsim.Gaussian(sigma=2.0))) == pytest.approx(np.hypot(2, 12**-0.5), rel=0.01)
    assert psf_sigma(psf_arrays(galsim.Gaussian(sigma=0.1))) == 1.0


def test_mask_flags():
    ivar = np.ones((5, SIDE, SIDE), np.float32)
    center = np.full((5, 2), MIDDLE)
    ivar[0, 31, 31] = 0
    ivar[1, 34, 31] = 0
    ivar[2, 20:32, 16:48] = 0
    ivar[3] = 0
    ivar[4, :8] = 0
    flags = mask_flags(ivar, center)
    everything = Flag.NO_DATA | Flag.MASKED | Flag.CENTER_MASKED
    np.testing.assert_array_equal(
        flags, [Flag.CENTER_MASKED, 0, Flag.MASKED | Flag.CENTER_MASKED, everything, 0]
    )
