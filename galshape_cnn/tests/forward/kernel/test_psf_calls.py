# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""What the kernel finds of sampled PSFs: known numbers, and those of NumPy."""

import numpy as np
import pytest

from galshape_cnn.forward.kernel import psf_calls
from galshape_cnn.forward.kernel.library import KERNEL_VARIABLE, instructions
from galshape_cnn.forward.psf import checks
from galshape_cnn.forward.psf.arrays import psf_sums
from galshape_cnn.forward.psf.shape import psf_width
from galshape_cnn.infer.network.features import PSF_KX, PSF_KY, network_view

pytestmark = pytest.mark.skipif(not instructions(), reason="the package was installed without a compiler")

WIDTHS, AT = np.array([1.2, 2.0, 4.5]), np.array([[0.0, 0.0], [0.3, -0.2], [-1.4, 2.2]])


@pytest.fixture(params=instructions())
def chosen(request, monkeypatch):
    """Each set of instructions."""
    monkeypatch.setenv(KERNEL_VARIABLE, request.param)


@pytest.fixture(params=[(31, 31), (45, 27), (127, 127)], ids=str)
def psf(request):
    """Gaussians of `WIDTHS`, centred at `AT`, x and y from the middle sample."""
    ny, nx = request.param
    y, x = np.mgrid[:ny, :nx] - np.array([ny // 2, nx // 2])[:, None, None]
    distance2 = (x - AT[:, 0, None, None]) ** 2 + (y - AT[:, 1, None, None]) ** 2
    light = np.exp(-0.5 * distance2 / WIDTHS[:, None, None] ** 2)
    return light / light.sum((1, 2), keepdims=True)


def test_sums(chosen, psf):
    peak, total, square = psf_calls.psf_sums(psf)
    np.testing.assert_array_equal(peak, psf.max((1, 2)))
    np.testing.assert_allclose(total, 1, rtol=1e-13)
    np.testing.assert_allclose(square, (psf**2).sum((1, 2)), rtol=1e-13)
    psf[1, 3, 4] = np.nan
    assert np.isfinite(psf_calls.psf_sums(psf)[1]).tolist() == [True, False, True]


def test_sums_of_none():
    assert psf_sums(np.zeros((0, 5, 5))).shape == (3, 0)


def test_medians_on_the_rim_and_inside(chosen, psf):
    rim, ring, _ = checks._ring_places(*psf.shape[1:])
    noisy = psf + np.random.default_rng(1).normal(0, 1e-4, psf.shape)
    found = psf_calls.psf_rings(noisy, rim, ring)
    edge = noisy.reshape(3, -1)[:, rim]
    np.testing.assert_allclose(found[0], np.median(edge, axis=1), rtol=1e-6)
    np.testing.assert_allclose(found[1], np.median(noisy.reshape(3, -1)[:, ring], axis=1), rtol=1e-6)
    np.testing.assert_allclose(found[2], 1e-4 / 1.4826, rtol=0.5)
    np.testing.assert_array_equal(found, checks._medians_on.__wrapped__(noisy, rim, ring))


def test_offsets_are_the_centroids(chosen, psf):
    raised = psf + np.array([0, 1e-5, 2e-4])[:, None, None]
    how = np.array([0, 1e-5, 2e-4]), raised.max((1, 2)), checks._LIMITS
    found = psf_calls.psf_offsets(raised, *how)
    whole = min(psf.shape[1:]) > 10 * WIDTHS  # the others are cut
    np.testing.assert_allclose(found[whole], AT[whole], atol=1e-5)
    np.testing.assert_allclose(found, checks._offsets.__wrapped__(raised, *how), rtol=0, atol=1e-9)


def test_offset_of_no_light_is_none(chosen):
    dark = np.zeros((1, 9, 9))
    assert psf_calls.psf_offsets(dark, [0.0], [0.0], checks._LIMITS).tolist() == [[0, 0]]


@pytest.mark.parametrize("oversampling", [1, 2])
def test_widths_are_those_of_numpy(chosen, psf, oversampling):
    single = psf.astype(np.float32)
    found = psf_width(single, oversampling)
    np.testing.assert_array_equal(found, psf_width.__wrapped__(single, oversampling))
    whole = min(psf.shape[1:]) > 8 * WIDTHS
    # to a step of the wave numbers that are tried
    step = 0.02 * WIDTHS[whole] / oversampling / np.sqrt(2 * np.log(2))
    assert (np.abs(found[whole] / (2.3548 * WIDTHS[whole] / oversampling) - 1) < step).all()


def test_a_needle_has_the_least_width(chosen):
    needle = np.zeros((1, 9, 9), np.float32)
    needle[0, 4, 4] = 1
    np.testing.assert_array_equal(psf_width(needle, 1), psf_width.__wrapped__(needle, 1))


@pytest.mark.parametrize("factor", [1, 2])
def test_spectra_are_sums_over_the_samples(chosen, psf, factor):
    single = psf.astype(np.float32)
    found = network_view(single, 1, factor)
    np.testing.assert_allclose(found, network_view.__wrapped__(single, 1, factor), rtol=0, atol=1e-7)
    if factor == 1 and min(psf.shape[1:]) > 60:
        power = PSF_KY[:, None] ** 2 + PSF_KX**2
        phase = PSF_KY[:, None] * AT[:, 1, None, None] + PSF_KX * AT[:, 0, None, None]
        exact = np.exp(-0.5 * power * WIDTHS[:, None, None] ** 2 - 1j * phase)
        np.testing.assert_allclose(found[:2], exact[:2], rtol=0, atol=2e-6)  # the third is cut


def test_a_psf_does_not_know_its_company(chosen, psf):
    single = psf.astype(np.float32)
    for function, array in ((psf_sums, psf), (psf_calls.psf_sums, psf)):
        np.testing.assert_array_equal(function(array)[:, 1:2], function(array[1:2]))
    np.testing.assert_array_equal(network_view(single, 1)[1:2], network_view(single[1:2], 1))
    np.testing.assert_array_equal(psf_width(single, 1)[1:2], psf_width(single[1:2], 1))
    faults, alone = (checks._faults(one, *psf_sums(one)[:2]) for one in (psf, psf[1:2]))
    for one, other in zip(faults, alone, strict=True):
        np.testing.assert_array_equal(one[1:2], other)


@pytest.mark.parametrize("shape", [(12, 13), (13, 12)])
def test_even_sizes_are_refused(shape):
    """There is no middle sample from which both sides are as long: one would be read beyond its end."""
    psf = np.ones((2, *shape), np.float32)
    with pytest.raises(ValueError, match=f"{shape[0]} x {shape[1]} samples; allowed: odd sizes"):
        psf_calls.psf_half_levels(psf, *np.ones((2, 2, 3, 7)))
    with pytest.raises(ValueError, match="odd sizes"):
        psf_calls.psf_spectra(psf, np.ones((8, shape[0]), complex), np.ones((8, shape[1]), complex))
