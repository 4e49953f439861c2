# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""Docstrings: public names are explained with an example that runs, all names with their arguments."""

import importlib
import inspect
import pkgutil

import pytest
from numpydoc.docscrape import NumpyDocString
from numpydoc.validate import validate

import galshape_cnn
from galshape_cnn.infer.catalog.columns import COLUMN_DEFINITIONS

# What scripts may rely on: these modules, and nothing below them.
HOMES = ("galshape_cnn", "galshape_cnn.scale", "galshape_cnn.flags", "galshape_cnn.geometry")
MODULES = {name: importlib.import_module(name) for name in HOMES}
PUBLIC = [
    f"{name}.{attribute}"
    for name, module in MODULES.items()
    for attribute in module.__all__
    if callable(getattr(module, attribute))
]
PUBLIC += ["galshape_cnn.cli.main"]
# Made by an estimator, not by a user: its fields are attributes, and no parameters.
NOT_CONSTRUCTED = {"galshape_cnn.ShapeCatalog"}

# numpydoc's codes: a docstring with a summary that is a sentence; the signature's parameters, each with a
# description; a return value; sections in order and of the right form.
COMPLETE = {"GL05", "GL06", "GL07", "GL08", "SS01", "SS03", "PR01", "PR02", "PR03", "PR05", "PR07"}
COMPLETE |= {"PR09", "PR10", "RT01", "RT05", "YD01"}


def members():
    """Functions and classes that the modules of the package offer, by dotted name."""
    for module in pkgutil.walk_packages(galshape_cnn.__path__, "galshape_cnn."):
        if ".tests" in module.name or module.name.endswith(("conftest", "._kernel")):
            continue  # the last is a library of C functions, no module of Python
        loaded = importlib.import_module(module.name)
        for name in getattr(loaded, "__all__", ()):
            if callable(value := getattr(loaded, name)) and value.__module__ == module.name:
                yield f"{module.name}.{name}", value


MEMBERS = dict(members())


def public_methods():
    """Methods and properties of the public classes, but for the columns, which are made from a list."""
    columns = {definition.name for definition in COLUMN_DEFINITIONS}
    for name in PUBLIC:
        module, _, own = name.rpartition(".")
        value = getattr(importlib.import_module(module), own)
        for attribute, member in vars(value).items() if isinstance(value, type) else ():
            explained = callable(member) or isinstance(member, classmethod | staticmethod | property)
            if explained and not attribute.startswith("_") and attribute not in columns:
                yield f"{name}.{attribute}"


def problems(name, codes):
    """What numpydoc finds wrong, of the given codes."""
    return [f"{code}: {text}" for code, text in validate(name)["errors"] if code in codes]


def mismatch(value):
    """Documented parameters that the signature lacks."""
    documented = NumpyDocString(inspect.getdoc(value))["Parameters"]
    names = [name.strip("* ") for entry in documented for name in entry.name.split(",")]
    return [name for name in names if name not in inspect.signature(value).parameters] if names else []


@pytest.mark.parametrize("name", sorted(MEMBERS))
def test_every_name_is_explained_with_its_own_arguments(name):
    docstring = MEMBERS[name].__doc__
    assert docstring
    assert docstring.strip().partition("\n")[0].endswith((".", ":", "?"))
    assert mismatch(MEMBERS[name]) == []


@pytest.mark.parametrize("name", PUBLIC)
def test_public_name_is_documented(name):
    assert problems(name, COMPLETE - ({"PR01"} if name in NOT_CONSTRUCTED else set())) == []


@pytest.mark.parametrize("name", PUBLIC)
def test_public_name_has_an_example_that_runs(name):
    module, _, attribute = name.rpartition(".")
    docstring = inspect.getdoc(getattr(importlib.import_module(module), attribute))
    example = NumpyDocString(docstring)["Examples"]
    code = [line for line in example if line.startswith(">>>")]
    assert len(code) >= 2
    assert not any("SKIP" in line for line in code)


@pytest.mark.parametrize("name", list(public_methods()))
def test_public_method_is_documented(name):
    assert problems(name, {"GL08", "SS01", "PR02", "PR03", "PR10"}) == []


def test_a_bad_docstring_is_noticed():
    assert problems("galshape_cnn.tests.test_docstrings.badly_documented", COMPLETE) != []
    assert mismatch(badly_documented) == ["y"]


def badly_documented(x):
    """no capital, no end

    Parameters
    ----------
    y : float
        Not an argument.
    """
    return x
