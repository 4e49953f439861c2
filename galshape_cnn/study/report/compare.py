# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""Measured parameters against known truth: pulls and their statistics.

A pull is (measured - true) / (reported 1-sigma).  With honest errors the pulls
of all galaxies scatter around 0 with standard deviation 1, and 68 % of them lie
within 1.
"""

import numpy as np
from astropy.stats import mad_std
from astropy.table import QTable, Table

from galshape_cnn.errors import InputError
from galshape_cnn.infer.catalog.columns import SHAPE_PARAMETERS

__all__ = ["error_columns", "match_truth", "pull_statistics", "pulls"]


def match_truth(table, truth):
    """Rows of the truth in the order of a catalogue, by ``id``; ``InputError`` if one has no truth."""
    row_of = {identifier: row for row, identifier in enumerate(truth["id"])}
    missing = [identifier for identifier in table["id"] if identifier not in row_of]
    if missing:
        raise InputError(f"truth has no row for id {missing[0]!r} (and {len(missing) - 1} others)")
    return truth[[row_of[identifier] for identifier in table["id"]]]


def error_columns(table):
    """Suffix of the errors that pulls are made with: ``'std'`` where there is any, else ``'err'``."""
    return "std" if np.isfinite(_plain(table["g1_std"])).any() else "err"


def pulls(table, truth):
    """Pull (N,) of each of the five parameters, by name, of rows in the same order."""
    suffix = error_columns(table)
    out = {}
    for name in SHAPE_PARAMETERS:
        sigma = _plain(table[f"{name}_{suffix}"], table[name])
        with np.errstate(divide="ignore", invalid="ignore"):
            out[name] = (_plain(table[name]) - _plain(truth[name], table[name])) / sigma
    return out


def pull_statistics(table, truth):
    """How good the measurements are, and how honest their errors.

    Parameters
    ----------
    table, truth : `~astropy.table.QTable`
        Rows in the same order, in the same units; rows to be left out removed.

    Returns
    -------
    statistics : `~astropy.table.Table`
        For each parameter: ``bias`` (median of measured - true; relative for
        flux and hlr), ``scatter`` (1.4826 median absolute deviation of the
        same), ``pull_mean``, ``pull_std``, and ``within_1`` (fraction with
        \\|pull\\| < 1; 0.683 is honest).
    """
    rows = []
    for name, pull in pulls(table, truth).items():
        difference = _plain(table[name]) - _plain(truth[name], table[name])
        if name in ("flux", "hlr"):
            difference = difference / _plain(truth[name], table[name])
        good = np.isfinite(pull)
        if not good.any():
            rows.append((name, 0, *[np.nan] * 5))
            continue
        bias = np.median(difference[good])
        scatter = mad_std(difference[good])
        pull = pull[good]
        rows.append((name, good.sum(), bias, scatter, pull.mean(), pull.std(), np.mean(np.abs(pull) < 1)))
    names = ("parameter", "number", "bias", "scatter", "pull_mean", "pull_std", "within_1")
    return Table(rows=rows, names=names)


def _plain(column, like=None):
    """Numbers of a column, in the unit of another column."""
    table = QTable({"a": column})
    unit = getattr(like, "unit", None)
    value = table["a"]
    if unit is not None:
        value = value.to(unit)
    return np.asarray(getattr(value, "value", value), float)
