# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""Criteria of a validation: limits, and pass or fail.

A line fails when the measured number is outside its limits by more than `TOLERANCE` of its
standard errors, so that a small sample cannot fail a good network by chance; with few
galaxies it cannot clear a slightly bad one either, and the standard error says so.
"""

import numpy as np
from astropy.table import Table

__all__ = ["LIMITS", "TOLERANCE", "judge", "judged", "passed"]

#: Standard errors by which a limit must be missed.
TOLERANCE = 2.5
#: Lowest and highest allowed value of each check.
LIMITS = {
    "measured": (0.999, 1.0),
    "cover68": (0.66, 0.70),
    "cover95": (0.94, 0.96),
    "cover68_in_bin": (0.63, 0.73),
    "cover95_in_bin": (0.92, 0.98),
    "pull": (-0.1, 0.1),
    "pull_std": (0.9, 1.1),
    "rmse_ratio": (0.0, 1.1),
    "rmse_ratio_in_bin": (0.0, 1.2),
    "seed_ratio": (0.0, 1.08),
    "below_bound": (0.95, np.inf),
    "completeness": (0.9, 1.0),
    "false_alarms": (0.0, 0.02),
}
_RATIOS = ("rmse_ratio", "rmse_ratio_in_bin", "seed_ratio")
_FEWEST = 20  # galaxies in a bin that is judged
_FAINT = 100.0  # S/N up to which the exact posterior is the measure in bins


def judge(bins, seed_table, flag_scores, galaxies):
    """Check every limit on the tables of a validation.

    The verdict has the columns ``check``, ``parameter``, ``measured``, ``error``, ``low``, ``high``,
    ``passed``; what failed comes first.
    """
    lines = [_finite(galaxies)]
    for row in bins[bins["axis"] == "all"]:
        lines += [
            _line("68 % intervals cover", row, "cover68"),
            _line("95 % intervals cover", row, "cover95"),
            _line("mean error / stated sigma", row, "pull"),
            _line("rms error / stated sigma", row, "pull_std"),
            _line("RMSE / RMSE of the exact posterior mean", row, "rmse_ratio"),
        ]
    for row in bins[(bins["axis"] == "snr") & (bins["number"] >= _FEWEST)]:
        where = f", S/N {row['low']:g} to {row['high']:g}"
        lines.append(_line("68 % intervals cover" + where, row, "cover68", "cover68_in_bin"))
        lines.append(_line("95 % intervals cover" + where, row, "cover95", "cover95_in_bin"))
        if row["high"] <= _FAINT:
            name = "RMSE / RMSE of the exact posterior mean" + where
            lines.append(_line(name, row, "rmse_ratio", "rmse_ratio_in_bin"))
    lines += _seed_lines(seed_table) + _flag_lines(flag_scores)
    return Table(rows=sorted(lines, key=lambda line: line["passed"]))


def passed(verdict):
    """Whether every line passed."""
    return bool(len(verdict)) and bool(np.all(verdict["passed"]))


def judged(check, parameter, measured, error, limits, relative=False):
    """One line of a verdict, of a number with its standard error and the limits allowed.

    ``passed`` is False where the number misses a limit by more than `TOLERANCE` standard errors, relative
    ones where that is asked for, as for ratios, or is not finite.
    """
    low, high = limits
    slack = TOLERANCE * (error if np.isfinite(error) else 0.0)
    if relative and measured > 0:
        slack = slack / measured * min(high, measured)
    good = bool(np.isfinite(measured) and low - slack <= measured <= high + slack)
    return {
        "check": check, "parameter": parameter, "measured": float(measured), "error": float(error),
        "low": low, "high": high, "passed": good,
    }  # fmt: skip


def _judged(check, parameter, measured, error, key):
    return judged(check, parameter, measured, error, LIMITS[key], relative=key in _RATIOS)


def _line(check, row, column, key=None):
    return _judged(check, str(row["parameter"]), row[column], row[f"{column}_se"], key or column)


def _finite(galaxies):
    finite = np.mean(
        [np.isfinite(galaxies[name]).mean() for name in galaxies.colnames if name.startswith("error_")]
    )
    return _judged("galaxies with a finite answer", "all", finite, 0.0, "measured")


def _seed_lines(table):
    lines = []
    for snr in dict.fromkeys(table["snr"]):
        for parameter in dict.fromkeys(table["parameter"]):
            here = table[(table["snr"] == snr) & (table["parameter"] == parameter)]
            network = here[here["method"] == "network"][0]
            name = f"seed galaxy, S/N {snr}: RMSE / RMSE of the exact posterior mean"
            lines.append(_judged(name, parameter, network["ratio"], network["ratio_se"], "seed_ratio"))
            if np.isfinite(network["biased_bound"]):
                name = f"seed galaxy, S/N {snr}: scatter / bound for its own bias"
                share = network["scatter"] / network["biased_bound"]
                share_error = network["scatter_se"] / network["biased_bound"]
                lines.append(_judged(name, parameter, share, share_error, "below_bound"))
    return lines


def _flag_lines(scores):
    total = scores[scores["family"] == "all"][0]
    lines = [
        _judged(
            "good galaxies flagged", "flags", total["false_alarms"], total["false_alarms_se"], "false_alarms"
        )
    ]
    for name, count, check in (
        ("completeness", "n_wrong", "galaxies wrong by 5 sigma flagged"),
        ("of_visible", "n_visible", "galaxies wrong by 5 sigma that the pixels contradict flagged"),
    ):
        if total[count]:
            lines.append(_judged(check, "flags", total[name], total[f"{name}_se"], "completeness"))
    return lines
