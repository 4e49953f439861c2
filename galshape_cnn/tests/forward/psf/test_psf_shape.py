# Licensed under a 3-clause BSD style license - see LICENSE.rst
import galsim
import numpy as np

from galshape_cnn.forward.psf.shape import psf_shape


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
