# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""Uncertain PSFs of several exposures: what they add to the errors is what other PSFs do to the fit."""

from dataclasses import replace

import galsim
import numpy as np
import pytest

from galshape_cnn import Exposure, ShapeEstimator
from galshape_cnn.errors import InputError
from galshape_cnn.scale import measure_stream, read_blocks
from galshape_cnn.tests.stream_scene import assert_same

COUNT, SIDE = 4, 64
SETUP = (("g", 3.0), ("r", 2.6), ("r", 3.6))
OPTIONS = {"method": "ml", "neighbours": "ignore"}


def psf_of(fwhm, size=0.0, g1=0.0):
    profile = galsim.Convolve(galsim.Moffat(beta=3.5, fwhm=fwhm), galsim.Pixel(1))
    profile = profile.dilate(1 + size).shear(g1=g1, g2=0)  # the effective PSF is what is uncertain
    return profile.drawImage(nx=51, ny=51, scale=1, method="no_pixel").array


@pytest.fixture(scope="module")
def estimator():
    return ShapeEstimator()


@pytest.fixture(scope="module")
def exposures():
    """Four galaxies of different size and shape in three exposures, S/N of some hundreds.

    Without noise: what another PSF makes of the noise is not of the response of the mean.
    """
    rng, out = np.random.default_rng(3), []
    shapes = rng.uniform(0.8, 2.0, COUNT), rng.uniform(2.5, 4.0, COUNT), rng.uniform(-0.3, 0.3, (COUNT, 2))
    for band, fwhm in SETUP:
        stamps = np.zeros((COUNT, SIDE, SIDE))
        for stamp, n, hlr, (g1, g2) in zip(stamps, *shapes, strict=True):
            galaxy = galsim.Sersic(n, half_light_radius=hlr, flux=5000).shear(g1=g1, g2=g2)
            galaxy = galsim.Convolve(galaxy, galsim.Moffat(beta=3.5, fwhm=fwhm))
            stamp += galaxy.drawImage(nx=SIDE, ny=SIDE, scale=1).array
        out.append(Exposure(stamps, psf=psf_of(fwhm), error=1.0, band=band))
    return out


def added(estimator, exposures, **options):
    """What uncertain PSFs add to the covariance of errors."""
    before = estimator([replace(one, psf_error=None) for one in exposures], **OPTIONS)
    after = estimator(exposures, **options, **OPTIONS)
    assert np.array_equal(before.crb_covariance, after.crb_covariance)
    assert np.array_equal(before.parameters, after.parameters)
    return after.error_covariance - before.error_covariance


def refitted(estimator, exposures, number, psfs):
    """Mean square of what the fit does when one exposure has another PSF."""
    best, moves = estimator(exposures, **OPTIONS).parameters, []
    for psf in psfs:
        other = [replace(one, psf=psf) if k == number else one for k, one in enumerate(exposures)]
        moves.append(estimator(other, **OPTIONS).parameters - best)
    return np.mean([move[:, :, None] * move[:, None] for move in moves], 0)


def assert_near(one, other, tolerance):
    """Differences of covariances in units of the standard deviations."""
    sigma = np.sqrt(np.diagonal(other, axis1=1, axis2=2))
    assert np.abs((one - other) / (sigma[:, :, None] * sigma[:, None])).max() < tolerance


def test_alternatives_move_the_fit_by_as_much(estimator, exposures):
    """Of two exposures, each for itself; fits follow a change of 1 % to first order."""
    known, expected = list(exposures), 0
    for number in (0, 2):
        fwhm = SETUP[number][1]
        psfs = np.array([psf_of(fwhm, 0.01), psf_of(fwhm, 0, 0.01), psf_of(fwhm, -0.01, 0.005)])
        known[number] = replace(exposures[number], psf_error=psfs)
        expected = expected + refitted(estimator, exposures, number, psfs)
    assert_near(added(estimator, known), expected, 0.1)


def test_numbers_of_the_call_hold_for_each_exposure(estimator, exposures):
    said = {"size": 0.01}
    expected = sum(
        refitted(estimator, exposures, k, [psf_of(fwhm, 0.01)]) for k, (_, fwhm) in enumerate(SETUP)
    )
    found = added(estimator, exposures, psf_error=said)
    assert_near(found, expected, 0.1)
    each = [replace(one, psf_error=said) for one in exposures]
    assert np.array_equal(added(estimator, each), found)
    # what an exposure says replaces what the call says
    none = [replace(one, psf_error={"size": 0.0}) for one in exposures]
    assert not added(estimator, none, psf_error=said).any()


def test_widths_of_posteriors_count_it_and_blocks_give_the_same(estimator, exposures, tmp_path):
    said = {"size": 0.02, "ellipticity": 0.02}
    before, after = (estimator(exposures, psf_error=one, neighbours="ignore") for one in (None, said))
    assert np.array_equal(before.parameters, after.parameters)
    assert (after.g1_std > 1.05 * before.g1_std).all()
    assert after.meta["options"]["exposures"]["r2"]["psf_error"] == said
    each = [replace(one, psf_error=said) for one in exposures]
    measure_stream(estimator, each, tmp_path / "out", block_rows=3, neighbours="ignore")
    assert_same(read_blocks(tmp_path / "out"), after.to_table())
    with pytest.raises(InputError, match="input"):
        measure_stream(estimator, exposures, tmp_path / "out", block_rows=3, neighbours="ignore")


def test_what_cannot_be_is_refused(estimator, exposures):
    with pytest.raises(InputError, match="alternatives to one PSF, beside a list of Exposures"):
        estimator(exposures, psf_error=np.ones((2, 51, 51)), **OPTIONS)
    wrong = [replace(exposures[0], psf_error={"width": 0.1}), *exposures[1:]]
    with pytest.raises(InputError, match="exposure 0 of band 'g': psf_error has width"):
        estimator(wrong, **OPTIONS)
