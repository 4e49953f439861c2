# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""``galshape validate``: prove on mocks what a network does."""

import sys

from galshape_cnn.cli.options import make_folder, positive_int

__all__ = ["add_parser", "run"]


def add_parser(commands):
    """Add the command to the subparsers."""
    parser = commands.add_parser("validate", help="benchmark a network: tables, pictures, one HTML page")
    parser.add_argument(
        "bundle", nargs="?", metavar="B.asdf", help="trained network (default: the one of the package)"
    )
    parser.add_argument("-o", "--output", required=True, metavar="DIR", help="folder for the results")
    parser.add_argument("--quick", action="store_true", help="fewer mocks: minutes instead of an hour")
    parser.add_argument("--seed", type=int, default=1, help="seed of the random numbers (default: 1)")
    parser.add_argument(
        "--workers", type=positive_int, metavar="N", help="processes for GalSim (default: all)"
    )
    return parser


def run(args):
    """Validate and write the results."""
    from galshape_cnn.study.validate import validate_bundle
    from galshape_cnn.study.verdict import passed

    options = {"quick": args.quick, "seed": args.seed, "workers": args.workers, "progress": _Progress()}
    verdict = validate_bundle(args.bundle, make_folder(args.output), **options)
    failed = sum(not good for good in verdict["passed"])
    word = "passed" if passed(verdict) else f"FAILED in {failed} of {len(verdict)} checks"
    print(f"validation {word} -> {args.output}/index.html")


class _Progress:
    """One line that changes on a terminal; elsewhere one line for each section."""

    def __init__(self):
        self._head = None

    def __call__(self, line):
        if sys.stdout.isatty():
            print(f"\r\033[K{line}", end="" if line != "figures and page" else "\n", flush=True)
        elif line.partition(":")[0] != self._head:
            print(line, flush=True)
        self._head = line.partition(":")[0]
