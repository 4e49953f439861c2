# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""Tables and figures of the injections into three survey images, for ``injection.rst``.

Run in this folder as ``python make_injection_figures.py WORK_DIR``, after ``benchmarks/bench_injection.py
DATA_DIR WORK_DIR 500`` without and with ``--find``.
"""

import sys
from pathlib import Path

import numpy as np
from astropy.table import QTable, Table

from galshape_cnn.infer.catalog.columns import SHAPE_PARAMETERS
from galshape_cnn.study.inject.plots import plot_flags
from galshape_cnn.study.inject.results import tables_of

HERE = Path(__file__).parent
DPI = 75


def coverage(path):
    """Coverage of the rows of quality 0: a line for each field and method, 68 and 95 % for each parameter."""
    table, lines = Table.read(path, format="ascii.csv"), {}
    for row in table:
        line = lines.setdefault(
            (row["field"], row["method"]), {"field": row["field"], "method": row["method"]}
        )
        line["rows"] = row["rows"]
        line[row["parameter"]] = " / ".join(row[f"inside {p} %"].split(" ")[0] for p in (68, 95))
    rows = list(lines.values())
    for line in rows:
        line |= {name: line.pop(name) for name in SHAPE_PARAMETERS}
    return Table(rows=rows)


def main(work):
    """Everything."""
    work = Path(work)
    for prefix in ("", "found_"):
        fields = Table.read(work / f"{prefix}fields.csv", format="ascii.csv")
        fields.remove_columns(["copies", "PSF (pixels)", "noise / map", "sources in the image"])
        tables = {"fields": fields, "coverage": coverage(work / f"{prefix}coverage.csv")}
        for name, table in tables.items():
            path = HERE / "tables" / f"injection_{prefix}{name}.csv"
            table.write(path, format="ascii.csv", overwrite=True)
    runs = sorted(path.parent for path in work.glob("*/injected.ecsv"))
    for run in runs:
        if run.name.endswith("_ml") and run.name.startswith("decals"):
            tables = tables_of(QTable.read(run / "injected.ecsv"))
            with np.errstate(all="ignore"):
                figure = plot_flags(tables["flags"], tables["quality"])
            figure.savefig(HERE / "images" / "injection_flags.png", dpi=DPI)


if __name__ == "__main__":
    main(*sys.argv[1:])
