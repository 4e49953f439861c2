# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""Tables, figures and page of an injection in its folder."""

from pathlib import Path

import numpy as np

from galshape_cnn.infer.catalog.tables import write_table
from galshape_cnn.study.inject.page import write_page
from galshape_cnn.study.inject.realisation import example_stamps
from galshape_cnn.study.inject.summary import bins_of, flag_costs, kept_selection, quality_costs
from galshape_cnn.study.inject.verdict import judge_injection

__all__ = ["draw_figures", "tables_of", "write_results"]

_EXAMPLES = 10


def tables_of(table):
    """What an injection says: ``injected`` (itself), ``bins``, ``flags``, ``quality``, ``verdict``."""
    bins = bins_of(table)
    tables = {"injected": table, "bins": bins, "flags": flag_costs(table), "quality": quality_costs(table)}
    return tables | {"verdict": judge_injection(table, bins)}


def write_results(folder, table, job):
    """Write everything but the table itself into a folder; the tables of `tables_of` come back."""
    from galshape_cnn.study.report.plots import save_figure

    folder, tables = Path(folder), tables_of(table)
    for name in ("bins", "flags", "quality", "verdict"):
        write_table(tables[name], folder / f"{name}.ecsv", overwrite=True)
    for name, figure in draw_figures(tables, job).items():
        save_figure(figure, folder / f"{name}.png")
    write_page(folder, tables, job)
    return tables


def draw_figures(tables, job):
    """Figures of an injection, by the name of their file, from `tables_of`."""
    from galshape_cnn.study.inject import plots

    table, bins = tables["injected"], tables["bins"]
    with np.errstate(all="ignore"):
        return {
            "places": plots.plot_places(job, table),
            "examples": plots.plot_examples(example_stamps(job, _spread(table))),
            "completeness": plots.plot_completeness(bins),
            "predictions": plots.plot_predictions(table),
            "bias": plots.plot_bias(bins, kept_selection(table)),
            "pulls": plots.plot_pulls(table),
            "coverage": plots.plot_coverage(bins),
            "flags": plots.plot_flags(tables["flags"], tables["quality"]),
        }


def _spread(table):
    """Places in the job of some galaxies over the range of S/N."""
    order = np.asarray(table["id"])[np.argsort(np.asarray(table["true_snr"]))] - 1
    return order[np.unique(np.linspace(0, len(order) - 1, min(_EXAMPLES, len(order))).astype(int))]
