# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""Errors count what no Sérsic profile has: clumps of the galaxy, and a sky that is not one level."""

import galsim
import numpy as np
import pytest
from scipy.ndimage import gaussian_filter

from galshape_cnn.forward.kernel.library import KERNEL_VARIABLE, instructions
from galshape_cnn.forward.render import BLOCK, render
from galshape_cnn.forward.transfer import grid_for, transfer_functions
from galshape_cnn.infer.fit.maximum_likelihood import maximize_likelihood
from galshape_cnn.infer.likelihood.fisher import bound
from galshape_cnn.infer.residuals import structure
from galshape_cnn.infer.residuals.examination import examine
from galshape_cnn.infer.residuals.smoothers import SKY_SCALE, gaussian_band, sky_roots
from galshape_cnn.infer.residuals.structure import (
    _white_variance,
    estimate_structure,
    score_roots,
    significances,
    sky_significance,
)

N, SIZE = 64, 64
GRID = grid_for(SIZE, 1)
MOFFAT = galsim.Moffat(beta=3, fwhm=3.0)
PSF = MOFFAT.drawImage(nx=41, ny=41, scale=1).array.astype(float)
TRANSFER = np.asarray(transfer_functions((PSF / PSF.sum()).astype(np.float32)[None], GRID, 1))
TRUTH = np.array([1.0, 1.0, 5.0, 0.15, -0.1, 31.5, 31.5, 0.0])


def fitted(images, snr, seed=1):
    """Fits of noisy images, their errors from noise, and their structure."""
    images = images * snr / np.sqrt((images**2).sum((1, 2), keepdims=True))
    data = images + np.random.default_rng(seed).normal(size=images.shape)
    ivar = np.ones(data.shape)
    start = np.tile(TRUTH, (len(data), 1))
    start[:, 0] = images.sum((1, 2))
    fit = maximize_likelihood(data, ivar, TRANSFER, GRID, start)
    noise = bound(fit.fisher.astype(np.float32), fit_sky=True)[0]
    return fit.params, noise, estimate_structure(fit.params, data, ivar, TRANSFER, GRID)


def spread(params, truth, covariance):
    """Standard deviation of (estimate - truth) / error of five parameters."""
    return np.std((params - truth)[:, :5] / np.sqrt(np.diagonal(covariance, axis1=1, axis2=2)[:, :5]), axis=0)


def smooth():
    return np.asarray(render(np.tile(TRUTH, (N, 1)).astype(np.float32), TRANSFER, GRID), float)


def test_smooth_galaxies_in_a_flat_sky_have_none():
    params, noise, found = fitted(smooth(), 150)
    assert (found.galaxy_significance > 2.5).sum() <= 4
    assert (found.sky_significance > 2.5).sum() <= 4
    added = np.diagonal(found.covariance()[:, :5, :5] / noise, axis1=1, axis2=2)
    assert np.median(added) == 0


def test_clumpy_discs_scatter_by_what_the_errors_say():
    """From errors 5 to 20 times too small to 0.5-1.6 times the scatter; their mean truth is the disc."""
    deviate = galsim.BaseDeviate(11)
    disc = galsim.Exponential(half_light_radius=TRUTH[2])
    images = []
    for _ in range(N):
        galaxy = 0.6 * disc + 0.4 * galsim.RandomKnots(40, profile=disc, rng=deviate)
        galaxy = galsim.Convolve(galaxy.shear(g1=TRUTH[3], g2=TRUTH[4]), MOFFAT)
        images.append(galaxy.drawImage(nx=SIZE, ny=SIZE, scale=1).array)
    images = np.array(images, float)
    params, noise, found = fitted(images, 400)
    assert (found.galaxy_significance > 2.5).all()
    truth = np.tile(TRUTH, (N, 1))
    truth[:, 0] = 400 / np.sqrt((images**2).sum((1, 2)))
    before = spread(params, truth, noise)
    after = spread(params, truth, noise + found.covariance()[:, :5, :5])
    assert (before > 2.5).all()
    assert (before[1:] > 4).all()
    assert (after > 0.5).all()
    assert (after < 1.6).all()


def test_uneven_sky_widens_what_depends_on_the_wings():
    rng = np.random.default_rng(5)
    bumps = gaussian_filter(rng.normal(size=(N, SIZE, SIZE)), (0, 4, 4), mode="wrap")
    bumps *= 0.6 / bumps.std()
    images = smooth()
    images = images * 60 / np.sqrt((images**2).sum((1, 2), keepdims=True))
    data = images + bumps + rng.normal(size=images.shape)
    start = np.tile(TRUTH, (N, 1))
    start[:, 0] = images.sum((1, 2))
    fit = maximize_likelihood(data, np.ones(data.shape), TRANSFER, GRID, start)
    noise = bound(fit.fisher.astype(np.float32), fit_sky=True)[0]
    found = estimate_structure(fit.params, data, np.ones(data.shape), TRANSFER, GRID)
    assert (found.sky_significance > 2.5).all()
    pulls = [(fit.params - start)[:, :5] / np.sqrt(np.diagonal(c, axis1=1, axis2=2))
             for c in (noise, noise + found.covariance()[:, :5, :5])]  # fmt: skip
    before, after = (1.4826 * np.median(np.abs(p), axis=0) for p in pulls)
    assert (before > 2).all()
    assert (after < 1.5).all()
    assert (after > 0.5).all()


def test_convolutions_leave_out_no_more_than_nothing(monkeypatch):
    monkeypatch.setenv(KERNEL_VARIABLE, "off")
    params = np.tile([500.0, 1.0, 5.0, 0.2, -0.1, 31.5, 20.0, 0.0], (3, 1))
    params[:, 2], params[:, 5] = (1.0, 5.0, 12.0), (31.5, 4.0, 60.0)
    data = np.random.default_rng(9).normal(0, 3, (3, SIZE, SIZE))
    known = params, data, np.ones(data.shape), TRANSFER, GRID
    found = estimate_structure(*known, least=-np.inf)
    monkeypatch.setattr(structure, "reach_of", lambda point: point.size)  # of twice the stamp's side
    whole = estimate_structure(*known, least=-np.inf)
    np.testing.assert_allclose(found.galaxy_score, whole.galaxy_score, rtol=2e-3)
    np.testing.assert_allclose(found.clump, whole.clump, rtol=2e-3)


def test_units_and_known_sky():
    images = smooth()[:8]
    params, _, found = fitted(images, 100)
    pixels = images * 100 / np.sqrt((images**2).sum((1, 2), keepdims=True))
    pixels = pixels + np.random.default_rng(1).normal(size=images.shape)
    pixels = params, pixels, np.ones(images.shape), TRANSFER, GRID
    known, found = (estimate_structure(*pixels, fit_sky=fit, least=-np.inf) for fit in (False, True))
    assert (known.galaxy[:, 7] == 0).all()
    np.testing.assert_allclose(known.clump, found.clump, rtol=0.5, atol=2)


def test_what_is_not_significant_is_left_out_and_the_rest_stays():
    params, _, _ = fitted(smooth()[:16], 100)
    data = np.asarray(render(params.astype(np.float32), TRANSFER, GRID), float)
    data += np.random.default_rng(4).normal(size=data.shape)
    data[:8] += 1.5 * gaussian_filter(np.random.default_rng(2).normal(size=(8, SIZE, SIZE)), (0, 2, 2))
    every, some = (
        estimate_structure(params, data, np.ones(data.shape), TRANSFER, GRID, least=least)
        for least in (-np.inf, 0.5)
    )
    for kind in ("galaxy", "sky"):
        significance = getattr(every, f"{kind}_significance")
        np.testing.assert_array_equal(getattr(some, f"{kind}_significance"), significance)
        seen = significance > 0.5
        assert seen.any()
        assert not seen.all()
        for name in (kind, f"{kind}_score"):
            np.testing.assert_array_equal(getattr(some, name)[seen], getattr(every, name)[seen])
            assert not getattr(some, name)[~seen].any()


@pytest.mark.parametrize("gain", [None, 10.0])
def test_rows_do_not_depend_on_their_company(gain):
    params, _, _ = fitted(smooth()[:16], 100)
    data = np.asarray(render(params.astype(np.float32), TRANSFER, GRID), float)
    data = data + np.random.default_rng(3).normal(size=data.shape)
    ivar = np.ones(data.shape)
    # in blocks of one size, as the measurement asks for them
    first, second = np.arange(BLOCK), (np.arange(BLOCK) + BLOCK // 2)[::-1]
    results = [
        estimate_structure(params[k], data[k], ivar[k], TRANSFER, GRID, gain=gain) for k in (first, second)
    ]
    _, one, other = np.intersect1d(first, second, return_indices=True)
    assert len(one) == BLOCK // 2
    for before, after in zip(*results, strict=True):
        np.testing.assert_array_equal(before[one], after[other])


def test_the_first_pass_finds_the_rows_that_have_structure():
    """Its numbers are those of the closer look, where white noise is that of the noise map."""
    params, _, _ = fitted(smooth()[:24], 100)
    data = np.asarray(render(params.astype(np.float32), TRANSFER, GRID), float)
    rng = np.random.default_rng(8)
    data += rng.normal(size=data.shape)
    data[8:16] += gaussian_filter(rng.normal(size=(8, SIZE, SIZE)), (0, 3, 3)) * 4
    data[16:] += rng.normal(size=(8, SIZE, SIZE))
    ivar = np.ones(data.shape)
    ivar[:, 3:9, 20:50] = 0
    pixels = params, data, ivar, TRANSFER, GRID
    first, closer = examine(*pixels), estimate_structure(*pixels, least=np.inf)
    sky = sky_significance(first.sky_square, first.sky_number)
    alike = closer.white == 1
    assert 12 < alike.sum() < 24
    np.testing.assert_allclose(first.galaxy_excess[alike], closer.galaxy_significance[alike], atol=0.01)
    np.testing.assert_allclose(sky[alike], closer.sky_significance[alike], rtol=1e-3, atol=0.01)
    assert (first.galaxy_excess > closer.galaxy_significance - 0.01).all()
    assert (sky > closer.sky_significance - 0.01).all()
    freedom = (ivar > 0).sum((1, 2)) - 8
    galaxy, sky, white = significances(first, first.chi2 / freedom, freedom)
    rows = (galaxy > 2.5) | (sky > 2.5) | white
    wanted = (closer.galaxy_significance > 2.5) | (closer.sky_significance > 2.5) | (closer.white > 1)
    assert rows[wanted].all()
    assert wanted[16:].all()
    assert not rows.all()


def test_a_galaxy_that_fills_its_stamp_but_for_two_pixels():
    """One pair of pixels has no middle of its squares: no variance, rather than an infinite one."""
    rest, outside = np.full((8, 8), 3.0), np.zeros((8, 8), bool)
    outside[0, :2] = True
    rest[0, 1] = -3.0
    assert _white_variance(rest, outside, (1.0, 1.0, 1.0)) == 1
    rng = np.random.default_rng(1)
    everywhere = np.ones((64, 64), bool)
    assert _white_variance(3 * rng.normal(size=(64, 64)), everywhere, (1.0, 1.0, 1.0)) == pytest.approx(
        9, rel=0.1
    )


def test_a_galaxy_without_a_model_has_no_score_and_harms_no_other():
    rng = np.random.default_rng(1)
    half = rng.normal(size=(3, 5, 5))
    covariance, fisher = half @ np.swapaxes(half, 1, 2), np.tile(np.eye(5), (3, 1, 1))
    alone = score_roots([(np.array([0, 2]), covariance[[0, 2]])], fisher, np.ones(3, bool))[0]
    covariance[1, 2, 3] = np.nan
    roots = score_roots([(np.arange(3), covariance)], fisher, np.ones(3, bool))[0]
    assert not roots[1].any()
    assert np.array_equal(roots[[0, 2]], alone)
    np.testing.assert_allclose(roots[0] @ roots[0].T, covariance[0], atol=1e-12)


def test_galaxies_in_which_nothing_is_seen_have_no_roots():
    half = np.random.default_rng(2).normal(size=(3, 5, 5))
    covariance, fisher = half @ np.swapaxes(half, 1, 2), np.tile(np.eye(5), (3, 1, 1))
    seen = np.array([True, False, True])
    some, every = (score_roots([(np.arange(3), covariance)], fisher, one)[0] for one in (seen, seen | True))
    assert not some[1].any()
    assert every[1].any()
    assert np.array_equal(some[seen], every[seen])


@pytest.mark.parametrize("size", [32, 64, 512])
def test_roots_of_the_correlation_of_the_sky(size):
    roots = sky_roots(size).astype(float)
    assert len(roots) < size / 3 + 20  # few places
    np.testing.assert_allclose(roots.T @ roots, gaussian_band(size, np.sqrt(2) * SKY_SCALE), atol=3e-7)


def scene(size, psf=MOFFAT, n=6, seed=3, noise=1.0):
    """Galaxies with structure, bright and faint, small and large, the last of which fills its stamp."""
    rng, grid = np.random.default_rng(seed), grid_for(size, 1)
    psf = psf.drawImage(nx=31, ny=31, scale=1).array.astype(float)
    transfer = np.asarray(transfer_functions((psf / psf.sum()).astype(np.float32)[None], grid, 1))
    params = np.zeros((n, 8), np.float32)
    params[:, 0], params[:, 1], params[:, 2] = np.geomspace(300, 3e4, n), np.linspace(0.6, 3, n), 1.5
    params[1::2, 2], params[-1, 2] = size / 12, size
    params[-1, 0] *= 10
    params[:, 3:5] = rng.uniform(-0.2, 0.2, (n, 2))
    params[:, 5:7] = size / 2 - 0.5 + rng.uniform(-2, 2, (n, 2))
    image = np.asarray(render(params, transfer, grid), float)
    data = image * (1 + 0.2 * gaussian_filter(rng.normal(size=image.shape), (0, 1, 1)))
    data += rng.normal(0, noise, data.shape) + gaussian_filter(rng.normal(size=data.shape), (0, 4, 4)) * 3
    ivar = np.ones(data.shape)
    ivar[:, 2:5, 3 : size // 2] = 0
    return params, data, ivar, transfer, grid


def relative(found, expected):
    """Largest difference of covariances (N, 8, 8), in units of their diagonals."""
    scale = np.sqrt(np.abs(np.diagonal(expected, axis1=1, axis2=2)))
    return (np.abs(found - expected) / np.maximum(scale[:, :, None] * scale[:, None, :], 1e-30)).max()


def by_both(monkeypatch, chosen, *known, least=-np.inf, **kwargs):
    """Structure by the kernel and by NumPy."""
    found = []
    for kind in (chosen, "off"):
        monkeypatch.setenv(KERNEL_VARIABLE, kind)
        found.append(estimate_structure(*known, least=least, **kwargs))
    return found


def assert_equal(kernel, other, spread=2e-3):
    """Rounding apart, but for what follows from the split of clumps.

    NumPy inverts in single precision, which is little for the parameters of the last galaxy.
    """
    for name, rtol, atol in (
        ("galaxy_significance", 1e-3, 2e-3), ("sky_significance", 1e-3, 2e-3), ("white", 1e-4, 0),
        ("sky_level", 1e-3, 1e-6), ("clump", spread, 1e-3),
    ):  # fmt: skip
        ours, theirs = getattr(kernel, name), getattr(other, name)
        np.testing.assert_allclose(ours[:-1], theirs[:-1], rtol=rtol, atol=atol, err_msg=name)
        np.testing.assert_allclose(ours[-1:], theirs[-1:], rtol=0.05, atol=0.01, err_msg=name)
    assert relative(kernel.galaxy_score[:-1], other.galaxy_score[:-1]) < spread
    assert relative(kernel.galaxy_score[-1:], other.galaxy_score[-1:]) < 0.05
    assert relative(kernel.sky_score, other.sky_score) < 1e-3
    assert relative(kernel.sky[:-1], other.sky[:-1]) < 5e-3


CORRELATION = np.array([[0.1, 0.3, 0.1], [0.3, 1.0, 0.3], [0.1, 0.3, 0.1]])
KINDS = {
    "plain": {},
    "gain": {"gain": 3.0},
    "correlated": {"correlation": CORRELATION},
    "known sky": {"fit_sky": False},
}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("size", [16, 32, 64, 96, 128])
def test_kernel_and_numpy(monkeypatch, size, kind):
    if not instructions():
        pytest.skip("the package was installed without a compiler")
    # in the smallest stamp no clump has its wings
    assert_equal(*by_both(monkeypatch, "", *scene(size), **KINDS[kind]), spread=0.05 if size < 32 else 2e-3)


@pytest.mark.parametrize("chosen", instructions())
def test_sets_of_instructions_and_a_coarser_grid_for_clumps(monkeypatch, chosen):
    assert_equal(*by_both(monkeypatch, chosen, *scene(192, n=3)))


@pytest.mark.skipif(not instructions(), reason="the package was installed without a compiler")
def test_clumps_that_are_no_few_columns_by_rows(monkeypatch):
    """Terms are added for a PSF with spikes; without limits nothing but rounding is left."""
    spiky = galsim.OpticalPSF(lam_over_diam=2.5, obscuration=0.3, nstruts=4, strut_thick=0.05, coma1=0.1)
    known = scene(64, psf=spiky)
    assert_equal(*by_both(monkeypatch, "", *known))
    monkeypatch.setattr(structure, "_LEFT_OUT", (1e-5, 1e-12, 1e-8))
    assert_equal(*by_both(monkeypatch, "", *known), spread=3e-4)


@pytest.mark.skipif(not instructions(), reason="the package was installed without a compiler")
def test_white_noise_larger_than_mapped(monkeypatch):
    kernel, other = by_both(monkeypatch, "", *scene(64, noise=1.5))
    assert (other.white > 1.5).sum() > 3
    assert_equal(kernel, other)


@pytest.mark.skipif(not instructions(), reason="the package was installed without a compiler")
def test_rows_of_the_kernel_stand_alone(monkeypatch):
    """To the last bit; and those that are no galaxies, or have no pixels, have no structure."""
    params, data, ivar, transfer, grid = scene(64)
    wild = params.copy()
    wild[1, 2], wild[3, 4], ivar[5] = np.nan, np.nan, 0
    with np.errstate(invalid="ignore"):
        kernel, other = by_both(monkeypatch, "", wild, data, ivar, transfer, grid, least=2.5)
    monkeypatch.setenv(KERNEL_VARIABLE, "")
    together = estimate_structure(params, data, ivar, transfer, grid)
    for row in (0, 2, 4):
        one = slice(row, row + 1)
        alone = estimate_structure(params[one], data[one], ivar[one], transfer, grid)
        for ours, whole, beside in zip(alone, together, kernel, strict=True):
            np.testing.assert_array_equal(ours[0], whole[row])
            np.testing.assert_array_equal(ours[0], beside[row])
    for name in ("galaxy", "sky", "galaxy_significance", "clump", "white", "sky_level"):
        ours, theirs = getattr(kernel, name), getattr(other, name)
        np.testing.assert_array_equal(ours[[1, 3, 5]], theirs[[1, 3, 5]], err_msg=name)
