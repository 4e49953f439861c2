# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""The renderer beside GalSim, its derivatives, and what must hold for every galaxy."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from galshape_cnn.forward.psf.convert import psf_arrays
from galshape_cnn.forward.render import BLOCK, PARAMETERS, render, render_with_derivatives
from galshape_cnn.forward.transfer import grid_for, transfer_functions
from galshape_cnn.geometry import transform_shape
from galshape_cnn.tests import galsim_truth as truth


def psf_transfer(psf, grid_size, native=False):
    """Grid and transfer function of a GalSim PSF, known between the pixels or not."""
    if native:
        array, oversampling = truth.sampled_psf(psf)[None], 1
    else:
        arrays = psf_arrays(psf, stamp_size=grid_size)
        array, oversampling = arrays.array, arrays.oversampling
    grid = grid_for(grid_size, oversampling)
    return grid, transfer_functions(jnp.asarray(array), grid, oversampling)


def drawn(params, psf, size=truth.SIZE, native=False):
    """Stamps by the package."""
    grid, transfer = psf_transfer(psf, size, native)
    return np.asarray(render(jnp.asarray(np.atleast_2d(params), jnp.float32), transfer, grid))


def compare(rows, psf, size=truth.SIZE, native=False):
    """Largest difference over the peak, and relative difference of the sum, of each row."""
    found = drawn(rows, psf, size, native)
    worst = []
    for row, image in zip(rows, found, strict=True):
        expected = truth.draw(row, psf, size)
        worst.append((np.abs(image - expected).max() / expected.max(), image.sum() / expected.sum() - 1))
    return np.array(worst)


def report(rows, values, count=5):
    """The worst cases, for the message of a failing test."""
    order = np.argsort(-np.abs(values))[:count]
    return "\n" + "\n".join(f"{values[i]:.2e} {dict(zip(PARAMETERS, rows[i], strict=True))}" for i in order)


def galaxies(indices, sizes, shears, size=truth.SIZE):
    """Galaxies on a grid of n, hlr and |g|, each on the middle of four pixels and off it."""
    rows = []
    for n, hlr, g in itertools.product(indices, sizes, shears):
        for shift in ((0.0, 0.0), (0.3, -0.45)):
            angle = 1 + 0.7 * len(rows)
            center = np.add((size - 1) / 2, shift)
            rows.append([1.0, n, hlr, g * np.cos(angle), g * np.sin(angle), *center, 0.0])
    return np.array(rows)


def check(rows, psf, size, native, peak, total):
    """Compare with GalSim; on failure say for which galaxies."""
    by_peak, by_sum = compare(rows, psf, size, native).T
    assert by_peak.max() < peak, report(rows, by_peak)
    assert np.abs(by_sum).max() < total, report(rows, by_sum)


# --- beside GalSim ---------------------------------------------------------------------------------


@pytest.mark.parametrize("name", truth.PSFS)
def test_matches_galsim(name):
    rows = galaxies([0.3, 1, 4], [0.22, 2.2], [0, 0.7])[::2]
    check(rows, truth.PSFS[name], truth.SIZE, False, 1e-3, 1e-3)


@pytest.mark.slow
@pytest.mark.parametrize("name", truth.PSFS)
@pytest.mark.parametrize("ratio", [0.1, 0.3, 1, 2, 5])
def test_matches_galsim_on_the_grid(name, ratio):
    # at five times the PSF a stamp of 64 pixels cuts a sheared galaxy at its half-light radius
    size = 128 if ratio == 5 else truth.SIZE
    rows = galaxies([0.3, 0.5, 1, 2, 3, 4, 6, 6.2], [ratio * truth.FWHM], [0, 0.3, 0.7], size)
    check(rows, truth.PSFS[name], size, False, 1e-3, 1e-3)


def test_galaxy_larger_than_its_stamp():
    rows = galaxies([0.5, 1.0], [5 * truth.FWHM], [0.7])
    check(rows, truth.PSFS["moffat"], truth.SIZE, False, 2e-3, 1e-3)


def test_psf_sampled_by_the_pixels_only():
    # What lies beyond the Nyquist frequency is lost: the less of it, the smoother the galaxy and the PSF.
    psf = truth.PSFS["gaussian"]
    check(galaxies([0.5, 2.0], [0.22, 2.2], [0.3]), psf, truth.SIZE, True, 3e-3, 1e-3)


def test_psf_sampled_by_the_pixels_is_worse_where_it_is_sharp():
    rows = galaxies([1.0], [0.22], [0.0])[:1]
    native = compare(rows, truth.PSFS["moffat"], native=True)[0, 0]
    fine = compare(rows, truth.PSFS["moffat"])[0, 0]
    assert fine < 1e-3 < native < 1e-2


def test_any_jacobian():
    """A stamp on a sheared, rotated, flipped WCS, with size and shape in the sky frame."""
    jacobian = np.array([[-0.21, 0.07], [0.05, 0.25]])
    psf = truth.galsim.Kolmogorov(fwhm=0.6)
    hlr, g1, g2 = 0.5, 0.2, -0.35
    expected = truth.draw([1, 2, hlr, g1, g2, 31.7, 31.2, 0], psf, jacobian=jacobian)
    pixel = [float(one) for one in transform_shape(hlr, g1, g2, np.linalg.inv(jacobian))]
    arrays = psf_arrays(psf, jacobian=jacobian, stamp_size=64)
    grid = grid_for(64, arrays.oversampling)
    transfer = transfer_functions(jnp.asarray(arrays.array), grid, arrays.oversampling)
    image = np.asarray(render(jnp.asarray([[1, 2, *pixel, 31.7, 31.2, 0]], jnp.float32), transfer, grid))[0]
    assert np.abs(image - expected).max() < 1e-3 * expected.max()


@pytest.mark.parametrize("size", [16, 40, 100])
def test_any_stamp_size(size):
    row = np.array([[1, 1.5, 2.0, 0.2, -0.1, size / 2 - 0.8, size / 2, 0]])
    check(row, truth.PSFS["kolmogorov"], size, False, 1e-3, 1e-3)


# --- derivatives -----------------------------------------------------------------------------------

STEPS = np.array([1e-3, 1e-4, 1e-4, 1e-5, 1e-5, 1e-4, 1e-4, 1e-3])


@pytest.mark.parametrize("native", [False, True])
@pytest.mark.parametrize(
    ("n", "hlr", "g1", "g2"),
    [(0.35, 3, 0.5, -0.4), (1, 0.5, 0, 0), (2.1, 8, -0.3, 0.1), (4, 2, 0.1, 0.6), (6.1, 10, -0.4, -0.5)],
)
def test_derivatives_against_central_differences(n, hlr, g1, g2, native):
    row = np.array([7.0, n, hlr, g1, g2, 15.3, 16.4, 0.2])
    with jax.enable_x64(True):
        grid, transfer = psf_transfer(truth.PSFS["moffat"], 32, native)
        image, derivatives = render_with_derivatives(jnp.asarray(row[None]), transfer, grid)
        moved = np.concatenate([row + np.diag(STEPS), row - np.diag(STEPS)])
        up, down = np.asarray(render(jnp.asarray(moved), transfer, grid)).reshape(2, 8, 32, 32)
        plain = np.asarray(render(jnp.asarray(row[None]), transfer, grid))
    numeric = (up - down) / (2 * STEPS[:, None, None])
    error = np.abs(np.asarray(derivatives)[0] - numeric).max((1, 2)) / np.abs(numeric).max((1, 2))
    assert (error < 1e-4).all(), dict(zip(PARAMETERS, error, strict=True))
    np.testing.assert_allclose(image, plain, rtol=1e-9)


def test_single_precision_is_enough():
    rows = galaxies([0.4, 3.0, 6.0], [0.5, 6.0], [0.6])
    grid, transfer = psf_transfer(truth.PSFS["moffat"], 64)
    single = render_with_derivatives(jnp.asarray(rows, jnp.float32), transfer, grid)
    with jax.enable_x64(True):
        grid, transfer = psf_transfer(truth.PSFS["moffat"], 64)
        double = render_with_derivatives(jnp.asarray(rows), transfer, grid)
    for found, exact in zip(single, double, strict=True):
        assert found.dtype == jnp.float32
        assert exact.dtype == jnp.float64
        found, exact = np.asarray(found), np.asarray(exact)
        peak = np.abs(exact).max((-2, -1), keepdims=True)
        assert (np.abs(found - exact) / peak).max() < 2e-4


# --- batches ---------------------------------------------------------------------------------------


def test_batch_size_order_and_shared_psf_do_not_matter():
    rng = np.random.default_rng(5)
    count = BLOCK + 3
    rows = galaxies([0.5, 1, 2, 3, 5], [1.0, 4.0], [0.4])[rng.permutation(20)[:count]].astype(np.float32)
    grid, transfer = psf_transfer(truth.PSFS["elliptical"], 32)
    rows[:, 5:7] -= 16
    together = np.asarray(render(rows, transfer, grid))
    alone = np.concatenate([render(row[None], transfer, grid) for row in rows])
    repeated = render(rows, jnp.repeat(transfer, count, 0), grid)
    backwards = render(rows[::-1], transfer, grid)[::-1]
    tolerance = 2e-6 * together.max()
    for other in (alone, repeated, backwards):
        np.testing.assert_allclose(other, together, atol=tolerance)


def test_each_stamp_has_its_own_psf():
    row = np.array([[1, 1, 2, 0.1, 0.0, 15.5, 15.5, 0]], np.float32)
    transfers = [psf_transfer(truth.PSFS[name], 32) for name in ("gaussian", "moffat")]
    grid = transfers[0][0]
    both = render(np.repeat(row, 2, 0), jnp.concatenate([t for _, t in transfers]), grid)
    for image, (_, transfer) in zip(both, transfers, strict=True):
        np.testing.assert_allclose(image, render(row, transfer, grid)[0], atol=1e-6)


# --- symmetries ------------------------------------------------------------------------------------

SHAPES = st.tuples(
    st.floats(0.3, 6.2), st.floats(0.3, 8.0), st.floats(0.0, 0.7), st.floats(0.0, 6.3), st.floats(-1.5, 1.5)
)


def symmetric(native):
    """A round PSF on a 48-pixel stamp: nothing but the galaxy has an orientation."""
    return psf_transfer(truth.PSFS["kolmogorov"], 48, native)


GRIDS = {}


def images_of(rows, native):
    """Stamps with a round PSF, drawn with one grid for all examples."""
    grid, transfer = GRIDS.setdefault(native, symmetric(native))
    return np.asarray(render(jnp.asarray(rows, jnp.float32), transfer, grid))


@settings(max_examples=25)
@given(shape=SHAPES, native=st.booleans())
def test_symmetries(shape, native):
    n, hlr, g, angle, offset = shape
    g1, g2 = g * np.cos(angle), g * np.sin(angle)
    middle = 23.5
    plain = [2.0, n, hlr, g1, g2, middle + offset, middle - 0.3, 0.0]
    turned = [2.0, n, hlr, -g1, -g2, middle + 0.3, middle + offset, 0.0]
    mirrored = [2.0, n, hlr, g1, -g2, middle + offset, middle + 0.3, 0.0]
    brighter = [6.0, n, hlr, g1, g2, middle + offset, middle - 0.3, 0.5]
    moved = [2.0, n, hlr, g1, g2, middle + offset + 2, middle - 1.3, 0.0]
    plain, turned, mirrored, brighter, moved = images_of([plain, turned, mirrored, brighter, moved], native)
    # A PSF known to the pixels only has power at the Nyquist frequency, where
    # the transform treats x and y apart.
    tolerance = (3e-4 if native else 2e-5) * plain.max()
    np.testing.assert_allclose(turned, np.rot90(plain, -1), atol=tolerance, err_msg="90 degrees flip g")
    np.testing.assert_allclose(mirrored, plain[::-1], atol=tolerance, err_msg="a mirror flips g2")
    np.testing.assert_allclose(brighter, 3 * plain + 0.5, atol=3 * tolerance, err_msg="flux scales, sky adds")
    # Copies are subtracted to about 1e-3 of the peak where a large galaxy meets the edge.
    rest = 1e-3 * plain.max()
    np.testing.assert_allclose(moved[:-1, 2:], plain[1:, :-2], atol=rest, err_msg="a whole pixel only shifts")
