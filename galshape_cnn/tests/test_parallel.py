# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""BLAS keeps to one thread while galaxies are measured, whoever asks for it."""

import threading

import numpy as np
import pytest
from threadpoolctl import ThreadpoolController

from galshape_cnn import ShapeEstimator
from galshape_cnn.observe.detect import centroids
from galshape_cnn.parallel import one_blas_thread


def counts():
    """Threads of each BLAS that is loaded."""
    import scipy.linalg  # noqa: F401

    return [one.num_threads for one in ThreadpoolController().select(user_api="blas").lib_controllers]


@pytest.fixture
def several():
    """BLAS set to two threads, by the main thread, for the time of a test."""
    before = ThreadpoolController().limit(limits=2, user_api="blas")
    yield
    before.restore_original_limits()


def in_thread(function):
    found = []
    thread = threading.Thread(target=lambda: found.append(function()))
    thread.start()
    thread.join()
    return found[0]


def test_any_thread_may_ask_and_the_last_sets_it_back(several):
    before = counts()
    assert before

    def inside():
        with one_blas_thread():
            return counts()

    assert set(inside()) == {1}
    assert counts() == before
    assert set(in_thread(inside)) == {1}
    assert counts() == before
    with one_blas_thread():
        assert set(in_thread(inside)) == {1}
        assert set(counts()) == {1}
    assert counts() == before


@pytest.mark.parametrize("run", [lambda function: function(), in_thread])
def test_estimators_recentre_on_one_thread_too(several, monkeypatch, run):
    seen, find = [], centroids.find_centers

    def spy(*args, **keywords):
        seen.append(counts())
        return find(*args, **keywords)

    monkeypatch.setattr("galshape_cnn.observe.observation.find_centers", spy)
    image = np.random.default_rng(1).normal(size=(1, 64, 64))
    image[0] += 20 * np.exp(-(np.mgrid[-32:32, -32:32] ** 2).sum(0) / 20)
    psf = np.exp(-(np.mgrid[-9:10, -9:10] ** 2).sum(0) / 5.0)
    run(lambda: ShapeEstimator()(image, psf=psf, error=1.0))
    assert len(seen) == 1
    assert set(seen[0]) == {1}
