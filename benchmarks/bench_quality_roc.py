# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""What a stricter choice of rows would catch, and cost: wrong rows against right ones as thresholds move.

Run as ``python benchmarks/bench_quality_roc.py WORK_DIR OUT_DIR`` after ``bench_injection.py DATA_DIR
WORK_DIR``.  Of each run: the right rows that are lost and the wrong ones that are caught by quality, and by
quality together with one column of the table, cut where it loses a further 2, 5, 10 and 20 % of the right
rows.  ``OUT_DIR`` gets ``roc.csv`` and ``roc.png``.
"""

import sys
from pathlib import Path

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np
from astropy.table import QTable, Table

from galshape_cnn.study.inject.summary import is_right, is_wrong

#: Further shares of the right rows that may be lost.
LOST = (0.02, 0.05, 0.1, 0.2)
DPI = 80


def values(table, name):
    """A column as plain numbers."""
    return np.asarray(getattr(table[name], "value", table[name]), float)


def suspicion(table):
    """For each name a number for each row, the larger the worse."""
    method = table.meta["injection"]["method"]
    kind = "err" if method == "ml" else "std"
    shear = np.hypot(*(values(table, f"{name}_{kind}") for name in ("g1", "g2")))
    scores = {
        "1 / S/N": 1 / values(table, "snr"),
        "|reduced chi-square - 1|": np.abs(values(table, "chi2") - 1),
    }
    scores |= {"residual flux fraction": values(table, "rff"), "error of the shear": shear}
    scores["error of the size / size"] = values(table, f"hlr_{kind}") / values(table, "hlr")
    names = ("flux", "n", "hlr", "g1", "g2")
    structure = [values(table, f"{name}_err") / values(table, f"{name}_crb") for name in names]
    scores["error / bound"] = np.max(structure, 0)
    if "neighbour_fraction" in table.colnames:
        scores["neighbour_fraction"] = values(table, "neighbour_fraction")
    return {name: np.where(np.isfinite(one), one, np.inf) for name, one in scores.items()}


def curve(score, kept, right, wrong):
    """Shares of the right rows lost and of the wrong rows caught, as the threshold falls from the largest."""
    order = np.argsort(-np.where(kept, score, np.inf), kind="stable")
    lost = np.cumsum(right[order]) / max(right.sum(), 1)
    caught = np.cumsum(wrong[order]) / max(wrong.sum(), 1)
    start = np.count_nonzero(~kept)
    return np.append((right & ~kept).sum() / max(right.sum(), 1), lost[start:]), np.append(
        (wrong & ~kept).sum() / max(wrong.sum(), 1), caught[start:]
    )


def share(part, number):
    """Per cent with its standard error."""
    if not number:
        return "–"
    p = part / number
    return f"{100 * p:.0f} ± {100 * np.sqrt(max(p * (1 - p), 0.25 / number) / number):.0f}"


def lines(title, table, axis):
    """Rows of the table, and curves, of one run."""
    right, wrong = is_right(table), is_wrong(table)
    quality, rows = np.asarray(table["quality"]), []
    known = {"run": title, "right": int(right.sum()), "wrong": int(wrong.sum())}
    for level in (2, 1):
        bad = quality >= level
        row = known | {"cut": f"quality >= {level}", "right lost, %": share((bad & right).sum(), right.sum())}
        rows.append(row | {"wrong caught, %": share((bad & wrong).sum(), wrong.sum())})
    for name, score in suspicion(table).items():
        lost, caught = curve(score, quality == 0, right, wrong)
        axis.step(100 * lost, 100 * caught, where="post", label=name, lw=1.2)
        for more in LOST:
            at = np.searchsorted(lost, lost[0] + more, side="right") - 1
            row = known | {"cut": f"quality >= 1 or {name}, {100 * more:.0f} % more"}
            row["right lost, %"] = share(lost[at] * right.sum(), right.sum())
            rows.append(row | {"wrong caught, %": share(caught[at] * wrong.sum(), wrong.sum())})
    axis.plot(*zip(*[(100 * (right & (quality >= k)).sum() / right.sum(),
                      100 * (wrong & (quality >= k)).sum() / max(wrong.sum(), 1)) for k in (2, 1)],
                   strict=True), "ko", label="quality 2; 1 and 2")  # fmt: skip
    axis.plot([0, 100], [0, 100], ":", color="0.6")
    axis.set(title=f"{title}: {right.sum()} right, {wrong.sum()} wrong", xlabel="right rows lost (%)")
    return rows


def main(work, out):
    """All runs of a folder."""
    runs = sorted(path.parent for path in Path(work).glob("*/injected.ecsv"))
    runs = [run for run in runs if not run.name.startswith("found_")]
    figure, axes = plt.subplots(2, -(-len(runs) // 2), figsize=(3.6 * -(-len(runs) // 2), 7), squeeze=False)
    rows = []
    for run, axis in zip(runs, axes.T.ravel(), strict=False):
        rows += lines(run.name.replace("_", ", "), QTable.read(run / "injected.ecsv"), axis)
    for axis in axes[:, 0]:
        axis.set_ylabel("wrong rows caught (%)")
    axes[0, 0].legend(fontsize=7)
    figure.tight_layout()
    figure.savefig(Path(out) / "roc.png", dpi=DPI)
    Table(rows=rows).write(Path(out) / "roc.csv", format="ascii.csv", overwrite=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
