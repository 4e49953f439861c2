# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""The columns of a catalogue: order, unit, description and UCD in one list.

`COLUMN_DEFINITIONS` feeds the attributes of
`galshape_cnn.infer.catalog.catalog.ShapeCatalog`, the table and the documentation.
"""

import copy
from dataclasses import dataclass

import astropy.units as u
import numpy as np
from astropy.table import QTable

from galshape_cnn.errors import InputError
from galshape_cnn.flags import FLAG_MEANINGS
from galshape_cnn.infer.catalog.read_only_meta import frozen_meta

__all__ = [
    "COLUMN_DEFINITIONS",
    "CONVENTIONS",
    "ERROR_NAMES",
    "SHEAR_COLUMNS",
    "UNITS",
    "SHAPE_PARAMETERS",
    "ColumnDefinition",
    "complete_meta",
    "sigma_columns",
    "identifiers",
    "join_identifiers",
    "keep_apart",
    "pass_through",
]

#: The five parameters of the catalogue, in the order of every covariance.
SHAPE_PARAMETERS = ("flux", "n", "hlr", "g1", "g2")

#: What the numbers of a catalogue mean; stored in its ``meta``.
CONVENTIONS = {
    "parameters": "flux, n, hlr, g1, g2",
    "hlr": "circularised half-light radius; r_eff = hlr / sqrt(q) is the semi-major one",
    "shear": "reduced shear; q = (1 - |g|) / (1 + |g|)",
    "pixel_frame": "g1 > 0 along +x, g2 > 0 at 45 degrees from +x to +y; pixel centres are 0-based integers",
    "sky_frame": "u = west, v = north; g1 > 0 along east-west",
    "pa": "degrees East of North (without WCS: counter-clockwise from +y), in [0, 180)",
    "err": "standard error: Cramer-Rao bound (in correlated noise the sandwich), centroid (and sky if "
    "fitted) marginalised, and what structure that no Sersic profile has adds where it is seen, and for "
    "method 'ml' what the likelihood's shape adds where it is no parabola",
    "crb": "the part of err that is due to noise",
    "std": "posterior standard deviation; NaN for method 'ml'",
}


@dataclass(frozen=True)
class ColumnDefinition:
    """One column of the catalogue.

    Attributes
    ----------
    name : str
        Name of the column and of the attribute.
    kind : str
        ``'flux'``, ``'size'``, ``'pixel'``, ``'angle'`` or ``'number'``; decides the unit.
    description : str
        Description of the column in the table.
    ucd : str
        IVOA unified content descriptor.
    """

    name: str
    kind: str
    description: str
    ucd: str


_VALUES = (
    ("flux", "flux", "total flux of the Sersic profile", "phot.flux"),
    ("n", "number", "Sersic index, in [0.3, 6.2]", "src.morph.param"),
    ("hlr", "size", "circularised half-light radius", "phys.angSize"),
    ("g1", "number", "reduced shear along the first axis", "src.morph.param"),
    ("g2", "number", "reduced shear along the diagonal", "src.morph.param"),
)


def _errors(suffix, what):
    """Definitions of one error column for each of the five parameters."""
    return tuple(
        ColumnDefinition(f"{name}_{suffix}", kind, f"{what} of {name}", f"stat.error;{ucd}")
        for name, kind, _, ucd in _VALUES
    )


COLUMN_DEFINITIONS = (
    ColumnDefinition("id", "number", "identifier of the galaxy", "meta.id;meta.main"),
    ColumnDefinition(
        "x_centroid", "pixel", "0-based x of the centre in the image", "pos.cartesian.x;instr.pixel"
    ),
    ColumnDefinition(
        "y_centroid", "pixel", "0-based y of the centre in the image", "pos.cartesian.y;instr.pixel"
    ),
    ColumnDefinition("sky_centroid", "sky", "sky position of the centre, ICRS", "pos.eq"),
    *(ColumnDefinition(*value) for value in _VALUES),
    *_errors("err", "standard error, by noise and structure,"),
    *_errors("std", "posterior standard deviation"),
    ColumnDefinition("snr", "number", "signal-to-noise ratio, sqrt(sum(model^2 / sigma^2))", "stat.snr"),
    ColumnDefinition("chi2", "number", "reduced chi-square of the model", "stat.fit.chi2"),
    ColumnDefinition("q", "number", "axis ratio, minor over major", "src.ellipticity"),
    ColumnDefinition("pa", "angle", "position angle of the major axis, East of North", "pos.posAng"),
    ColumnDefinition("r_eff", "size", "semi-major half-light radius, hlr / sqrt(q)", "phys.angSize.smajAxis"),
    ColumnDefinition("ess", "number", "effective number of posterior samples", "stat.value"),
    ColumnDefinition("flags", "number", "warning bits; their meaning is in the metadata", "meta.code.qual"),
    ColumnDefinition(
        "quality",
        "number",
        "worst level of the flags: 0 use, 1 with care, 2 do not use",
        "meta.code.qual",
    ),
    ColumnDefinition("q_err", "number", "standard error of q", "stat.error;src.ellipticity"),
    ColumnDefinition("pa_err", "angle", "standard error of pa, at most 52 degrees", "stat.error;pos.posAng"),
    ColumnDefinition("r_eff_err", "size", "standard error of r_eff", "stat.error;phys.angSize.smajAxis"),
    *_errors("crb", "Cramer-Rao bound"),
    ColumnDefinition("rff", "number", "residual flux fraction (Hoyos et al. 2011)", "stat.fit.residual"),
    ColumnDefinition(
        "neighbour_fraction",
        "number",
        "share of the galaxy's light on pixels of other sources",
        "stat.value",
    ),
    *(
        ColumnDefinition(f"response_{i}{a}", "number", f"d(g{i}) / d(shear {a})", "stat.value")
        for i in (1, 2)
        for a in (1, 2)
    ),
    ColumnDefinition(
        "shear_copies",
        "number",
        "what the response is made of: for two copies flux, n, hlr, g1, g2, snr, each with its derivatives "
        "by both components of shear; 36 numbers, in the units of those columns",
        "stat.value",
    ),
)

#: Errors that a table states beside an estimate, by the ending of their columns.
ERROR_NAMES = {"std": "posterior standard deviation", "err": "standard error"}
#: Units of the kinds of columns that have the same in every catalogue.
UNITS = {"pixel": u.pix, "angle": u.deg, "magnitude": u.mag}
#: Columns that there are with ``shear_response=True`` only.
SHEAR_COLUMNS = tuple(d.name for d in COLUMN_DEFINITIONS if d.name.startswith(("response_", "shear_copies")))


def identifiers(ids, table, n):
    """Identifiers of n rows: given, from the column ``id`` of a table, or 1 to n.

    Read-only; masked where the table is. ``InputError`` if those given have another length.
    """
    if ids is None and table is not None and "id" in table.colnames:
        ids = table["id"]
    ids = np.arange(1, n + 1) if ids is None else _as_ids(ids)
    if ids.shape != (n,):
        raise InputError(f"ids has shape {ids.shape}; expected ({n},)")
    ids.flags.writeable = False
    return ids


def _as_ids(ids):
    """Copy of identifiers as they came: none that is masked becomes a value, bytes of FITS are text."""
    ids = np.ma.array(ids)
    mask, values = np.ma.getmaskarray(ids), np.array(ids.data)  # of no subclass
    if values.dtype.kind == "S":
        values = np.char.decode(values, "utf-8", "replace")
    return np.ma.array(values, mask=mask) if mask.any() else values


def join_identifiers(parts):
    """Identifiers of several catalogues in one array, in order; masked if one of the parts is."""
    masked = any(np.ma.isMaskedArray(part) for part in parts)
    return np.ma.concatenate(parts) if masked else np.concatenate(parts)


def pass_through(table):
    """Copy of the columns that came with the positions, without ``id``; None without any.

    A name that the catalogue uses, in whatever case, gets the prefix ``input_``: FITS and SQL do not tell
    ``FLUX`` from ``flux``.
    """
    if table is None:
        return None
    out = QTable({name: table[name] for name in table.colnames if name != "id"}, copy=True)
    keep_apart(out, {d.name for d in COLUMN_DEFINITIONS})
    return out if out.colnames else None


def keep_apart(table, taken):
    """Put ``input_`` before the names of a table's columns that are wanted, in lower case, for others."""
    for name in [name for name in table.colnames if name.lower() in taken]:
        others = {one.lower() for one in table.colnames} | set(taken)
        new = f"input_{name}"
        while new.lower() in others:
            new = f"input_{new}"
        table.rename_column(name, new)


def complete_meta(meta, method):
    """A read-only copy of a catalogue's provenance, with the conventions and the meaning of the flags."""
    own = {"method": method, "conventions": CONVENTIONS, "flags": FLAG_MEANINGS}
    return frozen_meta(copy.deepcopy(dict(meta) | own))


def sigma_columns(suffix, covariance, names=SHAPE_PARAMETERS):
    """Standard deviations of parameters as columns ``name_suffix``; NaN where there is no valid variance."""
    variance = np.diagonal(covariance, axis1=1, axis2=2)
    sigma = np.sqrt(np.where(variance >= 0, variance, np.nan))
    return {f"{name}_{suffix}": sigma[:, k] for k, name in enumerate(names)}
