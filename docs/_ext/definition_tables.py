# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""Directives that draw the tables of flags and columns from their definitions in the code."""

from docutils import nodes
from docutils.parsers.rst import Directive
from docutils.statemachine import StringList


def flag_rows():
    """Header and rows of the table of flags."""
    from galshape_cnn.flags import FLAG_DEFINITIONS

    yield "Bit", "Value", "Name", "Meaning", "Severe"
    for d in FLAG_DEFINITIONS:
        yield str(d.bit), str(d.value), f"``{d.name}``", d.description, "yes" if d.severe else ""


def column_rows():
    """Header and rows of the table of catalogue columns."""
    from galshape_cnn.infer.columns import COLUMN_DEFINITIONS

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


def setup(app):
    """Register the directive."""
    app.add_directive("definition-table", DefinitionTable)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
