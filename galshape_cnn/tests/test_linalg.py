# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""Many small matrices: no number depends on the others in the array."""

import numpy as np
import pytest

from galshape_cnn.infer.catalog.placement import derived_errors
from galshape_cnn.linalg import quadratic_form, symmetric_root


@pytest.mark.parametrize("size", [2, 3, 6])
def test_a_quadratic_form_does_not_depend_on_its_company(size):
    rng = np.random.default_rng(size)
    matrices = rng.normal(size=(200, 8, 8))[:, :size, -size:]  # as parts of larger ones, which they often are
    vectors = rng.normal(size=(200, size))
    forms = quadratic_form(matrices, vectors)
    expected = [v @ m @ v for m, v in zip(matrices, vectors, strict=True)]
    np.testing.assert_allclose(forms, expected, rtol=1e-9, atol=1e-12)
    for start in range(0, 200, 7):
        part = slice(start, start + 1 + start % 11)
        np.testing.assert_array_equal(quadratic_form(matrices[part], vectors[part]), forms[part])


def test_a_quadratic_form_does_not_depend_on_the_layout():
    """A single row picked from an array may lie in memory in another order than several."""
    rng = np.random.default_rng(4)
    matrices, vectors, own = rng.normal(size=(60, 7, 7)), rng.normal(size=(60, 7)), [0, 3, 4, 5, 6]
    whole = quadratic_form(matrices[:, own][:, :, own], vectors[:, own])
    for row in range(60):
        part = slice(row, row + 1)
        alone = quadratic_form(matrices[part][:, own][:, :, own], vectors[part][:, own])
        np.testing.assert_array_equal(alone, whole[part])


def test_errors_of_axis_ratio_and_angle_do_not_depend_on_their_company():
    rng = np.random.default_rng(1)
    params = np.column_stack([rng.uniform(1, 2, (200, 3)), rng.uniform(-0.5, 0.5, (200, 2))])
    roots = rng.normal(size=(200, 5, 5))
    covariance = roots @ np.swapaxes(roots, 1, 2)
    whole = derived_errors(params, covariance)
    for start in range(0, 200, 3):
        part = slice(start, start + 1 + start % 5)
        for name, values in derived_errors(params[part], covariance[part]).items():
            np.testing.assert_array_equal(values, whole[name][part], err_msg=name)


def test_symmetric_roots_and_what_has_none():
    factors = np.random.default_rng(2).normal(size=(50, 5, 5))
    covariances = factors @ np.swapaxes(factors, 1, 2)
    roots = symmetric_root(covariances)
    np.testing.assert_allclose(roots, np.swapaxes(roots, 1, 2), atol=1e-12)
    np.testing.assert_allclose(roots @ roots, covariances, rtol=1e-9, atol=1e-9)
    np.testing.assert_array_equal(symmetric_root(covariances[7]), roots[7])
    np.testing.assert_allclose(symmetric_root(np.diag([4.0, -1.0])), np.diag([2.0, 0.0]), atol=1e-12)
