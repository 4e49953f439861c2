# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""Write one reference page for each layer of the package, so that no module can be forgotten."""

import ast
from pathlib import Path

from galshape_cnn.tests.layers import FOUNDATION, LAYERS

PAGES = [layer for layer in LAYERS if layer != "cli"]


def module_names(root, layer):
    """Dotted names of the modules of a layer, inside the package."""
    paths = (path.relative_to(root) for path in sorted((root / layer).rglob("*.py")))
    return [".".join(path.with_suffix("").parts) for path in paths if path.stem != "__init__"]


def page(title, modules):
    """Text of one page."""
    entries = [f".. automodapi:: galshape_cnn.{name}\n   :no-inheritance-diagram:\n" for name in modules]
    return "\n".join([title, "=" * len(title), "", *entries])


def write_if_changed(path, text):
    """Leave the file alone if it is right, so that Sphinx need not read it again."""
    if not path.exists() or path.read_text() != text:
        path.write_text(text)


def write_pages(package, folder):
    """Write ``foundation.rst`` and one page for each layer.

    Parameters
    ----------
    package : module
        The package to document.
    folder : path
        Where the pages go; ``index.rst`` there lists them.
    """
    root, folder = Path(package.__file__).parent, Path(folder)
    foundation = page("Foundation: exceptions, flags, geometry, compilation", FOUNDATION)
    write_if_changed(folder / "layer_foundation.rst", foundation)
    for layer in PAGES:
        docstring = ast.get_docstring(ast.parse((root / layer / "__init__.py").read_text()))
        title = f"{layer}: {docstring.split(':')[0]}"
        write_if_changed(folder / f"layer_{layer}.rst", page(title, module_names(root, layer)))
