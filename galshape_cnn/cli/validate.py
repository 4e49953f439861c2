# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""``galshape validate``: measure a network's accuracy and calibration on mocks."""

import sys

from galshape_cnn.cli.options.common import positive_int
from galshape_cnn.files import output_folder

__all__ = ["add_parser", "run"]

_WIDTH = 24  # of the bar, characters


def add_parser(commands):
    """Add the command to the subparsers."""
    parser = commands.add_parser("validate", help="benchmark a network: tables, pictures, one HTML page")
    parser.add_argument(
        "bundle", nargs="?", metavar="B.asdf", help="trained network (default: the one of the package)"
    )
    parser.add_argument("-o", "--output", required=True, metavar="DIR", help="folder for the results")
    parser.add_argument("--quick", action="store_true", help="fewer mocks: minutes instead of half an hour")
    parser.add_argument("--seed", type=int, default=1, help="seed of the random numbers (default: 1)")
    parser.add_argument(
        "--workers", type=positive_int, metavar="N", help="processes for GalSim (default: all)"
    )
    parser.add_argument(
        "--store",
        metavar="NEW.asdf",
        help="write the network together with the region in which it was found trustworthy; "
        "flags of the new bundle use it (not with --quick)",
    )
    return parser


def run(args):
    """Validate and write the results."""
    from galshape_cnn.study.validate.criteria import passed
    from galshape_cnn.study.validate.validation import validate_bundle

    options = {"quick": args.quick, "seed": args.seed, "workers": args.workers, "store": args.store}
    with output_folder(args.output) as folder:
        verdict = validate_bundle(args.bundle, folder, progress=_Progress(), **options)
    failed = sum(not good for good in verdict["passed"])
    word = "passed" if passed(verdict) else f"FAILED in {failed} of {len(verdict)} checks"
    print(f"validation {word} -> {args.output}/index.html")
    if args.store:
        print(f"network with its region of trust -> {args.store}")


class _Progress:
    """A bar that fills on a terminal; elsewhere one line for each section."""

    def __init__(self):
        self._section = None

    def __call__(self, section, what, done, total):
        new, self._section = section != self._section, section
        if not sys.stdout.isatty():
            if new:
                print(section, flush=True)
            return
        filled = int(_WIDTH * done / max(total, 1))
        bar = "#" * filled + "." * (_WIDTH - filled)
        start = "\n" if new else "\r\033[K"
        print(f"{start}{section} [{bar}] {what} {done}/{total}", end="", flush=True)
        if section == "figures and page" and done == total:
            print(flush=True)
