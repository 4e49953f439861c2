# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""Faint sources on the flank of a galaxy are subtracted, and how well they are known is in the errors."""

import galsim
import numpy as np
import pytest

from galshape_cnn import ShapeEstimator
from galshape_cnn.flags import Flag
from galshape_cnn.tests.moffat_scene import GALAXY, drawn, errors, moffat

N, SIDE = 60, 64
MOFFAT, PSF = moffat(5.0)


@pytest.fixture(scope="module")
def estimator():
    return ShapeEstimator()


def scene(distance, star_snr, snr=60, number=N):
    """Galaxies, noise one, each beside a star in a random direction; and their flux."""
    rng = np.random.default_rng(3)
    flux = snr / np.sqrt((drawn(GALAXY, MOFFAT, SIDE) ** 2).sum())
    star = star_snr / np.sqrt((PSF**2).sum())
    images = []
    for angle in rng.uniform(0, 2 * np.pi, number):
        place = distance * np.cos(angle), distance * np.sin(angle)
        light = drawn(GALAXY * flux + galsim.DeltaFunction(flux=max(star, 1e-9)).shift(*place), MOFFAT, SIDE)
        images.append(light + rng.normal(size=light.shape))
    return np.array(images), flux


def pulls(catalog, flux, method):
    """Errors over stated ones of flux, n, hlr, g1, g2, (N, 5)."""
    return errors(catalog, flux, "err" if method == "ml" else "std")[1]


@pytest.mark.parametrize("method", ["ml", "network"])
def test_a_source_on_the_flank_moves_nothing_beyond_the_errors(estimator, method, monkeypatch):
    data, flux = scene(11.0, 9.0)
    catalog = estimator(data, psf=PSF, error=1.0, method=method)
    pull = pulls(catalog, flux, method)
    assert np.mean(np.abs(pull) < 3) > 0.98
    assert np.mean(np.abs(pull[:, 3:]) < 1) > 0.55
    assert np.mean(catalog.flags & Flag.NEIGHBOR > 0) > 0.9
    monkeypatch.setattr("galshape_cnn.infer.measure.residual_sources._HIGH", np.inf)
    without = pulls(estimator(data, psf=PSF, error=1.0, method=method), flux, method)
    # the flux, which takes up what it can
    assert np.abs(np.median(pull[:, 0])) < 0.5 < np.abs(np.median(without[:, 0]))


def test_of_noise_nothing_is_subtracted(estimator):
    data, _ = scene(11.0, 0.0, number=3 * N)
    looked = estimator(data, psf=PSF, error=1.0, method="ml")
    plain = estimator(data, psf=PSF, error=1.0, method="ml", neighbours="ignore")
    assert np.mean(looked.hlr.value != plain.hlr.value) <= 0.02


def test_ignored_neighbours_are_not_looked_for(estimator, monkeypatch):
    data, _ = scene(11.0, 9.0, number=4)
    before = estimator(data, psf=PSF, error=1.0, method="ml", neighbours="ignore").parameters
    monkeypatch.setattr("galshape_cnn.infer.measure.residual_sources._HIGH", np.inf)
    after = estimator(data, psf=PSF, error=1.0, method="ml", neighbours="ignore").parameters
    assert np.array_equal(before, after)


def test_rows_do_not_depend_on_their_company(estimator):
    data, _ = scene(11.0, 9.0, number=5)
    together = estimator(data, psf=PSF, error=1.0, method="ml")
    alone = estimator(data[2:3], psf=PSF, error=1.0, method="ml")
    assert np.array_equal(together.parameters[2], alone.parameters[0])
    assert np.array_equal(together.crb_covariance[2], alone.crb_covariance[0])


@pytest.mark.parametrize("method", ["ml", "network"])
def test_few_changed_rows_are_told_apart_from_many(estimator, method, monkeypatch):
    data = np.concatenate([scene(11.0, 9.0, number=2)[0], scene(11.0, 0.0, number=30)[0]])
    judged = estimator(data, psf=PSF, error=1.0, method=method)  # all together, and two are not taken
    monkeypatch.setattr("galshape_cnn.infer.measure.pipeline._MOST_OF", 2.0)
    copied = estimator(data, psf=PSF, error=1.0, method=method)
    assert (judged.flags[:2] & Flag.NEIGHBOR > 0).any()
    for name in ("parameters", "crb_covariance", "flags"):
        np.testing.assert_array_equal(getattr(judged, name), getattr(copied, name))


@pytest.mark.parametrize("method", ["ml", "network"])
def test_a_knot_within_the_galaxy_is_counted_as_an_error_too(estimator, method):
    data, flux = scene(8.0, 14.0)
    pull = pulls(estimator(data, psf=PSF, error=1.0, method=method), flux, method)
    assert np.mean(np.abs(pull) < 3) > 0.9
