# Licensed under a 3-clause BSD style license - see LICENSE.rst
import galsim
import numpy as np
import pytest

from galshape_cnn import PSFConvolvedSersic2D
from galshape_cnn.geometry import transform_shape
from galshape_cnn.study.inject.drawing import PointSpread, draw_unit, flux_for_snr, photon_noise, snr_of

ANGLE = np.radians(30.0)
JACOBIANS = {
    "pixels": np.eye(2),
    "turned": 0.2 * np.array([[-np.cos(ANGLE), np.sin(ANGLE)], [np.sin(ANGLE), np.cos(ANGLE)]]),
    "flipped, flat pixels": np.array([[0.25, 0.02], [0.01, 0.2]]),
}
PSF = galsim.Convolve(galsim.Moffat(beta=3, fwhm=3.2, trunc=20).shear(g1=0.05, g2=-0.03), galsim.Pixel(1.0))
ARRAY = PSF.drawImage(nx=63, ny=63, scale=1.0, method="no_pixel", dtype=float).array


@pytest.mark.parametrize("name", JACOBIANS)
def test_galaxy_in_the_sky_frame_is_what_the_renderer_draws(name):
    """GalSim and the package's own renderer agree about size, shear, position and frame."""
    jacobian = JACOBIANS[name]
    scale = np.sqrt(abs(np.linalg.det(jacobian)))
    hlr, g1, g2, xy = 3.0 * scale, 0.25, -0.15, (40.3, 37.8)
    spread = PointSpread(ARRAY)
    galaxy = galsim.Exponential(half_light_radius=hlr).shear(g1=g1, g2=g2)
    drawn = draw_unit(galaxy, spread.effective(xy, jacobian), xy, jacobian, 72, (80, 90))
    pixel = transform_shape(hlr, g1, g2, np.linalg.inv(jacobian))
    y, x = np.mgrid[drawn.rows, drawn.columns]
    model = PSFConvolvedSersic2D(1.0, 1.0, *pixel, *xy, psf=ARRAY / ARRAY.sum())
    np.testing.assert_allclose(drawn.image, model(x, y), atol=2e-3 * drawn.image.max())


def test_part_outside_the_image_is_left_out():
    drawn = draw_unit(galsim.Gaussian(sigma=2.0), PointSpread(ARRAY).effective((2, 3), np.eye(2)), (2, 3),
                      np.eye(2), 40, (30, 25))  # fmt: skip
    assert (drawn.rows, drawn.columns) == (slice(0, 24), slice(0, 23))
    assert drawn.image.shape == (24, 23)


@pytest.mark.parametrize("gain", [None, 0.3, 50.0])
def test_flux_gives_the_wanted_signal_to_noise_ratio(gain):
    unit = draw_unit(galsim.Gaussian(sigma=2.0), PointSpread(ARRAY).effective((32, 32), np.eye(2)), (32, 32),
                     np.eye(2), 64, (64, 64)).image  # fmt: skip
    sigma = np.full(unit.shape, 2.0)
    sigma[10] = np.inf
    flux = flux_for_snr(unit, sigma, 80.0, gain)
    assert snr_of(flux * unit, sigma, gain) == pytest.approx(80.0, rel=1e-9)
    assert flux_for_snr(unit, np.full(unit.shape, np.inf), 80.0, gain) == np.inf


def test_photons_scatter_as_they_should():
    expected, gain = np.full((400, 400), 3.0), 7.0
    counted = photon_noise(expected, gain, np.random.default_rng(1))
    error = np.sqrt(3.0 / gain)
    assert abs(counted.mean() - 3.0) < 4 * error / 400
    assert abs(counted.std() / error - 1) < 4 / np.sqrt(2 * counted.size)
    assert photon_noise(np.array([-0.2]), gain, np.random.default_rng(1)) == pytest.approx(-0.2)
