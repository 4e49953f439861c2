# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""The walls of the package: who may import whom, what loads when, how long a module may be."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import galshape_cnn
from galshape_cnn.tests.layers import FOUNDATION, LAYERS

ROOT = Path(galshape_cnn.__file__).parent
ORDER = [*FOUNDATION, *LAYERS]
OUTSIDE = {"__init__", "_version", "conftest", "tests"}
MAX_LINES = 400
HEAVY = ["keras", "jax", "tensorflow", "torch", "galsim", "dask", "distributed", "matplotlib", "photutils"]


def module_files():
    """Files of the package proper, by dotted name relative to the package."""
    files = {}
    for path in sorted(ROOT.rglob("*.py")):
        parts = path.relative_to(ROOT).with_suffix("").parts
        if parts[0] not in OUTSIDE:
            files[".".join(parts)] = path
    return files


MODULES = module_files()


def imported_modules(source, name):
    """Names, relative to the package, that a module imports anywhere, functions included."""
    package = ["galshape_cnn", *name.split(".")[:-1]]
    found = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else []
            stem = ".".join([*base, *([node.module] if node.module else [])])
            found |= {f"{stem}.{alias.name}" for alias in node.names}
    inside = {module.removeprefix("galshape_cnn.") for module in found if module.startswith("galshape_cnn.")}
    homes = galshape_cnn._HOMES  # a public name stands for the module it is loaded from
    return {homes.get(module, module) for module in inside if not module.startswith("_")}


def upward_imports(source, name, layers=ORDER):
    """Imports of a module that lead to a higher layer, or to none."""
    own = layers.index(name.split(".")[0])
    tops = {module: module.split(".")[0] for module in imported_modules(source, name)}
    return sorted(module for module, top in tops.items() if top not in layers or layers.index(top) > own)


@pytest.mark.parametrize("name", MODULES)
def test_every_module_has_a_layer(name):
    top = name.split(".")[0]
    assert top in ORDER, f"{name}: give it a place in galshape_cnn/tests/layers.py"


@pytest.mark.parametrize("name", MODULES)
def test_imports_only_from_its_layer_and_below(name):
    assert upward_imports(MODULES[name].read_text(), name) == []


@pytest.mark.parametrize(
    "source",
    [
        "from galshape_cnn.infer.likelihood.fisher import snr",
        "import galshape_cnn.infer.likelihood.fisher",
        "from galshape_cnn import infer",
        "def f():\n    from galshape_cnn.infer import fisher",
        "from ..infer import fisher",
        "from .. import infer",
        "from galshape_cnn import ShapeEstimator",
        "from galshape_cnn import nonsense",
    ],
)
def test_upward_import_is_noticed(source):
    assert upward_imports(source, "forward.render")


@pytest.mark.parametrize(
    "source",
    [
        "from galshape_cnn.forward.psf.convert import x",
        "from ..errors import InputError",
        "from .psf import x",
        "from galshape_cnn import __version__, PSFConvolvedSersic2D",
        "import numpy",
    ],
)
def test_downward_import_is_allowed(source):
    assert upward_imports(source, "forward.render") == []


def test_no_module_imports_itself_in_a_circle():
    def targets(name):
        """Modules of the package behind the imported names (``a.b.function`` -> ``a.b``)."""
        for imported in imported_modules(MODULES[name].read_text(), name):
            for candidate in (imported, imported.rpartition(".")[0]):
                if candidate in MODULES and candidate != name:
                    yield candidate
                    break

    graph = {name: set(targets(name)) for name in MODULES}
    while leaves := {name for name, below in graph.items() if not below & graph.keys()}:
        graph = {name: below for name, below in graph.items() if name not in leaves}
    assert not graph, f"circular imports among {sorted(graph)}"


@pytest.mark.parametrize("name", MODULES)
def test_module_is_not_too_long(name):
    assert len(MODULES[name].read_text().splitlines()) <= MAX_LINES


@pytest.mark.parametrize("name", MODULES)
def test_nothing_is_validated_by_assert(name):
    tree = ast.parse(MODULES[name].read_text())
    assert [node.lineno for node in ast.walk(tree) if isinstance(node, ast.Assert)] == []


def run(code):
    """Run code in a new interpreter that finds the same package; return what it printed."""
    code = f"import sys; sys.path.insert(0, {str(ROOT.parent)!r})\n{code}"
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", code], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stderr
    return done


def test_import_loads_nothing_heavy_and_says_nothing():
    done = run(f"import galshape_cnn\nprint([m for m in {HEAVY} if m in sys.modules])")
    assert done.stdout.strip() == "[]"
    assert done.stderr == ""


def test_import_has_no_side_effects():
    code = """
import logging, os, warnings
def state():
    return dict(os.environ), warnings.filters[:], logging.root.handlers[:], logging.root.level
before = state()
import galshape_cnn, galshape_cnn.errors
print(before == state())
"""
    assert run(code).stdout.strip() == "True"


def test_import_is_quick():
    code = "import time; t = time.perf_counter(); import galshape_cnn; print(time.perf_counter() - t)"
    assert min(float(run(code).stdout) for _ in range(3)) < 0.5  # 2 ms when idle; NumPy alone would be 100


def test_public_names_are_listed_before_they_are_loaded():
    code = "import galshape_cnn as g; print({*g.__all__} <= {*dir(g)}, "
    code += "any(m.startswith('galshape_cnn.infer') for m in sys.modules))"
    assert run(code).stdout.split() == ["True", "False"]


@pytest.mark.parametrize("name", galshape_cnn.__all__)
def test_public_name_exists(name):
    assert getattr(galshape_cnn, name) is not None


def test_unknown_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="module 'galshape_cnn' has no attribute 'nonsense'"):
        _ = galshape_cnn.nonsense
