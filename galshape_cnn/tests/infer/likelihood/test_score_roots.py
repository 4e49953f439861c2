# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""Roots of the covariances of scores."""

import numpy as np

from galshape_cnn.infer.likelihood.structure import score_roots


def test_a_galaxy_without_a_model_has_no_score_and_harms_no_other():
    rng = np.random.default_rng(1)
    half = rng.normal(size=(3, 5, 5))
    covariance, fisher = half @ np.swapaxes(half, 1, 2), np.tile(np.eye(5), (3, 1, 1))
    alone = score_roots([(np.array([0, 2]), covariance[[0, 2]])], fisher, np.ones(3, bool))[0]
    covariance[1, 2, 3] = np.nan
    roots = score_roots([(np.arange(3), covariance)], fisher, np.ones(3, bool))[0]
    assert not roots[1].any()
    assert np.array_equal(roots[[0, 2]], alone)
    np.testing.assert_allclose(roots[0] @ roots[0].T, covariance[0], atol=1e-12)


def test_galaxies_in_which_nothing_is_seen_have_no_roots():
    half = np.random.default_rng(2).normal(size=(3, 5, 5))
    covariance, fisher = half @ np.swapaxes(half, 1, 2), np.tile(np.eye(5), (3, 1, 1))
    seen = np.array([True, False, True])
    some, every = (score_roots([(np.arange(3), covariance)], fisher, one)[0] for one in (seen, seen | True))
    assert not some[1].any()
    assert every[1].any()
    assert np.array_equal(some[seen], every[seen])
