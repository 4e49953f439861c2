# Licensed under a 3-clause BSD style license - see LICENSE.rst
import astropy.units as u
import numpy as np
import pytest
from astropy.table import QTable

from galshape_cnn.errors import InputError
from galshape_cnn.infer.catalog.columns import SHAPE_PARAMETERS
from galshape_cnn.study.report.compare import error_columns, match_truth, pull_statistics, pulls

SIGMA = {"flux": 2.0, "n": 0.1, "hlr": 0.01, "g1": 0.02, "g2": 0.02}


def tables(n=4000, honesty=1.0, suffix="std", seed=1):
    """Measured and true values; errors reported are ``honesty`` times the real ones."""
    rng = np.random.default_rng(seed)
    truth = QTable({"id": np.arange(n)} | {name: rng.uniform(1, 2, n) for name in SHAPE_PARAMETERS})
    table = QTable({"id": np.arange(n)})
    for name, sigma in SIGMA.items():
        table[name] = np.asarray(truth[name]) + rng.normal(0, sigma, n)
        for other in ("err", "std"):
            table[f"{name}_{other}"] = np.full(n, honesty * sigma if other == suffix else np.nan)
    return table, truth


def test_honest_errors_give_unit_pulls():
    statistics = pull_statistics(*tables())
    np.testing.assert_allclose(statistics["pull_std"], 1, atol=5 / np.sqrt(8000))
    np.testing.assert_allclose(statistics["pull_mean"], 0, atol=5 / np.sqrt(4000))
    np.testing.assert_allclose(statistics["within_1"], 0.683, atol=0.04)


def test_overconfident_errors_are_noticed():
    statistics = pull_statistics(*tables(honesty=0.5))
    assert (statistics["pull_std"] > 1.8).all()
    assert (statistics["within_1"] < 0.45).all()


def test_bounds_serve_where_there_is_no_posterior():
    table, truth = tables(suffix="err")
    assert error_columns(table) == "err"
    assert np.std(pulls(table, truth)["g1"]) == pytest.approx(1, abs=0.06)


def test_units_are_converted():
    table, truth = tables(10)
    plain = pulls(table, truth)["hlr"]
    for name in ("hlr", "hlr_std", "hlr_err"):
        table[name] = table[name] * u.arcsec
    truth["hlr"] = (truth["hlr"] * u.arcsec).to(u.arcmin)
    np.testing.assert_allclose(pulls(table, truth)["hlr"], plain, rtol=1e-9)


def test_truth_is_matched_by_identifier():
    table, truth = tables(5)
    shuffled = truth[[3, 1, 4, 0, 2]]
    np.testing.assert_array_equal(match_truth(table, shuffled)["g1"], truth["g1"])
    with pytest.raises(InputError, match=r"truth has no row for id .*2.* \(and 1 others\)"):
        match_truth(table, truth[[0, 1, 3]])


def test_all_nan_is_not_an_error():
    table, truth = tables(3)
    table["g1"] = np.nan
    row = pull_statistics(table, truth)[3]
    assert row["number"] == 0
    assert np.isnan(row["bias"])
