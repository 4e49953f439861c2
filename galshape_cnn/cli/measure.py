# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""``galshape measure``: FITS in, table of shapes out."""

import time

import numpy as np

from galshape_cnn.cli.detection import add_detection_options, targets
from galshape_cnn.cli.magnitude_option import add_magnitude_columns, add_magnitude_option
from galshape_cnn.cli.options import (
    add_estimator_options,
    add_image_options,
    load_estimator,
    positive_float,
    positive_int,
    progress_wanted,
    read_images,
)
from galshape_cnn.cli.psf_option import stars_if_needed

__all__ = ["add_parser", "run", "summary"]


def add_parser(commands):
    """Add the command to the subparsers."""
    parser = commands.add_parser(
        "measure",
        help="measure the galaxies of a FITS file",
        description="Measure the galaxies of a FITS file: one row each, with bounds and flags. Without "
        "--positions, an image of up to 128 pixels (or each plane of a cube) is the cutout of one galaxy; "
        "in a larger image the galaxies are found by segmentation (photutils).",
    )
    parser.add_argument(
        "input",
        metavar="IN.fits",
        nargs="+",
        help="image with noise, mask and WCS, cube of cutouts, or many cutouts",
    )
    parser.add_argument(
        "-o", "--output", required=True, metavar="OUT", help="table: .ecsv .fits .parquet .asdf .vot"
    )
    parser.add_argument("--overwrite", action="store_true", help="replace an existing table")
    parser.add_argument(
        "--positions", metavar="CAT", help="table with x, y (0-based pixels) or ra, dec (degrees)"
    )
    parser.add_argument("--stamp-size", type=positive_int, metavar="N", help="pixels used around each galaxy")
    parser.add_argument("--no-fit-sky", action="store_true", help="take the sky level as exactly zero")
    parser.add_argument(
        "--neighbours",
        choices=["ignore", "mask"],
        default="mask",
        help="other sources beside a galaxy: mask their pixels (default), or take them as part of it",
    )
    add_magnitude_option(parser)
    parser.add_argument(
        "--gain",
        type=positive_float,
        metavar="G",
        help="electrons per unit of flux, if the noise does not contain the galaxies' own photon noise",
    )
    add_estimator_options(parser)
    add_image_options(parser)
    add_detection_options(parser)
    return parser


def run(args):
    """Measure and write the table."""
    from galshape_cnn.infer.tables import check_table_path, write_table

    check_table_path(args.output, args.overwrite)
    data, keywords = read_images(args)
    positions = targets(args, data, keywords.get("error"))
    stars_if_needed(data, keywords, positions is not None)
    if args.stamp_size is not None:
        keywords["stamp_size"] = args.stamp_size
    if args.gain is not None:
        keywords["gain"] = args.gain
    start = time.perf_counter()
    estimator = load_estimator(args.bundle)
    catalog = estimator(
        data,
        positions=positions,
        method=args.method,
        fit_sky=not args.no_fit_sky,
        neighbours=args.neighbours,
        progress=progress_wanted(args),
        **keywords,
    )
    table = catalog.to_table()
    add_magnitude_columns(args, table, data)
    write_table(table, args.output, args.overwrite)
    print(f"{summary(catalog)}, {time.perf_counter() - start:.1f} s -> {args.output}")


def summary(catalog):
    """One line with the number of rows and of each flag.

    Parameters
    ----------
    catalog : ShapeCatalog
        What was measured.

    Returns
    -------
    text : str
        For example ``measured 3 galaxies (ml): 2 without flags, EDGE 1``.
    """
    counts = [f"{name} {count}" for name, count in catalog.flag_counts().items()]
    clean = int(np.count_nonzero(catalog.flags == 0))
    noun = "galaxy" if len(catalog) == 1 else "galaxies"
    return f"measured {len(catalog)} {noun} ({catalog.method}): " + ", ".join(
        [f"{clean} without flags", *counts]
    )
