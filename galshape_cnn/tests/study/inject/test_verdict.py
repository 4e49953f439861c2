# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""What an injection says, told to tables whose answer is known: wrong ones must fail."""

import numpy as np
import pytest
from astropy.table import QTable

from galshape_cnn.flags import Flag
from galshape_cnn.infer.catalog.columns import SHAPE_PARAMETERS
from galshape_cnn.study.inject.results import tables_of
from galshape_cnn.study.inject.summary import flag_costs, is_right, is_wrong, reference_of
from galshape_cnn.study.validate.criteria import passed

N = 800
SIGMA = {"flux": 40.0, "n": 0.3, "hlr": 0.2, "g1": 0.05, "g2": 0.05}
TRUTH = {"flux": 1000.0, "n": 2.0, "hlr": 3.0, "g1": 0.1, "g2": -0.1}


def honest(quality=True, seed=1):
    """A table as `inject` returns it, of a measurement with Gaussian errors as stated."""
    rng = np.random.default_rng(seed)
    table = QTable({"id": np.arange(1, N + 1), "kind": np.full(N, "sersic"), "truth": np.full(N, "exact")})
    table["true_snr"], table["psf_fwhm"] = rng.uniform(10, 300, N), np.full(N, 4.0)
    table["n_near"], table["contamination"] = rng.integers(0, 6, N), rng.normal(scale=0.03, size=N)
    for name in SHAPE_PARAMETERS:
        table[f"true_{name}"] = np.full(N, TRUTH[name])
        table[f"best_{name}"] = np.full(N, np.nan)
        table[name] = TRUTH[name] + SIGMA[name] * rng.normal(size=N)
        table[f"{name}_err"], table[f"{name}_std"] = np.full(N, SIGMA[name]), np.full(N, np.nan)
    table["found"], table["flags"] = np.ones(N, bool), np.zeros(N, int)
    if quality:
        table["quality"] = np.zeros(N, int)
    return table


def failed(table):
    verdict = tables_of(table)["verdict"]
    return [row["check"] for row in verdict if not row["passed"]]


@pytest.mark.parametrize("quality", [True, False])
@pytest.mark.parametrize("seed", [1, 2, 3])
def test_honest_measurement_passes(quality, seed):
    assert failed(honest(quality, seed)) == []


@pytest.mark.parametrize(
    ("spoil", "check"),
    [
        (lambda t: t["hlr"].__iadd__(0.3 * SIGMA["hlr"]), "median error / stated sigma"),
        (lambda t: t["n_err"].__imul__(0.7), "68 % intervals cover"),
        (lambda t: t["g1_err"].__imul__(1.4), "central width"),
        (lambda t: t["flux"].__setitem__(slice(0, 60), 5000.0), "rows wrong by 5 sigma (quality 0)"),
        (lambda t: t["hlr"].__setitem__(slice(0, 40), np.nan), "galaxies found that have an answer"),
        (lambda t: t["quality"].__setitem__(slice(0, 150), 1), "right rows that have quality 0"),
        (lambda t: t["found"].__setitem__(t["true_snr"] > 250, False), "galaxies of S/N above 30 found"),
    ],
)
def test_wrong_measurement_fails(spoil, check):
    table = honest()
    spoil(table)
    assert any(check in one for one in failed(table)), failed(table)
    assert not passed(tables_of(table)["verdict"])


def test_wrong_rows_that_quality_marks_are_no_failure_and_those_it_misses_are():
    table = honest()
    table["n"][:40] = 6.0
    assert "rows wrong by 5 sigma that have quality 1 or 2" in failed(table)
    table["quality"][:40] = 2
    assert failed(table) == []


def test_errors_of_posteriors_are_used_where_there_are_any():
    table = honest()
    for name in SHAPE_PARAMETERS:
        table[f"{name}_std"], table[f"{name}_err"] = table[f"{name}_err"].copy(), 5 * table[f"{name}_err"]
    assert failed(table) == []


def test_galaxies_without_parameters_of_their_own_are_compared_with_their_best_fit():
    table = honest()
    table["truth"] = np.array(["exact", "best fit"]).repeat(N // 2)
    for name in SHAPE_PARAMETERS:
        table[f"best_{name}"][N // 2 :] = table[f"true_{name}"][N // 2 :]
        table[f"true_{name}"][N // 2 :] = np.nan
    np.testing.assert_allclose(reference_of(table)["hlr"], TRUTH["hlr"])
    assert failed(table) == []


def test_costs_and_catches_are_counted():
    table = honest()
    right = is_right(table)
    table["n"][:10] = 6.0
    wrong = is_wrong(table)
    assert wrong.sum() == 10
    table["flags"][:8] = Flag.POOR_FIT
    table["flags"][10:110] |= Flag.NEIGHBOR
    costs = {row["flag"]: row for row in flag_costs(table)}
    assert costs["POOR_FIT"]["of_wrong"] == pytest.approx(0.8)
    assert costs["POOR_FIT"]["of_right"] == 0
    now_right = right & (np.arange(N) >= 10)
    assert costs["NEIGHBOR"]["of_right"] == pytest.approx(now_right[:110].sum() / now_right.sum())
    assert costs["any"]["all"] == pytest.approx(108 / N)


def test_a_row_without_number_or_error_is_wrong():
    table = honest()
    table["g2"][0], table["g2_err"][1] = np.nan, np.nan
    assert is_wrong(table)[:2].all()
