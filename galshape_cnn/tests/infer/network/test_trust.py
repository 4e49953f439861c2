# Licensed under a 3-clause BSD style license - see LICENSE.rst
from dataclasses import replace

import asdf
import numpy as np
import pytest
from astropy.table import Table

from galshape_cnn.errors import BundleError, InputError
from galshape_cnn.flags import Flag
from galshape_cnn.infer.catalog.columns import SHAPE_PARAMETERS
from galshape_cnn.infer.network.bundle import Bundle
from galshape_cnn.infer.network.trust import AXES, check_region, is_trusted
from galshape_cnn.study.validate.benchmark_prior import PREFIXES
from galshape_cnn.study.validate.trust_region import EDGES, find_region, region_of, trusted_share
from galshape_cnn.tests.infer.network.test_bundle import small_bundle

CELLS = {"snr": [5, 20, 1000], "hlr_over_fwhm": [0, 0.5, 10], "n": [0.3, 6.2]}
REGION = {"ml": CELLS | {"trusted": [[[0], [0]], [[0], [1]]]}}


def test_cells():
    snr, ratio = np.array([10, 100, 100, 2000, np.nan]), np.array([1, 1, 0.2, 20, 1])
    trusted = is_trusted(REGION, "ml", snr, ratio, np.full(5, 2.0))
    np.testing.assert_array_equal(trusted, [False, True, False, True, False])
    np.testing.assert_array_equal(
        is_trusted(REGION, "network", snr, ratio, np.full(5, 2.0)), np.isfinite(snr)
    )


@pytest.mark.parametrize(
    ("cells", "message"),
    [
        ({k: v for k, v in REGION["ml"].items() if k != "n"}, "'ml' is malformed"),
        (CELLS | {"trusted": [[[1]], [[1]]]}, r"has \(2, 1, 1\) cells and edges for \(2, 2, 1\)"),
        (CELLS | {"snr": [5, 5, 6], "trusted": REGION["ml"]["trusted"]}, "cells and edges"),
        (CELLS | {"trusted": "all"}, "malformed"),
    ],
)
def test_malformed_regions(cells, message):
    with pytest.raises(InputError, match=message):
        check_region({"ml": cells})


def galaxies(n=6000, bias=0.0, seed=1):
    """Honest posteriors, but for a bias at S/N below 20."""
    rng = np.random.default_rng(seed)
    columns = {}
    for prefix in PREFIXES.values():
        snr = np.exp(rng.uniform(np.log(5), np.log(1000), n))
        columns |= {f"{prefix}m_snr": snr, f"{prefix}m_hlr_over_fwhm": rng.uniform(0, 3, n)}
        columns |= {f"{prefix}m_n": rng.uniform(0.3, 6.2, n)}
        columns |= {f"{prefix}flags": np.where(rng.uniform(size=n) < 0.1, Flag.EDGE, 0)}
        for name in SHAPE_PARAMETERS:
            pull = rng.normal(size=n) + np.where(snr < 20, bias, 0)
            columns |= {f"{prefix}error_{name}": 0.1 * pull, f"{prefix}std_{name}": np.full(n, 0.1)}
    return Table(columns)


def test_honest_posteriors_are_trusted():
    table = find_region(galaxies())
    assert np.mean(table["trusted"]) > 0.99
    assert all(share > 0.99 for share in trusted_share(galaxies(), table).values())


def test_a_bias_is_found_where_it_is():
    table = find_region(galaxies(bias=0.9))
    region = region_of(table)
    check_region(region)
    for method in PREFIXES:
        for snr, expected in ((7, False), (15, False), (30, True), (500, True)):
            assert is_trusted(region, method, [snr], [0.7], [1.0])[0] == expected


def test_flagged_galaxies_do_not_count():
    table = galaxies(bias=0.9)
    for prefix in PREFIXES.values():
        table[f"{prefix}flags"][table[f"{prefix}m_snr"] < 20] = Flag.LOW_SNR
    found = find_region(table)
    faint = found["snr"] < 20
    assert np.all(found["number"][faint] == 0)
    assert not np.any(found["trusted"][faint])


def test_few_galaxies_decide_together():
    table = find_region(galaxies(n=400))
    assert {1, 2, 3} & set(table["level"])
    assert np.all(table["number"][table["level"] > 0] >= 20)
    assert len(table) == len(PREFIXES) * np.prod([len(EDGES[axis]) - 1 for axis in AXES])


@pytest.fixture
def bundle():
    return small_bundle()


def test_bundle_keeps_the_region(bundle, tmp_path):
    trusting = replace(bundle, trust=REGION)
    assert trusting.sha256 == bundle.sha256  # the same network
    trusting.write(tmp_path / "b.asdf")
    assert Bundle.read(tmp_path / "b.asdf").trust == REGION
    bundle.write(tmp_path / "old.asdf")  # as files written before there was a region
    assert Bundle.read(tmp_path / "old.asdf").trust == {}


def test_changed_region_is_noticed(bundle, tmp_path):
    path = tmp_path / "b.asdf"
    replace(bundle, trust=REGION).write(path)
    with asdf.open(path, memmap=False, lazy_load=False) as file:
        tree = dict(file.tree)
    tree["trust"]["ml"]["trusted"] = [[[1], [1]], [[1], [1]]]
    asdf.AsdfFile(tree).write_to(path)
    with pytest.raises(BundleError, match="region of trust does not match its hash"):
        Bundle.read(path)
