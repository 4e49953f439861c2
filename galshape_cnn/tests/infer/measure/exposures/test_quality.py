# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""Errors of several images count structure that lies in all of them."""

import galsim
import numpy as np
import pytest

from galshape_cnn import Exposure, ShapeEstimator
from galshape_cnn.flags import Flag
from galshape_cnn.infer.residuals.structure import score_roots

N, SIZE = 24, 64
PSF = galsim.Moffat(beta=3, fwhm=3.0)
TRUTH = np.array([1.0, 5.0, 0.15, -0.1])  # n, hlr, g1, g2
SNR = 150.0


def cutouts(seed, clumps):
    """N galaxies, of which a part of the light is in knots; the same in every exposure."""
    deviate, disc = galsim.BaseDeviate(seed), galsim.Exponential(half_light_radius=TRUTH[1])
    images = []
    for _ in range(N):
        galaxy = disc if not clumps else (1 - clumps) * disc + clumps * galsim.RandomKnots(
            40, profile=disc, rng=deviate
        )  # fmt: skip
        galaxy = galsim.Convolve(galaxy.shear(g1=TRUTH[2], g2=TRUTH[3]), PSF)
        images.append(galaxy.drawImage(nx=SIZE, ny=SIZE, scale=1).array)
    images = np.array(images)
    return images * SNR / np.sqrt((images**2).sum((1, 2), keepdims=True))


def measured(images, count, method="ml"):
    rng = np.random.default_rng(4)
    exposures = [
        Exposure(images + rng.normal(size=images.shape), psf=PSF, error=1.0, band=f"b{k}")
        for k in range(count)
    ]
    return ShapeEstimator()(exposures, method=method, neighbours="ignore")


@pytest.fixture(scope="module")
def clumpy():
    return cutouts(11, 0.4)


def pulls(catalog, covariance):
    shape = slice(catalog.galaxy_model.n, None)
    sigma = np.sqrt(np.diagonal(covariance, axis1=1, axis2=2))
    return (catalog.parameters[:, shape] - TRUTH) / sigma[:, shape]


def test_structure_does_not_average_out_over_exposures(clumpy):
    """Bounds say 5 to 20 times too little; with structure the scatter is what it is (N = 24, s.e. 0.15)."""
    catalog = measured(clumpy, 3)
    assert np.std(pulls(catalog, catalog.crb_covariance), axis=0).min() > 4
    std = np.std(pulls(catalog, catalog.error_covariance), axis=0)
    assert ((std > 0.4) & (std < 1.7)).all(), std
    one = measured(clumpy, 1)
    ratio = catalog.hlr_err / one.hlr_err
    assert 0.85 < np.median(ratio) < 1.15  # three looks at the same clumps are worth one
    assert (catalog.crb_covariance[:, -1, -1] < 0.4 * one.crb_covariance[:, -1, -1]).all()


def test_smooth_galaxies_have_none():
    catalog = measured(cutouts(1, 0.0), 2)
    added = np.diagonal(catalog.error_covariance / catalog.crb_covariance, axis1=1, axis2=2)
    assert np.median(added) == pytest.approx(1)
    assert (catalog.flags & Flag.MISFIT == 0).all()


def test_widths_of_the_posterior_follow(clumpy):
    catalog = measured(clumpy[:4], 2, "network")
    std = np.sqrt(np.diagonal(catalog.covariance, axis1=1, axis2=2))
    crb = np.sqrt(np.diagonal(catalog.crb_covariance, axis1=1, axis2=2))
    assert np.median(std[:, 2:] / crb[:, 2:]) > 3


def test_roots_of_the_scores():
    rng = np.random.default_rng(1)
    factor = rng.normal(size=(2, 4, 4))
    covariance = factor @ np.swapaxes(factor, 1, 2)
    fisher = np.tile(np.diag([4.0, 1.0, 9.0, 2.0]), (2, 1, 1))
    scores = [(np.arange(2), covariance), (np.arange(1), 4 * covariance[:1])]
    first, second = score_roots(scores, fisher, np.ones(2, bool))
    np.testing.assert_allclose(first @ np.swapaxes(first, 1, 2), covariance, rtol=1e-9)
    np.testing.assert_allclose(
        second, 2 * first[:1], rtol=1e-9
    )  # of one field: the sum has 9 times its square


@pytest.mark.parametrize("method", ["ml", "network"])
def test_neighbours_are_flagged_as_in_one_image(method):
    """A galaxy with a brighter one beside it, and one alone; the second exposure is the deeper one."""
    rng, psf = np.random.default_rng(5), galsim.Moffat(beta=3, fwhm=3.0)
    galaxy = galsim.Convolve(galsim.Exponential(half_light_radius=3, flux=500), psf)
    images = np.zeros((2, SIZE, SIZE))
    for row, others in enumerate(([], [(9.0, 0.0, 2.0)])):
        for x, y, factor in ([0.0, 0.0, 1.0], *others):
            drawn = (galaxy * factor).drawImage(nx=SIZE, ny=SIZE, scale=1, offset=(x + 0.5, y + 0.5))
            images[row] += drawn.array
    noise = [rng.normal(size=images.shape) * sigma for sigma in (1.0, 0.7)]
    exposures = [
        Exposure(images + one, psf=psf, error=sigma, band="r")
        for one, sigma in zip(noise, (1.0, 0.7), strict=True)
    ]
    alone = ShapeEstimator()(exposures[1].data, psf=psf, error=0.7, method=method)
    both = ShapeEstimator()(exposures, method=method)
    wanted = Flag.NEIGHBOR | Flag.NEIGHBOR_LIGHT
    assert alone.flags[1] & wanted
    assert both.flags[1] & alone.flags[1] & wanted == alone.flags[1] & wanted
    assert not both.flags[0] & wanted
