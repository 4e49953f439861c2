# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""Options of source detection, and the choice between image and cutouts."""

from functools import partial

import numpy as np

from galshape_cnn.errors import InputError

__all__ = [
    "CUTOUT_LIMIT",
    "add_detection_options",
    "add_threshold_options",
    "has_many",
    "is_cutout",
    "targets",
]

#: An image up to this side, in pixels, is the cutout of one galaxy.
CUTOUT_LIMIT = 128
#: Options ``--detect-...``, and fields of `Detection`.
_THRESHOLDS = ("threshold", "npixels", "fwhm", "box", "contrast")


def add_detection_options(parser):
    """Add to a parser the options that say how galaxies are found."""
    group = parser.add_argument_group(
        "finding galaxies", "used when --positions is missing and the image is larger than a cutout"
    )
    which = group.add_mutually_exclusive_group()
    which.add_argument(
        "--cutout", action="store_true", help="take the image as the cutout of one galaxy, however large"
    )
    which.add_argument(
        "--find",
        action="store_true",
        help=f"search for galaxies even in an image of less than {CUTOUT_LIMIT} pixels",
    )
    add_threshold_options(group)


def add_threshold_options(group):
    """Add the thresholds of the detection to a parser or a group of it."""
    for name, kind, default, text in (
        ("threshold", float, 4.0, "standard deviations of the smoothed image that make a source"),
        ("npixels", int, 8, "connected pixels that make a source"),
        ("fwhm", float, 3.0, "pixels, FWHM of the smoothing"),
        ("box", int, None, "pixels, side of the background mesh; 0: background is subtracted already"),
        ("contrast", float, 0.005, "share of the light that separates a blend; 1: do not deblend"),
    ):
        suffix = "" if default is None else f" (default: {default})"
        group.add_argument(
            f"--detect-{name}", type=kind, default=default, metavar=kind.__name__.upper(), help=text + suffix
        )


def is_cutout(data):
    """Whether the input is cutouts with one galaxy each, and not an image of many.

    That is a list, a cube, or an image of up to `CUTOUT_LIMIT` pixels.
    """
    if isinstance(data, list):
        return True
    shape = np.shape(data.data)
    return len(shape) != 2 or max(shape) <= CUTOUT_LIMIT


def has_many(args, data):
    """Whether the galaxies have places in the input, listed or to be found; else each input is a galaxy."""
    return args.positions is not None or not (args.cutout or (is_cutout(data) and not args.find))


def targets(args, data, error=None, processes=None):
    """Positions of the galaxies: a table, given or found in the image, or None for cutouts.

    The data are as read from the files, one NDData or several; ``error`` is the 1 sigma noise of every pixel,
    where they have none. The search runs in one of the ``processes``, if there are any. `PositionError` if no
    galaxy is found, `FileError` if the table cannot be read, `InputError` if a threshold makes no sense or
    ``--find`` is given for cutouts.
    """
    if args.positions is not None:
        _check_unused(args)
        from galshape_cnn.observe.io.tables.position_files import read_positions

        return read_positions(args.positions)
    if args.find and (isinstance(data, list) or np.ndim(data.data) != 2):
        raise InputError("--find needs one image; these are cutouts with one galaxy each")
    if not has_many(args, data):
        return None
    from galshape_cnn.observe.catalog_conventions import READ_AS
    from galshape_cnn.observe.detect.sources import find_galaxies

    detection = detection_from(args)
    search = find_galaxies if processes is None else partial(processes.call, find_galaxies)
    found = search(data, error, detection)
    found.meta[READ_AS] = f"found by segmentation, {detection}".replace("Detection(", "").rstrip(")")
    return found


def _check_unused(args):
    """Refuse options of the search beside a list of positions, with which there is none."""
    for name in ("find", "cutout", *(f"detect_{one}" for one in _THRESHOLDS)):
        if getattr(args, name) != args.defaults.get(name):
            option = "--" + name.replace("_", "-")
            raise InputError(f"{option} is given beside --positions, which say where the galaxies are")


def detection_from(args):
    """The thresholds, a `Detection`, that the options of `add_detection_options` describe."""
    from galshape_cnn.observe.detect.sources import Detection

    try:
        return Detection(**{name: getattr(args, f"detect_{name}") for name in _THRESHOLDS})
    except InputError as error:
        raise InputError(f"--detect-{error}") from error
