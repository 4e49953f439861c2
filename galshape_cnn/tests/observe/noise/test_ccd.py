# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""Noise from gain, read noise and sky; the galaxy's own photons."""

import galsim
import numpy as np
import pytest
from astropy.io import fits
from astropy.nddata import NDData, StdDevUncertainty
from astropy.table import QTable

from galshape_cnn import ShapeEstimator
from galshape_cnn.cli import main
from galshape_cnn.errors import GalshapeWarning, InputError, NoiseError
from galshape_cnn.observe.noise.ccd import detector_error

GAIN, READ_NOISE, SKY = 2.0, 6.0, 150.0
SIGMA = np.sqrt(SKY / GAIN + (READ_NOISE / GAIN) ** 2)
TRUTH = np.array([60000.0, 1.5, 3.0, 0.2, 0.1])
PSF = galsim.Moffat(beta=2.5, fwhm=3.0)


def ccd_images(n, seed=7):
    """Galaxies with GalSim's CCD noise, the sky subtracted."""
    profile = galsim.Sersic(n=1.5, half_light_radius=3.0, flux=TRUTH[0]).shear(g1=0.2, g2=0.1)
    clean = galsim.Convolve(profile, PSF).drawImage(nx=64, ny=64, scale=1.0)
    noise = galsim.CCDNoise(galsim.BaseDeviate(seed), sky_level=SKY, gain=GAIN, read_noise=READ_NOISE)
    out = []
    for _ in range(n):
        image = clean.copy()
        image.addNoise(noise)
        out.append(image.array.astype(float))
    return np.array(out)


def pulls(catalog):
    sigma = np.sqrt(np.diagonal(catalog.crb_covariance, axis1=1, axis2=2))
    return (catalog.parameters - TRUTH) / sigma


def test_error_is_that_of_the_sky_and_the_read_out():
    subtracted = ccd_images(3)
    np.testing.assert_allclose(detector_error(subtracted, GAIN, READ_NOISE, SKY), SIGMA)
    np.testing.assert_allclose(detector_error(subtracted + SKY, GAIN, READ_NOISE), SIGMA, rtol=0.01)
    image = np.concatenate(list(subtracted), axis=1) + SKY
    assert detector_error(image, GAIN, READ_NOISE) == pytest.approx(SIGMA, rel=0.01)
    masked = NDData(np.where(image > 200, np.nan, image), mask=image < 100)
    assert detector_error(masked, GAIN, READ_NOISE) == pytest.approx(SIGMA, rel=0.02)
    assert detector_error([NDData(one + SKY) for one in subtracted], GAIN, READ_NOISE).shape == (3,)


def test_a_subtracted_sky_is_noticed():
    with pytest.raises(NoiseError, match="was the sky subtracted"):
        detector_error(ccd_images(1), GAIN, READ_NOISE)


def test_noise_that_does_not_fit_the_pixels_is_told():
    with pytest.warns(GalshapeWarning, match="one of them is wrong"):
        detector_error(ccd_images(1), GAIN, READ_NOISE, 10 * SKY)


@pytest.mark.parametrize(
    ("keywords", "message"),
    [
        ({"read_noise": 5.0}, "read_noise is given without gain"),
        ({"gain": 1.0, "read_noise": -1}, "read_noise=-1; allowed"),
        ({"gain": 1.0, "read_noise": 0, "sky_level": np.nan}, "sky_level=nan; allowed"),
        ({"gain": 1.0, "sky_level": 3.0}, "sky_level is given without read_noise"),
        ({"gain": 1.0, "read_noise": 5.0, "error": 1.0}, "both describe the noise"),
    ],
)
def test_misuse_is_refused(keywords, message):
    with pytest.raises(InputError, match=message):
        ShapeEstimator()(ccd_images(1), psf=PSF, **keywords)


def test_an_uncertainty_and_a_read_noise_contradict():
    data = NDData(ccd_images(1)[0], uncertainty=StdDevUncertainty(np.ones((64, 64))))
    with pytest.raises(InputError, match="data has an uncertainty; give one of them"):
        detector_error(data, GAIN, READ_NOISE, SKY)


def test_pulls_are_one_and_flux_unbiased_with_the_photons_of_the_galaxy():
    n = 64
    images, estimator = ccd_images(n), ShapeEstimator()
    how = {"psf": PSF, "method": "ml"}
    full = estimator(images, gain=GAIN, read_noise=READ_NOISE, sky_level=SKY, **how)
    measured = pulls(full)
    np.testing.assert_allclose(measured.std(0, ddof=1), 1, atol=3.5 / np.sqrt(2 * n))
    assert np.abs(measured.mean(0)).max() < 3.5 / np.sqrt(n)
    without = estimator(images, error=SIGMA, **how)
    assert pulls(without)[:, 0].std(ddof=1) > 1 + 3 / np.sqrt(2 * n)


def test_command_line_reads_gain_and_read_noise_from_the_header(tmp_path):
    path, out = tmp_path / "ccd.fits", tmp_path / "shapes.ecsv"
    header = fits.Header({"GAIN": GAIN, "RDNOISE": READ_NOISE, "SKYSUB": SKY})
    fits.PrimaryHDU(ccd_images(1)[0].astype(np.float32), header).writeto(path)
    args = ["measure", str(path), "-o", str(out), "--psf", "moffat:fwhm=3,beta=2.5"]
    noise = ["--gain", "header", "--read-noise", "header", "--sky-level", "SKYSUB"]
    assert main([*args, *noise]) == 0
    table = QTable.read(out)
    assert abs(float(table["flux"][0]) / TRUTH[0] - 1) < 0.05


def test_command_line_says_what_is_missing(tmp_path, capsys):
    path = tmp_path / "ccd.fits"
    fits.PrimaryHDU(ccd_images(1)[0].astype(np.float32), fits.Header({"BUNIT": "adu"})).writeto(path)
    args = ["measure", str(path), "-o", str(tmp_path / "a.ecsv"), "--psf", "moffat:fwhm=3,beta=2.5"]
    assert main([*args, "--gain", "header", "--read-noise", "5"]) == 1
    assert "the header has none of GAIN" in capsys.readouterr().err
    assert main([*args, "--gain", "BUNIT"]) == 1
    assert "--gain BUNIT: the header says 'adu', not a number" in capsys.readouterr().err
    assert main(["measure", str(path), *args[1:], "--gain", "header"]) == 1
    assert "--gain header: only one image's header can be read; give a number" in capsys.readouterr().err
    assert main([*args, "--sky-level", "5", "--error", "3"]) == 1
    assert "--sky-level is of use with --read-noise only" in capsys.readouterr().err
    assert main([*args, "--error", "3", "--noise-correlation", str(path) + "x"]) == 1
    assert "cannot read an image from it" in capsys.readouterr().err
