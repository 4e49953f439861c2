# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""``galshape simulate``: draw mock galaxies from a prior and write them to a file."""

import os

from galshape_cnn.cli.options.common import positive_int

__all__ = ["add_parser", "run"]


def add_parser(commands):
    """Add the command to the subparsers."""
    parser = commands.add_parser("simulate", help="draw mock galaxies with known parameters")
    parser.add_argument(
        "config", nargs="?", metavar="CONFIG.toml", help="prior and survey (default: the built-in one)"
    )
    parser.add_argument(
        "-n", "--number", type=positive_int, required=True, metavar="N", help="number of galaxies"
    )
    parser.add_argument("-o", "--output", required=True, metavar="OUT", help="mocks.asdf or mocks.fits")
    parser.add_argument("--seed", type=int, default=1, help="seed of the random numbers (default: 1)")
    parser.add_argument(
        "--engine",
        choices=["galsim", "fast"],
        default="galsim",
        help="galsim: independent of training (default); fast: the renderer that trains networks",
    )
    parser.add_argument(
        "--workers",
        type=positive_int,
        default=os.cpu_count(),
        metavar="N",
        help="processes for GalSim (default: all)",
    )
    parser.add_argument("--overwrite", action="store_true", help="replace an existing file")
    return parser


def run(args):
    """Draw the mocks and write them."""
    from galshape_cnn.study.simulate.mock_sets import write_mocks

    options = {"engine": args.engine, "seed": args.seed, "overwrite": args.overwrite, "workers": args.workers}
    write_mocks(args.config, args.number, args.output, **options)
    print(f"simulated {args.number} galaxies -> {args.output}")
