# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""Training covers the error of the package's own centroids."""

import numpy as np

from galshape_cnn.study.simulate.config import load_config
from galshape_cnn.study.train.centring import training_conditions, training_offset, training_stream


def test_offset_covers_the_centroids_of_faint_galaxies():
    config = load_config("seed")
    offset = training_offset(config)
    assert 0.7 < offset < 2.0  # of S/N 10 and more; half a pixel is the rounding
    drawn = training_stream(config, 1).draw(0, 512)["params"]
    assert offset - 0.02 < np.abs(drawn[:, 5:7] - 31.5).max() <= offset
    bright = config | {"snr_range": [300.0, 1000.0], "prior": config["prior"] | {"flux": {
        "kind": "uniform", "low": 4e6, "high": 9e6}}}  # fmt: skip
    assert training_offset(bright) < offset


def test_conditions_name_the_family_of_psfs():
    found = training_conditions(load_config("seed"))
    elongation, wings, lopsided = np.array(found["psf_shape"])
    assert elongation[1] < 0.03  # all are round
    assert lopsided[1] < 0.03
    assert 0.15 < wings[0] < wings[1] < 0.25  # Moffat profiles of one exponent; a Gaussian has 0.13
    assert 0.05 < found["noise_spread"] < 1
