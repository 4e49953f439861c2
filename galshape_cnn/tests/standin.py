# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""An estimator without a network, for tests of what surrounds the estimator."""

import numpy as np

from galshape_cnn.infer.catalog.catalog import ShapeCatalog
from galshape_cnn.infer.catalog.measurement import Measurement
from galshape_cnn.infer.measure.options import measurement_keywords
from galshape_cnn.observe.observation import prepare


class StandInEstimator:
    """Gives every galaxy the same round shape, the summed flux and the stamp's centre."""

    def __init__(self):
        self.calls = []

    def __call__(self, data, *, method="network", fit_sky=True, progress=False, **keywords):
        self.calls.append({"method": method, "fit_sky": fit_sky, **keywords})
        keywords.pop("threads", None)
        measuring = measurement_keywords()
        observation = prepare(data, **{k: v for k, v in keywords.items() if k not in measuring})
        parts = [self.measure(stamps) for _, stamps in observation.groups]
        meta = {"versions": {"galshape_cnn": "0"}}
        return ShapeCatalog.from_measurements(observation, parts, method=method, meta=meta)

    def measure(self, stamps):
        n = len(stamps)
        ones = np.ones(n)
        flux = stamps.data.sum((1, 2), dtype=float)
        params = np.column_stack([flux, ones, 3 * ones, 0.1 * ones, -0.2 * ones, stamps.center, 0 * ones])
        covariance = np.tile(np.diag([4.0, 0.25, 0.04, 0.01, 0.01]), (n, 1, 1))
        snr = np.sqrt((stamps.data.astype(float) ** 2 * stamps.ivar).sum((1, 2)))
        return Measurement(params, covariance, covariance, snr, ones, ones * np.nan, np.zeros(n, int))
