# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""The table of the Sérsic profile's Fourier transform."""

import galsim
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.special import gammainc

from galshape_cnn.forward.sersic import N_RANGE, sersic_b, sersic_hankel, sersic_table
from galshape_cnn.forward.splines import interpolate, rows_at

K = np.geomspace(1e-3, 300, 60)


def tabulated(n, k):
    """F, dF/dn and dF/dlnk from the table, in double precision."""
    with jax.enable_x64(True):
        table = sersic_table()
        found = interpolate(jnp.asarray(n), jnp.log(jnp.asarray(k)), table, table.coefficients)
        return tuple(np.asarray(one) for one in found)


# Between the nodes of the table and on its limits.
@pytest.mark.parametrize("n", [0.3, 0.41, 0.77, 1.53, 2.9, 5.04, 6.2])
def test_transform_is_that_of_galsim(n):
    profile = galsim.Sersic(n, half_light_radius=1.0, gsparams=galsim.GSParams(kvalue_accuracy=1e-7))
    known = K[K < 0.9 * profile.maxk]  # GalSim's own table ends there
    expected = np.array([profile.kValue(k, 0).real for k in known])
    difference = np.abs(tabulated(n, known)[0] - expected)
    assert len(known) > 20
    assert difference.max() < 1e-5, f"n={n}: {difference.max():.2e} at k={known[difference.argmax()]:.3g}"


def test_gaussian_is_exact():
    k = np.geomspace(1e-3, 8, 200)
    expected = np.exp(-(k**2) / (4 * np.log(2)))  # n = 1/2 is a Gaussian
    np.testing.assert_allclose(tabulated(0.5, k)[0], expected, rtol=0, atol=1e-6)


def test_exponential_is_exact():
    k = np.geomspace(1e-3, 300, 200)
    expected = (1 + (k / sersic_b(1.0)) ** 2) ** -1.5
    np.testing.assert_allclose(tabulated(1.0, k)[0], expected, rtol=0, atol=1e-6)


@pytest.mark.parametrize("n", [0.3, 0.9, 2.6, 6.2])
def test_table_matches_direct_quadrature(n):
    ln_k, direct = sersic_hankel(n)
    found = tabulated(n, np.exp(ln_k[:-2]))[0]  # the spline needs a knot on either side
    np.testing.assert_allclose(found, direct[:-2], rtol=0, atol=2e-6)


@pytest.mark.parametrize("n", [0.31, 0.8, 1.7, 3.3, 6.19])
def test_slopes_are_those_of_the_interpolated_function(n):
    _, by_n, by_ln_k = tabulated(n, K)
    step = 1e-4
    numeric = (tabulated(n + step, K)[0] - tabulated(n - step, K)[0]) / (2 * step)
    np.testing.assert_allclose(by_n, numeric, rtol=0, atol=1e-6 * np.abs(numeric).max())
    numeric = (tabulated(n, K * np.exp(step))[0] - tabulated(n, K * np.exp(-step))[0]) / (2 * step)
    np.testing.assert_allclose(by_ln_k, numeric, rtol=0, atol=1e-6 * np.abs(numeric).max())


def test_limits_of_small_and_large_k():
    for n in N_RANGE:
        ends = tabulated(n, np.array([1e-12, 1e9]))[0]
        np.testing.assert_allclose(ends, [1, 0], atol=3e-4)


def test_b_halves_the_light():
    n = np.linspace(*N_RANGE, 50)
    np.testing.assert_allclose(gammainc(2 * n, sersic_b(n)), 0.5, rtol=1e-12)


@pytest.mark.parametrize("n", [0.3, 1.1, 4.2])
def test_real_space_coefficients(n):
    with jax.enable_x64(True):
        table = sersic_table()
        (b, ln_norm), _ = rows_at(jnp.asarray(n), table, table.profile)
        radius = jnp.asarray([0.5, 1.0, 3.0])
        outside, _, _ = interpolate(jnp.asarray(n), jnp.log(radius), table, table.outside)
    assert float(b) == pytest.approx(sersic_b(n), rel=1e-5)
    profile = galsim.Sersic(n, half_light_radius=1.0)
    assert float(jnp.exp(ln_norm - b)) == pytest.approx(profile.xValue(1.0, 0.0), rel=1e-4)
    expected = [_flux_outside(n, r) for r in radius]
    np.testing.assert_allclose(outside, expected, atol=1e-4)


def _flux_outside(n, radius):
    """Light beyond a radius, from the incomplete gamma function."""
    return 1 - gammainc(2 * n, sersic_b(n) * float(radius) ** (1 / n))
