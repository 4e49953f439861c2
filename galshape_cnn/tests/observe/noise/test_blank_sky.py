# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""Noise of an image, measured by default: used where it matters, without effect where the map is right."""

import warnings

import numpy as np
import pytest
from astropy.nddata import NDData, StdDevUncertainty
from astropy.table import QTable
from scipy.ndimage import gaussian_filter
from scipy.signal import fftconvolve

from galshape_cnn import ShapeEstimator
from galshape_cnn.errors import GalshapeWarning
from galshape_cnn.observe.inputs import read_frames
from galshape_cnn.observe.noise.blank_pixels import combined, estimate_from_sums, sums_of_each
from galshape_cnn.observe.noise.blank_sky import _tiles, measured_noise, quiet
from galshape_cnn.scale import measure_stream, read_blocks

KERNEL = np.outer([0.25, 0.5, 0.25], [0.25, 0.5, 0.25])
PSF = np.exp(-np.add.outer(np.arange(-8, 9.0) ** 2, np.arange(-8, 9.0) ** 2) / (2 * 1.4**2))
POSITIONS = [[x, y] for x in (60, 140, 220) for y in (60, 140, 220)]


@pytest.fixture(scope="module")
def estimator():
    return ShapeEstimator()


def field(seed, correlated=False, side=280):
    """Image of nine galaxies with noise of unit variance."""
    rng = np.random.default_rng(seed)
    noise = rng.normal(size=(side + 2, side + 2))
    noise = (
        fftconvolve(noise, KERNEL / np.sqrt((KERNEL**2).sum()), "valid") if correlated else noise[1:-1, 1:-1]
    )
    y, x = np.mgrid[:side, :side]
    for a, b in POSITIONS:
        noise = noise + 20 * np.exp(-np.hypot(x - a, y - b) / 3)
    return noise


def frame(image, error=1.0):
    return read_frames(image, error=error)[0][0]


def test_white_noise_of_the_stated_level_is_taken_as_it_is():
    """Not one alarm in 40; a rate of one in ten would hardly ever do that."""
    assert all(measured_noise(frame(field(seed))) == (None, None) for seed in range(40))


@pytest.mark.parametrize("seed", [1, 2])
def test_correlation_and_scale_are_found(seed):
    scale, correlation = measured_noise(frame(field(seed, correlated=True), error=0.8))
    assert scale == pytest.approx(1 / 0.8, rel=0.03)
    true = KERNEL.sum() ** 2 / (KERNEL**2).sum()  # sum of the autocorrelation
    assert correlation.array.sum() == pytest.approx(true, rel=0.12)
    assert measured_noise(frame(field(seed), error=0.8))[1] is None  # only the level is wrong


@pytest.mark.parametrize("unit", [1e-20, 1e-30, 1e25])
def test_any_unit_of_the_pixels(unit):
    """Fluxes in erg/s/cm2/Hz are so small that single precision has no inverse variance for them."""
    image = field(1, correlated=True)
    scale, correlation = measured_noise(frame(image * unit, error=0.8 * unit))
    same = measured_noise(frame(image, error=0.8))
    assert scale == pytest.approx(same.scale, rel=1e-5)
    np.testing.assert_allclose(correlation.array, same.correlation.array, atol=1e-5)


def test_too_few_blank_pixels_change_nothing():
    assert measured_noise(frame(field(1, correlated=True)[:40, :40])) == (None, None)
    assert measured_noise(frame(np.full((300, 300), np.nan))) == (None, None)
    assert measured_noise(frame(np.zeros((300, 300)))) == (None, None)  # a model, without noise
    assert measured_noise(frame(1e-3 * field(1, correlated=True))) == (None, None)


def test_default_is_bit_equal_to_none_in_white_noise(estimator):
    image = NDData(field(3), uncertainty=StdDevUncertainty(np.ones((280, 280))))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        auto = estimator(image, psf=PSF, positions=POSITIONS)
    off = estimator(image, psf=PSF, positions=POSITIONS, noise_correlation=None, noise_scale=None)
    for name in ("params", "crb", "covariance", "chi2", "flags"):
        np.testing.assert_array_equal(getattr(auto.measurement, name), getattr(off.measurement, name))
    assert not {"noise_scale", "noise_correlation"} & set(auto.meta)


def test_default_widens_errors_in_correlated_noise_says_so_once_and_records_it(estimator):
    image = NDData(field(4, correlated=True), uncertainty=StdDevUncertainty(np.ones((280, 280))))
    with pytest.warns(GalshapeWarning, match=r"are correlated \(over an area of 7\.\d pixels\)") as said:
        auto = estimator(image, psf=PSF, positions=POSITIONS)
    assert len(said) == 1
    off = estimator(image, psf=PSF, positions=POSITIONS, noise_correlation=None, noise_scale=None)
    assert np.median(auto.hlr_crb / off.hlr_crb) > 1.5  # each at its own estimate
    assert auto.meta["noise_correlation"]["area"] > 6
    # the image decides, not which of its galaxies are measured
    with pytest.warns(GalshapeWarning):
        one = estimator(image, psf=PSF, positions=POSITIONS[4:5])
    np.testing.assert_array_equal(one.measurement.crb[0], auto.measurement.crb[4])


def test_cutouts_are_taken_as_they_come(estimator):
    """Their noise may differ from one to the next, and no row may depend on its company."""
    image = field(5, correlated=True)
    cutouts = [image[y - 32 : y + 32, x - 32 : x + 32] for x, y in POSITIONS]
    catalog = estimator(cutouts, psf=PSF, error=1.0)
    assert "noise_correlation" not in catalog.meta


def test_streams_of_an_image_use_what_one_call_uses(estimator, tmp_path):
    image = NDData(field(6, correlated=True), uncertainty=StdDevUncertainty(np.ones((280, 280))))
    with pytest.warns(GalshapeWarning, match="are correlated"):
        expected = estimator(image, psf=PSF, positions=POSITIONS).to_table()
    with pytest.warns(GalshapeWarning, match="are correlated") as said:
        measure_stream(estimator, image, tmp_path / "run", psf=PSF, positions=POSITIONS, block_rows=4)
    assert len(said) == 1
    table = QTable(read_blocks(tmp_path / "run"))
    for name in ("flux", "hlr", "hlr_err", "flags", "quality"):
        np.testing.assert_array_equal(table[name], expected[name])
    assert table.meta["noise_correlation"]["area"] == expected.meta["noise_correlation"]["area"]


def test_bumps_of_a_part_of_the_sky_are_no_noise():
    """Sources too faint to be found and wings raise the correlation where they are, and only there."""
    true, found = KERNEL.sum() ** 2 / (KERNEL**2).sum(), []
    for seed in (1, 2, 3):
        rng = np.random.default_rng(seed)
        noise = rng.normal(size=(402, 402))
        image = fftconvolve(noise, KERNEL / np.sqrt((KERNEL**2).sum()), "valid")
        bumps = gaussian_filter(rng.normal(size=(400, 400)), 4)
        bumpy = image + np.where(np.arange(400) < 250, 0.5 * bumps / bumps.std(), 0)
        found.append(measured_noise(frame(bumpy))[1].array.sum())
        assert estimate_from_sums(combined(sums_of_each(_tiles(frame(bumpy)))))[0].sum() > 2 * true
        alike = sums_of_each(_tiles(frame(image)))
        assert len(quiet(alike)) >= len(alike) - 2
    assert np.mean(found) == pytest.approx(true, rel=0.12)
