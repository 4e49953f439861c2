# Licensed under a 3-clause BSD style license - see LICENSE.rst
r"""`mean_shear`: calibrated by the response of measurement and selection.

With weights w, zero outside a selection, :math:`\hat\gamma = (R + R_S)^{-1} \langle g\rangle`, where

.. math:: \langle g\rangle = \frac{\sum w g}{\sum w}, \quad
          R = \frac{\sum w\,\partial g/\partial\gamma}{\sum w}, \quad
          R_S = \frac{\langle g\rangle_{w(+h)} - \langle g\rangle_{w(-h)}}{2h}

and :math:`w(\pm h)` are the weights that the galaxies would have after a shear of :math:`\pm h`, of columns
moved along their derivatives (Sheldon & Huff 2017, ApJ 841, 24).  All sums go over the two copies of each
galaxy.
"""

from collections.abc import Callable

import numpy as np
from astropy.table import QTable, Table
from astropy.units import Quantity

from galshape_cnn.errors import InputError
from galshape_cnn.flags import LEVELS
from galshape_cnn.forward.galaxy_model import SINGLE
from galshape_cnn.geometry import axis_ratio, position_angle, semi_major_radius
from galshape_cnn.infer.shear.frames import ShearedColumns
from galshape_cnn.infer.shear.leakage import leakage_slope, psf_shapes
from galshape_cnn.masked import filled

__all__ = ["ShearedViews", "mean_shear", "shear_of_sums", "shear_sums"]

_STEP = 0.01  # of shear, over which the selection is made anew
_BLOCKS = 100
_RESAMPLES = 500
_ERRORS = ("jackknife", "bootstrap")


def mean_shear(catalog, select=None, weights=None, by=None, *, errors="jackknife", seed=0, psf_shape=None):
    """Mean shear of the galaxies of a catalogue.

    Parameters
    ----------
    catalog : ShapeCatalog or `~astropy.table.Table`
        Made with ``shear_response=True``; a table of such a catalogue has the column ``shear_copies``.
    select : callable, optional
        Takes a table with the columns of ``catalog.to_table()`` and returns (N,) bool: True for galaxies to
        average.  It is called for sheared columns too.  Rows that could not be measured are
        left out in any case.
    weights : callable, str or (N,) array_like, optional
        Finite and not negative where a galaxy is averaged: a function of such a table, the name of a column,
        or numbers that do not depend on the measured shapes.
    by : str, (str, edges) or callable, optional
        A row of the result for each value of a column, for each bin of a column between increasing
        edges, or for each value of a function of the table.  Bins of measured columns are selections, and
        treated as such.
    errors : {'jackknife', 'bootstrap'}, optional
        How the covariance is found, from up to 100 blocks of consecutive rows: sort the catalogue by
        place where neighbours share their shear.
    seed : int, optional
        Of the bootstrap.
    psf_shape : (str, str) or (N, 2) array_like, optional
        Two columns of the table, or numbers: the PSF's ellipticity at each galaxy in the frame of g1 and g2.
        The slope of the calibrated shapes on it is the PSF leakage.

    Returns
    -------
    table : `~astropy.table.QTable`
        Columns ``g1``, ``g2``: mean shear; ``covariance`` (2, 2) of them; ``R`` (2, 2): mean response of the
        shapes; ``R_selection`` (2, 2): that of the selection and the weights; ``N``: galaxies of which a
        copy was selected; with ``psf_shape`` also ``leakage`` and ``leakage_err``; before them, with ``by``,
        its value, or the edges ``low`` and ``high``.  A group
        without galaxies is NaN.

    Raises
    ------
    InputError
        If the catalogue has no response or an argument cannot be used.

    Examples
    --------
    >>> import numpy as np
    >>> from galshape_cnn import PSFConvolvedSersic2D, ShapeEstimator, mean_shear
    >>> y, x = np.mgrid[-15:16, -15:16]
    >>> psf = np.exp(-(x**2 + y**2) / (2 * 1.3**2))
    >>> yy, xx = np.mgrid[:64, :64]
    >>> noise = np.random.default_rng(1).normal(size=(4, 64, 64))
    >>> shapes = [(0.3, 0.0), (-0.3, 0.0), (0.0, 0.3), (0.0, -0.3)]
    >>> images = [PSFConvolvedSersic2D(9000, 1, 4, g1, g2, 31.5, 31.5, psf=psf)(xx, yy) for g1, g2 in shapes]
    >>> cat = ShapeEstimator()(images + noise, psf=psf, error=1.0, shear_response=True)
    >>> table = mean_shear(cat, select=lambda t: t["snr"] > 12)
    >>> table.colnames
    ['g1', 'g2', 'covariance', 'R', 'R_selection', 'N']
    >>> int(table["N"][0]), bool(abs(table["g1"][0]) < 0.05)
    (4, True)
    """
    if errors not in _ERRORS:
        raise InputError(f"errors={errors!r}; allowed: {', '.join(map(repr, _ERRORS))}")
    views = ShearedViews(catalog, select, weights)
    names, groups = _groups(by, views)
    blocks = np.arange(len(catalog)) * min(_BLOCKS, max(len(catalog), 1)) // max(len(catalog), 1)
    rows = [_row(views, blocks, member, errors, seed) for _, member in groups]
    if psf_shape is not None:
        shapes = psf_shapes(psf_shape, views.tables[0][0])
        for row, (_, member) in zip(rows, groups, strict=True):
            calibration = row["R"] + row["R_selection"]
            row["leakage"] = leakage_slope(views, shapes, blocks, calibration, member)
    out = QTable()
    for number, name in enumerate(names):
        out[name] = [label[number] for label, _ in groups]
    for name, shape in (
        ("g1", ()),
        ("g2", ()),
        ("covariance", (2, 2)),
        ("R", (2, 2)),
        ("R_selection", (2, 2)),
    ):
        out[name] = np.array([row[name] for row in rows], float).reshape(len(rows), *shape)
    out["N"] = np.array([row["N"] for row in rows], int)
    if psf_shape is not None:
        found = np.array([row["leakage"] for row in rows], float).reshape(-1, 2)
        out["leakage"], out["leakage_err"] = found.T
    for name in out.colnames:
        out[name].info.description = _DESCRIPTIONS.get(name, "what the rows of the group have in common")
    return out


_DESCRIPTIONS = {
    "low": "lower edge of the bin, in it",
    "high": "upper edge of the bin, not in it",
    "g1": "mean shear along the first axis",
    "g2": "mean shear along the diagonal",
    "covariance": "of g1 and g2",
    "R": "mean response of the shapes, d(g) / d(shear)",
    "R_selection": "response of the selection and of the weights",
    "N": "galaxies that count",
    "leakage": "slope of the calibrated shapes on the PSF's",
    "leakage_err": "standard error of leakage",
}


class ShearedViews:
    """The tables of the two copies as they are, and after shears of both signs along both components.

    Parameters
    ----------
    catalog, select, weights
        As for `mean_shear`.

    Attributes
    ----------
    tables : list of list of `~astropy.table.QTable`
        By copy, then unsheared, +gamma1, -gamma1, +gamma2, -gamma2.
    weight : list of list of (N,) ndarray
        Weights of the rows of each, zero where they are not selected.
    """

    def __init__(self, catalog, select=None, weights=None):
        self.columns, self._plain, usable = _measured(catalog)
        self.select, self.weights = _checked(select, "select"), weights
        shifts = ((0, 0.0), (0, _STEP), (0, -_STEP), (1, _STEP), (1, -_STEP))
        known = np.isfinite(self.columns.values).all((1, 2)) & np.isfinite(self.columns.slopes).all((1, 2, 3))
        self.usable = known & usable
        self.tables = [[self._table(copy, *shift) for shift in shifts] for copy in range(2)]
        self.weight = [[self._weight(table) for table in of_copy] for of_copy in self.tables]

    def _table(self, copy, component, step):
        """Columns of one copy, moved along their derivatives."""
        moved = self.columns.values[:, copy] + step * self.columns.slopes[:, copy, :, component]
        flux, n, hlr, g1, g2, snr = moved.T
        new = {"flux": flux, "n": n, "hlr": hlr, "g1": g1, "g2": g2, "snr": snr}
        with np.errstate(invalid="ignore"):
            new |= {
                "q": axis_ratio(g1, g2),
                "pa": position_angle(g1, g2),
                "r_eff": semi_major_radius(hlr, g1, g2),
            }
        table = self._plain.copy()
        for name in set(new) & set(table.colnames):
            unit = getattr(table[name], "unit", None)
            table[name] = new[name] if unit is None else Quantity(new[name], unit)
        return table

    def _weight(self, table):
        """Weight of each row of a table; zero where it is not selected."""
        chosen = (
            self.usable if self.select is None else self.usable & _selected(self.select(table), len(table))
        )
        if self.weights is None:
            return chosen.astype(float)
        return np.where(chosen, _numbers(self.weights, table, chosen), 0.0)


def _measured(catalog):
    """Measured copies, table, and which rows may be used, of a catalogue or of its table."""
    if isinstance(catalog, Table) and {"shear_copies", "quality"} <= set(catalog.colnames):
        columns = ShearedColumns.from_rows(np.ma.filled(np.ma.asarray(catalog["shear_copies"]), np.nan))
        table = catalog[[name for name in catalog.colnames if name != "shear_copies"]]
        return columns, table, np.asarray(catalog["quality"]) < len(LEVELS) - 1
    if getattr(catalog, "response", None) is None:
        raise InputError(
            "catalog has no shear response (in a table: columns shear_copies and quality); make it with "
            "shear_response=True"
        )
    names = [name for name in catalog.column_names if name != "shear_copies"]
    return catalog.sheared, catalog.to_table(names), catalog.is_usable


def _checked(function, name):
    if function is not None and not isinstance(function, Callable):
        raise InputError(f"{name} is a {type(function).__name__}; allowed: a function of a table")
    return function


def _selected(answer, count):
    answer = np.asarray(answer)
    if answer.shape != (count,) or answer.dtype != bool:
        raise InputError(
            f"select returned an array of shape {answer.shape} and dtype {answer.dtype}; "
            f"needed: bool of shape {(count,)}"
        )
    return answer


def _numbers(weights, table, chosen):
    """Weights of rows, checked where they count."""
    if isinstance(weights, str):
        if weights not in table.colnames:
            raise InputError(f"weights={weights!r} is no column; allowed: {table.colnames}")
        weights = table[weights]
    elif isinstance(weights, Callable):
        weights = weights(table)
    values = _as_numbers(weights, "weights")
    if values.shape != (len(table),):
        raise InputError(f"weights have shape {values.shape}; needed: {(len(table),)}")
    if wrong := np.count_nonzero(chosen & ~((values >= 0) & (values < np.inf))):
        raise InputError(
            f"weights of {wrong} selected rows are NaN, masked, infinite or negative; allowed: numbers >= 0"
        )
    return values


def _as_numbers(values, name):
    try:
        return filled(getattr(values, "value", values))
    except (TypeError, ValueError) as error:
        raise InputError(f"{name} holds no numbers; numbers are needed") from error


def _groups(by, views):
    """Names of the columns that tell groups apart, and for each group its label and a test of membership."""
    if by is None:
        return (), [((), _everything)]
    if isinstance(by, tuple) and len(by) == 2:
        return ("low", "high"), _bins(*by, views)
    if not isinstance(by, str | Callable):
        raise InputError(f"by={by!r}; allowed: a column, (column, edges) or a function of a table")
    name = by if isinstance(by, str) else getattr(by, "__name__", "group").strip("<>")
    label = by if isinstance(by, Callable) else lambda table: _column(table, by)
    found = np.unique(np.concatenate([np.asarray(label(of_copy[0])) for of_copy in views.tables]))
    return (name,), [((value,), lambda t, value=value: np.asarray(label(t)) == value) for value in found]


def _everything(table):
    return np.ones(len(table), bool)


def _column(table, name):
    if name not in table.colnames:
        raise InputError(f"by: {name!r} is no column; allowed: {table.colnames}")
    return table[name]


def _bins(name, edges, views):
    edges = _as_numbers(edges, "by: edges")
    if edges.ndim != 1 or len(edges) < 2 or not (np.diff(edges) > 0).all():
        raise InputError(f"by: edges {edges.tolist()} do not increase")
    _column(views.tables[0][0], name)

    def members(table, low, high):
        values = _as_numbers(table[name], f"by: column {name!r}")
        return (values >= low) & (values < high)

    pairs = zip(edges[:-1], edges[1:], strict=True)
    return [((low, high), lambda t, low=low, high=high: members(t, low, high)) for low, high in pairs]


def _row(views, blocks, member, errors, seed):
    """Mean shear of one group."""
    sums, count = shear_sums(views, blocks, member)
    full = shear_of_sums(sums.sum(0))
    covariance = np.full((2, 2), np.nan)
    if count > 1:
        covariance = _jackknife(sums) if errors == "jackknife" else _bootstrap(sums, seed)
    return {"g1": full[0][0], "g2": full[0][1], "covariance": covariance, "R": full[1],
            "R_selection": full[2], "N": count}  # fmt: skip


def shear_sums(views, blocks, member=None):
    """What the mean shear of blocks of rows is made of; sums of several catalogues may be added.

    Parameters
    ----------
    views : ShearedViews
        Of N galaxies.
    blocks : (N,) int ndarray
        Block of each row, from 0.
    member : callable, optional
        Takes a table and returns the rows that count, (N,) bool.

    Returns
    -------
    sums : (blocks, 19) ndarray
        Sums over both copies of w, w g, w R, and of w, w g of the four sheared views.
    count : int
        Galaxies of which a copy counts.
    """
    member = _everything if member is None else member
    values, slopes, usable = views.columns.values, views.columns.slopes, views.usable
    sums, touched = 0.0, np.zeros(len(usable), bool)
    for copy in range(2):
        g = np.where(usable[:, None], values[:, copy, SINGLE.shear], 0)
        response = np.where(usable[:, None, None], slopes[:, copy, SINGLE.shear], 0).reshape(-1, 4)
        weight = [w * member(t) for w, t in zip(views.weight[copy], views.tables[copy], strict=True)]
        touched |= weight[0] > 0
        terms = [np.ones_like(g[:, :1]), g, response]
        parts = [weight[0][:, None] * np.concatenate(terms, 1)]
        parts += [w[:, None] * np.concatenate(terms[:2], 1) for w in weight[1:]]
        sums = sums + np.concatenate(parts, 1)
    number = blocks.max(initial=0) + 1
    return np.stack([np.bincount(blocks, column, number) for column in sums.T], 1), int(touched.sum())


def shear_of_sums(sums):
    """Mean shear, mean response, and response of the selection, of sums.

    Parameters
    ----------
    sums : (..., 19) ndarray
        From `shear_sums`.

    Returns
    -------
    shear : (..., 2) ndarray
    response, selection : (..., 2, 2) ndarray
    """
    with np.errstate(invalid="ignore", divide="ignore"):
        mean = sums[..., 1:3] / sums[..., :1]
        response = (sums[..., 3:7] / sums[..., :1]).reshape(sums.shape[:-1] + (2, 2))
        sheared = sums[..., 7:].reshape(sums.shape[:-1] + (4, 3))
        means = sheared[..., 1:] / sheared[..., :1]
        selection = np.stack([means[..., 0, :] - means[..., 1, :], means[..., 2, :] - means[..., 3, :]], -1)
        selection = selection / (2 * _STEP)
    total = response + selection
    good = np.isfinite(total).all((-2, -1)) & (np.abs(np.linalg.det(np.nan_to_num(total))) > 0)
    safe = np.where(good[..., None, None], total, np.eye(2))
    shear = np.linalg.solve(safe, np.nan_to_num(mean)[..., None])[..., 0]
    return np.where(good[..., None], shear, np.nan), response, selection


def _jackknife(sums):
    """Covariance of the mean shear, from leaving out one block at a time."""
    filled = sums[sums[:, 0] > 0]
    if len(filled) < 2:
        return np.full((2, 2), np.nan)
    left = shear_of_sums(filled.sum(0) - filled)[0]
    off = left - left.mean(0)
    return (len(filled) - 1) / len(filled) * off.T @ off


def _bootstrap(sums, seed):
    """Covariance of the mean shear, from drawing blocks with replacement."""
    filled = sums[sums[:, 0] > 0]
    if len(filled) < 2:
        return np.full((2, 2), np.nan)
    draws = np.random.default_rng(seed).integers(len(filled), size=(_RESAMPLES, len(filled)))
    return np.cov(shear_of_sums(filled[draws].sum(1))[0].T)
