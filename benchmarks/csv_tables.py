# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""Tables that the benchmarks write and the documentation shows."""

import csv

__all__ = ["write"]


def write(folder, name, header, rows, keys=0, order=None):
    """Write a CSV table, into a folder that is made where it is missing, and print it.

    Rows of an older one with other leading ``keys`` are kept, before the new ones or in the given ``order``.
    """
    rows = [[str(cell) for cell in row] for row in rows]
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{name}.csv"
    if keys and path.exists():
        with path.open(newline="", encoding="utf-8") as file:
            old = list(csv.reader(file))[1:]
        new = {tuple(row[:keys]) for row in rows}
        kept = [row for row in old if tuple(row[:keys]) not in new]
        rows = kept + rows if order is None else sorted(rows + kept, key=order)
    with path.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([header, *rows])
    print(f"\n{path}", *(" | ".join(row) for row in [header, *rows]), sep="\n", flush=True)
