# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""Fisher matrices, bounds and S/N: beside published numbers, GalSim and a fitter."""

import astropy.units as u
import galsim
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from astropy.modeling.fitting import TRFLSQFitter
from astropy.table import Table

from galshape_cnn import PSFConvolvedSersic2D, cramer_rao_bound, snr
from galshape_cnn.errors import InputError, NoiseError, PSFError
from galshape_cnn.forward.psf import psf_arrays
from galshape_cnn.forward.render import render
from galshape_cnn.forward.transfer import grid_for, transfer_functions
from galshape_cnn.infer.fisher import CONDITION_LIMITS, bound, fisher_matrices, score_and_fisher

SCALE = 0.23
SEED = {"flux": 1e5, "n": 3.0, "hlr": 0.3, "g1": -0.069, "g2": 0.15}
SEED_PSF = galsim.Moffat(beta=2, fwhm=0.5)
# DESIGN: published bounds of the seed galaxy, by standard deviation of the noise.
PUBLISHED = {400: [0.11e5, 1.56, 0.056, 0.11, 0.11], 200: [0.056e5, 0.78, 0.028, 0.054, 0.054]}


def galsim_image(galaxy, psf, x=0.0, y=0.0):
    """A 64-pixel stamp by GalSim, moved by x, y pixels from its middle."""
    # Coarser settings change the size of GalSim's transform within a difference.
    gsparams = galsim.GSParams(
        folding_threshold=1e-4, kvalue_accuracy=1e-7, maxk_threshold=2e-4, maximum_fft_size=16384
    )
    flux, n, hlr, g1, g2 = galaxy.values()
    profile = galsim.Sersic(n, half_light_radius=hlr, flux=flux, gsparams=gsparams).shear(g1=g1, g2=g2)
    profile = galsim.Convolve(profile, psf.withGSParams(gsparams))
    return profile.drawImage(nx=64, ny=64, scale=SCALE, offset=(x, y), dtype=float).array


def galsim_bound(galaxy, psf, sigma, steps, fit_sky):
    """Bound from central differences of GalSim images."""
    slopes = []
    for name, step in steps.items():
        up, down = ({**galaxy, name: galaxy[name] + sign * step} for sign in (1, -1))
        slopes.append((galsim_image(up, psf) - galsim_image(down, psf)) / (2 * step))
    for x, y in ((0.01, 0), (0, 0.01)):
        slopes.append((galsim_image(galaxy, psf, x, y) - galsim_image(galaxy, psf, -x, -y)) / 0.02)
    if fit_sky:
        slopes.append(np.ones((64, 64)))
    slopes = np.reshape(slopes, (len(slopes), -1))
    scale = np.sqrt((slopes**2).sum(1))
    slopes = slopes / scale[:, None]
    return sigma * np.sqrt(np.diag(np.linalg.inv(slopes @ slopes.T)))[:5] / scale[:5]


def prior_galaxies(count, seed=11):
    """Galaxies of the seed's prior, with their PSF and noise."""
    rng = np.random.default_rng(seed)
    for _ in range(count):
        g, angle = rng.uniform(0, 0.67), rng.uniform(0, 2 * np.pi)
        galaxy = {
            "flux": rng.uniform(0.3, 4) * 1e5,
            "n": rng.uniform(0.5, 6),
            "hlr": rng.uniform(0.1, 0.6),
            "g1": g * np.cos(angle),
            "g2": g * np.sin(angle),
        }
        yield galaxy, galsim.Moffat(beta=2, fwhm=rng.uniform(0.5, 1.0)), rng.uniform(200, 400)


def small_batch(dtype=np.float32, size=32):
    """Parameters, transfer function and grid of four galaxies."""
    params = np.array([[900, 1.5, 2.0, 0.2, -0.1, 15.5, 15.2, 0]] * 4, dtype)
    params[:, 1] = [0.5, 1.0, 2.0, 4.0]
    arrays = psf_arrays(galsim.Gaussian(fwhm=3.0), stamp_size=size)
    grid = grid_for(size, arrays.oversampling)
    return params, transfer_functions(jnp.asarray(arrays.array), grid, arrays.oversampling), grid


# --- the seed --------------------------------------------------------------------------------------


@pytest.mark.parametrize(("sigma", "expected"), [(400, 30), (200, 60)])
def test_seed_signal_to_noise(sigma, expected):
    found = cramer_rao_bound(SEED, SEED_PSF, sigma, pixel_scale=SCALE)
    assert found.snr == pytest.approx(expected, rel=3e-3)
    assert found.snr == pytest.approx(snr(galsim_image(SEED, SEED_PSF), sigma), rel=1e-4)


@pytest.mark.parametrize("sigma", [400, 200])
def test_published_bounds_of_the_seed(sigma):
    found = cramer_rao_bound(SEED, SEED_PSF, sigma, pixel_scale=SCALE, fit_sky=False)
    values = np.array(list(found.std.values()))
    for column in (0, 3, 4):  # flux, g1, g2 to the digits printed
        assert float(f"{values[column]:.2g}") == pytest.approx(PUBLISHED[sigma][column]), found
    np.testing.assert_allclose(values, PUBLISHED[sigma], rtol=0.05)
    np.testing.assert_allclose(values[1:3], PUBLISHED[sigma][1:3], rtol=0.03)
    assert not found.singular


@pytest.mark.parametrize("sigma", [400, 200])
def test_published_n_and_hlr_come_from_coarse_differences(sigma):
    """The published columns are central differences with steps of 0.1 in n and 0.1 arcsec in hlr.

    A third of hlr is far from the limit of small steps: it makes n 1.7 % larger and hlr 2.7 % smaller.
    """
    coarse = {"flux": 1e3, "n": 0.1, "hlr": 0.1, "g1": 0.1, "g2": 0.1}
    found = galsim_bound(SEED, SEED_PSF, sigma, coarse, fit_sky=False)
    decimals = (2, 2, 3, 2, 2) if sigma == 400 else (3, 2, 3, 3, 3)  # as printed
    columns = zip([1e5, 1, 1, 1, 1], decimals, found, PUBLISHED[sigma], strict=True)
    for unit, places, value, printed in columns:
        assert f"{value / unit:.{places}f}" == f"{printed / unit:.{places}f}"


# --- beside GalSim and a fitter --------------------------------------------------------------------


def check_against_galsim(count, skip=0):
    for number, (galaxy, psf, sigma) in enumerate(prior_galaxies(count)):
        if number < skip:
            continue
        fit_sky = bool(number % 2)
        found = cramer_rao_bound(galaxy, psf, sigma, pixel_scale=SCALE, fit_sky=fit_sky)
        steps = {name: 5e-3 * galaxy[name] for name in ("flux", "n", "hlr")} | {"g1": 1e-3, "g2": 1e-3}
        expected = galsim_bound(galaxy, psf, sigma, steps, fit_sky)
        error = np.array(list(found.std.values())) / expected - 1
        assert np.abs(error).max() < 1e-3, (galaxy, psf, dict(zip(SEED, error, strict=True)))


def test_bounds_are_those_of_galsim():
    check_against_galsim(2)


@pytest.mark.slow
def test_bounds_are_those_of_galsim_all_over_the_prior():
    check_against_galsim(10, skip=2)


def test_bound_is_what_a_fitter_finds():
    psf = galsim.Moffat(beta=2, fwhm=0.5 / SCALE)
    model = PSFConvolvedSersic2D(1e5, 1.5, 2.0, 0.1, -0.2, 31.6, 31.3, 0.0, psf=psf)
    y, x = np.mgrid[:64, :64]
    noisy = model(x, y) + np.random.default_rng(2).normal(0, 100, x.shape)
    fitted = TRFLSQFitter(calc_uncertainties=True)(model, x, y, noisy, weights=np.full(x.shape, 0.01))
    found = cramer_rao_bound(fitted.parameters, psf, 100.0)
    for name, value in found.std.items():
        assert value == pytest.approx(fitted.stds[name], rel=1e-3), name
    np.testing.assert_allclose(found.covariance, fitted.cov_matrix.cov_matrix[:5, :5], rtol=2e-3, atol=1e-6)


# --- Fisher matrices -------------------------------------------------------------------------------


def test_fisher_matrix_is_the_sum_over_pixels():
    rng = np.random.default_rng(4)
    with jax.enable_x64(True):
        params, transfer, grid = small_batch(np.float64)
        ivar = rng.uniform(0, 2, (4, 32, 32)) * (rng.uniform(size=(4, 32, 32)) > 0.2)
        fisher = np.asarray(fisher_matrices(jnp.asarray(params), jnp.asarray(ivar), transfer, grid))
        slopes = np.asarray(jax.jacfwd(lambda p: render(p[None], transfer, grid)[0])(jnp.asarray(params[2])))
    expected = np.einsum("yxa,yx,yxb->ab", slopes, ivar[2], slopes)
    scale = np.sqrt(np.diag(expected))
    scale = np.outer(scale, scale)
    np.testing.assert_allclose(fisher[2] / scale, expected / scale, atol=1e-7)


@pytest.mark.parametrize("gain", [None, 3.0])
def test_score_is_the_slope_of_the_likelihood(gain):
    rng = np.random.default_rng(5)
    with jax.enable_x64(True):
        params, transfer, grid = small_batch(np.float64)
        ivar = rng.uniform(0, 2, (4, 32, 32)) * (rng.uniform(size=(4, 32, 32)) > 0.2)
        data = np.asarray(render(jnp.asarray(params), transfer, grid)) + rng.normal(size=ivar.shape)
        params += [9, 0.1, 0.1, 0.02, 0.02, 0.1, -0.1, 0.05]
        arrays = (jnp.asarray(params), jnp.asarray(data), jnp.asarray(ivar), transfer, grid)
        chi2, score, fisher = map(np.asarray, score_and_fisher(*arrays, gain))
        fixed = np.asarray(render(jnp.asarray(params), transfer, grid))
        light = np.maximum(fixed - params[:, 7, None, None], 0) / (gain or np.inf)
        weight = jnp.asarray(ivar / (1 + ivar * light))

        def half_chi2(row):
            return 0.5 * (weight[1] * (data[1] - render(row[None], transfer, grid)[0]) ** 2).sum()

        value = float(half_chi2(jnp.asarray(params[1])))
        slope = np.asarray(jax.jacfwd(half_chi2)(jnp.asarray(params[1])))
        bounds = fisher_matrices(jnp.asarray(params), jnp.asarray(ivar), transfer, grid, gain)
    assert chi2[1] == pytest.approx(2 * value, rel=1e-10)
    np.testing.assert_allclose(score[1], -slope, rtol=1e-7, atol=1e-7 * np.abs(slope).max())
    np.testing.assert_allclose(fisher, bounds, rtol=1e-12)


def test_score_of_another_data_differs():
    params, transfer, grid = small_batch()
    data, ivar = np.zeros((4, 32, 32), np.float32), np.ones((4, 32, 32), np.float32)
    chi2, score, _ = score_and_fisher(params, data, ivar, transfer, grid)
    less, other, _ = score_and_fisher(params, render(params, transfer, grid), ivar, transfer, grid)
    assert (np.asarray(less) < 1e-5 * np.asarray(chi2)).all()
    assert (np.abs(other[:, :3]) < 1e-3 * np.abs(score[:, :3])).all()


def test_single_precision_bounds():
    params, transfer, grid = small_batch()
    single, _ = bound(fisher_matrices(params, np.ones((4, 32, 32), np.float32), transfer, grid))
    with jax.enable_x64(True):
        params, transfer, grid = small_batch(np.float64)
        double, _ = bound(fisher_matrices(jnp.asarray(params), jnp.ones((4, 32, 32)), transfer, grid))
    np.testing.assert_allclose(np.einsum("nii->ni", single), np.einsum("nii->ni", double), rtol=2e-3)


def test_photon_noise_adds_to_the_variance():
    with jax.enable_x64(True):
        params, transfer, grid = small_batch(np.float64)
        params = jnp.asarray(params)
        source = render(params, transfer, grid)
        gain = np.array([0.5, 1.0, 2.0, 4.0])
        ivar = jnp.ones((4, 32, 32)).at[:, 3:9].set(0)
        known = ivar / (1 + ivar * source / gain[:, None, None])
        expected = fisher_matrices(params, known, transfer, grid)
        lifted = params.at[:, 7].set(100.0)  # the sky's own photons are in ivar already
        found = fisher_matrices(lifted, ivar, transfer, grid, gain)
        np.testing.assert_allclose(found, expected, rtol=1e-6, atol=1e-6)
        found = fisher_matrices(params, ivar, transfer, grid, 2.0)[2]
        np.testing.assert_allclose(found, expected[2], rtol=1e-6, atol=1e-6)


# --- bound -----------------------------------------------------------------------------------------


def random_fisher(count=5, seed=0):
    slopes = np.random.default_rng(seed).normal(size=(count, 8, 50))
    return slopes @ slopes.transpose(0, 2, 1)


@pytest.mark.parametrize(("fit_sky", "fit_centroid", "also"),
    [(True, True, [5, 6, 7]), (False, True, [5, 6]), (True, False, [7]), (False, False, [])])  # fmt: skip
def test_bound_marginalises(fit_sky, fit_centroid, also):
    fisher = random_fisher()
    found, singular = bound(fisher, fit_sky, fit_centroid)
    keep = [0, 1, 2, 3, 4, *also]
    expected = np.linalg.inv(fisher[:, keep][:, :, keep])[:, :5, :5]
    np.testing.assert_allclose(found, expected, rtol=1e-9, atol=1e-12)
    assert not singular.any()


def test_units_of_the_parameters_do_not_matter():
    fisher = random_fisher()
    scale = 10.0 ** np.array([-12, 5, 0, 3, -3, 8, -8, 12])
    found, singular = bound(fisher * np.outer(scale, scale))
    expected = bound(fisher, True, True)[0] / np.outer(scale[:5], scale[:5])
    np.testing.assert_allclose(found, expected, rtol=1e-9)
    assert not singular.any()


def test_no_information_is_nan_not_a_pseudo_inverse():
    fisher = random_fisher()
    fisher[0] = 0
    fisher[1, 7] = fisher[1, :, 7] = 0  # nothing known of the sky
    fisher[2, 1], fisher[2, :, 1] = fisher[2, 0].copy(), fisher[2, :, 0].copy()  # n and flux do the same
    fisher[3, 4, 4] = np.nan
    covariance, singular = bound(fisher)
    assert singular.tolist() == [True, True, True, True, False]
    assert np.isnan(covariance[:4]).all()
    assert np.isfinite(bound(fisher, fit_sky=False)[0][1]).all()


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_ill_conditioned_is_flagged(dtype):
    limit = CONDITION_LIMITS[dtype]
    fisher = np.tile(np.eye(8), (2, 1, 1))
    for row, condition in enumerate((limit / 3, limit * 3)):
        fisher[row, 0, 1] = fisher[row, 1, 0] = 1 - 2 / condition
    covariance, singular = bound(fisher.astype(dtype))
    assert singular.tolist() == [False, True]
    assert np.isfinite(covariance).all()


# --- one galaxy ------------------------------------------------------------------------------------

PIXELS = {"flux": 1000.0, "n": 1.0, "hlr": 2.0, "g1": 0.1, "g2": 0.2}
ROUND = galsim.Gaussian(fwhm=3.0)


def test_parameters_in_every_form():
    expected = cramer_rao_bound(PIXELS, ROUND, 1.0).std
    table = Table([PIXELS | {"x_centroid": 900.0, "id": 7}])
    for params in (table[0], list(PIXELS.values()), [*PIXELS.values(), 31.5, 31.5, 3.0]):
        assert cramer_rao_bound(params, ROUND, 1.0).std == expected
    with_units = PIXELS | {"flux": 1000 * u.nJy, "hlr": 2 * u.pix}
    assert cramer_rao_bound(with_units, ROUND, 0.001 * u.uJy).std == pytest.approx(expected)
    on_sky = PIXELS | {"hlr": 1 / 120 * u.arcmin}
    sky = cramer_rao_bound(on_sky, galsim.Gaussian(fwhm=0.75), 1.0, pixel_scale=0.25)
    assert sky.std == pytest.approx(expected | {"hlr": expected["hlr"] / 4}, rel=1e-4)


def test_bound_in_the_frame_of_the_sky():
    """Turning the pixel grid under the galaxy does not change what can be known of it."""
    psf = galsim.Gaussian(fwhm=0.9)
    galaxy = PIXELS | {"hlr": 0.6}
    plain = cramer_rao_bound(galaxy, psf, 1.0, pixel_scale=0.25)
    turned = cramer_rao_bound(galaxy, psf, 1.0, jacobian=0.25 * np.array([[-0.6, 0.8], [0.8, 0.6]]))
    np.testing.assert_allclose(turned.covariance, plain.covariance, rtol=5e-3, atol=1e-6)


def test_masked_pixels_know_nothing():
    mask = np.zeros((40, 48), bool)
    mask[:, 30:] = True
    error = np.full(mask.shape, 2.0)
    found = cramer_rao_bound(PIXELS, ROUND, 2.0, mask)
    full = cramer_rao_bound(PIXELS, ROUND, 2.0, shape=(40, 48))
    for same in (np.where(mask, np.nan, error), np.where(mask, np.inf, error), np.ma.array(error, mask=mask)):
        assert cramer_rao_bound(PIXELS, ROUND, same).std == found.std
    assert all(found.std[name] > full.std[name] for name in PIXELS)
    assert found.snr < full.snr


def test_what_is_known_beforehand_helps():
    unknown = cramer_rao_bound(PIXELS, ROUND, 1.0, center=(31.2, 30.9))
    sky_known = cramer_rao_bound(PIXELS, ROUND, 1.0, center=(31.2, 30.9), fit_sky=False)
    all_known = cramer_rao_bound(PIXELS, ROUND, 1.0, center=(31.2, 30.9), fit_sky=False, fit_centroid=False)
    photons = cramer_rao_bound(PIXELS, ROUND, 1.0, center=(31.2, 30.9), gain=1.0)
    assert photons.flux > unknown.flux > sky_known.flux
    assert photons.snr < unknown.snr
    # A galaxy symmetric about its centre: the centroid tells nothing about the rest.
    assert sky_known.std == pytest.approx(all_known.std, rel=1e-4)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"n": 0.2}, r"params\['n'\]=0.2; allowed: 0.3 to 6.2"),
        ({"n": 6.3}, r"params\['n'\]=6.3"),
        ({"hlr": 0.0}, r"params\['hlr'\]=0.0; allowed: > 0"),
        ({"flux": -1.0}, r"params\['flux'\]=-1.0; allowed: > 0"),
        ({"g1": 0.9, "g2": 0.9}, r"\|g\|=1.273; allowed: below 1"),
        ({"g1": np.nan}, r"params\['g1'\]=nan; a finite number"),
        ({"hlr": "large"}, r"params\['hlr'\] is 'large'; one number"),
        ({"hrl": 2.0}, r"params has \['hrl'\]; allowed: flux"),
        ({"x": 70.0, "y": 3.0}, "center .* lies outside the stamp of 64x64"),
    ],
)
def test_impossible_galaxies(change, message):
    with pytest.raises(InputError, match=message):
        cramer_rao_bound(PIXELS | change, ROUND, 1.0)


@pytest.mark.parametrize(
    ("error", "kind", "message"),
    [
        (0.0, NoiseError, "error has values <= 0"),
        (-1.0, NoiseError, "error has values <= 0"),
        (np.nan, NoiseError, "error is NaN or masked in every pixel"),
        (np.inf, NoiseError, "error and mask leave no pixel"),
        (1 * u.Jy, NoiseError, "error has another unit than params"),
        (np.ones(64), InputError, "two whole numbers"),
        (np.ones((4, 4)), InputError, "at least 8"),
    ],
)
def test_impossible_noise(error, kind, message):
    with pytest.raises(kind, match=message):
        cramer_rao_bound(PIXELS, ROUND, error)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"mask": np.zeros((9, 9), bool), "shape": (64, 64)}, "do not agree"),
        ({"pixel_scale": 0.2, "jacobian": np.eye(2)}, "give one of them"),
        ({"pixel_scale": -0.2}, "pixel_scale=-0.2; allowed"),
        ({"jacobian": np.zeros((2, 2))}, "invertible"),
        ({"gain": 0}, "gain=0; allowed"),
    ],
)
def test_contradictions(options, message):
    with pytest.raises(InputError, match=message):
        cramer_rao_bound(PIXELS, ROUND, 1.0, **options)
    with pytest.raises(InputError, match="center and params both"):
        cramer_rao_bound([*PIXELS.values(), 3, 3], ROUND, 1.0, center=(1, 1))
    with pytest.raises(InputError, match="params lacks g2"):
        cramer_rao_bound({k: v for k, v in PIXELS.items() if k != "g2"}, ROUND, 1.0)
    with pytest.raises(InputError, match="a mapping, a table row"):
        cramer_rao_bound([1, 2], ROUND, 1.0)
    with pytest.raises(PSFError, match="psf is missing"):
        cramer_rao_bound(PIXELS, None, 1.0)


# --- S/N -------------------------------------------------------------------------------------------


def test_snr():
    assert snr([3.0, 4.0], 1.0) == 5.0
    assert snr([3.0, 8.0], [1.0, 2.0]) == 5.0
    assert snr([3.0, 4.0] * u.nJy, 0.001 * u.uJy) == pytest.approx(5)
    assert snr(np.ma.array([3.0, 4.0, 9.0], mask=[0, 0, 1]), 1.0) == 5.0
    assert snr([3.0, 4.0, 9.0, np.nan, 2.0], [1, 1, np.nan, 1, np.inf]) == 5.0


def test_snr_refuses():
    with pytest.raises(NoiseError, match="values <= 0"):
        snr([1.0], 0.0)
    with pytest.raises(NoiseError, match="another unit"):
        snr([1.0] * u.nJy, 1.0)
    with pytest.raises(InputError, match=r"shape \(3,\); it does not fit model \(2,\)"):
        snr([1.0, 2.0], [1.0, 1.0, 1.0])
