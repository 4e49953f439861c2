# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""Formulas as MathML, which browsers draw by themselves: the pages show them without a network.

Sphinx's own way loads MathJax from a server while the page is read; offline, readers see raw LaTeX.
"""

import re

from docutils import nodes
from latex2mathml.converter import convert
from sphinx.util import logging
from sphinx.util.math import get_node_equation_number

logger = logging.getLogger(__name__)


def mathml(text, display, location):
    """MathML of a formula; a warning, which fails the build, if part of it is not understood.

    Parameters
    ----------
    text : str
        LaTeX.
    display : {'inline', 'block'}
        In a line, or by itself.
    location : docutils node
        For the warning.

    Returns
    -------
    markup : str
    """
    if r"\\" in text and r"\begin" not in text:
        text = rf"\begin{{aligned}}{text}\end{{aligned}}"
    try:
        markup = convert(text, display=display)
    except Exception as error:  # of many kinds, of its own and of others
        logger.warning("formula %r cannot be converted to MathML: %r", text, error, location=location)
        return f"<code>{text}</code>"
    unknown = re.findall(r"\\[A-Za-z]+", markup)
    if unknown:
        logger.warning("formula %r holds %s, which MathML lacks", text, ", ".join(unknown), location=location)
    source = " ".join(text.split()).replace("&", "&amp;").replace('"', "&quot;").replace("<", "&lt;")
    return markup.replace("<math ", f'<math alttext="{source}" ', 1)


def visit_math(translator, node):
    """A formula in a line."""
    translator.body.append(translator.starttag(node, "span", "", CLASS="math notranslate nohighlight"))
    translator.body.append(f"{mathml(node.astext(), 'inline', node)}</span>")
    raise nodes.SkipNode


def visit_displaymath(translator, node):
    """A formula by itself, with its number if it has one."""
    translator.body.append(translator.starttag(node, "div", CLASS="math notranslate nohighlight"))
    if node["number"]:
        translator.body.append(f'<span class="eqno">({get_node_equation_number(translator, node)})')
        translator.add_permalink_ref(node, "Link to this equation")
        translator.body.append("</span>")
    parts = [part for part in node.astext().split("\n\n") if part.strip()]
    translator.body += [mathml(part, "block", node) for part in parts]
    translator.body.append("</div>\n")
    raise nodes.SkipNode


def setup(app):
    """Register the renderer."""
    app.add_html_math_renderer(
        "mathml", inline_renderers=(visit_math, None), block_renderers=(visit_displaymath, None)
    )
    return {"parallel_read_safe": True, "parallel_write_safe": True}
