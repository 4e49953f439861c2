# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""The width and shape of PSFs, and which of them the network that ships knows."""

import galsim
import numpy as np
import pytest

from galshape_cnn.forward.psf.shape import psf_shape, psf_width
from galshape_cnn.infer.network.bundle import Bundle


def shape_of(profile, oversampling=1):
    whole = galsim.Convolve(profile, galsim.Pixel(1))
    image = whole.drawImage(nx=63, ny=63, scale=1 / oversampling, method="no_pixel").array
    return psf_shape(image[None], oversampling)[0]


def test_kinds_are_told_apart_whatever_the_width():
    narrow, wide = (shape_of(galsim.Moffat(2.0, fwhm=fwhm)) for fwhm in (2.5, 4.0))
    gauss = shape_of(galsim.Gaussian(fwhm=3.0))
    assert abs(narrow[1] - wide[1]) < 0.02 < narrow[1] - gauss[1]
    assert narrow[0] < 1e-6


def test_elongation_does_not_depend_on_the_direction():
    values = [shape_of(galsim.Gaussian(fwhm=3).shear(g=0.1, beta=a * galsim.degrees))[0] for a in (0, 20, 45)]
    np.testing.assert_allclose(values, values[0], rtol=0.02)
    assert 0.05 < values[0] < 0.3


def test_lopsidedness_and_oversampling():
    two = 0.8 * galsim.Gaussian(fwhm=3) + 0.2 * galsim.Gaussian(fwhm=3).shift(2.0, 0)
    assert shape_of(two)[2] > 0.05  # a round one has none
    np.testing.assert_allclose(
        shape_of(galsim.Gaussian(fwhm=6), 2)[1], shape_of(galsim.Gaussian(fwhm=6))[1], 0.05
    )


@pytest.mark.parametrize("oversampling", [1, 2])
def test_width_of_a_gaussian_psf_is_its_fwhm(oversampling):
    psf = galsim.Gaussian(fwhm=4.0).drawImage(nx=81, ny=81, scale=1 / oversampling, method="no_pixel").array
    assert psf_width(psf[None].astype(float), oversampling)[0] == pytest.approx(4.0, rel=0.02)


@pytest.mark.parametrize("profile", ["gaussian", "kolmogorov", "moffat 2", "moffat 4.5", "airy"])
@pytest.mark.parametrize("fwhm", [1.6, 7.0])
def test_ordinary_psfs_are_inside_the_domain_of_the_network_that_ships(profile, fwhm):
    """The widest and the sharpest that it is made for, pixel included."""
    kind, *beta = profile.split()
    psf = {
        "gaussian": lambda: galsim.Gaussian(fwhm=fwhm),
        "kolmogorov": lambda: galsim.Kolmogorov(fwhm=fwhm),
        "moffat": lambda: galsim.Moffat(float(*beta), fwhm=fwhm),
        "airy": lambda: galsim.Airy(lam_over_diam=fwhm / 1.029),
    }[kind]()
    effective = galsim.Convolve(psf, galsim.Pixel(1.0)).drawImage(nx=161, ny=161, scale=1, method="no_pixel")
    low, high = Bundle.shipped().domain["psf_width"]
    assert low < psf_width(effective.array[None].astype(float), 1)[0] < high


def test_psfs_far_from_training_are_outside():
    low, high = Bundle.shipped().domain["psf_width"]
    for fwhm in (0.9, 25.0):
        psf = galsim.Gaussian(fwhm=fwhm).drawImage(nx=161, ny=161, scale=0.5, method="no_pixel").array
        width = psf_width(psf[None].astype(float), 2)[0]
        assert not low < width < high
