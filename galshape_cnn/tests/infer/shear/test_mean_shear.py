# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""Mean shear of catalogues whose measurements are known functions of the shear."""

import numpy as np
import pytest
from astropy.table import Table

from galshape_cnn import mean_shear
from galshape_cnn.errors import InputError
from galshape_cnn.flags import Flag
from galshape_cnn.infer.shear import mean_shear as module
from galshape_cnn.tests.infer.catalog.test_catalog import make_catalog, make_measurement

RESPONSE = np.array([[0.8, 0.02], [-0.03, 0.7]])
GAMMA = np.array([0.02, -0.015])
N = 4000


def sheared_catalog(gamma=GAMMA, n=N, tilt=5.0, seed=3, table=None, flags=None, response=RESPONSE):
    """Galaxies measured as g = R (g_true + gamma), and S/N = s (1 + tilt |g|^2).

    With the partner of each galaxy after a quarter turn, so that shapes average to zero.
    """
    rng = np.random.default_rng(seed)
    shapes = rng.normal(0, 0.15, (n // 2, 2))
    shapes = np.stack([shapes, -shapes], 1).reshape(n, 2) + gamma
    strength = np.repeat(np.exp(rng.uniform(np.log(5), np.log(30), n // 2)), 2)
    sheared = np.zeros((n, 2, 4, 6))
    for copy, sign in enumerate((1, -1)):
        # the copies scatter about their mean by what is not noise of the test: it cancels
        g = shapes @ RESPONSE.T + sign * 0.01
        snr = strength * (1 + tilt * (g**2).sum(1))
        sheared[:, copy, 0] = np.column_stack([100 * strength, 0 * g + [1, 3], g, snr])
        for a in range(2):
            sheared[:, copy, 1 + a, 3:5] = response[:, a]
            sheared[:, copy, 1 + a, 5] = 2 * strength * tilt * (g @ response[:, a])
    measurement = make_measurement(n, sheared=sheared, **({} if flags is None else {"flags": flags}))
    return make_catalog(n, measurement=measurement, table=table)


def errors_of(row):
    return np.sqrt(np.diagonal(row["covariance"]))


def offset(row, gamma=GAMMA):
    """Difference from the truth in standard errors."""
    return (np.array([row["g1"], row["g2"]]) - gamma) / errors_of(row)


def test_mean_shear_of_all_is_exact():
    row = mean_shear(sheared_catalog())[0]
    np.testing.assert_allclose([row["g1"], row["g2"]], GAMMA, rtol=1e-9)
    np.testing.assert_allclose(row["R"], RESPONSE)
    np.testing.assert_allclose(row["R_selection"], 0, atol=1e-12)
    assert row["N"] == N


def bright(table):
    return table["snr"] > 12


def test_selection_on_a_sheared_quantity_is_calibrated():
    row = mean_shear(sheared_catalog(n=20000), bright)[0]
    assert (np.abs(offset(row)) < 3).all(), offset(row)
    # the test can notice: the selection response is many standard errors of the shear
    assert abs(row["R_selection"][0, 0]) > 0.02


def test_selection_response_left_out_is_noticed():
    gamma = np.array([0.1, 0.0])
    high, low = (mean_shear(sheared_catalog(s * gamma, n=20000), bright)[0] for s in (1, -1))
    slope = (high["g1"] - low["g1"]) / 0.2
    total = high["R"] + high["R_selection"]
    without = slope * total[0, 0] / high["R"][0, 0]
    assert abs(slope - 1) < 0.01
    assert abs(without - 1) > 0.02


def test_response_of_another_measurement_is_noticed():
    row = mean_shear(sheared_catalog(response=1.05 * RESPONSE))[0]
    assert row["g1"] / GAMMA[0] == pytest.approx(1 / 1.05)


def test_weights_that_depend_on_shear_are_calibrated():
    gamma = np.array([0.1, 0.0])
    tables = [mean_shear(sheared_catalog(s * gamma, n=20000), weights="snr")[0] for s in (1, -1)]
    slope = (tables[0]["g1"] - tables[1]["g1"]) / 0.2
    assert abs(slope - 1) < 0.01
    assert abs(tables[0]["R_selection"][0, 0]) > 0.005


def test_given_weights_average():
    weights = np.repeat(np.random.default_rng(0).uniform(size=N // 2), 2)
    row = mean_shear(sheared_catalog(), weights=weights)[0]
    np.testing.assert_allclose([row["g1"], row["g2"]], GAMMA, rtol=1e-9)


def test_rows_by_value_and_by_bin():
    table = Table({"field": np.arange(N) * 4 // N})
    cat = sheared_catalog(table=table)
    by_value = mean_shear(cat, by="field")
    assert list(by_value["field"]) == [0, 1, 2, 3]
    np.testing.assert_allclose(by_value["g1"], GAMMA[0], rtol=1e-9)
    by_function = mean_shear(cat, by=lambda t: t["field"] % 2)
    assert list(by_function["N"]) == [N // 2, N // 2]
    bins = mean_shear(cat, by=("snr", [5, 12, 30]))
    assert list(bins["low"]) == [5, 12]
    assert bins["R_selection"][0, 0, 0] < -0.05
    for row in bins:
        assert (np.abs(offset(row)) < 4).all()


@pytest.mark.parametrize("errors", ["jackknife", "bootstrap"])
def test_covariance_agrees_with_the_scatter(errors):
    n, rng = 300, np.random.default_rng(8)
    found, stated = [], []
    for k in range(60):
        cat = sheared_catalog(n=2 * n, seed=k)
        half = rng.permutation(np.arange(0, 2 * n, 2))  # without partners: shape noise stays
        row = mean_shear(cat[half], errors=errors)[0]
        found.append(row["g1"])
        stated.append(row["covariance"][0, 0])
    assert np.mean(stated) / np.var(found) == pytest.approx(1, abs=4 * np.sqrt(2 / 60))


def test_lost_rows_do_not_count():
    flags = np.zeros(N, np.int64)
    flags[:10] = Flag.NOT_MEASURED
    row = mean_shear(sheared_catalog(flags=flags))[0]
    assert row["N"] == N - 10


def test_weights_of_rows_left_out_may_be_anything():
    lost = np.arange(N) < 10
    cat = sheared_catalog(flags=np.where(lost, Flag.NOT_MEASURED, 0))
    row = mean_shear(cat, weights=np.where(lost, np.nan, 1.0))[0]
    assert (row["N"], row["g1"]) == (N - 10, mean_shear(cat)[0]["g1"])
    bright = lambda t: t["snr"] > 12  # noqa: E731
    row = mean_shear(cat, bright, lambda t: np.where(bright(t), 1.0, np.nan))[0]
    assert row["g1"] == mean_shear(cat, bright)[0]["g1"]


def test_empty_groups_are_nan():
    row = mean_shear(sheared_catalog(), lambda t: t["snr"] > 1e9)[0]
    assert row["N"] == 0
    assert np.isnan([row["g1"], *row["covariance"].ravel()]).all()


def test_catalogue_averages_what_it_shows():
    cat = sheared_catalog()
    g, response = np.array([cat.g1.mean(), cat.g2.mean()]), cat.response.mean(0)
    np.testing.assert_allclose(np.linalg.solve(response, g), GAMMA, rtol=1e-9)
    assert cat[:3].response.shape == (3, 2, 2)


def test_step_of_the_selection_does_not_matter(monkeypatch):
    first = mean_shear(sheared_catalog(n=20000), bright)[0]["R_selection"]
    monkeypatch.setattr(module, "_STEP", 0.005)
    second = mean_shear(sheared_catalog(n=20000), bright)[0]["R_selection"]
    np.testing.assert_allclose(first, second, atol=0.01)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"select": "snr > 12"}, "select is a str"),
        ({"select": lambda t: t["snr"]}, "select returned"),
        ({"weights": "depth"}, "weights='depth'"),
        ({"weights": [1, 2]}, "weights have shape"),
        ({"weights": lambda t: -t["snr"]}, "weights of 40 selected rows are .*negative"),
        ({"weights": np.r_[np.nan, np.ones(39)]}, "weights of 1 selected rows are NaN"),
        ({"weights": np.ma.array(np.ones(40), mask=np.arange(40) < 2)}, "weights of 2 selected rows are NaN"),
        ({"weights": lambda t: np.where(t["g1"] > 5, 1, np.inf)}, "weights of 40 selected .* infinite"),
        ({"by": "depth"}, "by: 'depth'"),
        ({"by": ("snr", [3, 2])}, "do not increase"),
        ({"by": 3}, "by=3"),
        ({"by": ("snr", ["a", "b"])}, "by: edges holds no numbers"),
        ({"weights": ["a"] * 40}, "weights holds no numbers"),
        ({"errors": "poisson"}, "errors='poisson'"),
    ],
)
def test_unusable_arguments(arguments, message):
    with pytest.raises(InputError, match=message):
        mean_shear(sheared_catalog(n=40), **arguments)


def test_columns_say_what_they_are():
    table = mean_shear(
        sheared_catalog(n=40), psf_shape=np.arange(80.0).reshape(40, 2), by=("snr", [0, 50, 1000])
    )
    assert all(table[name].info.description for name in table.colnames)


def test_catalogue_without_response_is_refused():
    with pytest.raises(InputError, match="shear_response=True"):
        mean_shear(make_catalog(3))
