# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""Bounds of one imagined galaxy: beside published numbers, GalSim and a fitter."""

import astropy.units as u
import galsim
import numpy as np
import pytest
from astropy.modeling.fitting import TRFLSQFitter
from astropy.table import Table

from galshape_cnn import PSFConvolvedSersic2D, cramer_rao_bound, snr
from galshape_cnn.errors import InputError, NoiseError, PSFError

SCALE = 0.23
SEED = {"flux": 1e5, "n": 3.0, "hlr": 0.3, "g1": -0.069, "g2": 0.15}
SEED_PSF = galsim.Moffat(beta=2, fwhm=0.5)
# DESIGN: published bounds of the seed galaxy, by standard deviation of the noise.
PUBLISHED = {400: [0.11e5, 1.56, 0.056, 0.11, 0.11], 200: [0.056e5, 0.78, 0.028, 0.054, 0.054]}

PIXELS = {"flux": 1000.0, "n": 1.0, "hlr": 2.0, "g1": 0.1, "g2": 0.2}
ROUND = galsim.Gaussian(fwhm=3.0)


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


# --- one galaxy ------------------------------------------------------------------------------------


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
        ({"hlr": 3 * u.arcsec}, r"params\['hlr'\] is in arcsec; without pixel_scale or jacobian .* of pix"),
        ({"hlr": 0.0}, r"params\['hlr'\]=0.0; allowed: > 0"),
        ({"flux": -1.0}, r"params\['flux'\]=-1.0; allowed: > 0"),
        ({"g1": 0.9, "g2": 0.9}, r"\|g\|=1.273; allowed: below 1"),
        ({"g1": np.nan}, r"params\['g1'\]=nan; allowed: one finite number"),
        ({"hlr": "large"}, r"params\['hlr'\]='large'; allowed: one finite number"),
        ({"hrl": 2.0}, r"params has \['hrl'\]; allowed: flux"),
        ({"x": 70.0, "y": 3.0}, "center .* lies outside the stamp of 64x64"),
    ],
)
def test_impossible_galaxies(change, message):
    with pytest.raises(InputError, match=message):
        cramer_rao_bound(PIXELS | change, ROUND, 1.0)


def test_radius_in_pixels_where_an_angle_is_meant():
    with pytest.raises(InputError, match=r"params\['hlr'\] is in pix; with pixel_scale .* of arcsec"):
        cramer_rao_bound(PIXELS | {"hlr": 2 * u.pix}, ROUND, 1.0, pixel_scale=0.25)


@pytest.mark.parametrize(
    ("error", "kind", "message"),
    [
        (0.0, NoiseError, "error has values <= 0"),
        (-1.0, NoiseError, "error has values <= 0"),
        (np.nan, NoiseError, "error is NaN or masked in every pixel"),
        (np.inf, NoiseError, "error and mask leave no pixel"),
        (1 * u.Jy, NoiseError, "error has another unit than params"),
        ("small", InputError, "error is a str; a number or an array of numbers is needed"),
        (1j, InputError, "error is a complex; a number or an array"),
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
        ({"shape": 64}, "shape=64; allowed: two whole numbers of at least 8"),
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


# --- many galaxies in one call ---------------------------------------------------------------------


def same(found, k, single):
    np.testing.assert_array_equal(found.covariance[k], single.covariance)
    assert (found.snr[k], bool(found.singular[k])) == (single.snr, single.singular)
    for name, value in single.std.items():
        assert found.std[name][k] == getattr(found, name)[k] == value


def test_each_of_many_is_what_it_is_alone():
    """Parameters, PSFs and errors vary from point to point, or serve all; equal to the last bit."""
    psfs = [ROUND, galsim.Gaussian(fwhm=4.0)]
    error = np.array([1.0, 2.0])
    radii = np.array([2.0, 3.0])
    found = cramer_rao_bound(PIXELS | {"hlr": radii}, psfs, error)
    for k in range(2):
        same(found, k, cramer_rao_bound(PIXELS | {"hlr": radii[k]}, psfs[k], error[k]))
    assert found.covariance.shape == (2, 5, 5)
    maps = np.stack([np.full((40, 48), 1.0), np.full((40, 48), 2.0)])
    maps[1, :, 30:] = np.nan
    found = cramer_rao_bound(PIXELS, ROUND, maps, gain=[2.0, 3.0])
    for k in range(2):
        same(found, k, cramer_rao_bound(PIXELS, ROUND, maps[k], gain=2.0 + k))
    mask = np.isnan(maps)
    found = cramer_rao_bound(PIXELS, ROUND, 1.0, mask)
    same(found, 1, cramer_rao_bound(PIXELS, ROUND, 1.0, mask[1]))


@pytest.mark.parametrize("form", ["table", "array", "mapping", "one row", "with units"])
def test_parameters_of_many_in_every_form(form):
    radii = np.array([2.0, 3.0, 4.0])[: 1 if form == "one row" else 3]
    rows = [PIXELS | {"hlr": radius} for radius in radii]
    forms = {
        "table": Table(rows),
        "array": np.array([list(row.values()) for row in rows]),
        "mapping": PIXELS | {"hlr": radii},
        "one row": Table(rows),
        "with units": PIXELS | {"hlr": radii * u.pix},
    }
    found = cramer_rao_bound(forms[form], ROUND, 1.0)
    assert found.hlr.shape == radii.shape
    for k, row in enumerate(rows):
        assert found.hlr[k] == pytest.approx(cramer_rao_bound(row, ROUND, 1.0).hlr)


def test_arrays_of_psfs_and_pixel_scales():
    y, x = np.mgrid[-9:10, -9:10]
    psfs = np.stack([np.exp(-(x**2 + y**2) / (2 * s**2)) for s in (1.3, 2.0)])
    found = cramer_rao_bound(PIXELS, psfs, 1.0, pixel_scale=[0.2, 0.4])
    for k in range(2):
        same(found, k, cramer_rao_bound(PIXELS, psfs[k], 1.0, pixel_scale=0.2 * (k + 1)))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((PIXELS | {"hlr": [1.0, 2.0]}, ROUND, [1.0, 2.0, 3.0]), "params of 2, error of 3; give one for all"),
        (
            (PIXELS | {"hlr": [1.0, 2.0], "n": [1.0]}, ROUND, 1.0),
            "params: the numbers of galaxies .* n of 1, hlr of 2",
        ),
        ((PIXELS | {"hlr": [1.0, -2.0]}, ROUND, 1.0), r"galaxy 1: params\['hlr'\]=-2.0; allowed: > 0"),
        ((PIXELS, [], 1.0), "psf is empty"),
        ((PIXELS, ROUND, [1.0, 0.0]), "galaxy 1: error has values <= 0"),
    ],
)
def test_numbers_of_galaxies_that_do_not_agree(arguments, message):
    with pytest.raises(InputError, match=message):
        cramer_rao_bound(*arguments)
