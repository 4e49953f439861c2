# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""``galshape train``: train a network on mocks drawn on the fly."""

import sys

__all__ = ["add_parser", "run"]

_WIDTH = 30  # characters of the progress bar


def add_parser(commands):
    """Add the command to the subparsers."""
    parser = commands.add_parser("train", help="train a network")
    parser.add_argument(
        "config", nargs="?", metavar="CONFIG.toml", help="prior and training (default: the built-in one)"
    )
    parser.add_argument("-o", "--output", required=True, metavar="B.asdf", help="bundle to write")
    parser.add_argument(
        "--resume", action="store_true", help="go on from the last checkpoint beside the output"
    )
    parser.add_argument(
        "--start",
        metavar="B.asdf",
        help="start from the weights of this bundle instead of random ones ('shipped': the package's own)",
    )
    parser.add_argument(
        "--mocks",
        metavar="MOCKS",
        help="train on this set, written by 'galshape simulate', instead of mocks rendered on the fly",
    )
    return parser


def run(args):
    """Train and write the bundle."""
    from galshape_cnn.study.train.training import train_bundle

    show_bar = sys.stderr.isatty()
    train_bundle(
        args.config,
        args.output,
        start=args.start,
        mocks=args.mocks,
        resume=args.resume,
        report=_say,
        tick=_draw_bar if show_bar else None,
    )
    _say(f"trained -> {args.output}")


def _say(line):
    """Print a line, in place of a bar that may stand there, and at once."""
    if sys.stderr.isatty():
        print("\r\033[K", end="", file=sys.stderr)
    print(line, flush=True)


def _draw_bar(step, steps, loss, rate):
    """One line that is drawn over and over: how far, loss and rate."""
    filled = int(_WIDTH * step / steps)
    bar = "=" * filled + "-" * (_WIDTH - filled)
    print(f"\r[{bar}] {step}/{steps}  loss {loss:.3f}  {rate:.0f}/s", end="", file=sys.stderr, flush=True)
