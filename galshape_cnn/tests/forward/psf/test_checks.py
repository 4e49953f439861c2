# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""Faults of sampled PSFs: said once with the mend, flagged, and corrected where that is possible.

Shifts by interpolation are good to 0.3 % of the peak: a Moffat profile of three pixels is slightly aliased.
"""

import warnings

import galsim
import numpy as np
import pytest

from galshape_cnn.errors import GalshapeWarning, PSFError
from galshape_cnn.flags import Flag
from galshape_cnn.forward.psf.arrays import PSFArrays
from galshape_cnn.forward.psf.checks import mended_psf
from galshape_cnn.observe.observation import prepare


def moffat(side=41, beta=3.0, fwhm=3.0, shift=(0, 0), scale=1.0, e=0.0):
    """Effective PSF, of unit sum."""
    profile = galsim.Moffat(beta=beta, fwhm=fwhm).shear(e1=e).shift(*shift)
    array = profile.drawImage(nx=side, ny=side, scale=scale).array.astype(float)
    return array / array.sum()


def checked(array, oversampling=1):
    return mended_psf(PSFArrays(array[None], oversampling))


@pytest.mark.parametrize("beta", [2.0, 3.0, 5.0])
@pytest.mark.parametrize("fwhm", [1.6, 3.0, 6.0])
@pytest.mark.parametrize(("e", "scale"), [(0.0, 1.0), (0.15, 1.0), (0.1, 0.5)])
def test_good_psfs_pass_untouched(beta, fwhm, e, scale):
    array = moffat(63 if scale == 1 else 127, beta, fwhm, e=e, scale=scale)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = checked(array, round(1 / scale))
    np.testing.assert_array_equal(found.psf.array[0], array)
    assert not found.cut.any()
    assert not found.mended.any()


def test_cut_small_is_said():
    whole = moffat()
    with pytest.warns(GalshapeWarning, match="cut where the PSF still has light") as said:
        found = checked(whole[16:25, 16:25] / whole[16:25, 16:25].sum())
    assert len(said) == 1
    assert found.cut.all()
    assert not found.mended.any()


@pytest.mark.parametrize("level", [3e-4, 1e-3, -3e-4, -2e-3])
def test_pedestal_is_subtracted(level):
    whole = moffat()
    raised = whole + level * whole.max()
    with pytest.warns(GalshapeWarning, match="on a pedestal, which was subtracted"):
        found = checked(raised / raised.sum())
    assert found.mended.all()
    assert np.abs(found.psf.array[0] - whole).max() < 0.05 * np.abs(raised / raised.sum() - whole).max()


@pytest.mark.parametrize("shift", [(0.5, 0.0), (0.5, 0.5), (-0.3, 0.2), (1.0, 0.0), (2.5, -3.0), (0.0, 6.0)])
def test_off_centre_is_shifted(shift):
    with pytest.warns(GalshapeWarning, match="not on the central sample"):
        found = checked(moffat(shift=shift))
    assert found.mended.all()
    assert np.abs(found.psf.array[0] - moffat()).max() < 3e-3 * moffat().max()


@pytest.mark.parametrize("shift", [(12.0, 0.0), (9.0, -9.0)])
def test_psf_at_the_edge_of_its_array_is_refused(shift):
    with pytest.raises(PSFError, match=r"psf \(row 0\) is .* off the middle of its array of 41x41"):
        checked(moffat(shift=shift))


def test_even_psf_padded_to_odd_is_shifted():
    even = galsim.Moffat(beta=3, fwhm=3).drawImage(nx=40, ny=40, scale=1).array.astype(float)
    with pytest.warns(GalshapeWarning, match="not on the central sample"):
        found = checked(np.pad(even / even.sum(), ((0, 1), (0, 1))))
    assert np.abs(found.psf.array[0] - moffat()).max() < 3e-3 * moffat().max()


def test_rows_carry_flags_of_their_own_psf():
    psfs = np.stack([moffat(), moffat(shift=(0.5, 0))])
    with pytest.warns(GalshapeWarning, match="some arrays are not on the central sample and were shifted"):
        observation = prepare(np.zeros((2, 64, 64)), psf=psfs, error=1.0)
    stamps = observation.groups[0][1]
    np.testing.assert_array_equal(stamps.flags & Flag.PSF_MENDED > 0, [False, True])
    np.testing.assert_allclose(stamps.psf[1], moffat(), atol=3e-3 * moffat().max())
