# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""Directives that draw the tables of flags and columns, and the tree of modules, from the code itself."""

import ast
from pathlib import Path

from docutils import nodes
from docutils.parsers.rst import Directive
from docutils.statemachine import StringList


def flag_rows():
    """Header and rows of the table of flags."""
    from galshape_cnn.flags import FLAG_DEFINITIONS

    yield "Bit", "Value", "Name", "Meaning", "Level"
    for d in FLAG_DEFINITIONS:
        yield str(d.bit), str(d.value), f"``{d.name}``", d.description, d.level


def column_rows():
    """Header and rows of the table of catalogue columns."""
    from galshape_cnn.infer.catalog.columns import COLUMN_DEFINITIONS

    units = {
        "flux": "that of the image",
        "size": "arcsec (pixel without WCS)",
        "pixel": "pixel",
        "angle": "degree",
    }
    yield "Column", "Unit", "Meaning"
    for d in COLUMN_DEFINITIONS:
        yield f"``{d.name}``", units.get(d.kind, ""), d.description


class DefinitionTable(Directive):
    """``.. definition-table:: flags`` or ``columns``."""

    required_arguments = 1

    def run(self):
        """Write the rows as a ``list-table`` and let docutils parse it."""
        rows = {"flags": flag_rows, "columns": column_rows}[self.arguments[0]]()
        lines = [".. list-table::", "   :header-rows: 1", ""]
        for row in rows:
            lines += [f"   {'*' if i == 0 else ' '} - {cell}" for i, cell in enumerate(row)]
        node = nodes.Element()
        self.state.nested_parse(StringList(lines, source="definitions in the code"), 0, node)
        return node.children


def summary(path):
    """First line of the docstring of a module."""
    return (ast.get_docstring(ast.parse(path.read_text())) or "").partition("\n")[0].rstrip(".")


def tree_lines(root, folder, depth=0):
    """Lines of a listing: modules of a folder, then its sub-folders, with the first lines of docstrings."""
    indent = "    " * depth
    for path in sorted(folder.glob("*.py")):
        if path.stem not in ("__init__", "_version", "conftest"):
            yield f"{indent}{path.name:<{36 - len(indent)}}{summary(path)}"
    for below in sorted(path.parent for path in folder.glob("*/__init__.py")):
        if below.name != "tests":
            yield f"{indent}{below.name + '/':<{36 - len(indent)}}{summary(below / '__init__.py')}"
            yield from tree_lines(root, below, depth + 1)


class ModuleTree(Directive):
    """``.. module-tree::``: every module of the package with the first line of its docstring."""

    def run(self):
        """Write the listing as a literal block."""
        import galshape_cnn

        root = Path(galshape_cnn.__file__).parent
        text = "\n".join(tree_lines(root, root))
        return [nodes.literal_block(text, text, language="text")]


def setup(app):
    """Register the directives."""
    app.add_directive("definition-table", DefinitionTable)
    app.add_directive("module-tree", ModuleTree)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
