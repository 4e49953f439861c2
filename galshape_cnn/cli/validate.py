# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""``galshape validate``: prove on mocks what a network does."""

from galshape_cnn.cli.options import make_folder

__all__ = ["add_parser", "run"]


def add_parser(commands):
    """Add the command to the subparsers."""
    parser = commands.add_parser("validate", help="benchmark a network: tables, pictures, one HTML page")
    parser.add_argument(
        "bundle", nargs="?", metavar="B.asdf", help="trained network (default: the one of the package)"
    )
    parser.add_argument("-o", "--output", required=True, metavar="DIR", help="folder for the results")
    parser.add_argument("--quick", action="store_true", help="fewer mocks")
    return parser


def run(args):
    """Validate and write the results."""
    from galshape_cnn.study.validate import validate_bundle

    validate_bundle(args.bundle, make_folder(args.output), quick=args.quick)
    print(f"validated -> {args.output}")
