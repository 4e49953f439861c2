# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""Options of the noise model and of the treatment of neighbours."""

import argparse

import numpy as np

from galshape_cnn.errors import FileError, InputError

__all__ = ["add_noise_options", "noise_error", "noise_options"]

#: Header keywords in which cameras write the gain and the read noise.
GAIN_KEYWORDS = ("GAIN", "EGAIN", "CCDGAIN", "GAINA")
READ_NOISE_KEYWORDS = ("RDNOISE", "READNOIS", "READNOISE", "RON", "RDNOISEA", "ENOISE")


def add_noise_options(parser):
    """Add ``--neighbours`` and the options of the group "noise" to a parser."""
    parser.add_argument(
        "--neighbours",
        choices=["ignore", "mask", "fit"],
        default="mask",
        help="other sources beside a galaxy: mask their pixels (default), fit them together with it, "
        "or take them as part of it",
    )
    group = parser.add_argument_group("noise")
    group.add_argument(
        "--gain",
        type=_number_or_keyword(above=0),
        metavar="G",
        help="electrons per unit of flux, if the noise does not contain the galaxies' own photon noise; "
        "a number, a header keyword, or 'header' for GAIN, EGAIN, CCDGAIN",
    )
    group.add_argument(
        "--read-noise",
        type=_number_or_keyword(least=0),
        metavar="E",
        help="electrons; with --gain it replaces a noise map: a number, a header keyword, or 'header' for "
        "RDNOISE, READNOIS",
    )
    group.add_argument(
        "--sky-level",
        type=_number_or_keyword(),
        metavar="S",
        help="sky that was subtracted from the image, in its unit (default: it is still there): a number, or "
        "a header keyword",
    )
    group.add_argument(
        "--noise-correlation",
        metavar="R",
        default="auto",
        help="autocorrelation of the noise: FITS image, odd-sized, 1 at its centre; 'estimate', from "
        "blank pixels of the stamps; 'none'; or 'auto' (default), measured on an image, used if significant",
    )
    group.add_argument(
        "--noise-scale",
        type=_noise_scale,
        metavar="F",
        default="auto",
        help="factor by which the noise map is too small; 'estimate', from blank pixels of the stamps; "
        "'none'; or 'auto' (default), measured on an image, used if significant",
    )


def _number_or_keyword(above=-np.inf, least=-np.inf):
    """Type of an option that is a number in a range, finite, or a word; it stays text."""
    wanted = "that is finite"
    if above > -np.inf or least > -np.inf:
        wanted = f"above {above}" if above > -np.inf else f"of at least {least}"

    def checked(text):
        try:
            number = float(text)
        except ValueError:
            return text
        if not (np.isfinite(number) and number > above and number >= least):
            raise argparse.ArgumentTypeError(f"{text} is no number {wanted}, and no header keyword")
        return text

    return checked


def _noise_scale(text):
    """Number above 0, or a word; it stays text."""
    if text in ("auto", "none"):
        return text
    from galshape_cnn.observe.noise.rescale import checked_scale

    try:
        checked_scale(text)
    except InputError:
        allowed = "a number above 0, auto, estimate or none"
        raise argparse.ArgumentTypeError(f"{text!r}; allowed: {allowed}") from None
    return text


def noise_error(args, image):
    """The keyword ``error`` of one image, from gain, read noise and sky; an empty dict if none is given.

    Its header is the image's ``meta``: a keyword that is missing there raises `FileError`. An impossible
    number raises `InputError`, and so does noise that is described twice (`NoiseError`).
    """
    if args.read_noise is None:
        return {}
    from galshape_cnn.observe.noise.ccd import detector_error

    if args.error is not None:
        raise InputError("--error and --read-noise both describe the noise; give one of them")
    return {"error": detector_error(image, *_detector(args, lambda: image))}


def noise_options(args, source):
    """The estimator's options that say what the noise is, and what is done about neighbours.

    Those that were asked for; not those that `noise_error` has made use of. Errors as of that, and
    ``FileError`` if a file cannot be read.
    """
    gain, read_noise, sky_level = _detector(args, source.example if len(args.input) == 1 else lambda: None)
    if sky_level is not None and read_noise is None:
        raise InputError("--sky-level is of use with --read-noise only (which may be 0)")
    how = {"neighbours": args.neighbours, "gain": gain}
    example = source.example() if read_noise is not None and len(args.input) == 1 else None
    if example is None or np.ndim(example.data) == 3:  # of a single image the noise is known by now
        how |= {"read_noise": read_noise, "sky_level": sky_level}
    how = {name: value for name, value in how.items() if value is not None}
    how["noise_correlation"] = _correlation(args.noise_correlation)
    return how | {"noise_scale": _scale(args.noise_scale)}


def _detector(args, example):
    """Gain, read noise and sky level, each a number or None."""
    gain = _value(args.gain, "--gain", GAIN_KEYWORDS, example, _check_counts)
    if gain is not None and not 0 < gain < np.inf:
        raise InputError(f"--gain {args.gain}: {gain} is not a number above 0")
    read_noise = _value(args.read_noise, "--read-noise", READ_NOISE_KEYWORDS, example)
    return gain, read_noise, _value(args.sky_level, "--sky-level", (), example)


def _check_counts(image, option, value):
    """Refuse a header's gain, electrons per count, for pixels that are no counts."""
    import astropy.units as u

    bases = () if image.unit is None else image.unit.bases
    electrons = any(one in (u.electron, u.photon) for one in bases)
    rate = any(one.is_equivalent(u.s) for one in bases)
    if rate or (electrons and value != 1):
        raise FileError(
            f"{option}: the header's gain, {value}, is per count, but pixels are in {image.unit}; give "
            "electrons per unit of the image as a number (1 for electron, the exposure time for electron / s)"
        )


def _value(text, option, names, example, check=None):
    """A number given, or in the header of the only input."""
    if text is None:
        return None
    try:
        return float(text)
    except ValueError:
        wanted = names if text.lower() == "header" and names else (text.upper(),)
    image = example()
    if image is None:
        raise FileError(f"{option} {text}: only one image's header can be read; give a number")
    values = [image.meta[name] for name in wanted if name in image.meta]
    if not values:
        raise FileError(f"{option} {text}: the header has none of {', '.join(wanted)}; give a number")
    try:
        value = float(values[0])
    except (TypeError, ValueError) as error:
        raise FileError(f"{option} {text}: the header says {values[0]!r}, not a number") from error
    if check is not None:
        check(image, f"{option} {text}", value)
    return value


def _scale(text):
    """A word, None, or a number."""
    from galshape_cnn.observe.noise.rescale import checked_scale

    if text in ("auto", "none"):
        return None if text == "none" else text
    return checked_scale(text)


def _correlation(text):
    """A word, None, or the array of a file."""
    if text in ("auto", "estimate", "none"):
        return None if text == "none" else text
    from galshape_cnn.observe.io.fits_hdus import image_hdus, open_fits
    from galshape_cnn.observe.io.hdu_pixels import image_pixels

    try:
        with open_fits(text) as hdus:
            return np.array(image_pixels(hdus, (image_hdus(hdus) or [0])[0], text)[0], float)
    except FileError as error:
        raise FileError(f"--noise-correlation {text}: cannot read an image from it: {error}") from error
