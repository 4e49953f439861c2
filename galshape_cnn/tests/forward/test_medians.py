# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""Medians of rows, by the kernel and by NumPy: those of `numpy.median`, to the last bit."""

import numpy as np
import pytest

from galshape_cnn.forward.kernel.library import KERNEL_VARIABLE, instructions
from galshape_cnn.forward.medians import row_medians


@pytest.fixture(params=["off", *instructions()])
def chosen(request, monkeypatch):
    """Each set of instructions, and none."""
    monkeypatch.setenv(KERNEL_VARIABLE, request.param)


def values(count, kind=np.float32):
    return np.random.default_rng(count).normal(size=(5, count)).astype(kind)


@pytest.mark.parametrize("count", [1, 2, 3, 16, 17, 127, 2520])
@pytest.mark.parametrize("kind", [np.float32, np.float64])
def test_they_are_the_medians(chosen, count, kind):
    rows = values(count, kind)
    found = row_medians(rows)
    assert found.dtype == kind
    np.testing.assert_array_equal(found, np.median(rows, axis=1).astype(kind))


@pytest.mark.parametrize(
    ("row", "median"),
    [
        ([3.0, 3.0, 3.0, 3.0], 3.0),
        ([0.0, -0.0, 0.0, -0.0], 0.0),
        ([-5.0, -1e-30, 1e30, np.inf], 5e29),
        ([-np.inf, -2.0, -1.0], -2.0),
        ([1.0, 1.0, 2.0, 2.0], 1.5),
    ],
)
def test_ties_signs_and_infinities(chosen, row, median):
    assert row_medians(np.array([row], np.float32))[0] == np.float32(median)


def test_what_does_not_count_is_left_out(chosen):
    rows = values(40)
    good = np.ones(rows.shape, bool)
    good[1, ::3], good[2, 16:], good[3, 15:] = False, False, False
    found = row_medians(rows, good)
    assert found[0] == np.median(rows[0])
    assert found[1] == np.sort(rows[1][good[1]])[12]  # of 26 the thirteenth
    assert found[2] == np.sort(rows[2, :16])[7]
    assert np.isnan(found[3])
    assert found[4] == np.median(rows[4])


def test_rows_do_not_know_each_other(chosen):
    rows = values(300)
    good = rows > -1
    alone = [row_medians(rows[k : k + 1], good[k : k + 1])[0] for k in range(len(rows))]
    np.testing.assert_array_equal(row_medians(rows, good), alone)
