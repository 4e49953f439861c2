# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""One galaxy through many WCSs: what is reported belongs to the sky and not to the pixels."""

import astropy.units as u
import galsim
import numpy as np
import pytest
from astropy.coordinates import SkyCoord
from astropy.nddata import NDData, StdDevUncertainty
from astropy.wcs import WCS, Sip

from galshape_cnn import ShapeEstimator
from galshape_cnn.wcs import sky_geometry

SCALE = 0.2  # arcsec per pixel
SIDE = 64
SIGMA = 0.05
RA, DEC = 150.1, 2.2
PSF = galsim.Moffat(beta=3, fwhm=0.7).shear(g1=0.04, g2=-0.03)
GALAXY = galsim.Sersic(n=1.4, half_light_radius=0.65, flux=900.0).shear(g1=0.22, g2=-0.13)
OFFSET = (0.11, -0.07)  # arcsec west and north of the WCS's reference


def tan_wcs(jacobian, kind="TAN"):
    """WCS with d(u, v)/d(x, y) = jacobian (u west, v north) at the middle of the stamp."""
    wcs = WCS(naxis=2)
    wcs.wcs.ctype = [f"RA---{kind}", f"DEC--{kind}"]
    wcs.wcs.crval = RA, DEC
    wcs.wcs.crpix = SIDE / 2 + 0.5, SIDE / 2 + 0.5
    wcs.wcs.cd = np.array([[-1, 0], [0, 1]]) @ np.asarray(jacobian) / 3600
    return wcs


def rotation(degrees):
    cos, sin = np.cos(np.radians(degrees)), np.sin(np.radians(degrees))
    return np.array([[cos, -sin], [sin, cos]])


def sip_wcs():
    """Rotated, with distortions whose second derivatives vanish at the galaxy but whose first do not."""
    wcs = tan_wcs(SCALE * rotation(25), "TAN-SIP")
    a, b = np.zeros((4, 4)), np.zeros((4, 4))
    a[1, 0], a[0, 1], a[2, 0] = 0.03, -0.02, 1e-6
    b[1, 0], b[0, 1], b[0, 2] = 0.04, -0.05, -1e-6
    wcs.sip = Sip(a, b, None, None, wcs.wcs.crpix)
    return wcs


def tpv_wcs():
    """As a DECam exposure has it: linear and quadratic terms of TPV."""
    header = tan_wcs(SCALE * rotation(-90), "TPV").to_header()
    terms = {"PV1_0": 0.0, "PV1_1": 1.03, "PV1_2": 0.02, "PV1_4": 1e-3}
    terms |= {"PV2_0": 0.0, "PV2_1": 0.96, "PV2_2": -0.03, "PV2_4": 1e-3}
    header.update(terms)
    return WCS(header)


NORTH_UP = np.diag([SCALE, SCALE])  # u = west along +x: east is left
FRAMES = {
    "rotated by 37 degrees": lambda: tan_wcs(SCALE * rotation(37)),
    "rotated by 180 degrees": lambda: tan_wcs(SCALE * rotation(180)),
    "parity flipped": lambda: tan_wcs(SCALE * np.diag([-1.0, 1.0])),
    "flipped and rotated": lambda: tan_wcs(SCALE * rotation(-61) @ np.diag([1.0, -1.0])),
    "oblong pixels": lambda: tan_wcs(np.diag([0.17, 0.23])),
    "sheared": lambda: tan_wcs(SCALE * rotation(12) @ [[1.05, 0.12], [0.02, 0.93]]),
    "sheared and flipped": lambda: tan_wcs(SCALE * rotation(140) @ [[-1.04, 0.10], [0.06, 0.97]]),
    "SIP": sip_wcs,
    "TPV": tpv_wcs,
}


@pytest.fixture(scope="module")
def estimator():
    return ShapeEstimator()


def observe(wcs, array_psf):
    """Cutout without noise (its error is declared), and the PSF."""
    middle = [[(SIDE - 1) / 2] * 2]
    jacobian = sky_geometry(wcs, middle)[0][0]
    local = galsim.JacobianWCS(*jacobian.ravel())
    offset = np.linalg.solve(jacobian, OFFSET)
    tight = galsim.GSParams(folding_threshold=1e-4, maxk_threshold=1e-4, maximum_fft_size=16384)
    scene = galsim.Convolve(GALAXY, PSF).withGSParams(tight)
    image = scene.drawImage(nx=SIDE, ny=SIDE, wcs=local, offset=offset, dtype=float).array
    data = NDData(image, wcs=wcs, uncertainty=StdDevUncertainty(np.full(image.shape, SIGMA)), unit=u.nJy)
    if not array_psf:
        return data, {"psf": PSF}
    fine = galsim.JacobianWCS(*(jacobian / 3).ravel())
    effective = galsim.Convolve(PSF, local.toWorld(galsim.Pixel(1)))
    array = effective.drawImage(nx=151, ny=151, wcs=fine, method="no_pixel", dtype=float).array
    return data, {"psf": array, "psf_oversampling": 3, "normalize_psf": False}


def measure(estimator, wcs, array_psf=False):
    data, psf = observe(wcs, array_psf)
    return estimator(data, method="ml", **psf)


@pytest.fixture(scope="module")
def plain(estimator):
    return measure(estimator, tan_wcs(NORTH_UP))


def truth():
    offset = OFFSET * u.arcsec
    place = SkyCoord(RA, DEC, unit="deg").spherical_offsets_by(-offset[0], offset[1])
    return {"flux": 900.0, "n": 1.4, "hlr": 0.65, "g1": 0.22, "g2": -0.13}, place


def in_bounds(catalog, expected):
    """Largest difference to what is expected, in units of the Cramer-Rao bound."""
    errors = np.sqrt(np.diagonal(catalog.crb_covariance[0]))
    values = catalog.parameters[0]
    return np.abs((values - expected) / errors).max()


def test_plain_frame_gives_the_truth(plain):
    expected, place = truth()
    assert plain.snr[0] > 500
    assert in_bounds(plain, list(expected.values())) < 0.1
    assert plain.sky_centroid[0].separation(place) < 1e-3 * u.arcsec
    assert plain.hlr.unit == u.arcsec
    pa = (0.5 * np.degrees(np.arctan2(-0.13, 0.22)) - 90) % 180
    assert plain.pa[0].to_value(u.deg) == pytest.approx(pa, abs=0.05)


@pytest.mark.parametrize("array_psf", [False, True], ids=["profile", "array"])
@pytest.mark.parametrize("name", FRAMES)
def test_same_galaxy_in_every_frame(estimator, plain, name, array_psf):
    catalog = measure(estimator, FRAMES[name](), array_psf)
    # noiseless: what is left is how finely the PSF is drawn
    assert in_bounds(catalog, plain.parameters[0]) < 0.05
    assert catalog.sky_centroid[0].separation(plain.sky_centroid[0]) < 1e-3 * u.arcsec
    change = (catalog.pa[0] - plain.pa[0]).to_value(u.deg)
    assert abs((change + 90) % 180 - 90) < 0.05
    assert catalog.r_eff[0].to_value("arcsec") == pytest.approx(plain.r_eff[0].to_value("arcsec"), rel=1e-3)
    assert catalog.q[0] == pytest.approx(plain.q[0], abs=1e-3)


@pytest.mark.parametrize("name", ["rotated by 37 degrees", "rotated by 180 degrees", "parity flipped",
                                  "flipped and rotated"])  # fmt: skip
def test_bound_is_the_same_where_pixels_are(estimator, plain, name):
    """Turned and mirrored square pixels hold the same information, correlations included."""
    catalog = measure(estimator, FRAMES[name]())
    first, second = plain.crb_covariance[0], catalog.crb_covariance[0]
    errors = np.sqrt(np.diagonal(first))
    np.testing.assert_allclose(second / np.outer(errors, errors), first / np.outer(errors, errors), atol=0.03)


@pytest.mark.parametrize("name", ["oblong pixels", "sheared", "sheared and flipped", "SIP", "TPV"])
def test_bound_follows_the_pixel_area(estimator, plain, name):
    """For equal noise per pixel the bound scales with the pixels' side, nearly."""
    wcs = FRAMES[name]()
    catalog = measure(estimator, wcs)
    area = abs(np.linalg.det(sky_geometry(wcs, [[(SIDE - 1) / 2] * 2])[0][0])) / SCALE**2
    ratio = np.sqrt(np.diagonal(catalog.crb_covariance[0]) / np.diagonal(plain.crb_covariance[0]))
    np.testing.assert_allclose(ratio, np.sqrt(area), rtol=0.1)


def test_ignoring_parity_would_be_noticed(estimator, plain):
    """The test above can fail: the same pixels read with the wrong parity give another g2."""
    data, psf = observe(FRAMES["parity flipped"](), True)
    wrong = NDData(data.data, wcs=tan_wcs(NORTH_UP), uncertainty=data.uncertainty, unit=data.unit)
    catalog = estimator(wrong, method="ml", **psf)
    assert in_bounds(catalog, plain.parameters[0]) > 10
