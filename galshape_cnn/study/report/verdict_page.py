# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""A page with a verdict: one HTML file with its figures inside."""

import base64
import html

import numpy as np

from galshape_cnn.files import written_whole

__all__ = ["write_verdict_page"]

_STYLE = """
body { font: 15px/1.45 system-ui, sans-serif; margin: 2rem auto; max-width: 1200px; padding: 0 1rem; }
h1, h2 { line-height: 1.2; } h2 { margin-top: 2.2rem; border-bottom: 1px solid #bbb; }
img { max-width: 100%; } p { max-width: 52rem; }
.verdict { font-size: 1.3rem; padding: .7rem 1rem; border-left: .6rem solid; background: #f4f4f4; }
.pass { border-color: #0072B2; } .fail { border-color: #D55E00; }
table { border-collapse: collapse; font-size: 13px; margin: .6rem 0; }
th, td { padding: .15rem .55rem; text-align: right; border-bottom: 1px solid #ddd; white-space: nowrap; }
th:first-child, td:first-child { text-align: left; } tr.fail td { background: #fbe6d9; }
details { margin: .6rem 0; } summary { cursor: pointer; }
"""


def write_verdict_page(folder, heading, origin, sections, tables, tolerance):
    """Write ``index.html`` in the folder of the figures; ``FileError`` if it cannot be written.

    First the table ``verdict``, whose checks fail beyond ``tolerance`` standard errors, then ``origin``, HTML
    that says what was done, then the sections: heading, HTML, names of figures, names of tables.
    """
    body = [_verdict(heading, tables["verdict"], tolerance), origin]
    for title, text, figures, names in sections:
        images = [folder / f"{name}.png" for name in figures]
        body.append(_section(title, text, images, {name: tables[name] for name in names}))
    with written_whole(folder / "index.html") as beside:
        beside.write_text(_document(heading, body), encoding="utf-8")


def _document(title, body):
    """The whole page, from the HTML of its parts."""
    return (
        f'<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8"><title>{html.escape(title)}</title>'
        f"<style>{_STYLE}</style></head><body>{''.join(body)}</body></html>\n"
    )


def _verdict(title, verdict, tolerance):
    """Title, verdict and its checks."""
    failed = int(np.count_nonzero(~np.asarray(verdict["passed"], bool)))
    good = bool(len(verdict)) and not failed
    word = "PASSED" if good else "FAILED"
    text = (
        f"all {len(verdict)} checks within their limits"
        if good
        else f"{failed} of {len(verdict)} checks failed"
    )
    kind = "pass" if good else "fail"
    head = f'<h1>{title}</h1><p class="verdict {kind}"><b>{word}</b>: {text}.</p>'
    note = (
        f"<p>A check fails when its number misses the limits by more than {tolerance:g} of its "
        f"standard errors. With few galaxies a pass means no more than that: look at the standard error.</p>"
    )
    lines = "".join(_verdict_line(row) for row in verdict)
    heads = "".join(f"<th>{one}</th>" for one in ("check", "parameter", "measured", "limits", ""))
    table = f"<table><tr>{heads}</tr>{lines}</table>"
    return f"{head}{note}<details{'' if good else ' open'}><summary>All checks</summary>{table}</details>"


def _verdict_line(row):
    limits = f"{row['low']:g} to {row['high']:g}" if np.isfinite(row["high"]) else f"at least {row['low']:g}"
    error = f" ± {row['error']:.3f}" if row["error"] > 0 else ""
    cells = (
        row["check"],
        row["parameter"],
        f"{row['measured']:.3f}{error}",
        limits,
        "pass" if row["passed"] else "FAIL",
    )
    text = "".join(f"<td>{html.escape(str(cell))}</td>" for cell in cells)
    return f"<tr class={'pass' if row['passed'] else 'fail'}>{text}</tr>"


def _section(title, text, images, tables):
    """A section: heading, HTML below it, PNG files, and folded tables by name."""
    shown = "".join(_figure(path, title) for path in images)
    rows = "".join(_folded(name, table) for name, table in tables.items())
    return f"<h2>{title}</h2><p>{text}</p>{shown}{rows}"


def _figure(path, title):
    """A figure, its file inside."""
    content = base64.b64encode(path.read_bytes()).decode("ascii")
    return f'<img alt="{html.escape(title)}" src="data:image/png;base64,{content}">'


def _folded(name, table):
    """A folded table."""
    heads = "".join(f"<th>{html.escape(name)}</th>" for name in table.colnames)
    lines = "".join(f"<tr>{''.join(f'<td>{_cell(value)}</td>' for value in row)}</tr>" for row in table)
    summary = f"<summary>Table {name} ({len(table)} rows)</summary>"
    return f"<details>{summary}<table><tr>{heads}</tr>{lines}</table></details>"


def _cell(value):
    if isinstance(value, float | np.floating):
        return "–" if np.isnan(value) else f"{value:.3g}"
    return html.escape(str(value))
