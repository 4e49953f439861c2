# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""``galshape demo``: simulate a survey field, measure it, compare with the truth."""

import time

import numpy as np

from galshape_cnn.cli.measure import summary
from galshape_cnn.cli.options.common import (
    add_estimator_options,
    load_estimator,
    positive_int,
    progress_wanted,
)
from galshape_cnn.files import made_folder

__all__ = ["add_parser", "run"]


def add_parser(commands):
    """Add the command to the subparsers."""
    parser = commands.add_parser(
        "demo",
        help="simulate a small survey field, measure it, compare with the truth",
        description="Simulate a small survey field with GalSim, measure it and compare with the truth. "
        "Writes field.fits, shapes.ecsv, comparison.png, galaxies.png and report.html, replacing those of an "
        "earlier run.",
    )
    parser.add_argument(
        "-o", "--output", default="galshape_demo", metavar="DIR", help="folder (default: galshape_demo)"
    )
    parser.add_argument("--seed", type=int, default=1, help="seed of the random numbers (default: 1)")
    parser.add_argument(
        "-n", "--number", type=positive_int, default=120, metavar="N", help="galaxies (default: 120)"
    )
    add_estimator_options(parser)
    return parser


def run(args):
    """Simulate, measure, compare and write."""
    from galshape_cnn.infer.catalog.tables import write_table
    from galshape_cnn.study.report.compare import match_truth
    from galshape_cnn.study.simulate.field import simulate_field

    folder, start = made_folder(args.output), time.perf_counter()
    estimator = load_estimator(args.bundle)
    field = simulate_field(args.seed, args.number)
    print(f"simulated {args.number} galaxies with GalSim, {time.perf_counter() - start:.1f} s")
    start = time.perf_counter()
    catalog = estimator(
        field.to_nddata(),
        psf=field.psf,
        positions=field.positions,
        method=args.method,
        progress=progress_wanted(args),
    )
    print(f"{summary(catalog)}, {time.perf_counter() - start:.1f} s")
    table = catalog.to_table()
    truth = match_truth(table, field.truth)
    field.write(folder / "field.fits", overwrite=True)
    write_table(table, folder / "shapes.ecsv", overwrite=True)
    _draw(folder, catalog, table, truth)
    _print_comparison(table, truth)
    print(f"wrote {folder}/: field.fits shapes.ecsv comparison.png galaxies.png report.html")


def _draw(folder, catalog, table, truth):
    """Write the pictures and the report."""
    from galshape_cnn.study.report.html_report import write_report
    from galshape_cnn.study.report.plots import plot_comparison, plot_galaxies, save_figure

    save_figure(plot_comparison(table, truth), folder / "comparison.png")
    save_figure(plot_galaxies(catalog), folder / "galaxies.png")
    write_report(catalog, folder / "report.html", title="galshape demo", overwrite=True)


def _print_comparison(table, truth):
    """Print biases and pulls of the rows of quality 0."""
    from galshape_cnn.infer.catalog.columns import ERROR_NAMES
    from galshape_cnn.study.report.compare import error_columns, pull_statistics

    clean = np.asarray(table["quality"]) == 0
    name = ERROR_NAMES[error_columns(table)]
    print(f"\n{clean.sum()} galaxies of quality 0 against the truth; pull = (measured - true) / {name}")
    print("            bias   scatter  pull mean  pull std  |pull| < 1")
    for row in pull_statistics(table[clean], truth[clean]):
        unit = "%" if row["parameter"] in ("flux", "hlr") else " "
        scale = 100 if unit == "%" else 1
        print(
            f"  {row['parameter']:<5}{scale * row['bias']:+9.3f}{unit}{scale * row['scatter']:8.3f}{unit}"
            f"{row['pull_mean']:+10.2f}{row['pull_std']:10.2f}{100 * row['within_1']:10.0f} %"
        )
    print("  (honest errors: pull mean 0, pull std 1, 68 % within 1)\n")
