# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""Inject galaxies into three survey images: how many rows are right, and what quality catches and costs.

Run as ``python benchmarks/bench_injection.py DATA_DIR WORK_DIR [N] [--find]``.  ``WORK_DIR`` gets a folder
with its page for each field and method, and the tables of all of them, CSV; a run that is there is taken as
it is, or gone on with.  With ``--find`` galaxies are not given but found, with all other sources of the
image, as by ``galshape measure`` without positions; folders and tables are then called ``found_*``.
Levels of the flags and errors were fixed with other seeds (1, 2, 11 to 13, 21 to 24, 31, 41, 51 to 53, 61,
81 to 84).
"""

import argparse
from pathlib import Path

import numpy as np
from astropy.table import QTable, Table

from galshape_cnn import inject
from galshape_cnn.observe.io.fits import read_image
from galshape_cnn.study.inject.results import tables_of
from galshape_cnn.study.inject.summary import kept_selection

METHODS, SEED = ("ml", "network"), 90


def fields(data):
    """Name, image and keywords of each field."""
    decals, hsc = data / "legacysurvey_dr9_cutout", data / "hsc_gri_300"
    cutout, psf = (decals / f"{name}_59.1067_-30.4848.fits" for name in ("cutout", "copsf"))
    yield "decals", "DECaLS r", read_image(cutout, band="r", psf=psf), {}
    image = read_image(hsc / "hsc_i.fits", sci=1, mask=2, var=3, psf=hsc / "psf_i.fits")
    yield "hsc", "HSC i", image, {}
    kids = read_image(data / "kids_viking_bands" / "r.fits")
    yield "kids", "KiDS r", kids, {"psf": "stars", "error": "background"}


def method_of(table):
    """Estimator of an injection."""
    return table.meta["injection"]["method"]


def percent(value, error):
    """A share with its standard error, as text."""
    return "–" if not np.isfinite(value) else f"{100 * value:.1f} ± {100 * error:.1f}"


def field_row(title, table):
    """One line of the first table: what was injected, and what quality costs and catches."""
    record, tables = table.meta["injection"], tables_of(table)
    quality = {int(row["level"]): row for row in tables["quality"]}
    row = {"field": title, "method": method_of(table)}
    row |= {"sources in the image": record["sources_in_image"], "injected": len(table)}
    if record["find"]:
        row["found"] = int(np.asarray(table["found"]).sum())
    row |= {"copies": record["realisations"], "PSF (pixels)": f"{record['psf_fwhm_pixels']:.2f}"}
    row |= {"noise / map": f"{record['noise_scale']:.2f}", "right rows": int(tables["flags"]["n_right"][0])}
    row["wrong rows"] = int(tables["flags"]["n_wrong"][0])
    if quality:
        best = quality[0]
        row["quality 0, %"] = percent(best["all"], best["all_se"])
        row["right rows with quality 0, %"] = percent(best["of_right"], best["of_right_se"])
        row["wrong rows with quality 1 or 2, %"] = percent(1 - best["of_wrong"], best["of_wrong_se"])
    return row


def coverage_rows(title, table):
    """One line for each parameter: coverage, pulls and bias of the rows that are kept."""
    bins, kept = tables_of(table)["bins"], kept_selection(table)
    for row in bins[(bins["axis"] == "all") & (bins["selection"] == kept)]:
        line = {"field": title, "method": method_of(table)}
        line |= {"rows": int(row["number"]), "parameter": row["parameter"]}
        line |= {f"inside {p} %": percent(row[f"cover{p}"], row[f"cover{p}_se"]) for p in (68, 95)}
        line["median pull"] = f"{row['pull']:+.2f} ± {row['pull_se']:.2f}"
        line["width of pulls"] = f"{row['pull_width']:.2f} ± {row['pull_width_se']:.2f}"
        yield line


def flag_rows(title, table):
    """One line for each flag: its cost on right rows, its catch of wrong ones."""
    for row in tables_of(table)["flags"]:
        line = {"field": title, "method": method_of(table), "flag": row["flag"]}
        line |= {"all rows, %": percent(row["all"], row["all_se"])}
        line |= {"right rows, %": percent(row["of_right"], row["of_right_se"])}
        yield line | {"wrong rows, %": percent(row["of_wrong"], row["of_wrong_se"])}


def main(data, work, number, find):
    """All fields."""
    prefix, summary, coverage, flags = "found_" if find else "", [], [], []
    for name, title, image, keywords in fields(Path(data)):
        for method in METHODS:
            folder = Path(work) / f"{prefix}{name}_{method}"
            how = {"n": number, "method": method, "seed": SEED, "find": find, "progress": True}
            inject(image, output=folder, **how, **keywords)
            table = QTable.read(folder / "injected.ecsv")
            summary.append(field_row(title, table))
            coverage += coverage_rows(title, table)
            flags += flag_rows(title, table)
            for kind, rows in (("fields", summary), ("coverage", coverage), ("flags", flags)):
                path = Path(work) / f"{prefix}{kind}.csv"
                Table(rows=rows).write(path, format="ascii.csv", overwrite=True)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("data", help="folder of the survey images")
    parser.add_argument("work", help="folder of the results")
    parser.add_argument("number", nargs="?", type=int, default=500, help="galaxies for each field and method")
    parser.add_argument("--find", action="store_true", help="find the galaxies; otherwise they are given")
    main(**vars(parser.parse_args()))
