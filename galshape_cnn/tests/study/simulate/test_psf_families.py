# Licensed under a 3-clause BSD style license - see LICENSE.rst
import galsim
import numpy as np
import pytest

from galshape_cnn.forward.transfer import transfer_at
from galshape_cnn.infer.posterior.prior import Distribution
from galshape_cnn.study.simulate.galsim_stamps import PSF_OVERSAMPLING, draw_psf
from galshape_cnn.study.simulate.psf_families import (
    LN_Q,
    MOFFAT_BETA,
    OBSCURATION,
    draw_lobes,
    draw_psfs,
    family_table,
    obscured_fwhm,
    transfer_on_modes,
    without_wings,
)

Q = np.exp(LN_Q)
PLAIN = np.array([[1.0, 0, 0], [0, 0, 0], [0, 0, 0]])


def galsim_transfer(psf):
    return np.array([psf.kValue(q, 0).real for q in Q[::6]])


@pytest.mark.parametrize(
    ("row", "psf"),
    [
        (0, galsim.Gaussian(fwhm=1)),
        (1, galsim.Kolmogorov(fwhm=1)),
        (2, galsim.Airy(lam_over_diam=1 / 1.029)),
        (3 + 5, galsim.Moffat(MOFFAT_BETA[5], fwhm=1)),
        (3 + 9, galsim.Moffat(MOFFAT_BETA[9], fwhm=1)),
        (-1, galsim.Airy(lam_over_diam=1 / obscured_fwhm(), obscuration=OBSCURATION)),
    ],
)
def test_families_are_galsims(row, psf):
    np.testing.assert_allclose(family_table()[row, ::6], galsim_transfer(psf), atol=3e-3)


def test_effective_transfer_of_a_sheared_gaussian_is_galsims():
    psf = galsim.Gaussian(fwhm=2.5).shear(g1=0.05, g2=-0.03)
    effective = galsim.Convolve(psf, galsim.Pixel(1.0))
    ky, kx = np.linspace(-2, 2, 9), np.linspace(0, 2, 5)
    transfer = np.asarray(transfer_on_modes(family_table()[0], 2.5, np.array([0.05, -0.03]), PLAIN, ky, kx))
    expected = [[effective.kValue(x, y).real for x in kx] for y in ky]
    # Linear interpolation in ln q: step^2 / 8 times a second derivative of order one.
    np.testing.assert_allclose(transfer.real, expected, atol=4e-4)


def test_lobes_are_galsims_shifted_copies():
    lobes = draw_lobes(np.random.default_rng(3), 1, 1.0)[0]
    assert abs(lobes[:, 0].sum() - 1) < 1e-12
    assert np.hypot(*(lobes[:, :1] * lobes[:, 1:]).sum(0)) <= 0.05 * np.sqrt(2) + 1e-12
    one = galsim.Gaussian(fwhm=1.0)
    psf = galsim.Add([w * one.shift(x, y) for w, x, y in lobes])
    effective = galsim.Convolve(psf, galsim.Pixel(1.0))
    ky, kx = np.linspace(-2, 2, 9), np.linspace(0, 2, 5)
    transfer = np.asarray(transfer_on_modes(family_table()[0], 1.0, np.zeros(2), lobes, ky, kx))
    expected = [[effective.kValue(x, y) for x in kx] for y in ky]
    np.testing.assert_allclose(transfer, expected, atol=4e-4)
    assert np.abs(transfer.imag).max() > 0.01


def test_draws_stay_in_their_ranges():
    fwhm = Distribution({"kind": "loguniform", "low": 1.4, "high": 7.0})
    psfs = draw_psfs(np.random.default_rng(1), 500, fwhm, 0.15)
    assert psfs["radial"].shape == (500, len(LN_Q))
    assert np.isfinite(psfs["radial"]).all()
    np.testing.assert_allclose(psfs["radial"][:, 0], 1, atol=0.03)
    g = np.hypot(*psfs["g"].T)
    assert (2 * g / (1 + g**2)).max() <= 0.15 + 1e-9
    assert ((psfs["fwhm"] >= 1.4) & (psfs["fwhm"] <= 7.0)).all()


class Radius:
    """In place of a random generator: arrays that end where the test's array does."""

    def __init__(self, radius):
        self.radius = radius

    def uniform(self, low=0.0, high=1.0, size=None):
        return np.zeros(size) if low == 0 else np.full(high if size is None else size, np.log(self.radius))


@pytest.mark.parametrize("half", [24, 32, 48, 63])
def test_psfs_without_wings_are_those_that_arrays_hold(half):
    """An array of GalSim's, cut along a circle and divided by its sum, as the network sees it."""
    fwhm, ky, kx = 3.4, np.linspace(-2, 2, 21), np.linspace(0, 2, 11)
    array = draw_psf(galsim.Moffat(2.0, fwhm=fwhm))
    side = np.arange(len(array)) - len(array) // 2
    array = np.where(np.hypot(side, side[:, None]) < half, array, 0)
    seen = np.asarray(transfer_at(array / array.sum(), ky, kx, PSF_OVERSAMPLING))
    width = Distribution({"kind": "uniform", "low": fwhm, "high": fwhm + 1e-6}, "fwhm")
    whole = draw_psfs(np.random.default_rng(0), 1, width, 0.0, 2.0)
    cut = without_wings(Radius(half / PSF_OVERSAMPLING), whole, 2.0)
    missed, left = (
        np.abs(seen - transfer_on_modes(one["radial"][0], fwhm, np.zeros(2), PLAIN, ky, kx)).max()
        for one in (whole, cut)
    )
    assert missed > 0.5 * (1 - array.sum())  # what a network would not have seen
    assert left < 0.08 * missed
