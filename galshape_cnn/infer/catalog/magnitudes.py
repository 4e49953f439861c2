# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""Magnitudes of a catalogue's table."""

import astropy.units as u
import numpy as np

from galshape_cnn.infer.catalog.columns import keep_apart
from galshape_cnn.infer.catalog.tables import check_table
from galshape_cnn.masked import filled
from galshape_cnn.quantities import plain_magnitude

__all__ = ["add_magnitudes"]

#: Columns that are added, with their unified content descriptors.
_UCDS = {"mag": "phot.mag", "mag_err": "stat.error;phot.mag"}


def add_magnitudes(table, zeropoint, source="given"):
    """Append ``mag`` and ``mag_err`` to a table with ``flux`` and ``flux_err``.

    mag = zeropoint - 2.5 log10(flux), and its standard error to first order,
    2.5 / ln 10 * flux_err / flux.

    Parameters
    ----------
    table : `~astropy.table.Table`
        Changed in place.  Columns of these names that came with the positions get the prefix ``input_``;
        those of an earlier call are replaced.
    zeropoint : float or Quantity
        Magnitude of one unit of flux, also in ``mag`` or ``ABmag``.
    source : str, optional
        Where the zero point is from, for the description of the column.

    Raises
    ------
    InputError
        If ``zeropoint`` is no finite magnitude, or the table has no such columns.

    Examples
    --------
    >>> from astropy.table import QTable
    >>> from galshape_cnn.infer.catalog.magnitudes import add_magnitudes
    >>> table = QTable({"flux": [100.0, -1.0], "flux_err": [1.0, 1.0]})
    >>> add_magnitudes(table, 22.5)
    >>> table["mag"]
    <Quantity [17.5,  nan] mag>
    """
    zeropoint = plain_magnitude(zeropoint, "zeropoint")
    check_table(table, ("flux", "flux_err"))
    _make_room(table)
    flux, bound = (filled(table[name].value) for name in ("flux", "flux_err"))
    good = np.where(flux > 0, flux, np.nan)  # also where a join of tables left it masked
    table["mag"] = (zeropoint - 2.5 * np.log10(good)) * u.mag
    table["mag_err"] = 2.5 / np.log(10) * bound / good * u.mag
    table["mag"].info.description = f"magnitude, zero point {zeropoint:.6g} ({source})"
    table["mag_err"].info.description = "standard error of mag"
    for name, ucd in _UCDS.items():
        table[name].info.meta = {"ucd": ucd}


def _make_room(table):
    """Remove the magnitudes of an earlier call, and rename columns of the user's that have their names."""
    for name, ucd in _UCDS.items():
        if name in table.colnames and (table[name].info.meta or {}).get("ucd") == ucd:
            table.remove_column(name)
    keep_apart(table, _UCDS)
