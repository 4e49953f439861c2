# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""The page of a validation: one HTML file with its figures inside."""

import base64
import html
import os
import platform

import numpy as np

from galshape_cnn.files import written_whole
from galshape_cnn.study.validate.criteria import TOLERANCE, passed

__all__ = ["write_page"]

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
_BOUND = (
    "The Cramér–Rao bound limits unbiased estimators only. A network returns about the posterior "
    "mean, which shrinks "
    "towards the prior where the data say little: its scatter is then below the bound <em>and</em> "
    "it is biased. A "
    "scatter below the bound is the mark of shrinkage, never a success."
)
_SECTIONS = (
    (
        "The seed galaxy",
        "64 × 64 pixels of 0.23″, Moffat PSF (β = 2, FWHM 0.5″), flux 10⁵, n = 3, hlr = 0.3″, g = "
        "(−0.069, 0.15), drawn by GalSim. Marker: bias; bar: scatter over noise realisations; grey: the "
        "Cramér–Rao bound. "
        + _BOUND
        + " The column <em>biased bound</em> is what limits the network: the bound for an estimator whose "
        "mean answers to the truth as the network’s does, (∂m/∂θ) F⁻¹ (∂m/∂θ)ᵀ. Numbers without standard "
        "error are published ones. One galaxy can be won by a lucky bias; the average over the prior, "
        "below, decides.",
        ("seed",),
        ("seed",),
    ),
    (
        "Galaxies of the prior",
        "Held-out galaxies drawn by GalSim, never by the renderer that trains. “Exact” is the posterior "
        "mean by importance sampling with the exact likelihood and the prior of the training: averaged "
        "over that prior no estimator has a smaller RMSE. The van Trees bound is a lower limit to that, "
        "which needs no sampling. Efficiency is the bound’s variance over that of the estimate, from the "
        "central 68 % of the errors: tails show in the RMSE. " + _BOUND,
        ("predictions", "rmse", "scatter", "bias", "efficiency", "maps"),
        ("bins", "van_trees"),
    ),
    (
        "Calibration",
        "From the network’s own posterior: ranks of the truth, pulls, and how many truths fall into the "
        "central 68 and 95 % intervals, with the standard error expected of a calibrated posterior.",
        ("calibration",),
        (),
    ),
    (
        "Where results can be trusted",
        "Galaxies of the prior without a flag, in cells of what was <em>measured</em>. A cell is trusted "
        "where the mean error stays within 0.3 stated σ and the fractions within one and two σ near those "
        "of a Gaussian, for all five parameters, as far as the number of galaxies can tell. A bundle keeps "
        "this table, and rows elsewhere are flagged UNTRUSTED.",
        ("trust",),
        ("trust",),
    ),
    (
        "Atlas of failures",
        "What happens to ordinary galaxies (n 0.8 to 4, radius half a PSF to one and a half) when "
        "something is wrong: the mean error of the worst parameter in units of the Cramér–Rao bound at the "
        "truth; the fraction of errors within one stated σ (68 % is right), mean over the parameters; and "
        "the fraction of rows that any flag marks. Where a parameter has no true value (n of a bulge with "
        "a disc) it is left out.",
        ("atlas", "neighbours"),
        ("atlas",),
    ),
    (
        "Flags",
        "Completeness: how many rows that are wrong by more than five stated standard deviations carry a "
        "flag; and how many of those that the pixels contradict, which is what any test of one stamp could "
        "find: noise-free data differ from the fitted model by more than 33 in χ² (8 for the errors of "
        "the parameters, 25 for five standard deviations of one pattern), or the failure is one of the "
        "noise, or a star. False alarms: how many rows within three σ carry a flag where nothing is wrong. "
        "Thresholds were fixed on other galaxies.",
        ("flags",),
        ("flags",),
    ),
)


def write_page(folder, tables, bundle, seconds, sizes, seed):
    """Write ``index.html``.

    Parameters
    ----------
    folder : `pathlib.Path`
        Where the figures are.
    tables : dict of `~astropy.table.Table`
        By name.
    bundle : Bundle
        The network.
    seconds, sizes : dict
        Duration of the sections; numbers of galaxies.
    seed : int
        Of the random numbers.

    Raises
    ------
    FileError
        If it cannot be written.
    """
    body = [_verdict(tables["verdict"]), _origin(bundle, seconds, sizes, seed)]
    body += [_section(folder, tables, *section) for section in _SECTIONS]
    page = (
        '<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8"><title>Validation</title>'
        f"<style>{_STYLE}</style></head><body>{''.join(body)}</body></html>\n"
    )
    with written_whole(folder / "index.html") as beside:
        beside.write_text(page, encoding="utf-8")


def _verdict(verdict):
    good = passed(verdict)
    failed = int(np.count_nonzero(~np.asarray(verdict["passed"], bool)))
    word = "PASSED" if good else "FAILED"
    text = (
        f"all {len(verdict)} checks within their limits"
        if good
        else f"{failed} of {len(verdict)} checks failed"
    )
    kind = "pass" if good else "fail"
    head = f'<h1>Validation of a network</h1><p class="verdict {kind}"><b>{word}</b>: {text}.</p>'
    note = (
        f"<p>A check fails when its number misses the limits by more than {TOLERANCE:g} of its "
        "standard errors. With few "
        "galaxies a pass means no more than that: look at the standard error.</p>"
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


def _origin(bundle, seconds, sizes, seed):
    """What was validated, and how long it took."""
    steps = bundle.provenance.get("galaxies")
    trained = f", trained on {steps:,} galaxies" if steps else ""
    times = ", ".join(f"{name} {value:.0f} s" for name, value in seconds.items())
    machine = f"{os.cpu_count()} × {platform.machine()}, {platform.system()}"
    return (
        f"<p>Network <code>{bundle.sha256[:16]}</code>{trained}. {sizes['galaxies']} galaxies of the prior, "
        f"{sizes['posterior']} of them with all methods; seed {seed}. Time on {machine}: {times}.</p>"
    )


def _section(folder, tables, title, text, figures, names):
    images = "".join(_image(folder / f"{name}.png", title) for name in figures)
    rows = "".join(_table(name, tables[name]) for name in names)
    return f"<h2>{title}</h2><p>{text}</p>{images}{rows}"


def _image(path, title):
    content = base64.b64encode(path.read_bytes()).decode("ascii")
    return f'<img alt="{html.escape(title)}" src="data:image/png;base64,{content}">'


def _table(name, table):
    """A folded table."""
    heads = "".join(f"<th>{html.escape(name)}</th>" for name in table.colnames)
    lines = "".join(f"<tr>{''.join(f'<td>{_cell(value)}</td>' for value in row)}</tr>" for row in table)
    summary = f"<summary>Table {name} ({len(table)} rows)</summary>"
    return f"<details>{summary}<table><tr>{heads}</tr>{lines}</table></details>"


def _cell(value):
    if isinstance(value, float | np.floating):
        return "–" if np.isnan(value) else f"{value:.3g}"
    return html.escape(str(value))
