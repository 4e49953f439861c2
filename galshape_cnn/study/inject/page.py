# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""HTML page of an injection."""

import html

import numpy as np

from galshape_cnn.study.inject.summary import RIGHT, WRONG, kept_selection
from galshape_cnn.study.report.verdict_page import write_verdict_page
from galshape_cnn.study.validate.criteria import TOLERANCE

__all__ = ["write_page"]

_TRUTH = (
    "Truth: a Sérsic galaxy’s own parameters; of clumpy and spiral ones those of the smooth disc they are "
    "drawn from, with all of their light; of bulge-and-disc and real ones the Sérsic profile that fits their "
    "image without noise best. "
)
_SECTIONS = (
    (
        "Where galaxies were put",
        "Places are at random, away from edges, bad pixels and the sources to be avoided; never two galaxies "
        "in one stamp. Below: galaxies over the range of S/N, with the image before each came.",
        ("places", "examples"),
        (),
    ),
    (
        "Completeness",
        "Share of the injected galaxies that have an answer (found, if they were to be found), and of those "
        "that a user keeps. Sources within half a stamp say how crowded the place is; the other light is "
        "what a matched filter of the galaxy measures there before it came.",
        ("completeness",),
        (),
    ),
    (
        "Bias",
        "Median error, which a few wild rows do not decide; the band is what the rows state themselves. "
        + _TRUTH,
        ("predictions", "bias"),
        ("bins",),
    ),
    (
        "Pulls and coverage",
        "Error over the stated standard deviation (the posterior’s, or the bound of maximum likelihood), and "
        "how often the truth is inside the stated 68 and 95 % intervals.",
        ("pulls", "coverage"),
        (),
    ),
    (
        "What flags and quality catch and cost",
        f"A row is right when all five parameters are within {RIGHT:g} stated standard deviations of the "
        f"truth, wrong when one is beyond {WRONG:g}. Cost: how many of the right rows have a flag; catch: "
        "how many of the wrong ones.",
        ("flags",),
        ("flags", "quality"),
    ),
)


def write_page(folder, tables, job):
    """Write ``index.html`` in the folder of the figures, from the tables of ``tables_of``."""
    origin = _origin(tables["injected"], job)
    write_verdict_page(folder, "Injection into an image", origin, _SECTIONS, tables, TOLERANCE)


def _origin(table, job):
    """What was injected, and how it was measured."""
    record, kinds = job.record(), np.asarray(table["kind"])
    counts = ", ".join(f"{int((kinds == one).sum())} {one}" for one in dict.fromkeys(kinds))
    ny, nx = record["image_shape"]
    how = "found by segmentation" if job.find else "at given positions"
    gain, factor = record["gain"], record["noise_scale"]
    noise = "correlated" if record["correlated_noise"] else "independent"
    sentences = (
        f"{len(table)} galaxies ({counts}) in {record['realisations']} copies of an image of {nx} × {ny} "
        f"pixels with {record['sources_in_image']} sources; {record['without_place']} more found no place.",
        f"No pixel of a source to be avoided ({record['avoid']}) is within {record['clearance']:g} "
        "semi-major half-light radii.",
        f"Width of the PSF {record['psf_fwhm_pixels']:.2f} pixels (FWHM of the Gaussian whose transform "
        "falls to one half where the PSF’s does).",
        f"Measured {how}, method {record['method']}; {noise} noise of {factor:.3f} times the map.",
        f"Photon noise of the galaxies at a gain of {gain:g}."
        if gain
        else "No photon noise of the galaxies.",
        f"Rows that are judged: {kept_selection(table)}. Seed {record['seed']}.",
    )
    return f"<p>{html.escape(' '.join(sentences))}</p>"
