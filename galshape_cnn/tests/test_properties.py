# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""What must not depend on how the data are held: turns, mirrors, units, masks, order, containers.

`test_estimator.py` looks at a few galaxies by every method; here Hypothesis draws the galaxies.
"""

import numpy as np
import pytest
from astropy.nddata import (
    InverseVariance,
    NDData,
    StdDevUncertainty,
    VarianceUncertainty,
)
from hypothesis import given, settings
from hypothesis import strategies as st

from galshape_cnn import PSFConvolvedSersic2D, ShapeEstimator, Stamps, cramer_rao_bound

SIZE = 32
CENTER = (SIZE - 1) / 2
Y, X = np.mgrid[:SIZE, :SIZE]
OFFSET = np.arange(-12, 13)
ROUND_PSF = (1 + (OFFSET[:, None] ** 2 + OFFSET**2) / 2.0**2) ** -3.0
ROUND_PSF /= ROUND_PSF.sum()

few = settings(max_examples=5)


@pytest.fixture(scope="module")
def estimator():
    return ShapeEstimator()


@st.composite
def galaxies(draw):
    """flux, n, hlr, g1, g2 of a galaxy that a small stamp can hold."""
    g, angle = draw(st.floats(0.0, 0.5)), draw(st.floats(0.0, 2 * np.pi))
    flux, n, hlr = draw(st.floats(500, 5000)), draw(st.floats(0.6, 3.5)), draw(st.floats(1.5, 4.0))
    return flux, n, hlr, g * np.cos(angle), g * np.sin(angle)


seeds = st.integers(0, 10_000)


def noisy(galaxy, seed, count=1):
    """Cutouts of a galaxy with noise of one."""
    image = PSFConvolvedSersic2D(*galaxy, CENTER, CENTER, psf=ROUND_PSF)(X, Y)
    return image + np.random.default_rng(seed).normal(size=(count, SIZE, SIZE))


def numbers(catalog):
    """Estimates and bounds of every row."""
    return np.column_stack([catalog.parameters, np.diagonal(catalog.crb_covariance, axis1=1, axis2=2)])


def assert_equal_covariance(found, bound, scale):
    """Covariances agree to 1e-6 of the variances once one is scaled; their zeros are only nearly zero."""
    sigma = np.sqrt(np.diag(bound.covariance)) * scale
    expected = bound.covariance * scale * scale[:, None]
    np.testing.assert_allclose(
        found.covariance / sigma / sigma[:, None], expected / sigma / sigma[:, None], atol=1e-6
    )


@few
@given(galaxies())
def test_quarter_turn_flips_the_shear(galaxy):
    flux, n, hlr, g1, g2 = galaxy
    model = PSFConvolvedSersic2D(*galaxy, CENTER, CENTER, psf=ROUND_PSF)(X, Y)
    turned = PSFConvolvedSersic2D(flux, n, hlr, -g1, -g2, CENTER, CENTER, psf=ROUND_PSF)(X, Y)
    np.testing.assert_allclose(np.rot90(model), turned, atol=2e-5 * model.max())


@few
@given(galaxies())
def test_mirror_flips_g2(galaxy):
    flux, n, hlr, g1, g2 = galaxy
    model = PSFConvolvedSersic2D(*galaxy, CENTER, CENTER, psf=ROUND_PSF)(X, Y)
    mirrored = PSFConvolvedSersic2D(flux, n, hlr, g1, -g2, CENTER, CENTER, psf=ROUND_PSF)(X, Y)
    for flipped in (model[::-1], model[:, ::-1]):
        np.testing.assert_allclose(flipped, mirrored, atol=2e-5 * model.max())


@few
@given(galaxies(), st.floats(1e-20, 1e20))
def test_bound_scales_with_the_unit_of_flux(galaxy, unit):
    bound = cramer_rao_bound(galaxy, ROUND_PSF, 1.0, shape=(SIZE, SIZE))
    scaled = cramer_rao_bound((galaxy[0] * unit, *galaxy[1:]), ROUND_PSF, unit, shape=(SIZE, SIZE))
    assert_equal_covariance(scaled, bound, np.array([unit, 1, 1, 1, 1]))
    assert scaled.snr == pytest.approx(bound.snr)


@few
@given(galaxies(), st.floats(0.1, 10))
def test_bound_scales_with_the_noise(galaxy, factor):
    bound = cramer_rao_bound(galaxy, ROUND_PSF, 1.0, shape=(SIZE, SIZE))
    noisier = cramer_rao_bound(galaxy, ROUND_PSF, factor, shape=(SIZE, SIZE))
    assert_equal_covariance(noisier, bound, factor * np.ones(5))


@few
@given(galaxies(), seeds)
def test_masking_never_adds_information(galaxy, seed):
    mask = np.random.default_rng(seed).random((SIZE, SIZE)) < 0.3
    bound = cramer_rao_bound(galaxy, ROUND_PSF, np.ones((SIZE, SIZE)))
    masked = cramer_rao_bound(galaxy, ROUND_PSF, np.ones((SIZE, SIZE)), mask=mask)
    more = np.linalg.eigvalsh(masked.covariance - bound.covariance)
    assert more.min() > -1e-9 * np.abs(masked.covariance).max()


@pytest.mark.parametrize("method", ["network", "ml"])
@few
@given(galaxies(), seeds, st.sampled_from([np.nan, np.inf, -1e30, 1e9, 0.0]))
def test_masked_values_do_not_matter(estimator, method, galaxy, seed, rubbish):
    image, rng = noisy(galaxy, seed), np.random.default_rng(seed)
    mask = rng.random(image.shape) < 0.1
    mask[:, 12:20, 12:20] = False
    spoilt = np.where(mask, rubbish, image)
    clean = estimator(image, psf=ROUND_PSF, error=1.0, mask=mask, method=method)
    found = estimator(spoilt, psf=ROUND_PSF, error=1.0, mask=mask, method=method)
    np.testing.assert_array_equal(numbers(found), numbers(clean))


@few
@given(galaxies(), seeds, st.sampled_from([-1, 0, 1]))
def test_not_finite_means_masked(estimator, galaxy, seed, sign):
    image = noisy(galaxy, seed)
    mask = np.random.default_rng(seed).random(image.shape) < 0.05
    holes = np.where(mask, np.array([-np.inf, np.nan, np.inf])[sign + 1], image)
    masked = estimator(image, psf=ROUND_PSF, error=1.0, mask=mask)
    found = estimator(holes, psf=ROUND_PSF, error=1.0)
    np.testing.assert_array_equal(numbers(found), numbers(masked))


@few
@given(galaxies(), seeds, st.permutations(range(5)), st.integers(1, 5))
def test_order_and_size_of_the_batch_do_not_matter(estimator, galaxy, seed, order, count):
    images = noisy(galaxy, seed, 5)
    whole = numbers(estimator(images, psf=ROUND_PSF, error=1.0))
    part = list(order[:count])
    found = numbers(estimator(images[part], psf=ROUND_PSF, error=1.0))
    np.testing.assert_allclose(found, whole[part], rtol=1e-4, atol=1e-6)


@few
@given(galaxies(), seeds, st.sampled_from([StdDevUncertainty, VarianceUncertainty, InverseVariance]))
def test_nddata_equals_arrays(estimator, galaxy, seed, kind):
    images, rng = noisy(galaxy, seed, 2), np.random.default_rng(seed)
    error = 2.0 ** rng.integers(-1, 2, images.shape)  # exact in every representation
    mask = rng.random(images.shape) < 0.02
    expected = numbers(estimator(images, psf=ROUND_PSF, error=error, mask=mask))
    values = StdDevUncertainty(error).represent_as(kind).array
    cutouts = [
        NDData(image, uncertainty=kind(value), mask=bad, psf=ROUND_PSF)
        for image, value, bad in zip(images, values, mask, strict=True)
    ]
    np.testing.assert_array_equal(numbers(estimator(cutouts)), expected)
    stamps = Stamps(images, np.where(mask, 0, 1 / error**2), ROUND_PSF, flags=estimator(cutouts).flags)
    assert len(estimator(stamps)) == 2


@few
@given(galaxies(), seeds, st.integers(-40, 40))
def test_unit_of_flux_does_not_matter(estimator, galaxy, seed, power):
    image, unit = noisy(galaxy, seed), 2.0**power
    plain = numbers(estimator(image, psf=ROUND_PSF, error=1.0))
    scaled = numbers(estimator(image * unit, psf=ROUND_PSF, error=unit))
    np.testing.assert_array_equal(scaled, plain * [unit, 1, 1, 1, 1, unit**2, 1, 1, 1, 1])
