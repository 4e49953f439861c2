# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""Bound of several exposures: inverse of the summed Fisher matrices, by differences of GalSim's images."""

import galsim
import numpy as np
import pytest

from galshape_cnn import cramer_rao_bound
from galshape_cnn.errors import InputError

FINE = galsim.GSParams(
    folding_threshold=1e-4, maxk_threshold=1e-4, kvalue_accuracy=1e-7, maximum_fft_size=32768
)
SHAPE = ("n", "hlr", "g1", "g2")


def random_setup(seed):
    """A galaxy, and exposures of different band, scale, orientation, PSF, noise, size and mask."""
    rng = np.random.default_rng(seed)
    galaxy = {"n": rng.uniform(0.8, 2.5), "hlr": rng.uniform(0.4, 0.8)}
    galaxy["g1"], galaxy["g2"] = rng.uniform(-0.3, 0.3, 2)
    exposures = []
    for k in range(rng.integers(2, 7)):
        scale, angle = rng.uniform(0.18, 0.4), rng.uniform(0, 2 * np.pi)
        turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
        flip = np.diag([1, rng.choice([-1, 1])])
        shear = np.eye(2) + rng.uniform(-0.03, 0.03, (2, 2))
        side = 2 * int(rng.integers(16, 24))
        mask = rng.uniform(size=(side, side)) < 0.05
        exposures.append({
            "band": "gri"[k % rng.integers(1, 4)], "jacobian": scale * turn @ flip @ shear, "mask": mask,
            "error": rng.uniform(0.5, 2.0) * (1 + rng.uniform(size=(side, side))),
            "psf": galsim.Gaussian(fwhm=scale * rng.uniform(2.5, 4.5), gsparams=FINE).shear(g1=0.05, g2=0),
            "center": tuple((side - 1) / 2 + rng.uniform(-0.5, 0.5, 2)),
        })  # fmt: skip
    bands = sorted({one["band"] for one in exposures})
    galaxy |= {f"flux_{band}" if len(bands) > 1 else "flux": rng.uniform(200, 600) for band in bands}
    return galaxy, exposures


def drawn(flux, values, exposure, place):
    """Image of one exposure with the galaxy moved by ``place`` arcsec."""
    n, hlr, g1, g2 = values
    galaxy = galsim.Sersic(n, half_light_radius=hlr, flux=flux, gsparams=FINE).shear(g1=g1, g2=g2)
    side = exposure["mask"].shape[0]
    offset = np.array(exposure["center"]) - (side - 1) / 2
    wcs = galsim.JacobianWCS(*exposure["jacobian"].ravel())
    image = galsim.Convolve(galaxy.shift(*place), exposure["psf"], gsparams=FINE)
    return image.drawImage(nx=side, ny=side, wcs=wcs, offset=tuple(offset), dtype=float).array


def differences(galaxy, exposures):
    """Covariance of fluxes and shape from Richardson differences; position and skies marginalised."""
    fluxes = [name for name in galaxy if name.startswith("flux")]
    fluxes = sorted(fluxes, key=lambda name: [f"flux_{e['band']}" for e in exposures].index(name)
                    if "_" in name else 0)  # fmt: skip
    names = [*fluxes, *SHAPE, "u", "v"]
    size = len(names) + len(exposures)
    fisher = np.zeros((size, size))
    for k, one in enumerate(exposures):
        flux = f"flux_{one['band']}" if len(fluxes) > 1 else "flux"
        point = np.array([galaxy[flux], *(galaxy[name] for name in SHAPE), 0.0, 0.0])
        step = 4e-3 * np.array([point[0], point[1], point[2], 1, 1, point[2], point[2]])

        def image(p, flux_and_shape=one):
            return drawn(p[0], p[1:5], flux_and_shape, p[5:])

        def slope(i, h, point=point, image=image):
            move = np.zeros(7)
            move[i] = h
            return (image(point + move) - image(point - move)) / (2 * h)

        columns = [(4 * slope(i, step[i] / 2) - slope(i, step[i])) / 3 for i in range(7)]
        own = np.where(one["mask"], 0, 1 / one["error"] ** 2)
        index = [names.index(flux), *(names.index(name) for name in (*SHAPE, "u", "v")), len(names) + k]
        columns = np.array([*columns, np.ones_like(own)])
        fisher[np.ix_(index, index)] += np.einsum("ayx,byx,yx->ab", columns, columns, own)
    scale = np.sqrt(np.diagonal(fisher))
    covariance = np.linalg.inv(fisher / np.outer(scale, scale)) / np.outer(scale, scale)
    return [*fluxes, *SHAPE], np.sqrt(np.diagonal(covariance))[: len(fluxes) + 4]


def bound_of(galaxy, exposures, **options):
    keys = ("error", "mask", "jacobian", "center")
    lists = {key: [one[key] for one in exposures] for key in keys}
    psfs = [one["psf"] for one in exposures]
    return cramer_rao_bound(galaxy, psfs, **lists, bands=[one["band"] for one in exposures], **options)


@pytest.mark.parametrize("seed", [1, *(pytest.param(k, marks=pytest.mark.slow) for k in range(2, 11))])
def test_bound_is_the_inverse_of_the_summed_fisher_matrices(seed):
    """To what the two renderers differ by in the derivatives, a few 1e-5."""
    galaxy, exposures = random_setup(seed)
    found = bound_of(galaxy, exposures)
    names, expected = differences(galaxy, exposures)
    assert list(found.names) == names
    np.testing.assert_allclose([found.std[name] for name in names], expected, rtol=1e-4)


GALAXY = {"flux": 300, "n": 1.5, "hlr": 0.6, "g1": 0.1, "g2": -0.2}
PSF = galsim.Moffat(beta=3, fwhm=0.8)


def test_four_equal_exposures_halve_the_errors():
    one = cramer_rao_bound(GALAXY, PSF, 1.0, pixel_scale=0.26)
    four = cramer_rao_bound(GALAXY, [PSF] * 4, 1.0, pixel_scale=0.26)
    np.testing.assert_allclose(four.covariance, one.covariance / 4, rtol=1e-9)
    assert four.snr == pytest.approx(2 * one.snr)
    assert four.names == one.names


def test_one_exposure_is_the_single_image():
    one = cramer_rao_bound(GALAXY, PSF, 1.0, pixel_scale=0.26)
    listed = cramer_rao_bound(GALAXY, [PSF], [1.0], pixel_scale=[0.26])
    np.testing.assert_allclose(listed.covariance, one.covariance, rtol=1e-9)


def test_bands_share_the_shape_and_not_the_flux():
    both = cramer_rao_bound(
        GALAXY | {"flux_g": 100, "flux_r": 300}, [PSF, PSF], 1.0, pixel_scale=0.26, bands=["g", "r"]
    )
    assert both.names == ("flux_g", "flux_r", "n", "hlr", "g1", "g2")
    red = cramer_rao_bound(GALAXY, PSF, 1.0, pixel_scale=0.26)
    assert both.g1 < red.g1
    assert both.flux_r < red.flux
    assert "flux_g=" in repr(both)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"error": [1.0]}, "error holds 1 entries for 2 PSFs"),
        ({"bands": ["g"]}, "bands holds 1 names for 2 PSFs"),
        ({"bands": ["g", ""]}, "a name for each exposure"),
        ({"pixel_scale": [0.2, None]}, "some exposures have a pixel_scale"),
        ({"params": {"flux_g": 1, **{k: GALAXY[k] for k in SHAPE}}, "bands": ["g", "r"]}, "lacks flux_r"),
        ({"params": 3.0}, "params is 3.0"),
    ],
)
def test_contradictions_are_named(changes, message):
    arguments = {"params": GALAXY, "psf": [PSF, PSF], "error": 1.0, "pixel_scale": 0.26} | changes
    with pytest.raises(InputError, match=message):
        cramer_rao_bound(**arguments)


def test_bands_need_a_list_of_psfs():
    with pytest.raises(InputError, match="psf is no list"):
        cramer_rao_bound(GALAXY, PSF, 1.0, pixel_scale=0.26, bands=["g"])


def test_bound_of_shapes_that_vary_is_what_a_fit_states():
    """The covariance of a fit of the same model to images without noise, and more than that of one shape."""
    from galshape_cnn import Exposure, ShapeEstimator

    psfs = [galsim.Moffat(beta=3, fwhm=fwhm) for fwhm in (3.0, 2.6, 2.8)]
    params = {
        "flux_g": 4000.0,
        "flux_r": 5000.0,
        "flux_z": 6000.0,
        "n": 1.2,
        "hlr": 4.0,
        "g1": 0.2,
        "g2": 0.1,
    }
    how = {"bands": list("grz"), "error": [1.0, 1.2, 0.8], "shape": (64, 64)}
    one = cramer_rao_bound(params, psfs, **how)
    none = cramer_rao_bound(params, psfs, vary={"n": 0, "hlr": 0}, **how)
    np.testing.assert_array_equal(none.covariance, one.covariance)
    varied = cramer_rao_bound(params, psfs, vary={"n": 1, "hlr": 2}, wavelengths=[480, 640, 920], **how)
    assert varied.names == (
        "flux_g", "flux_r", "flux_z", "n_g", "n_r", "n_z", "hlr_g", "hlr_r", "hlr_z", "g1", "g2",
    )  # fmt: skip
    assert min(varied.hlr_g, varied.hlr_r, varied.hlr_z) > one.hlr
    assert varied.n_g > one.n
    exposures = []
    for psf, error, band, wavelength in zip(psfs, how["error"], "grz", (480, 640, 920), strict=True):
        galaxy = galsim.Sersic(1.2, half_light_radius=4.0, flux=params[f"flux_{band}"]).shear(g1=0.2, g2=0.1)
        image = galsim.Convolve(galaxy, psf).drawImage(nx=64, ny=64, scale=1).array
        exposures.append(Exposure(image, psf=psf, error=error, band=band, wavelength=wavelength))
    found = ShapeEstimator()(exposures, method="ml", neighbours="ignore", vary={"n": 1, "hlr": 2})
    sigma = np.sqrt(np.diagonal(found.crb_covariance[0]))
    expected = np.sqrt(np.diagonal(varied.covariance))
    np.testing.assert_allclose(sigma, expected, rtol=0.01)
    for options, message in (
        ({"vary": {"hlr": 1}}, r"exposure 'psf\[0\]' of band 'g' has no wavelength"),
        ({"vary": {"hlr": 3}, "wavelengths": [1, 2, 3]}, "with 3 wavelengths"),
        ({"vary": {"hlr": 1}, "wavelengths": [1, 2]}, "wavelengths holds 2 entries for 3 PSFs"),
    ):
        with pytest.raises(InputError, match=message):
            cramer_rao_bound(params, psfs, **how, **options)
    with pytest.raises(InputError, match="vary is given, but psf is no list"):
        cramer_rao_bound({"flux": 1, "n": 1, "hlr": 3, "g1": 0, "g2": 0}, psfs[0], 1.0, vary={"hlr": 1})
