# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""Centring errors of the galaxies in training, as users' galaxies have them.

The network sees a galaxy in a stamp whose middle is the pixel nearest to the centre that the package found.
That is off by the rounding, and by the noise of the centroid: half a pixel and more for a faint galaxy.  A
network that has seen less is wrong for every such galaxy, so the error is measured, on mocks of the very
configuration with the very code, and training covers it.  Centres are spread evenly, because the exact
posterior knows nothing of them either.
"""

import json
from functools import lru_cache

import numpy as np

from galshape_cnn.forward.psf.shape import psf_shape
from galshape_cnn.infer.network.conditions import noise_spread
from galshape_cnn.study.simulate.mock_sets import draw_mocks
from galshape_cnn.study.simulate.recorded import centring_error
from galshape_cnn.study.simulate.stream import MockStream

__all__ = ["training_conditions", "training_offset", "training_stream"]

_MOCKS = 384
_STEP = 0.1  # pixels; the last bits of the offset are not to depend on the machine
#: What a network may be shown beyond what it has seen: of `psf_shape`, and of ln(sigma).
_PSF_MARGIN, _NOISE_MARGIN = np.array([0.02, 0.01, 0.02]), 0.05
_DRAWN = ("prior", "psf", "noise", "nuisance", "snr_range")  # sections that make galaxies


def training_offset(config):
    """Largest distance, in pixels along one axis, of a galaxy from the middle of its stamp in training.

    That of the configuration, or half a pixel and the error of centroids where that is more.
    """
    return _offset(_as_text(config))


def training_conditions(config):
    """Ranges of what the mocks of a configuration have, beside the parameters of galaxies, by name.

    ``offset`` as `training_offset` gives it; ``psf_shape``, three ranges, see
    `galshape_cnn.forward.psf.shape.psf_shape`; ``noise_spread``, see
    `galshape_cnn.infer.network.conditions.noise_spread`.
    """
    return {"offset": training_offset(config)} | _ranges(_as_text(config))


def _as_text(config):
    return json.dumps({key: config[key] for key in _DRAWN if key in config}, sort_keys=True)


@lru_cache(maxsize=4)
def _mocks(text):
    return draw_mocks(json.loads(text), _MOCKS, engine="fast", seed=0)


@lru_cache(maxsize=16)
def _offset(text):
    stamps, truth = _mocks(text)
    error = centring_error(stamps, np.stack([truth["x"], truth["y"]], 1))
    given = json.loads(text)["nuisance"]["offset"]
    return max(given, float(np.round(np.ceil((0.5 + error) / _STEP) * _STEP, 6)))


@lru_cache(maxsize=16)
def _ranges(text):
    stamps, _ = _mocks(text)
    shape = psf_shape(stamps.psf, stamps.psf_oversampling)
    low, high = shape.min(0) - _PSF_MARGIN, shape.max(0) + _PSF_MARGIN
    spread = 1.2 * float(noise_spread(stamps.ivar).max()) + _NOISE_MARGIN
    return {"psf_shape": np.round([low, high], 4).T.tolist(), "noise_spread": round(spread, 4)}


def training_stream(config, seed):
    """Mocks as a network is to see them in training; streams of different seeds are independent."""
    return MockStream(config, seed, offset=training_offset(config), paired=True, cut_wings=True)
