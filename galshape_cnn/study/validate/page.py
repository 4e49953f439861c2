# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""HTML page of a validation."""

import os
import platform

from galshape_cnn.study.report.verdict_page import write_verdict_page
from galshape_cnn.study.validate.criteria import TOLERANCE

__all__ = ["write_page"]

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
        "Galaxies of the prior of quality 0, in cells of what was <em>measured</em>. A cell is trusted "
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
        "the fraction of rows of quality 1 or 2. Where a parameter has no true value (n of a bulge with "
        "a disc) it is left out.",
        ("atlas", "neighbours"),
        ("atlas",),
    ),
    (
        "Flags",
        "Completeness: how many rows that are wrong by more than five stated standard deviations have "
        "quality 1 or 2; and how many of those that the pixels contradict, which is what any test of one "
        "stamp could find: noise-free data differ from the fitted model by more than 33 in χ² (8 for the "
        "errors of the parameters, 25 for five standard deviations of one pattern), or the failure is one "
        "of the noise, or a star. False alarms: how many rows within three σ have quality 1 or 2 where "
        "nothing is wrong. Thresholds were fixed on other galaxies.",
        ("flags",),
        ("flags",),
    ),
)


def write_page(folder, tables, bundle, seconds, sizes, seed):
    """Write ``index.html`` in the folder of the figures, from the tables of a validation by name.

    ``seconds`` are the durations of its parts, ``sizes`` numbers of galaxies.
    """
    origin = _origin(bundle, seconds, sizes, seed)
    write_verdict_page(folder, "Validation of a network", origin, _SECTIONS, tables, TOLERANCE)


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
