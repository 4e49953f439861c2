# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""``--zeropoint``: magnitudes in the output table."""

import argparse
import math

from galshape_cnn.errors import InputError

__all__ = ["add_magnitude_columns", "add_magnitude_option"]


def add_magnitude_option(parser):
    """Add ``--zeropoint`` to a parser."""
    parser.add_argument(
        "--zeropoint",
        type=_zeropoint,
        metavar="MAG",
        help="add columns mag, mag_err with this zero point; 'header': that of the header, be it a keyword "
        "such as MAGZERO; 'none': no magnitudes (default: from the unit, FLUXMAG0, PHOTFLAM, if it can)",
    )


def _zeropoint(text):
    """Number, or one of two words."""
    if text in ("header", "none"):
        return text
    try:
        magnitude = float(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is no number, and not 'header' or 'none'") from None
    if not math.isfinite(magnitude):
        raise argparse.ArgumentTypeError(f"{text} is not finite; a magnitude, 'header' or 'none' is needed")
    return magnitude


def add_magnitude_columns(args, table, data):
    """Append magnitudes to a table where a zero point is given, or known from the first image's header.

    `InputError` if the header's is wanted and there is none.
    """
    from galshape_cnn.infer.catalog.magnitudes import add_magnitudes
    from galshape_cnn.observe.io.photometry import header_zeropoint

    if args.zeropoint == "none":
        return
    if isinstance(args.zeropoint, float):
        add_magnitudes(table, args.zeropoint)
        return
    first = data[0] if isinstance(data, list) else data
    found = None if first is None else header_zeropoint(first.meta or {}, first.unit)  # mocks have no header
    if args.zeropoint == "header" and found is None:
        raise InputError("--zeropoint header: the header states no zero point; give a number")
    if found is not None and (found.exact or args.zeropoint == "header"):
        add_magnitudes(table, found.magnitude, found.source)
