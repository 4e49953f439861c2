# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""A PSF from the stars of the image: the right stars, the right size, and a flag on each row."""

import galsim
import numpy as np
import pytest
from astropy.nddata import NDData, StdDevUncertainty

from galshape_cnn.errors import InputError, PSFError
from galshape_cnn.flags import Flag
from galshape_cnn.observe.detect.star_psf import EstimatedPSF, _fit_star, psf_from_stars
from galshape_cnn.observe.observation import prepare

SIDE, SIGMA = 700, 5.0


def moffat(fwhm):
    return galsim.Moffat(beta=3, fwhm=fwhm).shear(g1=0.05, g2=-0.03)


def scene(psf, n_stars, n_galaxies, seed=0, meta=None):
    """Image, and the places of its stars (first) and galaxies."""
    rng = np.random.default_rng(seed)
    image = galsim.ImageD(SIDE, SIDE, scale=1)
    grid = np.mgrid[45 : SIDE - 45 : 55, 45 : SIDE - 45 : 55].reshape(2, -1).T
    xy = rng.permutation(grid)[: n_stars + n_galaxies] + rng.uniform(-8, 8, (n_stars + n_galaxies, 2))
    for i, (x, y) in enumerate(xy):
        flux = 10 ** rng.uniform(3.5, 4.7)
        galaxy = galsim.Exponential(half_light_radius=rng.uniform(2, 5)).shear(
            g1=rng.uniform(-0.3, 0.3), g2=0
        )
        profile = psf if i < n_stars else galsim.Convolve(psf, galaxy)
        center = galsim.PositionD(x + 1, y + 1)
        stamp = profile.withFlux(flux).drawImage(nx=61, ny=61, scale=1, center=center, dtype=float)
        both = stamp.bounds & image.bounds
        image[both] += stamp[both]
    data = image.array + rng.normal(0, SIGMA, (SIDE, SIDE)) + 30.0
    uncertainty = StdDevUncertainty(np.full((SIDE, SIDE), SIGMA))
    return NDData(data, uncertainty=uncertainty, meta=meta or {}), xy


def effective(psf, array):
    """The true PSF on the grid of an estimate of one sample per pixel."""
    drawn = psf.drawImage(nx=len(array), ny=len(array), scale=1, dtype=float).array
    return drawn / drawn.sum()


@pytest.mark.parametrize("fwhm", [2.8, 4.2])
def test_size_and_shape_of_the_psf(fwhm):
    psf = moffat(fwhm)
    data, xy = scene(psf, 40, 60)
    found = psf_from_stars(data)
    assert found.oversampling == 1
    array = found.array[0]
    assert array.sum() == pytest.approx(1)
    distance = np.hypot(found.stars["x"][:, None] - xy[:, 0], found.stars["y"][:, None] - xy[:, 1])
    nearest = distance.argmin(1)
    assert len(found.stars) >= 25
    assert (nearest < 40).mean() > 0.95  # stars, not galaxies
    true, mine = (
        galsim.hsm.FindAdaptiveMom(galsim.Image(one)) for one in (effective(psf, array), array.copy())
    )
    assert mine.moments_sigma == pytest.approx(true.moments_sigma, rel=0.01)
    assert mine.observed_shape.e1 == pytest.approx(true.observed_shape.e1, abs=0.01)
    assert mine.observed_shape.e2 == pytest.approx(true.observed_shape.e2, abs=0.01)
    assert found.fwhm == pytest.approx(2.3548 * true.moments_sigma, rel=0.02)


@pytest.mark.parametrize("oversampling", [1, 2])
def test_stars_are_fitted_as_by_least_squares_of_astropy(oversampling):
    from astropy.modeling.fitting import TRFLSQFitter
    from photutils.psf import ImagePSF

    y, x = np.mgrid[-15:16, -15:16] / oversampling
    model = ImagePSF(np.exp(-(x**2 + y**2) / 4) / (4 * np.pi), oversampling=oversampling, fill_value=0.0)
    y, x = np.mgrid[-2.0:3, -2.0:3]
    z = 5000 * np.exp(-((x - 0.4) ** 2 + (y + 0.3) ** 2) / 4.2) / (4 * np.pi)
    z += np.random.default_rng(5).normal(size=z.shape)
    model.flux, weights = 4000.0, 1 / (1 + np.abs(x))
    ours = _fit_star(model, x, y, z, weights, 100)
    theirs = TRFLSQFitter()(model, x, y, z, weights=weights, acc=1e-14, maxiter=1000)
    np.testing.assert_allclose(ours.parameters, theirs.parameters, rtol=1e-6, atol=1e-7)
    assert model.flux == 4000


def test_unit_of_the_image_does_not_matter():
    data, _ = scene(moffat(2.8), 40, 0)
    small = NDData(data.data * 1e-14, uncertainty=StdDevUncertainty(data.uncertainty.array * 1e-14))
    found, same = psf_from_stars(data).array, psf_from_stars(small).array
    assert np.abs(found - same).max() < 1e-5 * found.max()


def test_narrow_psf_is_sampled_twice():
    found = psf_from_stars(scene(moffat(2.0), 60, 20)[0])
    assert found.oversampling == 2
    assert found.array.shape[1] % 2 == 1


def test_each_row_says_so():
    data, xy = scene(moffat(3.0), 20, 10)
    stamps = prepare(data, psf="stars", positions=xy[20:]).groups[0][1]
    assert (stamps.flags & Flag.PSF_ESTIMATED).all()
    assert not (
        prepare(data, psf=np.ones((3, 3)), positions=xy[:2]).groups[0][1].flags & Flag.PSF_ESTIMATED
    ).any()
    estimated = psf_from_stars(data)
    assert isinstance(estimated, EstimatedPSF)
    again = prepare(data, psf=estimated, positions=xy[20:]).groups[0][1]
    np.testing.assert_array_equal(again.flags, stamps.flags)
    np.testing.assert_allclose(again.psf, stamps.psf)


def test_of_plain_pixels_with_error_and_mask():
    data, xy = scene(moffat(3.0), 20, 10)
    error, bad = data.uncertainty.array, np.zeros(data.data.shape, bool)
    bad[:, 300] = True
    spoiled = np.where(bad, 1e6, data.data)
    wanted = psf_from_stars(NDData(spoiled, uncertainty=StdDevUncertainty(error), mask=bad))
    found = prepare(spoiled, error=error, mask=bad, psf="stars", positions=xy[20:]).groups[0][1]
    np.testing.assert_array_equal(found.psf, wanted.array)


def test_galaxies_are_no_stars():
    said = r"the image has \d isolated stars of S/N > 40, of which at least 5 .*sources differ in size"
    with pytest.raises(PSFError, match=said):
        psf_from_stars(scene(moffat(3.0), 3, 60)[0])


def test_saturated_stars_are_left_out():
    data, _ = scene(moffat(3.0), 20, 0)
    level = 0.5 * (np.max(data.data) - 30) + 30
    unsaturated = psf_from_stars(NDData(data, meta={"SATURATE": level}))
    assert len(unsaturated.stars) < len(psf_from_stars(data).stars)


@pytest.mark.parametrize("call", [{"data": np.zeros((3, 64, 64))}, {"data": NDData(np.zeros((3, 64, 64)))}])
def test_cutouts_have_no_stars(call):
    with pytest.raises(InputError, match="psf='stars' needs one image"):
        prepare(call["data"], psf="stars", error=1.0)


def test_other_words_are_refused():
    with pytest.raises(PSFError, match=r"psf='psf.fits'.*or 'stars' is needed \(read files first\)"):
        prepare(np.zeros((64, 64)), psf="psf.fits", error=1.0)


def test_blank_image_has_no_stars():
    data = NDData(np.random.default_rng(1).normal(size=(300, 300)))
    with pytest.raises(PSFError, match="the image has 0 isolated stars"):
        prepare(data, psf="stars", error=1.0, positions=[[100, 100]])
