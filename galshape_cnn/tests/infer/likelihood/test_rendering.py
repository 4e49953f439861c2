# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""Model images."""

import numpy as np

from galshape_cnn import Stamps
from galshape_cnn.infer.likelihood.rendering import model_images


def test_answers_beyond_any_galaxy_have_no_image():
    y, x = np.mgrid[-8:9, -8:9]
    psf = np.exp(-(x**2 + y**2) / 4.0)
    stamps = Stamps(np.zeros((3, 32, 32)), np.ones((3, 32, 32)), psf / psf.sum())
    params = np.tile([100.0, 1.0, 2.0, 0.1, 0.0, 15.5, 15.5, 0.0], (3, 1))
    params[1, 2], params[2, 2] = 1e300, np.nan
    images = model_images(stamps, params)
    assert 90 < images[0].sum() < 100
    assert not images[1:].any()
