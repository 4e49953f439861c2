# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""Every form of a PSF gives the same arrays."""

import galsim
import numpy as np
import pytest
from photutils.psf import GaussianPSF, GriddedPSFModel, ImagePSF

from galshape_cnn.errors import PSFError
from galshape_cnn.forward.psf.arrays import stack_psfs
from galshape_cnn.forward.psf.convert import PSFArrays, convolve_pixel, distinct_jacobians, psf_arrays

PROFILE = galsim.Gaussian(fwhm=3.0).shear(g1=0.1, g2=-0.05)


def drawn(profile=PROFILE, side=51, oversampling=1, pixel=True):
    """Array of a profile, with or without the pixel."""
    whole = galsim.Convolve(profile, galsim.Pixel(1)) if pixel else profile
    image = whole.drawImage(nx=side, ny=side, scale=1 / oversampling, method="no_pixel", dtype=float)
    return image.array / image.array.sum()


def middle(arrays, side):
    """Central samples, normalised."""
    _, ny, nx = arrays.array.shape
    y, x = (ny - side) // 2, (nx - side) // 2
    part = arrays.array[:, y : y + side, x : x + side]
    return part / part.sum(axis=(1, 2), keepdims=True)


FINE = drawn(oversampling=2)


@pytest.mark.parametrize(
    ("psf", "factor"),
    [
        (FINE, 2),
        (FINE.tolist(), 2),
        (lambda x, y: FINE, 2),
        (PSFArrays(FINE[None], 2), 1),
        (ImagePSF(FINE * 4, oversampling=2), 1),
        (ImagePSF(FINE * 4, oversampling=(2, 2), x_0=5, flux=3), 1),
        (lambda x, y: ImagePSF(FINE * 4, oversampling=2), 1),
        (PROFILE, 1),
        ([PROFILE], 1),
        (lambda x, y: PROFILE, 1),
    ],
)
def test_forms_agree(psf, factor):
    arrays = psf_arrays(psf, positions=[[10, 20]], oversampling=factor)
    assert arrays.oversampling == 2
    np.testing.assert_allclose(middle(arrays, 31)[0], middle(PSFArrays(FINE[None]), 31)[0], rtol=0, atol=1e-7)


def test_gridded_model_is_taken_at_each_position():
    from astropy.nddata import NDData

    widths = [2.5, 3.0, 3.5, 4.0]
    corners = [(0, 0), (100, 0), (0, 100), (100, 100)]
    data = np.array([drawn(galsim.Gaussian(fwhm=f), 41, 2) * 4 for f in widths])
    model = GriddedPSFModel(NDData(data, meta={"grid_xypos": corners, "oversampling": 2}))
    arrays = psf_arrays(model, positions=[*corners, (50, 50)])
    assert arrays.array.shape == (5, 41, 41)
    assert arrays.oversampling == 2
    np.testing.assert_allclose(arrays.array[:4], data / 4, atol=1e-6)
    np.testing.assert_allclose(arrays.array[4], data.mean(axis=0) / 4, atol=1e-6)


def test_even_photutils_model_is_resampled_about_its_origin():
    fine = (
        galsim.Convolve(PROFILE, galsim.Pixel(1)).drawImage(nx=60, ny=60, scale=0.5, method="no_pixel").array
    )
    arrays = psf_arrays(ImagePSF(fine * 4.0, oversampling=2))
    assert arrays.array.shape == (1, 59, 59)
    np.testing.assert_allclose(
        middle(arrays, 31)[0], middle(PSFArrays(drawn(oversampling=2)[None]), 31)[0], atol=3e-5
    )


def test_galsim_flux_inside_the_array_is_kept():
    moffat = galsim.Moffat(beta=2, fwhm=2.2, flux=7)
    wide, narrow = psf_arrays(moffat), psf_arrays([moffat])
    assert wide.array.shape[1:] == (255, 255)
    assert narrow.array.shape[1:] == (127, 127)
    radius = 0.5 * 2.2 / np.sqrt(np.sqrt(2) - 1)
    outside = 1 / (1 + (np.array([127.5, 63.5]) / 2 / radius) ** 2)
    # a square holds a little more than the circle in it
    total = np.array([wide.array.sum(), narrow.array.sum()])
    assert (total > 1 - outside).all()
    assert (total < 1 - 0.7 * outside).all()
    np.testing.assert_allclose(wide.array[0, 64:191, 64:191], narrow.array[0], atol=1e-6)
    assert psf_arrays(galsim.Gaussian(fwhm=3, flux=0.9), normalize=False).array.sum() == pytest.approx(0.9)


def test_galsim_profile_is_in_the_frame_of_the_jacobian():
    # 90 degree rotation and 0.2 arcsec pixels: stretched along v is stretched along -x
    jacobian = 0.2 * np.array([[0.0, -1.0], [1.0, 0.0]])
    psf = galsim.Gaussian(fwhm=0.6).shear(g1=0, g2=0).shear(g1=-0.2)
    arrays = psf_arrays(psf, jacobian=jacobian)
    expected = drawn(galsim.Gaussian(fwhm=3.0).shear(g1=0.2), 31, 2)
    np.testing.assert_allclose(middle(arrays, 31)[0], expected, rtol=0, atol=5e-7)


def test_galsim_psf_is_drawn_once_for_equal_jacobians():
    same = np.broadcast_to(0.2 * np.eye(2), (50, 2, 2)) * (1 + 1e-7 * np.arange(50))[:, None, None]
    assert len(psf_arrays(galsim.Gaussian(fwhm=0.6), jacobian=same).array) == 1
    differing = 0.2 * np.eye(2) * np.array([1, 1.01, 1.0])[:, None, None]
    arrays = psf_arrays(galsim.Gaussian(fwhm=0.6), jacobian=differing).array
    assert arrays.shape == (3, 127, 127)
    np.testing.assert_array_equal(arrays[0], arrays[2])
    assert arrays[1].max() > arrays[0].max()


def test_distinct_jacobians_do_not_depend_on_the_other_rows():
    rng = np.random.default_rng(2)
    many = 0.2 * np.eye(2) + 1e-3 * rng.normal(size=(30, 2, 2))
    distinct, rows = distinct_jacobians(many)
    assert np.abs(distinct[rows] - many).max() < 0.2e-4
    few, rows_few = distinct_jacobians(many[5:9])
    np.testing.assert_array_equal(few[rows_few], distinct[rows][5:9])


def test_pixel_is_added_to_arrays_without_it():
    for factor in (1, 2, 3):
        side = 25 * factor | 1
        bare = drawn(galsim.Gaussian(fwhm=3.5), side, factor, pixel=False)
        with_pixel = psf_arrays(bare, includes_pixel=False, oversampling=factor)
        assert with_pixel.array.shape[1:] == (side + 2 * factor,) * 2
        expected = drawn(galsim.Gaussian(fwhm=3.5), side + 2 * factor, factor)
        np.testing.assert_allclose(with_pixel.array[0], expected, atol=2e-6)
    # and it matters: the same without the convolution is narrower
    assert drawn(galsim.Gaussian(fwhm=3.5), 25, 1, pixel=False).max() > 1.03 * expected.max() * 9


def test_convolving_with_the_pixel_keeps_the_light():
    array = 0.8 * drawn(side=25, pixel=False)[None]
    assert convolve_pixel(array).sum() == pytest.approx(0.8, abs=1e-6)


def test_normalisation():
    array = np.full((2, 5, 5), 0.03)
    assert psf_arrays(array).array.sum(axis=(1, 2)) == pytest.approx(1)
    assert psf_arrays(array, normalize=False).array.sum(axis=(1, 2)) == pytest.approx(0.75)
    with pytest.raises(PSFError, match="more than all light"):
        psf_arrays(array * 10, normalize=False)


def test_input_is_untouched():
    array = np.full((5, 5), 2.0)
    psf_arrays(array, includes_pixel=False)
    np.testing.assert_array_equal(array, 2)


def test_sequences_are_padded_to_one_size():
    arrays = psf_arrays([np.ones((3, 3)), np.ones((5, 7))], positions=np.zeros((2, 2)))
    assert arrays.array.shape == (2, 5, 7)
    assert arrays.array[0].sum() == pytest.approx(1)
    assert arrays.array[0, 2, 3] == pytest.approx(1 / 9)


def test_lists_of_numbers_are_arrays():
    assert psf_arrays([[0, 1, 0], [1, 4, 1], [0, 1, 0]]).array.shape == (1, 3, 3)


def test_callable_gets_the_position():
    arrays = psf_arrays(lambda x, y: np.full((3, 3), 1.0 + x + y) * np.eye(3), positions=[[1, 2], [3, 4]])
    assert arrays.array.shape == (2, 3, 3)


@pytest.mark.parametrize(
    ("psf", "options", "match"),
    [
        (None, {}, "psf is missing; give an odd-sized array"),
        ("psf.fits", {}, "psf is a str"),
        (np.ones((64, 64)), {}, r"psf is even-sized \(64x64\)"),
        (-np.ones((3, 3)), {}, "psf has a sum of -9"),
        (np.full((3, 3), np.nan), {}, "only NaN"),
        (np.ones((4, 3, 3)), {"positions": np.zeros((2, 2))}, "psf holds 4 PSFs for 2 galaxies"),
        ([np.ones((3, 3))] * 3, {"positions": np.zeros((2, 2))}, "psf holds 3 PSFs for 2 galaxies"),
        ([np.ones((3, 3)), np.ones((4, 4))], {}, r"psf\[1\] is even-sized"),
        (lambda x, y: np.ones((3, 3)), {}, "callable as psf.*positions are needed"),
        (lambda x, y: np.ones((2, 2)), {"positions": [[0, 0]]}, r"psf\(x, y\)\[0\] is even-sized"),
        (
            lambda xy: xy,
            {"positions": [[0, 0]]},
            r"psf is a callable of \(xy\); allowed: one that takes x, y",
        ),
        (
            lambda x, y, *, band: x,
            {"positions": [[0, 0]]},
            r"callable of \(x, y, \*, band\).*argument: 'band'",
        ),
        (galsim.Gaussian(fwhm=3, flux=-1), {}, "flux of -1.0; a PSF must have positive flux"),
        (galsim.Gaussian(fwhm=3), {"oversampling": 2}, "psf_oversampling=2 is meant for arrays"),
        (GaussianPSF(), {}, "GaussianPSF model"),
        (np.ones((3, 3)), {"oversampling": 0.5}, "psf_oversampling=0.5; a whole number"),
        (np.ones((3, 3)), {"positions": [1, 2, 3]}, r"positions has shape \(3,\)"),
        (np.ones((3, 3)), {"jacobian": np.ones(4)}, "jacobian has shape"),
    ],
)
def test_bad_psf(psf, options, match):
    with pytest.raises(PSFError, match=match):
        psf_arrays(psf, **options)


def test_stacking_needs_one_oversampling():
    with pytest.raises(PSFError, match=r"oversampling \[1, 2\]"):
        stack_psfs([PSFArrays(np.ones((1, 3, 3)), 1), PSFArrays(np.ones((1, 3, 3)), 2)])
