# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""Training covers the error of the package's own centroids, and PSFs as arrays hold them."""

import galsim
import numpy as np

from galshape_cnn.forward.transfer import transfer_at
from galshape_cnn.infer.network.features import PSF_KX, PSF_KY
from galshape_cnn.study.simulate.config import load_config
from galshape_cnn.study.simulate.galsim_stamps import PSF_OVERSAMPLING, draw_psf
from galshape_cnn.study.simulate.psf_families import PSF_ARRAYS
from galshape_cnn.study.simulate.stream import MockStream, network_view
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


def test_the_psfs_of_users_are_among_those_of_the_training():
    """In all directions in which they differ: one family alone differs in one, and a network extrapolates."""
    config = load_config("seed")
    arrays = [draw_psf(galsim.Moffat(2.0, fwhm=fwhm)) for fwhm in (2.4, 3.0, 3.6, 4.2)]
    arrays += [array[20:-20, 20:-20] for array in arrays]
    users = np.stack([_seen(array) for array in arrays])
    strange = {}
    for name, stream in (
        ("training", training_stream(config, 1)),
        ("whole", MockStream(config, 1, offset=1.0, paired=True)),
    ):
        psfs = stream.draw(0, 2048)["psfs"]
        seen = network_view(tuple(np.asarray(psfs[key], np.float32) for key in PSF_ARRAYS))
        seen = np.asarray(seen).real.reshape(2048, -1)
        strange[name] = np.abs(users[:, None] - seen).max(2).min(1).max()
    assert strange["training"] < 3e-3
    assert strange["whole"] > 3 * strange["training"]


def _seen(array):
    array = array / array.sum()
    return np.asarray(transfer_at(array, PSF_KY, PSF_KX, PSF_OVERSAMPLING)).real.ravel()
