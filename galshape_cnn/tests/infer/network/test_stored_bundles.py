# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""Bundles of every version of the file format give what they gave when they were written.

A new version of the format gets a new file:
``python -m galshape_cnn.tests.infer.network.test_stored_bundles`` writes the one of the present version.
"""

from pathlib import Path

import numpy as np
import pytest

from galshape_cnn import ShapeEstimator, Stamps
from galshape_cnn.infer.network.bundle import FORMAT_VERSION, Bundle

DATA = Path(__file__).parents[2] / "data"
COLUMNS = ("flux", "n", "hlr", "g1", "g2", "flux_std", "n_std", "hlr_std", "g1_std", "g2_std")


def stamps():
    """Two galaxies of a formula that no change of the package can touch."""
    y, x = np.mgrid[:64, :64] - 31.5
    noise = np.random.default_rng(20261124).normal(size=(2, 64, 64))
    radius = np.hypot(x - 0.3, 1.4 * (y + 0.2))
    images = np.stack([60 * np.exp(-radius / 2.5), 25 * np.exp(-((radius / 4) ** 2))])
    py, px = np.mgrid[-12:13, -12:13]
    psf = np.exp(-(px**2 + py**2) / (2 * 1.3**2))
    ivar = np.ones((2, 64, 64))
    ivar[0, :, 5] = 0
    return Stamps(images + noise, ivar, (psf / psf.sum())[None])


def answers(bundle):
    catalog = ShapeEstimator(bundle)(stamps(), gain=5.0)
    return np.array([np.asarray(getattr(catalog, name), float) for name in COLUMNS])


@pytest.mark.parametrize("version", range(1, FORMAT_VERSION + 1))
def test_stored_bundle_gives_its_stored_answers(version):
    bundle = Bundle.read(DATA / f"bundle_v{version}.asdf")
    expected = np.load(DATA / f"bundle_v{version}.npy")
    assert np.isfinite(expected).all()
    np.testing.assert_allclose(answers(bundle), expected, rtol=5e-3, atol=1e-3)


def test_an_altered_weight_is_noticed():
    bundle = Bundle.read(DATA / f"bundle_v{FORMAT_VERSION}.asdf")
    weights = list(bundle.weights)
    weights[-1] = weights[-1] + np.float32(0.1)
    changed = Bundle(bundle.network, tuple(weights), bundle.domain, bundle.prior, bundle.provenance)
    expected = np.load(DATA / f"bundle_v{FORMAT_VERSION}.npy")
    assert np.abs(answers(changed) / expected - 1).max() > 0.01


def _write(folder=DATA):
    from galshape_cnn.study.simulate.config import load_config
    from galshape_cnn.tests.infer.network.test_likelihood_update import tiny_bundle

    bundle, config = tiny_bundle(), load_config()
    bundle = Bundle(bundle.network, bundle.weights, {"snr": [5.0, 1000.0]}, config["prior"], {"steps": 0})
    bundle.write(folder / f"bundle_v{FORMAT_VERSION}.asdf")
    np.save(folder / f"bundle_v{FORMAT_VERSION}.npy", answers(bundle))


if __name__ == "__main__":
    _write()
