# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""Pass or fail of an injection.

A line fails when its number is outside its limits by more than
`~galshape_cnn.study.validate.criteria.TOLERANCE` of its standard errors.
"""

import numpy as np
from astropy.table import Table

from galshape_cnn.study.inject.summary import is_right, is_wrong, kept_selection, selections
from galshape_cnn.study.validate.criteria import judged
from galshape_cnn.study.validate.statistics import fraction

__all__ = ["LIMITS", "judge_injection"]

#: Lowest and highest allowed value of each check.
LIMITS = {
    "measured": (0.99, 1.0),
    "found": (0.95, 1.0),
    "cover68": (0.66, 0.70),
    "cover95": (0.93, 0.97),
    "pull": (-0.1, 0.1),
    "pull_width": (0.9, 1.1),
    "kept": (0.9, 1.0),
    "caught": (0.9, 1.0),
    "wrong": (0.0, 0.02),
}
_BRIGHT = 30.0  # S/N above which a galaxy at a free place is to be found
_CHECKS = (
    ("68 % intervals cover", "cover68"),
    ("95 % intervals cover", "cover95"),
    ("median error / stated sigma", "pull"),
    ("central width of error / stated sigma", "pull_width"),
)


def judge_injection(table, bins):
    """Check every limit; columns as of `galshape_cnn.study.validate.criteria.judge`, failed checks first."""
    found, chosen = np.asarray(table["found"], bool), selections(table)
    lines = [_share("galaxies found that have an answer", chosen["measured"][found], "measured")]
    bright = np.asarray(table["true_snr"]) >= _BRIGHT
    if not found.all() and bright.any():
        lines.append(_share(f"galaxies of S/N above {_BRIGHT:g} found", found[bright], "found"))
    kept = kept_selection(table)
    for row in bins[(bins["axis"] == "all") & (bins["selection"] == kept)]:
        for text, name in _CHECKS:
            value = row[name], row[f"{name}_se"]
            lines.append(judged(f"{text} ({kept})", str(row["parameter"]), *value, LIMITS[name]))
    right, wrong = is_right(table), is_wrong(table)
    lines.append(_share(f"rows wrong by 5 sigma ({kept})", wrong[chosen[kept]], "wrong"))
    if kept != "measured":
        lines.append(_share("right rows that have quality 0", chosen[kept][found & right], "kept"))
        if (found & wrong).any():
            caught = ~chosen[kept][found & wrong]
            lines.append(_share("rows wrong by 5 sigma that have quality 1 or 2", caught, "caught"))
    return Table(rows=sorted(lines, key=lambda line: line["passed"]))


def _share(check, condition, key):
    """A line about the fraction of rows for which something holds."""
    return judged(check, "all", *fraction(condition), LIMITS[key])
