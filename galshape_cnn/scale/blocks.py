# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""Measurement of one block of galaxies, with failures of single galaxies isolated."""

import warnings
from dataclasses import dataclass, fields, replace

import numpy as np
from astropy.table import Table

from galshape_cnn.infer.catalog.catalog import ShapeCatalog
from galshape_cnn.infer.catalog.columns import identifiers, join_identifiers, pass_through
from galshape_cnn.infer.catalog.tables import stacked

__all__ = ["Rows", "Schema", "failed_rows", "join_rows", "measure_rows", "probe"]

#: Parts of a catalogue that are joined in a way of their own, or are the same for all of its rows.
_ONE_FOR_ALL = {"ids", "inputs", "stamps", "method", "meta", "unit", "exposures", "units", "zeropoints"}
_PROBED = 256  # rows tried for one that says what columns and units the table has


@dataclass(frozen=True, eq=False)
class Schema:
    """What all rows of a run have in common.

    Attributes
    ----------
    catalog : ShapeCatalog
        Of one of its galaxies, with all that does not depend on which.
    columns : tuple of str
        Columns that pass through to the table, by their names there.
    """

    catalog: ShapeCatalog
    columns: tuple = ()


@dataclass(frozen=True)
class Rows:
    """What became of a range of galaxies.

    Attributes
    ----------
    start : int
        First row of the run.
    catalog : ShapeCatalog
        Without data and samples; a row that failed is blank and flagged.
    errors : list of (int, str)
        Row of the run, and what went wrong.
    """

    start: int
    catalog: ShapeCatalog
    errors: list

    def __len__(self):
        return len(self.catalog)


def probe(estimator, source, how):
    """`Schema`: what the rows of a run have in common, from one that can be measured.

    ``how`` are the options of the measurement. If none of 256 rows can be measured, the error of the first
    that was tried is raised: then it is the input as a whole that is wrong.
    """
    first, rows = None, range(len(source))
    if source.is_image:  # the largest sources come first, and what is asked any of them can tell
        rows = rows[::-1]
    for row in rows[:_PROBED]:
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # the same row will say it again
                catalog = _call(estimator, source, row, row + 1, how)
        except Exception as error:
            first = first or error
            continue
        columns = () if catalog.inputs is None else tuple(catalog.inputs.colnames)
        return Schema(catalog, columns)
    raise first


def measure_rows(estimator, source, start, stop, how, schema):
    """Measure a range of galaxies; what cannot be measured costs its own row only.

    Arguments as for `probe`, and the ``schema`` that it found.
    """
    try:
        catalog = _call(estimator, source, start, stop, how)
        _check(catalog, schema)
        return Rows(start, catalog, [])
    except MemoryError:
        raise
    except Exception as error:
        # Whatever a reader or a matrix may raise: the culprit is found by halving.
        if stop - start == 1:
            text = f"{type(error).__name__}: {' '.join(str(error).split())}"
            return Rows(start, _blank(source, start, stop, schema), [(start, text)])
    middle = (start + stop) // 2
    halves = [measure_rows(estimator, source, *r, how, schema) for r in ((start, middle), (middle, stop))]
    return join_rows(halves)


def failed_rows(source, start, stop, schema, message):
    """Blank rows, with a message that says why, for a range that could not be tried."""
    errors = [(row, message) for row in range(start, stop)]
    return Rows(start, _blank(source, start, stop, schema), errors)


def _call(estimator, source, start, stop, how):
    """Catalogue of a range, stripped of what is not written."""
    data, keywords = source.read(start, stop)
    # Noise that says nothing is an error of the call where there is one galaxy; else its row's.
    strict = len(source) == 1
    catalog = estimator(data, threads=1, strict=strict, **keywords, **how).without_stamps()
    catalog = replace(catalog, measurement=replace(catalog.measurement, samples=None))
    inputs = source.inputs(start, stop)
    if catalog.inputs is None:  # what the source knows of its rows without positions
        catalog = replace(catalog, inputs=pass_through(inputs))
    if inputs is None or "id" not in inputs.colnames:
        catalog = replace(catalog, ids=np.arange(start + 1, stop + 1))
    return catalog


def _check(catalog, schema):
    """Refuse rows that do not fit into the table."""
    first = schema.catalog
    if catalog.unit != first.unit:
        raise ValueError(f"the unit of the pixels is {catalog.unit}, that of the first galaxy {first.unit}")
    if catalog.placement.has_sky != first.placement.has_sky:
        raise ValueError("a WCS is missing or was not expected: all galaxies have one, or none has")


def _blank(source, start, stop, schema):
    """Rows that were not measured."""
    n, table = stop - start, source.inputs(start, stop)
    with_id = table is not None and "id" in table.colnames
    blank = schema.catalog.blank(
        identifiers(None if with_id else np.arange(start + 1, stop + 1), table, n), table
    )
    return replace(blank, inputs=blank.inputs[list(schema.columns)] if schema.columns else None)


def join_rows(parts):
    """One range of several that follow each other."""
    if len(parts) == 1:
        return parts[0]
    catalogs = [part.catalog for part in parts]
    inputs = None
    if catalogs[0].inputs is not None:
        inputs = stacked([Table(one.inputs) for one in catalogs])
        inputs = type(catalogs[0].inputs)(inputs)
    # whatever has a row for each galaxy; the rest is the same in all parts
    arrays = [item.name for item in fields(catalogs[0]) if item.name not in _ONE_FOR_ALL]
    joined = {name: _concatenated([getattr(one, name) for one in catalogs]) for name in arrays}
    whole = replace(catalogs[0], ids=join_identifiers([one.ids for one in catalogs]), inputs=inputs, **joined)
    return Rows(parts[0].start, whole, [error for part in parts for error in part.errors])


def _concatenated(items):
    """One array, or dataclass of arrays, from several."""
    if isinstance(items[0], np.ndarray):
        return np.concatenate(items)
    out = {}
    for item in fields(items[0]):
        values = [getattr(one, item.name) for one in items]
        arrays = [value for value in values if isinstance(value, np.ndarray)]
        if not arrays:
            out[item.name] = values[0]
            continue
        # An array that some parts lack, as a part without any measured galaxy may, is NaN there.
        filled = [
            np.full((len(one), *arrays[0].shape[1:]), np.nan) if value is None else value
            for one, value in zip(items, values, strict=True)
        ]
        out[item.name] = np.concatenate(filled)
    return type(items[0])(**out)
