# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""GalSim profiles as arrays: newer GalSim only warns of a transform that is too large, and computes it."""

import galsim
import numpy as np
import pytest

from galshape_cnn.errors import PSFError
from galshape_cnn.forward.psf.galsim_psf import (
    affordable,
    draw_effective_psf,
    excessive_transform,
    transform_side,
)

FOLDING = 2e-4


def airy(largest):
    """An obscured Airy disc of 3 pixels, whose wings fall off slowly, with the pixel."""
    params = galsim.GSParams(maximum_fft_size=largest)
    return galsim.Convolve(
        galsim.Airy(lam_over_diam=3.0, obscuration=0.3), galsim.Pixel(1.0), gsparams=params
    )


def test_airy_disc_gets_a_transform_of_the_size_allowed():
    assert transform_side(airy(2048).withGSParams(folding_threshold=FOLDING), 0.5) > 16384  # gigabytes
    arrays = []
    for largest in (1024, 2048):
        profile = affordable(airy(largest), FOLDING, 0.5)
        assert largest / 2 < transform_side(profile, 0.5) <= largest
        arrays.append(profile.drawImage(nx=127, ny=127, scale=0.5, method="no_pixel", dtype=float).array)
    small, larger = arrays
    assert np.abs(small - larger).max() < 1e-4 * larger.max()
    assert 0.9 < larger.sum() < small.sum() < 1  # the larger transform folds less light back


def test_what_is_small_enough_is_as_careful_as_asked_for():
    moffat = galsim.Convolve(galsim.Moffat(beta=3.5, fwhm=3.0), galsim.Pixel(1.0))
    assert affordable(moffat, FOLDING, 0.5).gsparams.folding_threshold == FOLDING


def test_optical_psf_does_not_depend_on_what_was_asked_of_it():
    """A copy with another threshold makes a large pupil, unless the image was made before."""
    used = galsim.OpticalPSF(lam_over_diam=1.0, coma1=0.05, obscuration=0.3)
    fresh = galsim.OpticalPSF(lam_over_diam=1.0, coma1=0.05, obscuration=0.3)
    assert used.stepk > 0  # makes the image
    arrays = [draw_effective_psf(one.shear(g1=0.1), np.eye(2), 2, 63, FOLDING) for one in (used, fresh)]
    np.testing.assert_array_equal(*arrays)
    assert 0.9 < arrays[0].sum() < 1


def test_profile_that_no_transform_can_draw_is_refused():
    with pytest.raises(PSFError, match="psf cannot be drawn by GalSim: .* allowed: 256 a side"):
        affordable(airy(256), FOLDING, 0.5)


@pytest.mark.parametrize("psf", [galsim.Moffat(beta=2.5, fwhm=3.0), galsim.Gaussian(sigma=0.1)])
def test_side_is_that_of_galsim(psf):
    effective = galsim.Convolve(psf, galsim.Pixel(1.0))
    kimage, _ = effective.drawFFT_makeKImage(galsim.ImageD(15, 15, scale=0.5))
    assert transform_side(effective, 0.5) == kimage.array.shape[0] - 1


def test_transforms_larger_than_the_profile_allows():
    side = transform_side(airy(2048), 0.5)
    assert excessive_transform(airy(side), 0.5) is None
    assert excessive_transform(airy(side - 1), 0.5) == side
