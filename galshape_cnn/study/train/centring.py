# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""Centres of the galaxies in training: as far off as those of users are.

The network sees a galaxy in a stamp whose middle is the pixel nearest to the centre that the package found.
That is off by the rounding, and by the noise of the centroid: half a pixel and more for a faint galaxy.  A
network that has seen less is wrong for every such galaxy, so the error is measured, on mocks of the very
configuration with the very code, and training covers it.  Centres are spread evenly, because the exact
posterior knows nothing of them either.
"""

import json
from functools import lru_cache

import numpy as np

from galshape_cnn.flags import Flag
from galshape_cnn.forward.psf.arrays import PSFArrays
from galshape_cnn.infer.network.features import SIDE
from galshape_cnn.observe.detect.centroids import find_centers, psf_sigma
from galshape_cnn.study.simulate.stream import MockStream

__all__ = ["centring_error", "training_offset", "training_stream"]

_MIDDLE = (SIDE - 1) / 2
_MOCKS = 384
_COVERED = 0.99  # part of the centroids whose error training covers
_STEP = 0.1  # pixels; the last bits of the offset are not to depend on the machine
_DRAWN = ("prior", "psf", "noise", "nuisance", "snr_range")  # sections that make galaxies


def centring_error(stamps, xy):
    """Error of the package's own centroids that few galaxies exceed.

    Parameters
    ----------
    stamps : Stamps
        Galaxies near the middle.
    xy : (N, 2) array_like
        Their true centres.

    Returns
    -------
    error : float
        Pixels along one axis; all but one in a hundred are below it.
    """
    guess = np.full((len(stamps), 2), _MIDDLE)
    sigma = psf_sigma(PSFArrays(stamps.psf, stamps.psf_oversampling))
    found = find_centers(stamps.data, stamps.ivar, guess, sigma)
    moved = (found.flags & (Flag.RECENTER_FAILED | Flag.FAR_CENTROID)) == 0  # others are where the user says
    if not moved.any():
        return 0.0
    return float(np.quantile(np.abs(found.center - xy)[moved].max(1), _COVERED))


def training_offset(config):
    """Largest distance along one axis of a galaxy's centre from the middle of its stamp in training.

    Parameters
    ----------
    config : dict
        From `galshape_cnn.study.train.training.load_config`.

    Returns
    -------
    offset : float
        Pixels: that of the configuration, or half a pixel and the error of centroids where that is more.
    """
    drawn = {key: config[key] for key in _DRAWN if key in config}
    return _offset(json.dumps(drawn, sort_keys=True))


@lru_cache(maxsize=16)
def _offset(text):
    from galshape_cnn.study.simulate.mock_sets import draw_mocks

    config = json.loads(text)
    stamps, truth = draw_mocks(config, _MOCKS, engine="fast", seed=0)
    error = centring_error(stamps, np.stack([truth["x"], truth["y"]], 1))
    return max(config["nuisance"]["offset"], float(np.round(np.ceil((0.5 + error) / _STEP) * _STEP, 6)))


def training_stream(config, seed):
    """Mocks as a network is to see them in training.

    Parameters
    ----------
    config : dict
        From `galshape_cnn.study.train.training.load_config`.
    seed : int
        Streams of different seeds are independent.

    Returns
    -------
    stream : MockStream
    """
    return MockStream(config, seed, offset=training_offset(config), paired=True)
