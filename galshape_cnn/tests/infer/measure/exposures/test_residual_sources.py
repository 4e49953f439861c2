# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""Sources in the residuals of galaxies in several images."""

import galsim
import numpy as np
import pytest

from galshape_cnn import Exposure, ShapeEstimator
from galshape_cnn.flags import Flag

N, SIZE, FWHM = 24, 64, {"g": 3.0, "r": 3.4, "z": 3.8}


@pytest.fixture(scope="module")
def scene():
    """Bands of galaxies and of faint stars on their flanks (3, N, SIZE, SIZE), PSFs, truth and angles."""
    rng = np.random.default_rng(3)
    g, angle, distance = rng.uniform(-0.2, 0.2, (2, N)), rng.uniform(0, 2 * np.pi, N), rng.uniform(6, 8, N)
    galaxies, stars, psfs = [], [], []
    for fwhm in FWHM.values():
        psf = galsim.Moffat(beta=3, fwhm=fwhm)
        seen, how = galsim.Convolve(psf, galsim.Pixel(1.0)), {"nx": SIZE, "ny": SIZE, "scale": 1.0}
        one = galsim.Sersic(1.5, half_light_radius=3.5)
        galaxies.append([galsim.Convolve(one.shear(g1=a, g2=b), psf).drawImage(**how).array for a, b in g.T])
        offsets = zip(distance * np.cos(angle), distance * np.sin(angle), strict=True)
        stars.append([seen.drawImage(method="no_pixel", offset=at, **how).array for at in offsets])
        psfs.append(seen.drawImage(method="no_pixel", nx=41, ny=41, scale=1.0).array)
    galaxies, stars = np.array(galaxies), np.array(stars)
    galaxies *= 45 / np.sqrt((galaxies**2).sum((2, 3), keepdims=True))
    stars *= 10 / np.sqrt((stars**2).sum((2, 3), keepdims=True))
    noise = rng.normal(size=galaxies.shape)
    return galaxies + noise, stars, psfs, g, angle


def measured(data, psfs, rows=slice(None), **options):
    exposures = [
        Exposure(one[rows], psf=psf, error=1.0, band=band)
        for band, one, psf in zip(FWHM, data, psfs, strict=True)
    ]
    return ShapeEstimator()(exposures, threads=1, **options)


@pytest.mark.parametrize("method", ["network", "ml"])
def test_hidden_stars_are_taken_away(scene, method):
    data, stars, psfs, g, angle = scene
    pulls = {}
    for neighbours in ("mask", "ignore"):
        found = measured(data + stars, psfs, method=method, neighbours=neighbours)
        width = "err" if method == "ml" else "std"
        error = np.hypot(getattr(found, f"g1_{width}"), getattr(found, f"g2_{width}")) / np.sqrt(2)
        offset = (found.g1 - g[0]) * np.cos(2 * angle) + (found.g2 - g[1]) * np.sin(2 * angle)
        pulls[neighbours] = np.asarray(offset / error)
    assert np.mean(np.abs(pulls["ignore"]) < 1) < 0.3
    assert np.mean(np.abs(pulls["mask"]) < 1) > 0.5
    assert np.median(pulls["mask"]) < 0.5 * np.median(pulls["ignore"])


def test_the_stars_are_gone_from_the_pixels_and_rows_know_no_company(scene):
    data, stars, psfs, *_ = scene
    found = measured(data + stars, psfs)
    row = int(np.flatnonzero((found.flags & Flag.NEIGHBOR) > 0)[0])
    kept = [
        (found.stamp(row, band).data[0] - (data + stars)[k, row]) * (stars[k, row] > 0.3)
        for k, band in enumerate(f"{name}1" for name in FWHM)
    ]
    assert min(one.min() for one in kept) < -1
    for row in np.flatnonzero((found.flags & Flag.NEIGHBOR) > 0)[:3]:
        alone = measured(data + stars, psfs, [row])
        assert np.array_equal(alone.parameters[0], found.parameters[row])
        assert np.array_equal(alone.covariance[0], found.covariance[row])
        assert alone.flags[0] == found.flags[row]


def test_nothing_is_taken_from_galaxies_alone(scene):
    data, _, psfs, *_ = scene
    found, ignored = (measured(data, psfs, neighbours=one) for one in ("mask", "ignore"))
    untouched = (found.flags & Flag.NEIGHBOR) == 0
    assert untouched.mean() > 0.9
    np.testing.assert_allclose(found.g1[untouched], ignored.g1[untouched], rtol=1e-5)
