# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""Trust region found on galaxies of the prior, for each method.

Cells are of *measured* S/N, half-light radius over PSF width and Sérsic index, since a user
knows no others, and only galaxies of quality 0 count.  A cell with fewer than `FEWEST` galaxies is judged
by the galaxies of all n in it, and if those are too few, by all of its S/N.
"""

import numpy as np
from astropy.table import Table

from galshape_cnn.flags import quality_of
from galshape_cnn.infer.catalog.columns import SHAPE_PARAMETERS
from galshape_cnn.infer.network.trust import AXES
from galshape_cnn.study.validate.benchmark_prior import PREFIXES

__all__ = ["EDGES", "FEWEST", "LIMITS", "find_region", "region_of", "trusted_share"]

#: Edges of the cells.
EDGES = {
    "snr": (5.0, 10.0, 20.0, 50.0, 100.0, 300.0, 1000.0),
    "hlr_over_fwhm": (0.0, 0.25, 0.5, 1.0, 2.0, 10.0),
    "n": (0.3, 2.5, 6.2),
}
#: Galaxies that decide.
FEWEST = 20
#: Largest mean error in stated sigmas; fraction of errors within one, and least within two of them.
LIMITS = {"bias": 0.3, "within1": (0.58, 0.82), "within2": 0.90}
_SLACK = 2.5  # standard errors by which a limit must be missed


def find_region(galaxies):
    """Judge every cell for every method.

    Parameters
    ----------
    galaxies : `~astropy.table.Table`
        From `galshape_cnn.study.validate.benchmark_prior.measure_galaxies`.

    Returns
    -------
    table : `~astropy.table.Table`
        One row for each method and cell: its lower edges, ``number`` of galaxies that decided,
        ``level`` (3: the cell, 2: all n, 1: all of its S/N, 0: none), the ``bias`` of the worst
        parameter, the ``within1`` and ``within2`` farthest from what they should be, and ``trusted``.
    """
    rows = []
    for method, prefix in PREFIXES.items():
        index, pulls = _selected(galaxies, prefix)
        shape = tuple(len(EDGES[axis]) - 1 for axis in AXES)
        for cell in np.ndindex(shape):
            level, inside = _deciding(index, cell)
            row = {"method": method} | {axis: EDGES[axis][k] for axis, k in zip(AXES, cell, strict=True)}
            rows.append(row | {"level": level} | _judge(pulls[inside]))
    return Table(rows=rows)


def region_of(table):
    """Region in the form that bundles keep; methods without galaxies are left out.

    See `galshape_cnn.infer.network.trust.check_region`.
    """
    region, shape = {}, tuple(len(EDGES[axis]) - 1 for axis in AXES)
    for method in PREFIXES:
        here = table[table["method"] == method]
        if np.any(np.asarray(here["level"]) > 0):
            cells = np.asarray(here["trusted"]).astype(int).reshape(shape).tolist()
            region[method] = {axis: list(EDGES[axis]) for axis in AXES} | {"trusted": cells}
    return region


def trusted_share(galaxies, table):
    """Fraction of the galaxies of quality 0 that lie in trusted cells, by method."""
    out, shape = {}, tuple(len(EDGES[axis]) - 1 for axis in AXES)
    for method, prefix in PREFIXES.items():
        index, _ = _selected(galaxies, prefix)
        trusted = np.asarray(table["trusted"][table["method"] == method]).reshape(shape)
        out[method] = float(trusted[tuple(index.T)].mean()) if len(index) else np.nan
    return out


def _selected(galaxies, prefix):
    """Cell (M, 3) and pulls (M, 5) of the galaxies that count."""
    quality = quality_of(galaxies[f"{prefix}flags"])
    values = np.column_stack([galaxies[f"{prefix}m_{axis}"] for axis in AXES]).astype(float)
    pulls = np.column_stack(
        [
            np.asarray(galaxies[f"{prefix}error_{name}"]) / np.asarray(galaxies[f"{prefix}std_{name}"])
            for name in SHAPE_PARAMETERS
        ]
    )
    good = (quality == 0) & np.isfinite(values).all(1) & np.isfinite(pulls).all(1)
    index = np.empty((int(good.sum()), len(AXES)), int)
    for k, axis in enumerate(AXES):
        index[:, k] = np.clip(
            np.searchsorted(EDGES[axis], values[good, k], "right") - 1, 0, len(EDGES[axis]) - 2
        )
    return index, pulls[good]


def _deciding(index, cell):
    """How fine the galaxies are that decide on a cell, and which they are."""
    for level in (3, 2, 1):
        inside = (index[:, :level] == cell[:level]).all(1)
        if inside.sum() >= FEWEST:
            return level, inside
    return 0, np.zeros(len(index), bool)


def _judge(pulls):
    """Statistics of a cell, and whether all are within their limits."""
    number = len(pulls)
    if not number:
        return {"number": 0, "bias": np.nan, "within1": np.nan, "within2": np.nan, "trusted": False}
    bias, error = pulls.mean(0), pulls.std(0) / np.sqrt(number)
    within1, within2 = (np.abs(pulls) < 1).mean(0), (np.abs(pulls) < 2).mean(0)
    low, high = LIMITS["within1"]
    slack1, slack2 = (_SLACK * np.sqrt(p * (1 - p) / number) for p in (0.68, 0.95))
    good = np.abs(bias) <= LIMITS["bias"] + _SLACK * error
    good &= (within1 >= low - slack1) & (within1 <= high + slack1) & (within2 >= LIMITS["within2"] - slack2)
    return {
        "number": number,
        "bias": bias[np.abs(bias).argmax()],
        "within1": within1[np.abs(within1 - 0.68).argmax()],
        "within2": within2.min(),
        "trusted": bool(good.all()),
    }
