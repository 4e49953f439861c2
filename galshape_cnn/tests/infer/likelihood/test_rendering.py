# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""Model images."""

import numpy as np
import pytest

from galshape_cnn import Stamps
from galshape_cnn.forward.kernel.library import KERNEL_VARIABLE
from galshape_cnn.infer.likelihood.rendering import RenderedBatch, model_images


def test_answers_beyond_any_galaxy_have_no_image():
    y, x = np.mgrid[-8:9, -8:9]
    psf = np.exp(-(x**2 + y**2) / 4.0)
    stamps = Stamps(np.zeros((3, 32, 32)), np.ones((3, 32, 32)), psf / psf.sum())
    params = np.tile([100.0, 1.0, 2.0, 0.1, 0.0, 15.5, 15.5, 0.0], (3, 1))
    params[1, 2], params[2, 2] = 1e300, np.nan
    images = model_images(stamps, params)
    assert 90 < images[0].sum() < 100
    assert not images[1:].any()


@pytest.mark.parametrize("kernel", ["", "off"])
def test_share_of_the_light_on_some_pixels(kernel, monkeypatch):
    monkeypatch.setenv(KERNEL_VARIABLE, kernel)
    y, x = np.mgrid[-8:9, -8:9]
    psf = np.exp(-(x**2 + y**2) / 4.0)
    stamps = Stamps(np.zeros((5, 32, 32)), np.ones((5, 32, 32)), psf / psf.sum())
    batch = RenderedBatch.from_stamps(stamps, None)
    params = np.tile([100.0, 1.0, 2.0, 0.1, 0.0, 15.5, 15.5, 0.3], (4, 1))
    params[1, 0], params[2, 2], params[3, 5] = -1, np.nan, 20
    pixels = np.zeros((4, 32, 32), bool)
    pixels[:, :, :16] = True  # the left half
    share = batch.share_of_light(np.array([0, 2, 3, 4]), params, pixels)
    np.testing.assert_allclose(share[0], 0.5, atol=1e-5)
    assert np.isnan(share[1:3]).all()  # no light, no model
    images = model_images(stamps[[4]], np.append(params[3:, :7], [[0.0]], 1))[0]
    np.testing.assert_allclose(share[3], images[:, :16].sum() / images.sum(), rtol=1e-5)
