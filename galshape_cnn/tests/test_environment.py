# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""Settings made for a while: variables of the environment, and how often garbage is looked for."""

import gc
import os
from types import SimpleNamespace

import pytest

from galshape_cnn import environment as environment_module
from galshape_cnn.cli import _rare_collections
from galshape_cnn.environment import environment, keep_freed_memory, keep_to_core, unset_of

VALUES = {"GALSHAPE_TEST_OWN": "1", "GALSHAPE_TEST_NEW": "2"}


@pytest.fixture
def own(monkeypatch):
    monkeypatch.setenv("GALSHAPE_TEST_OWN", "the user's")
    monkeypatch.delenv("GALSHAPE_TEST_NEW", raising=False)


@pytest.mark.usefixtures("own")
def test_what_the_user_has_set_stays():
    assert unset_of(VALUES) == {"GALSHAPE_TEST_NEW": "2"}
    with environment(VALUES):
        assert (os.environ["GALSHAPE_TEST_OWN"], os.environ["GALSHAPE_TEST_NEW"]) == ("the user's", "2")
    assert os.environ["GALSHAPE_TEST_OWN"] == "the user's"
    assert "GALSHAPE_TEST_NEW" not in os.environ


@pytest.mark.usefixtures("own")
def test_variables_go_after_a_failure_too():
    with pytest.raises(KeyError), environment(VALUES):
        raise KeyError
    assert "GALSHAPE_TEST_NEW" not in os.environ


def test_garbage_is_looked_for_less_often_only_meanwhile():
    usual = gc.get_threshold()
    with _rare_collections():
        assert gc.get_threshold()[0] > 10 * usual[0]
    assert gc.get_threshold() == usual
    with pytest.raises(KeyError), _rare_collections():
        raise KeyError
    assert gc.get_threshold() == usual


def test_freed_memory_is_kept_where_the_c_library_can(monkeypatch):
    told = []
    library = SimpleNamespace(mallopt=lambda *option: told.append(option))
    monkeypatch.setattr(environment_module.ctypes, "CDLL", lambda name: library)
    monkeypatch.setattr(environment_module.sys, "platform", "linux")
    keep_freed_memory()
    assert {(-1, 2**30), (-4, 0)} <= set(told)  # M_TRIM_THRESHOLD, M_MMAP_MAX
    told.clear()
    monkeypatch.setattr(environment_module.ctypes, "CDLL", lambda name: SimpleNamespace())
    keep_freed_memory()
    monkeypatch.setattr(environment_module.sys, "platform", "darwin")
    monkeypatch.setattr(environment_module.ctypes, "CDLL", lambda name: library)
    keep_freed_memory()
    assert not told


@pytest.mark.parametrize(
    ("cores", "count", "expected"),
    [({4, 2}, 2, [{2}, {4}]), ({1, 2, 3}, 2, [None, None]), ({3}, 1, [None]), ({3}, 2, [None, None])],
)
def test_processes_that_take_all_cores_get_one_each(monkeypatch, cores, count, expected):
    bound = []
    system = environment_module.os
    monkeypatch.setattr(system, "sched_getaffinity", lambda _: cores, raising=False)
    monkeypatch.setattr(system, "sched_setaffinity", lambda _, own: bound.append(set(own)), raising=False)
    monkeypatch.setattr(system, "listdir", lambda _: ["1"])
    for index in range(count):
        keep_to_core(index, count)()
    assert bound == [own for one in expected if one for own in (one, cores)]


def test_nothing_is_bound_where_the_system_cannot(monkeypatch):
    monkeypatch.delattr(environment_module.os, "sched_setaffinity", raising=False)
    keep_to_core(0, 2)()


def test_a_system_that_forbids_binding_is_obeyed(monkeypatch):
    def refuse(thread, cores):
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(environment_module.os, "sched_getaffinity", lambda _: {0, 1}, raising=False)
    monkeypatch.setattr(environment_module.os, "sched_setaffinity", refuse, raising=False)
    keep_to_core(1, 2)()
