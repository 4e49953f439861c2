# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""Options that several commands share, and what is made of them."""

import argparse
import sys
from pathlib import Path

from galshape_cnn.errors import FileError, PSFError

__all__ = [
    "add_estimator_options",
    "add_image_options",
    "load_estimator",
    "make_folder",
    "parse_psf",
    "progress_wanted",
    "read_images",
]

#: Profiles that ``--psf`` knows, with the parameters of each and their defaults.
PSF_PROFILES = {
    "moffat": {"fwhm": None, "beta": 3.0, "g1": 0.0, "g2": 0.0},
    "gaussian": {"fwhm": None, "g1": 0.0, "g2": 0.0},
    "kolmogorov": {"fwhm": None, "g1": 0.0, "g2": 0.0},
}

_PSF_HELP = (
    "FITS file with the effective PSF (one image, or a cube with one per galaxy), or a profile: "
    "moffat:fwhm=0.7,beta=2.5  gaussian:fwhm=0.7  kolmogorov:fwhm=0.7 "
    "(arcsec with a WCS, else pixels; optional g1=, g2=)"
)


def hdu(text):
    """HDU by number, by name, or in another file."""
    return int(text) if text.isdigit() else text


def positive_float(text):
    """Number above zero."""
    value = float(text)
    if not 0 < value < float("inf"):
        raise argparse.ArgumentTypeError(f"{text} is not a number above 0")
    return value


def positive_int(text):
    """Whole number above zero."""
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"{text} is not a whole number above 0")
    return value


def add_image_options(parser):
    """Add the options that say what the file holds, where its names don't.

    Parameters
    ----------
    parser : `argparse.ArgumentParser`
        Changed in place.
    """
    group = parser.add_argument_group("what the file holds")
    group.add_argument("--sci", type=hdu, metavar="HDU", help="HDU of the image: name or number")
    noise = group.add_mutually_exclusive_group()
    noise.add_argument("--err", type=hdu, metavar="HDU", help="HDU of the 1-sigma errors")
    noise.add_argument("--var", type=hdu, metavar="HDU", help="HDU of the variances")
    noise.add_argument("--ivar", type=hdu, metavar="HDU", help="HDU of the inverse variances")
    noise.add_argument("--weight", type=hdu, metavar="HDU", help="HDU of the weights (inverse variances)")
    noise.add_argument("--error", type=positive_float, metavar="SIGMA", help="1-sigma error of every pixel")
    group.add_argument("--mask", type=hdu, metavar="HDU", help="HDU of the mask (not zero = bad)")
    group.add_argument("--psf", metavar="PSF", help=_PSF_HELP)
    group.add_argument(
        "--psf-ext", type=hdu, metavar="HDU", help="HDU of the PSF, in the file of --psf or in the input"
    )
    group.add_argument(
        "--psf-oversampling",
        type=positive_int,
        default=1,
        metavar="N",
        help="PSF samples per pixel (default: 1)",
    )
    group.add_argument(
        "--psf-without-pixel", action="store_true", help="the PSF array is not yet convolved with the pixel"
    )


def add_estimator_options(parser):
    """Add ``--method``, ``--bundle`` and ``--progress``.

    Parameters
    ----------
    parser : `argparse.ArgumentParser`
        Changed in place.
    """
    parser.add_argument(
        "--method",
        choices=["network", "ml", "posterior"],
        default="network",
        help="network: fast posterior mean (default); ml: maximum likelihood; posterior: exact posterior",
    )
    parser.add_argument(
        "--bundle", metavar="B.asdf", help="trained network (default: the one that comes with the package)"
    )
    parser.add_argument("--progress", action="store_true", help="show progress even when not on a terminal")


def progress_wanted(args):
    """Whether to show a progress bar: on a terminal, or when asked for."""
    return args.progress or sys.stdout.isatty()


def load_estimator(bundle):
    """The estimator of a bundle, or the one that comes with the package.

    Parameters
    ----------
    bundle : str or None
        Path of the bundle.

    Returns
    -------
    estimator : ShapeEstimator
        Ready to be called.
    """
    from galshape_cnn import ShapeEstimator

    return ShapeEstimator() if bundle is None else ShapeEstimator.load(bundle)


def parse_psf(text):
    """Profile described by ``name:key=value,...``, or None for a file name.

    Parameters
    ----------
    text : str
        What followed ``--psf``.

    Returns
    -------
    profile : galsim.GSObject or None
        PSF without the pixel.

    Raises
    ------
    PSFError
        If a parameter is unknown, missing or impossible.

    Examples
    --------
    >>> from galshape_cnn.cli.options import parse_psf
    >>> parse_psf("gaussian:fwhm=0.7").fwhm
    0.7
    """
    name, colon, rest = text.partition(":")
    name = name.strip().lower()
    if not colon or name not in PSF_PROFILES:
        return None
    values = dict(PSF_PROFILES[name])
    for item in filter(None, rest.split(",")):
        key, _, value = (part.strip() for part in item.partition("="))
        if key not in values:
            raise PSFError(f"--psf {text}: unknown parameter {key!r}; allowed: {', '.join(values)}")
        try:
            values[key] = float(value)
        except ValueError:
            raise PSFError(f"--psf {text}: {key}={value!r} is not a number") from None
    if values["fwhm"] is None or not 0 < values["fwhm"] < float("inf"):
        raise PSFError(f"--psf {text}: needs fwhm= above 0")
    return _draw_profile(name, values, text)


def _draw_profile(name, values, text):
    """GalSim object of a named profile."""
    import galsim

    shear = {key: values.pop(key) for key in ("g1", "g2")}
    try:
        profile = getattr(galsim, name.capitalize())(**values)
        return profile.shear(**shear) if any(shear.values()) else profile
    except (galsim.GalSimError, ValueError) as error:
        raise PSFError(f"--psf {text}: {error}") from error


def read_images(args):
    """Image, cube of cutouts, or list of cutouts that the arguments describe.

    What is given explicitly replaces what the file says: ``--error`` its
    noise, a ``--psf`` profile its PSF.

    Parameters
    ----------
    args : `argparse.Namespace`
        With ``input`` (list of paths) and the options of `add_image_options`.

    Returns
    -------
    data : NDData or list of NDData
        As the estimator takes it.
    keywords : dict
        ``psf``, ``error`` and their options, for the estimator.

    Raises
    ------
    FileError
        If a file cannot be read.
    PSFError
        If a PSF profile is impossible.
    """
    from galshape_cnn.observe.io import read_cutouts, read_image

    profile = None if args.psf is None else parse_psf(args.psf)
    names = {name: getattr(args, name) for name in ("sci", "err", "var", "ivar", "weight", "mask")}
    names["psf"] = None if profile is not None else _psf_choice(args)
    single = len(args.input) == 1
    images = [read_image(args.input[0], **names)] if single else read_cutouts(args.input, **names)
    keywords = {"psf_oversampling": args.psf_oversampling, "psf_includes_pixel": not args.psf_without_pixel}
    for image in images:
        if profile is not None:
            image.psf, keywords["psf"] = None, profile
        if args.error is not None:
            image.uncertainty, keywords["error"] = None, args.error
    return images[0] if single else images, keywords


def _psf_choice(args):
    """HDU or file of the PSF, in the notation ``file.fits[2]``."""
    if args.psf is None or args.psf_ext is None:
        return args.psf_ext if args.psf is None else args.psf
    return f"{args.psf}[{args.psf_ext}]"


def make_folder(path):
    """Folder for the output, made if missing.

    Parameters
    ----------
    path : str
        Folder.

    Returns
    -------
    folder : `pathlib.Path`
        It exists.

    Raises
    ------
    FileError
        If it cannot be made.
    """
    folder = Path(path)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise FileError(f"cannot make the folder {path!r}: {error}") from error
    return folder
