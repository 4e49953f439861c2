# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""Statistics of an injection: completeness, bias, pulls, coverage, flags.

Rows come in *selections*: ``measured``, all that have an answer; and those that a user keeps, ``quality 0``
and ``quality 0 or 1`` where the catalogue has that column, ``no flags`` where it has not.
"""

import numpy as np
from astropy.table import QTable, Table

from galshape_cnn.flags import FLAG_DEFINITIONS
from galshape_cnn.infer.catalog.columns import SHAPE_PARAMETERS
from galshape_cnn.study.report.compare import pulls
from galshape_cnn.study.validate.statistics import bias_and_scatter, errors_of, fraction, scatter_over

__all__ = [
    "BINS",
    "bins_of",
    "flag_costs",
    "is_right",
    "is_wrong",
    "kept_selection",
    "quality_costs",
    "reference_of",
    "selections",
    "worst_pull",
]

#: Bins in which everything is averaged; ``all`` is the whole set.
BINS = {
    "all": (-np.inf, np.inf),
    "snr": (0, 10, 20, 50, 100, 300, np.inf),
    "hlr_over_fwhm": (0.0, 0.25, 0.5, 1.0, 2.0, np.inf),
    "n_near": (0, 1, 2, 3, 5, np.inf),
    "contamination": (0.0, 0.01, 0.03, 0.1, 0.3, np.inf),
}
#: Stated standard deviations within which all five parameters of a right row are, and beyond which one of
#: a wrong row is.
RIGHT, WRONG = 3.0, 5.0


def reference_of(table):
    """Parameters, flux to g2, that each galaxy is compared with: its own, or those of its best fit."""
    fitted = np.asarray(table["truth"]) == "best fit"
    out = QTable()
    for name in SHAPE_PARAMETERS:
        column = table[f"true_{name}"].copy()
        column[fitted] = table[f"best_{name}"][fitted]
        out[name] = column
    return out


def _numbers(table):
    """(N, 5) plain numbers of the five parameters, in the table's units."""
    return np.column_stack(
        [np.asarray(getattr(table[name], "value", table[name]), float) for name in SHAPE_PARAMETERS]
    )


def _pulls(table):
    """(N, 5) errors over stated standard deviations."""
    return np.column_stack(list(pulls(table, reference_of(table)).values()))


def worst_pull(table):
    """Largest of the five pulls, without sign; infinite where a measured row has no number or no error."""
    pull = np.abs(_pulls(table))
    return np.where(np.isfinite(pull), pull, np.inf).max(1)


def is_right(table):
    """Rows with all five parameters within three stated standard deviations."""
    return worst_pull(table) <= RIGHT


def is_wrong(table):
    """Rows with a parameter off by more than five stated standard deviations, or without number."""
    return worst_pull(table) > WRONG


def selections(table):
    """Rows that users may keep, by name; the first are all with an answer."""
    measured = np.asarray(table["found"], bool) & np.isfinite(_numbers(table)).all(1)
    out = {"measured": measured}
    if "quality" in table.colnames:
        quality = np.asarray(table["quality"])
        return out | {"quality 0": measured & (quality == 0), "quality 0 or 1": measured & (quality <= 1)}
    return out | {"no flags": measured & (np.asarray(table["flags"]) == 0)}


def kept_selection(table):
    """Name of the selection that the verdict is about: ``quality 0``, or ``measured`` without that column."""
    return "quality 0" if "quality" in table.colnames else "measured"


def axis_values(table, axis):
    """Values along one of the axes of `BINS`."""
    if axis == "all":
        return np.zeros(len(table))
    if axis == "snr":
        return np.asarray(table["true_snr"], float)
    if axis == "hlr_over_fwhm":
        ratio = reference_of(table)["hlr"] / table["psf_fwhm"]
        return np.asarray(getattr(ratio, "value", ratio), float)
    return np.abs(np.asarray(table[axis], float))


def _in_bins(table):
    """Axis, limits and rows of each bin, kinds last."""
    for axis, edges in BINS.items():
        values = axis_values(table, axis)
        for low, high in zip(edges[:-1], edges[1:], strict=True):
            yield axis, low, high, "", (values >= low) & (values < high)
    kinds = np.asarray(table["kind"])
    for kind in np.unique(kinds) if len(set(kinds)) > 1 else ():
        yield "kind", np.nan, np.nan, str(kind), kinds == kind


def bins_of(table):
    """Averages in bins of S/N, size and surroundings, for each selection.

    Parameters
    ----------
    table : `~astropy.table.QTable`
        From `galshape_cnn.inject`.

    Returns
    -------
    bins : `~astropy.table.Table`
        For each bin, selection and parameter: ``injected``, ``number`` (of the selection) and
        ``complete``, their ratio; ``bias`` and ``scatter`` of ln flux, n, ln hlr, g1, g2, both from
        quantiles; ``sigma``, the median stated one; ``pull``, their median, and ``pull_width``, half the
        range of the central 68 %; ``cover68``, ``cover95`` within 0.994 and 1.96 stated sigma; ``wrong``,
        beyond five; with standard errors.
    """
    reference = _numbers(reference_of(table))
    error, pull = errors_of(_numbers(table), reference), _pulls(table)
    sigma = np.abs(error / np.where(pull == 0, np.nan, pull))
    rows = []
    for axis, low, high, kind, inside in _in_bins(table):
        for name, chosen in selections(table).items() if inside.any() else ():
            head = {"axis": axis, "low": low, "high": high, "kind": kind, "selection": name}
            here = inside & chosen
            share, share_se = fraction(chosen[inside])
            head |= {"injected": int(inside.sum()), "number": int(here.sum())}
            head |= {"complete": share, "complete_se": share_se}
            for k, parameter in enumerate(SHAPE_PARAMETERS):
                numbers = _averages(error[here, k], pull[here, k], sigma[here, k])
                rows.append(head | {"parameter": parameter} | numbers)
    return Table(rows=rows)


def _averages(error, pull, sigma):
    """Statistics of one parameter, from quantiles: a few wild rows do not decide them."""
    out = {"bias": np.nan, "bias_se": np.nan, "pull": np.nan, "pull_se": np.nan}
    good = np.isfinite(error) & np.isfinite(pull)
    error, pull = error[good], pull[good]
    out["scatter"], out["scatter_se"] = scatter_over(error, np.ones(len(error)))
    out["pull_width"], out["pull_width_se"] = scatter_over(pull, np.ones(len(pull)))
    if len(error) > 1:
        wide = np.sqrt(np.pi / 2 / len(error))  # standard error of a median
        out |= {"bias": np.median(error), "bias_se": wide * out["scatter"]}
        out |= {"pull": np.median(pull), "pull_se": wide * out["pull_width"]}
    out["sigma"] = np.nanmedian(sigma[good]) if np.isfinite(sigma[good]).any() else np.nan
    for percent, limit in ((68, 0.994458), (95, 1.959964)):
        out[f"cover{percent}"] = np.mean(np.abs(pull) < limit) if len(pull) else np.nan
        expected = percent / 100
        out[f"cover{percent}_se"] = np.sqrt(expected * (1 - expected) / max(len(pull), 1))
    out["wrong"], out["wrong_se"] = fraction(np.abs(pull) > WRONG)
    out["mean_pull"], out["mean_pull_se"], out["pull_std"], out["pull_std_se"] = bias_and_scatter(pull)
    return out


def flag_costs(table):
    """How often each flag is raised: on all rows, on right ones (its cost), on wrong ones (its use).

    Parameters
    ----------
    table : `~astropy.table.QTable`
        From `galshape_cnn.inject`.

    Returns
    -------
    costs : `~astropy.table.Table`
        ``flag``; ``all``, ``of_right`` and ``of_wrong`` with standard errors and numbers of rows; the
        last row, ``any``, is of any flag.
    """
    found = np.asarray(table["found"], bool)
    flags, right, wrong = (values[found] for values in (_flags(table), is_right(table), is_wrong(table)))
    rows = []
    for name, bit in [*((d.name, d.value) for d in FLAG_DEFINITIONS), ("any", ~0)]:
        raised = (flags & bit) != 0
        if raised.any() or name == "any":
            rows.append(_cost({"flag": name}, raised, right, wrong))
    return Table(rows=rows)


def quality_costs(table):
    """As `flag_costs`, for each level of ``quality``; without rows if there is no such column."""
    if "quality" not in table.colnames:
        nothing = np.zeros(0, bool)
        return Table(names=list(_cost({"level": 0}, nothing, nothing, nothing)))
    found = np.asarray(table["found"], bool)
    right, wrong = (values[found] for values in (is_right(table), is_wrong(table)))
    quality = np.asarray(table["quality"])[found]
    return Table(rows=[_cost({"level": level}, quality == level, right, wrong) for level in (0, 1, 2)])


def _flags(table):
    return np.asarray(table["flags"]).astype(np.int64)


def _cost(head, raised, right, wrong):
    """Shares of all, right and wrong rows that something is raised on."""
    out = dict(head)
    for name, rows in (("all", np.ones(len(raised), bool)), ("of_right", right), ("of_wrong", wrong)):
        out[name], out[f"{name}_se"] = fraction(raised[rows])
    return out | {"n": len(raised), "n_right": int(right.sum()), "n_wrong": int(wrong.sum())}
