# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""`BlockFolder`: output of a long run, a folder of finished blocks.

::

    OUT/
      part-000000.parquet      the first rows, a complete table with units and metadata
      part-000001.parquet      ...
      _manifest.json           what is measured how, and in which blocks
      _errors.ecsv             rows that could not be measured and why, once all is done
      _summary.json            counts, once all is done

A file is written beside its place and then renamed, so whatever has its name is complete: a
run that was killed goes on with the blocks that are missing.  Readers of Parquet data sets
(pandas, pyarrow, Dask, LSDB) skip names that begin with an underscore.
"""

import hashlib
import json
import os
from contextlib import contextmanager, suppress
from pathlib import Path

from astropy.table import QTable, Table

from galshape_cnn.errors import FileError, InputError
from galshape_cnn.files import as_path, made_folder
from galshape_cnn.infer.catalog.tables import stacked
from galshape_cnn.infer.catalog.writable import writable_table

__all__ = ["BlockFolder", "read_blocks"]

_FORMAT = "galshape_cnn blocks 1"
_NO_ERRORS = b"\n- errors: []"  # as astropy writes it into the metadata of a file, in YAML
_MANIFEST, _ERRORS, _SUMMARY = "_manifest.json", "_errors.ecsv", "_summary.json"


class BlockFolder:
    """Finished blocks of a run.

    Parameters
    ----------
    path : path-like
        Folder; made if missing.
    configuration : dict
        Everything that decides the numbers: options, network, identity of the input.
    rows : int
        Galaxies of the run.
    block_rows : int
        Rows of a block.

    Raises
    ------
    InputError
        If the folder holds a run of another configuration.
    FileError
        If it holds something else, or cannot be written.
    """

    def __init__(self, path, configuration, rows, block_rows):
        self.path, self.rows, self.block_rows = Path(path), int(rows), int(block_rows)
        text = json.dumps(configuration, sort_keys=True, default=str)
        self._manifest = {
            "format": _FORMAT,
            "rows": self.rows,
            "block_rows": self.block_rows,
            "blocks": len(self.ranges()),
            "sha256": hashlib.sha256(text.encode()).hexdigest(),
            "configuration": json.loads(text),
        }
        self._is_new = not self.path.exists()
        made_folder(self.path)
        self._begin_or_go_on()

    @staticmethod
    def clear(path):
        """Remove the run that a folder holds, if it holds one, and nothing else."""
        path = Path(path)
        if (path / _MANIFEST).is_file():
            for old in [*path.glob("part-*.parquet"), *(path / n for n in (_ERRORS, _SUMMARY, _MANIFEST))]:
                old.unlink(missing_ok=True)

    def _begin_or_go_on(self):
        manifest = self.path / _MANIFEST
        self._begins = not manifest.exists()
        if not self._begins:
            self._refuse_another(_read_json(manifest))
        elif any(self.path.iterdir()):
            raise FileError(f"{str(self.path)!r} is not empty and holds no run of galshape measure")
        else:
            _write_json(manifest, self._manifest)
        for left in self.path.glob(".*.part"):  # of a run that was killed
            left.unlink(missing_ok=True)

    def _refuse_another(self, found):
        if found.get("format") != _FORMAT:
            raise FileError(f"{str(self.path)!r} is of the format {found.get('format')!r}, not {_FORMAT!r}")
        for name in ("rows", "block_rows", "sha256"):
            if found[name] != self._manifest[name]:
                change = _difference(found, self._manifest)
                raise InputError(
                    f"output {str(self.path)!r} holds a run of another configuration ({change}); repeat that "
                    "command to go on, or choose another name"
                )

    @contextmanager
    def begun(self):
        """Leave nothing behind of a call that turns out to be wrong before its first block."""
        try:
            yield self
        except FileError:  # of a full disk: the same call goes on
            raise
        except Exception:
            if self._begins and len(self.missing()) == len(self.ranges()):
                (self.path / _MANIFEST).unlink(missing_ok=True)
                if self._is_new:
                    with suppress(OSError):  # somebody else's files
                        self.path.rmdir()
            raise

    def ranges(self):
        """First and last row (exclusive) of each block."""
        starts = range(0, self.rows, self.block_rows)
        return [(start, min(start + self.block_rows, self.rows)) for start in starts]

    def part(self, number):
        """Path of a block."""
        return self.path / f"part-{number:06d}.parquet"

    def missing(self):
        """Numbers of the blocks that are not finished."""
        return [number for number in range(len(self.ranges())) if not self.part(number).exists()]

    def write(self, number, table, errors):
        """Write a block; ``FileError`` if that fails: it is then missing, not half there.

        ``errors`` are rows of the run that could not be measured, and why; the block's metadata hold them.
        """
        table, _ = writable_table(table, ".parquet")  # what that changes has been said before the run
        table.meta["errors"] = [[int(row), text] for row, text in errors]
        beside = self.path / f".{self.part(number).name}.{os.getpid()}.part"
        try:
            table.write(beside, format="parquet", overwrite=True)
            _settle(beside, self.part(number))
        except OSError as error:
            beside.unlink(missing_ok=True)
            raise FileError(f"cannot write block {number} of {str(self.path)!r}: {error}") from error

    def finish(self):
        """Errors and counts of all blocks: ``rows``, ``clean`` (of quality 0), ``errors``, ``flags``."""
        import numpy as np

        from galshape_cnn.flags import FLAG_DEFINITIONS, quality_of

        errors, counts, clean = [], {d.name: 0 for d in FLAG_DEFINITIONS}, 0
        for number in range(len(self.ranges())):
            flags, failed = _flags_and_errors(self.part(number))
            errors += failed
            clean += int(np.count_nonzero(quality_of(flags) == 0))
            for definition in FLAG_DEFINITIONS:
                counts[definition.name] += int(np.count_nonzero(flags & definition.value))
        _write_errors(self.path / _ERRORS, errors)
        flags = {name: count for name, count in counts.items() if count}
        summary = {"rows": self.rows, "clean": clean, "errors": len(errors), "flags": flags}
        _write_json(self.path / _SUMMARY, summary)
        return summary


def read_blocks(path):
    """The table of a finished run.

    Parameters
    ----------
    path : path-like
        Folder that ``galshape measure`` wrote.

    Returns
    -------
    table : `~astropy.table.QTable`
        All rows in the order of the input, with units.

    Raises
    ------
    FileError
        If the folder holds no run, or one that is not finished.

    Examples
    --------
    A folder that holds no run is refused; `~galshape_cnn.scale.run.measure_stream` has an example of
    one that does.

    >>> import tempfile
    >>> from galshape_cnn.scale import read_blocks
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     read_blocks(folder)
    Traceback (most recent call last):
    ...
    galshape_cnn.errors.FileError: '...' holds no run of galshape measure
    """
    path = as_path(path)
    if not (path / _MANIFEST).is_file():
        raise FileError(f"{str(path)!r} holds no run of galshape measure")
    manifest = _read_json(path / _MANIFEST)
    parts = [path / f"part-{number:06d}.parquet" for number in range(manifest["blocks"])]
    missing = [part.name for part in parts if not part.exists()]
    if missing:
        raise FileError(f"{str(path)!r} is not finished: {len(missing)} of {len(parts)} blocks are missing")
    tables = [QTable.read(part) for part in parts]
    for table in tables:
        table.meta.pop("errors", None)
    return stacked(tables)


def _flags_and_errors(part):
    """Column ``flags`` and the errors of a block, without reading the rest.

    Metadata are a text of YAML that takes longer to read than the column; it is read where there are errors.
    """
    from pyarrow import parquet

    text = parquet.read_schema(part).metadata.get(b"table_meta_yaml", b"")
    if _NO_ERRORS not in text:
        table = Table.read(part, include_names=["flags"])
        return table["flags"].data, [tuple(error) for error in table.meta.get("errors", [])]
    return parquet.read_table(part, columns=["flags"])["flags"].to_numpy(), []


def _write_errors(path, errors):
    table = Table(rows=errors or None, names=("row", "error"), dtype=(int, str))
    table.meta["comments"] = ["row counts from 0 in the order of the input"]
    beside = path.with_name(f".{path.name}.{os.getpid()}.part")
    table.write(beside, format="ascii.ecsv", overwrite=True)
    _settle(beside, path)


def _difference(found, wanted):
    """Name of the first thing in which two manifests differ."""
    for name in ("rows", "block_rows"):
        if found[name] != wanted[name]:
            return f"{name}: {found[name]} there, {wanted[name]} here"
    old, new = found.get("configuration", {}), wanted["configuration"]
    for name in sorted({*old, *new}):
        if old.get(name) != new.get(name):
            return f"{name}: {old.get(name)!r} there, {new.get(name)!r} here"
    return "its hash differs"


def _read_json(path):
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise FileError(f"{str(path)!r} is damaged: {error}") from error


def _write_json(path, content):
    beside = path.with_name(f".{path.name}.{os.getpid()}.part")
    beside.write_text(json.dumps(content, indent=1, sort_keys=True), encoding="utf-8")
    _settle(beside, path)


def _settle(beside, path):
    """Give a file its name once its bytes are on the disk."""
    with open(beside, "rb") as stream:
        os.fsync(stream.fileno())
    os.replace(beside, path)
