# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""``galshape report``: one HTML page with a picture of each measured galaxy."""

from pathlib import Path

from galshape_cnn.cli.options.common import add_image_options, keep_defaults, positive_int, read_images
from galshape_cnn.cli.options.exposures import add_exposures_option, listed_exposures

__all__ = ["add_parser", "run"]


def add_parser(commands):
    """Add the command to the subparsers."""
    parser = commands.add_parser(
        "report",
        help="HTML page with data, model, residual and flags of each row",
        description="Write one self-contained HTML page with data, model, residual, parameters and flags of "
        "each row of a table that 'galshape measure' wrote. Give the options for the image as to 'measure'.",
    )
    parser.add_argument("table", metavar="OUT", help="table written by 'galshape measure'")
    images = parser.add_mutually_exclusive_group(required=True)
    images.add_argument("input", metavar="IN.fits", nargs="*", default=[], help="what was measured")
    add_exposures_option(images)
    parser.add_argument("-o", "--output", required=True, metavar="report.html", help="page to write")
    parser.add_argument("--title", help="title of the page (default: the name of the table)")
    parser.add_argument(
        "--stamp-size", type=positive_int, metavar="N", help="pixels shown around each galaxy"
    )
    parser.add_argument("--overwrite", action="store_true", help="replace an existing page")
    add_image_options(parser)
    keep_defaults(parser)
    return parser


def run(args):
    """Read the table and the image, and write the page."""
    from galshape_cnn.study.report.exposures_from_table import exposures_from_table
    from galshape_cnn.study.report.from_table import catalog_from_table, read_catalog_table
    from galshape_cnn.study.report.html_report import check_report_path, write_report

    check_report_path(args.output, args.overwrite)
    table = read_catalog_table(args.table, args.exposures is not None)
    if args.exposures is None:
        data, keywords = read_images(args)
        if args.stamp_size is not None:
            keywords["stamp_size"] = args.stamp_size
        catalog = catalog_from_table(table, data, **keywords)
    else:
        exposures, keywords = listed_exposures(args)
        catalog = exposures_from_table(table, exposures, **keywords)
    write_report(catalog, args.output, title=args.title or Path(args.table).name, overwrite=args.overwrite)
    print(f"wrote {len(catalog)} galaxies -> {args.output}")
