# Licensed under a 3-clause BSD style license - see LICENSE.rst
import numpy as np
import pytest
from scipy.stats import kstest

from galshape_cnn.errors import InputError
from galshape_cnn.infer.posterior.prior import Distribution, Prior

UNIFORM = {"kind": "uniform", "low": 0.5, "high": 6.0}
SPECS = [
    UNIFORM,
    {"kind": "loguniform", "low": 5.0, "high": 1000.0},
    {"kind": "lognormal", "median": 2.2, "sigma": 0.9, "low": 0.3, "high": 12.0},
    {"kind": "rayleigh", "sigma": 0.3, "low": 0.0, "high": 0.7},
    {
        "kind": "mixture",
        "weights": [3.0, 1.0],
        "parts": [UNIFORM, {"kind": "lognormal", "median": 1.3, "sigma": 0.6, "low": 0.3, "high": 6.2}],
    },
]


@pytest.mark.parametrize("spec", SPECS, ids=[s["kind"] for s in SPECS])
def test_density_integrates_to_one_and_matches_the_draws(spec):
    distribution = Distribution(spec)
    x = np.linspace(distribution.low, distribution.high, 200001)[1:-1]
    density = np.exp(distribution.log_density(x))
    cumulative = np.cumsum(density) * (x[1] - x[0])
    assert cumulative[-1] == pytest.approx(1, abs=2e-3)
    draws = distribution.sample(np.random.default_rng(1), 4000)
    assert kstest(draws, lambda v: np.interp(v, x, cumulative)).pvalue > 1e-3
    outside = [distribution.low - 0.01, distribution.high + 0.01]
    assert (distribution.log_density(outside) == -np.inf).all()


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ({"kind": "flat"}, "kind='flat', allowed"),
        ({"kind": "uniform", "low": 1}, "needs .*high"),
        ({"kind": "uniform", "low": 2, "high": 1}, "must be below"),
        ("uniform", "kind=None"),
    ],
)
def test_impossible_distributions(spec, message):
    with pytest.raises(InputError, match=message):
        Distribution(spec, "n")


def test_prior_needs_all_keys():
    with pytest.raises(InputError, match="one of flux, snr"):
        Prior({"n": UNIFORM})


def test_shear_must_stay_below_one():
    config = {"n": UNIFORM, "hlr": UNIFORM, "g": {"kind": "uniform", "low": 0, "high": 1.5}, "snr": UNIFORM}
    with pytest.raises(InputError, match=r"\[0, 1\)"):
        Prior(config)


def test_shear_density_is_two_dimensional():
    config = {"n": UNIFORM, "hlr": UNIFORM, "g": SPECS[3], "flux": UNIFORM}
    prior = Prior(config)
    axis = np.linspace(-0.7, 0.7, 401)
    g1, g2 = np.meshgrid(axis, axis)
    density = np.exp(prior.log_density(1.0, 1.0, 1.0, g1, g2)) * 5.5**3
    assert density.sum() * (axis[1] - axis[0]) ** 2 == pytest.approx(1, abs=0.01)


def test_flux_is_scale_free_when_snr_is_drawn():
    config = {"n": UNIFORM, "hlr": UNIFORM, "g": SPECS[3], "snr": SPECS[1]}
    density = Prior(config).log_density(np.array([1.0, 10.0, -1.0]), 1.0, 1.0, 0.1, 0.0)
    assert density[0] - density[1] == pytest.approx(np.log(10))
    assert density[2] == -np.inf
