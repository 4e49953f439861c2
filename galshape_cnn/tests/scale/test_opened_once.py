# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""The command opens an image once and measures its noise once, whatever the workers do."""

import numpy as np
import pytest
from astropy.io import fits
from astropy.table import Table

from galshape_cnn.cli import main, measure
from galshape_cnn.observe.detect import sources
from galshape_cnn.scale import images
from galshape_cnn.tests.standin import StandInEstimator


@pytest.fixture
def image(tmp_path):
    rng = np.random.default_rng(5)
    pixels = rng.normal(0, 3.0, (200, 220)).astype("f4")
    y, x = np.mgrid[:200, :220]
    for center in ((60, 70), (150, 120)):
        pixels += 200 * np.exp(-np.hypot(x - center[0], y - center[1]) / 4)
    fits.PrimaryHDU(pixels).writeto(tmp_path / "image.fits")
    Table({"x": [60.0, 150.0], "y": [70.0, 120.0]}).write(tmp_path / "positions.csv")
    return tmp_path


def test_opened_once_and_its_noise_measured_once(image, monkeypatch):
    opened, measured, seen = [], [], []
    open_image, background_noise = images.open_image, sources.background_noise
    monkeypatch.setattr(images, "open_image", lambda *a: (opened.append(a), open_image(*a))[1])
    monkeypatch.setattr("galshape_cnn.scale.sources.open_image", images.open_image)
    monkeypatch.setattr(sources, "background_noise", lambda d: (measured.append(1), background_noise(d))[1])

    class Recorder(StandInEstimator):
        def __call__(self, data, **keywords):
            seen.append(keywords["error"])
            return super().__call__(data, **keywords)

    monkeypatch.setattr(measure, "load_estimator", lambda bundle: Recorder())
    command = ["measure", str(image / "image.fits"), "--positions", str(image / "positions.csv")]
    command += ["--psf", "moffat:fwhm=3", "--error", "background", "-o", str(image / "out.ecsv")]
    assert main(command) == 0
    assert len(opened) == 1
    assert len(measured) == 1
    np.testing.assert_allclose(seen, 3.0, rtol=0.03)
