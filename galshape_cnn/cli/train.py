# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""``galshape train``: train a network on mocks drawn on the fly."""

__all__ = ["add_parser", "run"]


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
    return parser


def run(args):
    """Train and write the bundle."""
    from galshape_cnn.study.train import train_bundle

    train_bundle(args.config, args.output, start=args.start, resume=args.resume)
    print(f"trained -> {args.output}")
