# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""Inject galaxies into three survey images; write the tables of the page and draw its pictures.

Run as ``python make_injection.py DATA_DIR WORK_DIR [N]`` in this folder.  The images are not part of the
repository, so the results are; a run that is in ``WORK_DIR`` is taken as it is, or gone on with.
"""

import sys
from pathlib import Path

import numpy as np
from astropy.table import QTable, Table
from PIL import Image

from galshape_cnn import inject
from galshape_cnn.observe.io.fits import read_image
from galshape_cnn.study.inject.results import tables_of
from galshape_cnn.study.inject.summary import kept_selection

HERE = Path(__file__).parent
IMAGES, TABLES = HERE / "images", HERE / "tables"
SHOWN = {"decals": ("examples",), "kids": ("places", "coverage", "flags")}


def fields(data):
    """Name, image and keywords of each field."""
    decals, hsc = data / "legacysurvey_dr9_cutout", data / "hsc_gri_300"
    cutout, psf = (decals / f"{name}_59.1067_-30.4848.fits" for name in ("cutout", "copsf"))
    yield "decals", "DECaLS r", read_image(cutout, band="r", psf=psf), {}
    image = read_image(hsc / "hsc_i.fits", sci=1, mask=2, var=3, psf=hsc / "psf_i.fits")
    yield "hsc", "HSC i", image, {}
    kids = read_image(data / "kids_viking_bands" / "r.fits")
    yield "kids", "KiDS r", kids, {"psf": "stars", "error": "background"}


def percent(value, error):
    """A share with its standard error, as text."""
    return "–" if not np.isfinite(value) else f"{100 * value:.1f} ± {100 * error:.1f}"


def field_row(title, table):
    """One line of the first table: what was injected, and what quality costs and catches."""
    record, tables = table.meta["injection"], tables_of(table)
    quality = {int(row["level"]): row for row in tables["quality"]}
    row = {"field": title, "sources in the image": record["sources_in_image"], "injected": len(table)}
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
        line = {"field": title, "rows": int(row["number"]), "parameter": row["parameter"]}
        line |= {f"inside {p} %": percent(row[f"cover{p}"], row[f"cover{p}_se"]) for p in (68, 95)}
        line["median pull"] = f"{row['pull']:+.2f} ± {row['pull_se']:.2f}"
        line["width of pulls"] = f"{row['pull_width']:.2f} ± {row['pull_width_se']:.2f}"
        yield line


def flag_rows(title, table):
    """One line for each flag: its cost on right rows, its catch of wrong ones."""
    for row in tables_of(table)["flags"]:
        line = {"field": title, "flag": row["flag"], "all rows, %": percent(row["all"], row["all_se"])}
        line |= {"right rows, %": percent(row["of_right"], row["of_right_se"])}
        yield line | {"wrong rows, %": percent(row["of_wrong"], row["of_wrong_se"])}


def write(name, rows):
    """Table of the page."""
    Table(rows=rows).write(TABLES / f"{name}.csv", format="ascii.csv", overwrite=True)


def shrink(path, name):
    """PNG of few colours and at most 1100 pixels across."""
    picture = Image.open(path).convert("RGB")
    width = min(picture.width, 1100)
    picture = picture.resize((width, round(picture.height * width / picture.width)), Image.Resampling.LANCZOS)
    picture.quantize(128).save(IMAGES / name, optimize=True)


def main(data, work, number):
    """All fields."""
    summary, coverage, flags = [], [], []
    for name, title, image, keywords in fields(Path(data)):
        folder = Path(work) / name
        inject(image, n=number, method="ml", seed=1, output=folder, progress=True, **keywords)
        table = QTable.read(folder / "injected.ecsv")
        summary.append(field_row(title, table))
        coverage += coverage_rows(title, table)
        flags += flag_rows(title, table)
        for figure in SHOWN.get(name, ()):
            shrink(folder / f"{figure}.png", f"injection_{name}_{figure}.png")
    write("injection_fields", summary)
    write("injection_coverage", coverage)
    write("injection_flags", flags)


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], int(sys.argv[3]) if len(sys.argv) > 3 else 500)
